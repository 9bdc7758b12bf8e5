use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::error::{Class, Error};
use crate::files::{ExactF32, ExactF64, Fault, FaultAt, Files};
use crate::hash::Digest;
use crate::optim::config::StepValues;
use crate::record::result::checksum;
use crate::record::{
    ExperimentDir, HostFacts, LAYOUT, PlanRecord, PlannedRun, RunResult, StepRow, Timings, write_table,
};
use crate::train::checkpoint::EvalPoint;

const LINEAR: &str = "schedule.warmdown=linear";
const SQRT: &str = "schedule.warmdown=sqrt";

fn result(arm: &str, seed: u64, losses: &[f32], bpb: f64) -> RunResult {
    let bits: Vec<u8> = losses.iter().flat_map(|loss| loss.to_le_bytes()).collect();
    let train_hash = Digest::of(&bits);
    let eval = EvalPoint {
        step: losses.len() as u64,
        settings: Digest::of(b"settings"),
        train_hash,
        values: [("val_bpb".to_owned(), ExactF64(bpb))].into(),
    };
    let host = HostFacts {
        os: "linux 6.1".into(),
        arch: "x86_64".into(),
        cpu_model: "AMD EPYC".into(),
        threads: 2,
        nanorun: "0.1.0".into(),
        ..HostFacts::default()
    };
    RunResult::new(
        Digest::of(format!("{arm} {seed}").as_bytes()),
        "cpu/x86_64-fma".into(),
        1,
        train_hash,
        losses.iter().copied().map(ExactF32).collect(),
        vec![eval],
        Timings::default(),
        host,
    )
    .unwrap()
}

fn schedule(steps: usize) -> Vec<StepValues> {
    (0..steps)
        .map(|step| StepValues {
            lr_multiplier: 1.0 - step as f64 / 8.0,
            muon_momentum: 0.85,
            muon_weight_decay: 0.2,
        })
        .collect()
}

const LOSSES: [f32; 4] = [8.5, 7.25, 6.5, 6.25];

fn record(arm: &str, seed: u64, losses: &[f32], bpb: f64) -> RunRecord {
    RunRecord::new(arm, seed, &result(arm, seed, losses, bpb), &schedule(losses.len()))
}

fn records() -> Vec<RunRecord> {
    [(LINEAR, 1), (LINEAR, 2), (SQRT, 1), (SQRT, 2)].map(|(arm, seed)| record(arm, seed, &LOSSES, 2.5)).into()
}

fn candidates(records: Vec<RunRecord>) -> Vec<Candidate> {
    records.into_iter().map(Candidate::from).collect()
}

fn compared(found: Vec<RunRecord>) -> Comparison {
    compare("ci", &candidates(found), "baselines/ci.toml", &records(), Tolerance::default())
}

/// The third run with other losses and value.
fn changed(losses: &[f32], bpb: f64) -> Vec<RunRecord> {
    let mut found = records();
    found[2] = record(SQRT, 1, losses, bpb);
    found
}

#[test]
fn equal_results_pass() {
    let comparison = compared(records());
    assert!(comparison.passed());
    assert_eq!(comparison.failure(), None);
    insta::assert_snapshot!("equal", comparison.to_string());
}

#[test]
fn a_changed_schedule_names_its_step_before_the_loss_does() {
    // What a final LR fraction changed by 1e-6 does: another key, the multiplier differs at step 2, the loss after.
    let mut found = changed(&[8.5, 7.25, 6.5, f32::from_bits(6.25_f32.to_bits() + 1)], 2.500_000_1);
    found[2].key = Digest::of(b"another");
    if let Some(values) = &mut found[2].steps[2].schedule {
        values.lr_multiplier += 1e-6;
    }
    let comparison = compared(found);
    assert_eq!(comparison.failure(), Some(Class::HashMismatch));
    let RunOutcome::Differs(difference) = &comparison.runs[2].outcome else { panic!() };
    let (step, fields) = difference.first.as_ref().unwrap();
    assert_eq!((*step, fields[0].field.as_str()), (2, "lr_multiplier"));
    assert_eq!(difference.first_loss.as_ref().unwrap().0, 3);
    assert!(!difference.defect);
    insta::assert_snapshot!("schedule", comparison.to_string());
}

#[test]
fn one_key_with_two_results_is_a_defect_with_both_environments() {
    let mut found = changed(&[8.5, 7.5, 6.5, 6.25], 2.5);
    found[2].made_on = "Intel Xeon, linux 6.1 x86_64, 8 threads, nanorun 0.1.0".into();
    let comparison = compared(found);
    insta::assert_snapshot!("defect", comparison.to_string());
    assert!(matches!(&comparison.runs[2].outcome, RunOutcome::Differs(d) if d.defect));
}

#[test]
fn what_differs_beyond_the_losses_is_named() {
    let notes = |change: &dyn Fn(&mut RunRecord)| {
        let mut found = records();
        found[2].result_hash = Digest::of(b"other");
        change(&mut found[2]);
        let comparison = compared(found);
        assert_eq!(comparison.failure(), Some(Class::HashMismatch));
        let RunOutcome::Differs(difference) = &comparison.runs[2].outcome else { panic!() };
        difference.notes.join("; ")
    };
    let told = [
        notes(&|run| run.train_hash = Digest::of(b"params")),
        notes(&|run| run.eval_hash = Digest::of(b"settings")),
        notes(&|run| run.steps.truncate(3)),
        notes(&|run| run.numerics_version = 2),
        notes(&|run| {
            run.metrics.clear();
            run.metrics.insert("core".into(), 0.2);
        }),
    ];
    insta::assert_snapshot!("notes", told.join("\n"));
}

#[test]
fn other_classes_are_compared_by_tolerance_and_the_report_says_so() {
    let elsewhere = |losses: &[f32], bpb| {
        let mut found = changed(losses, bpb);
        found[2].environment_class = "cpu/aarch64".into();
        compared(found)
    };
    let near = elsewhere(&[8.5, 7.251, 6.499, 6.25], 2.5001);
    assert!(near.passed());
    insta::assert_snapshot!("within", near.to_string());
    let outside = [
        elsewhere(&[8.5, 7.28, 6.5, 6.25], 2.5),
        elsewhere(&LOSSES, 2.503),
        elsewhere(&LOSSES, f64::NAN),
        elsewhere(&[8.5, f32::NAN, 6.5, 6.25], 2.5),
        elsewhere(&[8.5, 7.25, 6.5], 2.5),
    ];
    for comparison in &outside {
        assert_eq!(comparison.failure(), Some(Class::Verdict), "{comparison}");
    }
    insta::assert_snapshot!("outside", outside[0].to_string());
}

#[test]
fn nan_and_other_lengths_are_told() {
    let nan = [8.5, f32::NAN, 6.5, 6.25];
    let here = |found: &[f32], expected: &[f32]| {
        let [found, expected] = [found, expected].map(|losses| record("", 1, losses, 2.5));
        compare("ci", &[found.into()], "b.toml", &[expected], Tolerance::default())
    };
    assert!(here(&nan, &nan).passed());
    let told =
        [here(&nan, &LOSSES), here(&LOSSES, &nan), here(&LOSSES[..3], &LOSSES), here(&nan[..2], &LOSSES)];
    assert!(told.iter().all(|comparison| comparison.failure() == Some(Class::HashMismatch)));
    insta::assert_snapshot!("lengths", told.map(|comparison| comparison.to_string()).join("\n"));
}

#[test]
fn a_baseline_of_another_experiment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ci.toml");
    bless(&Files::new(), &path, "other", &candidates(records())).unwrap();
    let baseline = Baseline::require(&Files::new(), &path).unwrap();
    let comparison = baseline.compare("ci", &candidates(records()), Path::new("ci.toml"));
    assert!(comparison.to_string().contains("note: the baseline was made of experiment `other`"));
    let error = Baseline::require(&Files::new(), &dir.path().join("none.toml")).unwrap_err();
    assert!(error.to_string().contains("none.toml") && error.to_string().contains("--bless"), "{error}");
}

#[test]
fn runs_that_only_one_side_has_do_not_pass_silently() {
    let mut found = candidates(records());
    found[1].record = None;
    found[3].seed = 7;
    let comparison = compare("ci", &found, "baselines/ci.toml", &records(), Tolerance::default());
    insta::assert_snapshot!("sides", comparison.to_string());
    assert_eq!(comparison.failure(), Some(Class::Run));
    found.remove(1);
    let comparison = compare("ci", &found, "baselines/ci.toml", &records(), Tolerance::default());
    assert_eq!(comparison.failure(), Some(Class::HashMismatch));
    let nothing = compare("ci", &[], "baselines/ci.toml", &[], Tolerance::default());
    assert!(!nothing.passed() && nothing.failure().is_some());
}

#[test]
fn the_scorecard_gets_the_gist() {
    use crate::scorecard::BaselineOutcome;
    assert_eq!(compared(records()).baseline_outcome(), BaselineOutcome::Equal { runs: 4 });
    let differs = compared(changed(&[8.5, 7.5, 6.5, 6.25], 2.5)).baseline_outcome();
    let BaselineOutcome::Differs { detail } = differs else { panic!("{differs:?}") };
    assert_eq!(
        detail,
        "schedule.warmdown=sqrt, seed 1: first at step 1: loss 7.5, expected 7.25 (+2.500e-1)"
    );
    let mut found = changed(&[8.5, 7.251, 6.5, 6.25], 2.5);
    found[2].environment_class = "cpu/aarch64".into();
    assert!(matches!(
        compared(found.clone()).baseline_outcome(),
        BaselineOutcome::OtherClass { within: true, .. }
    ));
    found[0] = record(LINEAR, 1, &[8.5, 7.5, 6.5, 6.25], 2.5);
    assert!(matches!(compared(found).baseline_outcome(), BaselineOutcome::Differs { .. }));
}

#[test]
fn ci_systems_get_junit_and_markdown() {
    use crate::scorecard::{BaselineOutcome, Criteria, RunSummary, judge};
    let mut found = changed(&[8.5, 7.5, 6.5, 6.25], 2.5);
    found[0].environment_class = "<class> & \"others\" | `x`".into();
    found[0].result_hash = Digest::of(b"other");
    let comparison = compared(found);
    let run = |arm: &str| RunSummary {
        arm: arm.into(),
        seed: 1,
        metrics: [("val_bpb".to_owned(), 2.5)].into(),
        tokens_per_second: None,
        alone: true,
        shared_steps: 0,
        machines: Vec::new(),
        backend: "cpu in f32".into(),
        environment_class: "cpu".into(),
        ended: true,
        result_hash: Some(Digest::of(arm.as_bytes())),
        ..RunSummary::default()
    };
    let criteria = Criteria {
        controls: [(SQRT.to_owned(), LINEAR.to_owned())].into(),
        quality: Some(crate::scorecard::Quality {
            variance: crate::scorecard::Variance::Pair,
            ..crate::scorecard::Quality::by("val_bpb", 0.002)
        }),
        speed: None,
        targets: Vec::new(),
        baseline: Some(BaselineOutcome::Differs { detail: "loss differs".into() }),
    };
    let card = judge("ci", None, &criteria, vec![run(LINEAR), run(SQRT)]);
    insta::assert_snapshot!("junit", junit(&comparison, Some(&card)));
    insta::assert_snapshot!("markdown", markdown(&comparison, Some(&card)));
    assert!(!junit(&compared(records()), None).contains("<failure"));
    let control = Comparison { experiment: "a\u{1}\u{fffe}b".into(), ..compared(records()) };
    assert!(junit(&control, None).contains("nanorun.a??b"));
}

#[test]
fn a_baseline_comes_back_and_looks_like_this() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("baselines/ci.toml");
    let files = Files::new();
    assert_eq!(Baseline::read(&files, &path).unwrap(), None);
    let blessed = bless(&files, &path, "ci", &candidates(records())).unwrap();
    assert_eq!((blessed.runs, &blessed.changes), (4, &None));
    let baseline = Baseline::read(&files, &path).unwrap().unwrap();
    // It does not say how its runs were evaluated.
    let unsaid = |run: RunRecord| RunRecord { evaluation: None, ..run };
    assert_eq!(baseline.runs, records().into_iter().map(unsaid).collect::<Vec<_>>());
    assert_eq!(baseline.without_steps, None);
    assert!(baseline.compare("ci", &candidates(records()), &path).passed());
    let text = fs::read_to_string(&path).unwrap();
    let (head, _) = text.split_once("[[run]]\narm = \"schedule.warmdown=linear\"\nseed = 2").unwrap();
    // The parquet's bytes are polars' business.
    let shown: Vec<_> = head.lines().filter(|line| !line.starts_with("steps_sha256")).collect();
    insta::assert_snapshot!("baseline", shown.join("\n"));
}

#[test]
fn blessing_says_what_changed_and_keeps_the_tolerance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ci.toml");
    let files = Files::new();
    let first = bless(&files, &path, "ci", &candidates(records())).unwrap();
    let text = fs::read_to_string(&path).unwrap().replace("metrics = 0.002", "metrics = 0.005");
    fs::write(&path, text).unwrap();
    let same = bless(&files, &path, "ci", &candidates(records())).unwrap();
    let other = bless(&files, &path, "ci", &candidates(changed(&[8.5, 7.5, 6.5, 6.25], 2.25))).unwrap();
    assert_eq!(Baseline::read(&files, &path).unwrap().unwrap().tolerance.metrics, 0.005);
    let told = [first, same, other].map(|blessed| blessed.to_string());
    insta::assert_snapshot!(
        "blessed",
        told.join("\n").replace(&dir.path().display().to_string(), "baselines")
    );
}

#[test]
fn unfit_results_make_no_baseline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ci.toml");
    let mut unfinished = candidates(records());
    unfinished[1].record = None;
    let mut mixed = records();
    mixed[3].environment_class = "tch/cuda".into();
    let told = [unfinished, vec![], candidates(mixed)].map(|results| {
        let error = Error::from(bless(&Files::new(), &path, "ci", &results).unwrap_err());
        assert_eq!(error.class(), Class::Run);
        error.to_string()
    });
    assert!(!path.exists());
    insta::assert_snapshot!("unfit", told.join("\n"));
}

#[test]
fn a_damaged_baseline_is_named_and_a_foreign_parquet_left_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ci.toml");
    let files = Files::new();
    bless(&files, &path, "ci", &candidates(records())).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let twice = good.replace("seed = 2", "seed = 1");
    let cases = ["", "format = 2", "format = 1", "not toml", &twice, &good.replace("key = ", "kye = ")];
    let told = cases.map(|text| {
        fs::write(&path, text).unwrap();
        let error = Error::from(Baseline::read(&files, &path).unwrap_err());
        assert_eq!(error.class().exit_code(), 2);
        error.to_string().replace(&dir.path().display().to_string(), "baselines")
    });
    insta::assert_snapshot!("damaged", told.join("\n---\n"));
    fs::write(&path, &good).unwrap();
    for parquet in [None, Some(&b"PAR1 not of this baseline"[..])] {
        match parquet {
            Some(bytes) => fs::write(dir.path().join("ci.parquet"), bytes).unwrap(),
            None => fs::remove_file(dir.path().join("ci.parquet")).unwrap(),
        }
        let baseline = Baseline::read(&files, &path).unwrap().unwrap();
        assert!(baseline.without_steps.is_some());
        let comparison =
            baseline.compare("ci", &candidates(changed(&[8.5, 7.5, 6.5, 6.25], 2.5)), Path::new("ci.toml"));
        assert!(comparison.to_string().contains("so the first step cannot be named"));
        assert!(!comparison.notes.is_empty() && !comparison.passed());
        assert!(baseline.compare("ci", &candidates(records()), &path).passed());
    }
}

#[test]
fn a_baseline_is_old_or_new_under_every_fault() {
    let count = Arc::new(FaultAt::once(usize::MAX, Fault::Fail(ErrorKind::Other)));
    let new = || candidates(changed(&[8.5, 7.5, 6.5, 6.25], 2.25));
    let prepared = || {
        let dir = tempfile::tempdir().unwrap();
        bless(&Files::new(), &dir.path().join("ci.toml"), "ci", &candidates(records())).unwrap();
        dir
    };
    let dir = prepared();
    bless(&Files::with_faults(count.clone()), &dir.path().join("ci.toml"), "ci", &new()).unwrap();
    let mut seen = [0; 3];
    for at in 0..count.seen() {
        for fault in [FaultAt::once(at, Fault::Short(9, ErrorKind::StorageFull)), FaultAt::kill(at, 9)] {
            let dir = prepared();
            let path = dir.path().join("ci.toml");
            bless(&Files::with_faults(Arc::new(fault)), &path, "ci", &new()).unwrap_err();
            let left = Baseline::read(&Files::new(), &path).unwrap().unwrap();
            let is = |runs: &[Candidate]| {
                runs.iter().zip(&left.runs).all(|(a, b)| {
                    a.record.as_ref().is_some_and(|a| {
                        a.result_hash == b.result_hash && (b.steps.is_empty() || a.steps == b.steps)
                    })
                })
            };
            let (old, new) = (is(&candidates(records())), is(&new()));
            assert!(old != new, "step {at}");
            seen[0] += usize::from(old && left.without_steps.is_none());
            seen[1] += usize::from(old && left.without_steps.is_some());
            seen[2] += usize::from(new && left.without_steps.is_none());
            assert!(old || left.without_steps.is_none());
        }
    }
    assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
}

proptest! {
    /// No text makes reading a baseline panic.
    #[test]
    fn any_text_is_read_or_refused(text in "(?s)(format = 1\n)?.{0,200}", cut in 0_usize..3000, flip in 0_usize..3000) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ci.toml");
        fs::write(&path, &text).unwrap();
        prop_assert!(Baseline::read(&Files::new(), &path).is_err());
        fs::remove_file(&path).unwrap();
        bless(&Files::new(), &path, "ci", &candidates(records())).unwrap();
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let at = flip % bad.len();
        bad[at] ^= 1 << (flip % 8);
        fs::write(&path, &bad).unwrap();
        drop(Baseline::read(&Files::new(), &path));
        fs::write(&path, &good[..cut % good.len()]).unwrap();
        drop(Baseline::read(&Files::new(), &path));
    }

    /// A run differs from itself in nothing, and from one with another bit in its losses at exactly that step.
    #[test]
    fn the_first_other_bit_is_found(bits in prop::collection::vec(any::<u32>(), 1..30), at: prop::sample::Index, bit in 0..32) {
        let losses: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
        let mut other = losses.clone();
        let at = at.index(bits.len());
        other[at] = f32::from_bits(bits[at] ^ (1_u32 << bit));
        let compared = |found: &[f32]| {
            compare("p", &[record("", 1, found, 1.0).into()], "r", &[record("", 1, &losses, 1.0)], Tolerance::default())
        };
        prop_assert!(compared(&losses).passed());
        let comparison = compared(&other);
        let RunOutcome::Differs(difference) = &comparison.runs[0].outcome else { panic!() };
        prop_assert_eq!(difference.first.as_ref().unwrap().0, at);
        prop_assert_eq!(difference.first_loss.as_ref().unwrap().0, at);
    }
}

#[test]
fn results_are_read_from_their_directory() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = ExperimentDir::new(dir.path(), "ci", None);
    let files = Files::new();
    let error = read_results(&files, &experiment).unwrap_err();
    assert_eq!(error.class().exit_code(), 2);
    files.create_dir_all(experiment.path()).unwrap();
    let finished = result(LINEAR, 1, &LOSSES, 2.5);
    let planned = |arm: &str, key| PlannedRun {
        data: None,
        arm: arm.into(),
        seed: 1,
        key,
        steps: 4,
        evaluation: finished.evaluation(),
        vocab_size: None,
        content: None,
        cell: [].into(),
    };
    let plan = PlanRecord {
        layout: LAYOUT,
        directory: None,
        name: "ci".into(),
        question: None,
        hypothesis: None,
        manifest: "ci.toml".into(),
        profile: None,
        sets: Vec::new(),
        env: std::collections::BTreeMap::new(),
        only: Vec::new(),
        varied: Vec::new(),
        no_share: false,
        nanorun: "0.1.0".into(),
        control: None,
        runs: vec![planned(LINEAR, finished.run_key), planned(SQRT, Digest::of(b"unfinished"))],
    };
    plan.write(&files, &experiment).unwrap();
    let run = experiment.run(&finished.run_key).attempt(1);
    files.create_dir_all(run.path()).unwrap();
    finished.write(&files, &run.result()).unwrap();
    let Results { experiment: name, candidates: without, notes, damaged } =
        read_results(&files, &experiment).unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    assert_eq!((name.as_str(), notes.len()), ("ci", 0));
    assert_eq!(without[0].record, Some(RunRecord::new(LINEAR, 1, &finished, &[])));
    assert_eq!(without[1].record, None);
    let rows: Vec<_> = (0..)
        .zip(schedule(4))
        .map(|(step, values)| StepRow {
            arm: LINEAR.into(),
            seed: 1,
            run_key: finished.run_key.to_string(),
            step,
            lr_multiplier: values.lr_multiplier,
            muon_momentum: values.muon_momentum,
            muon_weight_decay: values.muon_weight_decay,
            ..StepRow::default()
        })
        .collect();
    write_table(&files, &experiment.file("steps.parquet"), &rows).unwrap();
    let with = read_results(&files, &experiment).unwrap();
    assert_eq!(with.candidates[0].record, Some(record(LINEAR, 1, &LOSSES, 2.5)));

    // A damaged table is named; without it, the results are what they are.
    let table = experiment.file("steps.parquet");
    let bytes = fs::read(&table).unwrap();
    fs::write(&table, &bytes[..bytes.len() / 2]).unwrap();
    let error = read_results(&files, &experiment).unwrap_err();
    assert!(error.to_string().contains("steps.parquet"), "{error}");
    fs::remove_file(&table).unwrap();
    assert_eq!(read_results(&files, &experiment).unwrap().candidates, without);

    // Results of a version that records more, and less, about the machine.
    let text = fs::read_to_string(run.result()).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json.as_object_mut().unwrap().shift_remove("sha256").unwrap();
    json["colour"] = "blue".into();
    json["evals"][0]["extra"] = 1.into();
    json["host"] = serde_json::json!({ "cpu_model": "AMD EPYC", "cores": [1, 2] });
    json["timings"] = serde_json::json!({ "energy": 3.5 });
    json["sha256"] = checksum(&json).to_string().into();
    fs::write(run.result(), json.to_string()).unwrap();
    let other = read_results(&files, &experiment).unwrap();
    let found = other.candidates[0].record.as_ref().unwrap();
    assert_eq!((found.result_hash, found.steps.len()), (finished.result_hash, 4));

    // Those of the version before the checksum; what a newer one means, nobody knows here.
    let json = json.as_object_mut().unwrap();
    let written = json.shift_remove("sha256").unwrap();
    json["format"] = 1.into();
    fs::write(run.result(), serde_json::to_vec(json).unwrap()).unwrap();
    let old = read_results(&files, &experiment).unwrap();
    assert_eq!(old.candidates, other.candidates);
    assert_eq!(old.notes.len(), 1);
    assert!(old.notes[0].starts_with("1 of the runs in ") && old.notes[0].contains("no checksum"), "{old:?}");
    json["format"] = 3.into();
    fs::write(run.result(), serde_json::to_vec(json).unwrap()).unwrap();
    let refused = || {
        let read = read_results(&files, &experiment).unwrap();
        assert!(read.candidates.iter().all(|candidate| candidate.record.is_none()));
        read.damaged.join("\n")
    };
    let error = refused();
    assert!(error.contains("has format 3; this nanorun reads format 2"), "{error}");
    assert!(error.contains("a newer nanorun wrote it"), "{error}");
    // One that has a checksum must have the right one, whatever format it claims.
    json["format"] = 1.into();
    json.insert("sha256".to_owned(), written);
    fs::write(run.result(), serde_json::to_vec(json).unwrap()).unwrap();
    let error = refused();
    assert!(error.contains("was changed after it was written"), "{error}");
}
