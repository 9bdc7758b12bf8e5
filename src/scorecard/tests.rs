use std::collections::BTreeMap;

use super::*;
use crate::error::Class;
use crate::files::ExactF64;
use crate::hash::Digest;
use crate::record::KeptDocuments;
use crate::train::document_losses::{DocumentLosses, GroupLosses};

const LINEAR: &str = "schedule.warmdown=linear";
const SQRT: &str = "schedule.warmdown=sqrt";

fn run(arm: &str, seed: u64, bpb: f64) -> RunSummary {
    RunSummary {
        arm: arm.into(),
        seed,
        metrics: [("val_bpb".to_owned(), bpb), ("train_loss".to_owned(), bpb * 2.7)].into(),
        measured: [("val_bpb".to_owned(), vec![("data.token_bytes", "decoded".to_owned())])].into(),
        ended: true,
        tokens_per_second: Some(1000.0 + bpb),
        alone: true,
        shared_steps: 0,
        machines: vec!["AMD EPYC, 2 threads".into()],
        backend: "cpu in f32".into(),
        environment_class: "cpu".into(),
        result_hash: Some(Digest::of(format!("{arm}{seed}").as_bytes())),
        ..RunSummary::default()
    }
}

fn pairs(differences: &[f64]) -> Vec<RunSummary> {
    let arm = |name, scale: f64| {
        differences.iter().enumerate().map(move |(seed, d)| run(name, seed as u64, 0.75 + scale * d))
    };
    arm(LINEAR, 0.0).chain(arm(SQRT, 1.0)).collect()
}

fn criteria() -> Criteria {
    Criteria {
        controls: [(SQRT.to_owned(), LINEAR.to_owned())].into(),
        quality: Some(Quality::by("val_bpb", 0.002)),
        speed: Some(Speed { min_ratio: 0.95 }),
        targets: Vec::new(),
        baseline: Some(BaselineOutcome::NoBaseline),
    }
}

fn card(runs: Vec<RunSummary>) -> Scorecard {
    judge("d12_sqrt", Some("Does a 1-sqrt warmdown beat linear?"), &criteria(), runs)
}

fn outcome(card: &Scorecard, kind: VerdictKind) -> Outcome {
    card.verdicts.iter().find(|verdict| verdict.kind == kind).unwrap().outcome
}

#[test]
fn two_definitions_of_the_metric() {
    let mut runs = pairs(&[-1.3, -1.3]);
    for run in runs.iter_mut().filter(|run| run.arm == SQRT) {
        run.measured.get_mut("val_bpb").unwrap()[0].1 = "raw".to_owned();
    }
    let verdict = |across: &[&str]| {
        let mut criteria = criteria();
        let across = across.iter().map(|&field| field.to_owned()).collect();
        criteria.quality = criteria.quality.map(|quality| Quality { across, ..quality });
        judge("d12_sqrt", None, &criteria, runs.clone()).verdicts.swap_remove(0)
    };
    let refused = verdict(&["model.sequence_len"]);
    assert_eq!((refused.outcome, refused.difference), (Outcome::NotJudged, None));
    assert!(
        refused.detail.contains("measured differently: data.token_bytes raw against decoded"),
        "{}",
        refused.detail
    );
    let compared = verdict(&["data.token_bytes"]);
    assert!(compared.difference.is_some());
    assert!(
        compared.detail.ends_with("; across data.token_bytes raw against decoded"),
        "{}",
        compared.detail
    );
}

#[test]
fn quality_is_decided_by_the_ends_of_the_interval() {
    for (differences, expected) in [
        (&[-0.003, -0.0031, -0.0029][..], Outcome::Pass),
        (&[0.001, 0.0011, 0.0009], Outcome::Pass),
        (&[0.01, 0.0101, 0.0099], Outcome::Fail),
        (&[-0.01, 0.01, 0.001], Outcome::Undecided),
        (&[-0.1], Outcome::Undecided),
        (&[0.1], Outcome::Undecided),
        (&[0.0, 0.0], Outcome::Undecided),
    ] {
        let card = card(pairs(differences));
        assert_eq!(outcome(&card, VerdictKind::Quality), expected, "{differences:?}");
        assert_eq!(card.failure(), (expected == Outcome::Fail).then_some(Class::Verdict), "{differences:?}");
    }
}

/// Of a metric of which more is better, an arm passes that is hardly below its control; what is shown keeps its sign.
#[test]
fn more_of_a_metric_may_be_better() {
    for (differences, expected) in [
        (&[0.003, 0.0031, 0.0029][..], Outcome::Pass),
        (&[-0.001, -0.0011, -0.0009], Outcome::Pass),
        (&[-0.01, -0.0101, -0.0099], Outcome::Fail),
        (&[-0.01, 0.01, 0.001], Outcome::Undecided),
    ] {
        let mut criteria = criteria();
        criteria.quality.as_mut().unwrap().metrics[0].higher_is_better = true;
        let verdict = judge("core", None, &criteria, pairs(differences)).verdicts.swap_remove(0);
        assert_eq!(verdict.outcome, expected, "{differences:?}");
        let (difference, (lower, upper)) = (verdict.difference.unwrap(), verdict.interval.unwrap());
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        assert!((difference - mean).abs() < 1e-9 && lower < difference && difference < upper);
    }
}

#[test]
fn only_runs_with_a_partner_of_the_same_seed_count() {
    let mut runs = pairs(&[-0.003, -0.0031, -0.0029]);
    runs.push(run(SQRT, 9, 5.0));
    runs.push(run(LINEAR, 8, 0.1));
    let quality = card(runs.clone()).verdicts[0].clone();
    assert_eq!((quality.outcome, quality.pairs), (Outcome::Pass, 3));
    assert!((quality.difference.unwrap() + 0.003).abs() < 1e-9);
    // A run of the arm that came to nothing is no reason to call the rest a pass.
    runs.push(run(SQRT, 10, f64::NAN));
    runs.push(run(LINEAR, 10, 0.1));
    let quality = card(runs).verdicts[0].clone();
    assert_eq!((quality.outcome, quality.pairs), (Outcome::Undecided, 3));
}

#[test]
fn speed_is_judged_only_between_runs_trained_whole_and_alone() {
    let judged = |change: &dyn Fn(&mut RunSummary)| {
        let mut runs = pairs(&[-0.003, -0.0031]);
        runs.iter_mut().filter(|run| run.arm == SQRT).for_each(change);
        let card = card(runs);
        let verdict = card.verdicts.iter().find(|v| v.kind == VerdictKind::Speed).unwrap().clone();
        (verdict.outcome, verdict.detail)
    };
    assert_eq!(judged(&|_| {}).0, Outcome::Pass);
    assert_eq!(judged(&|run| run.tokens_per_second = Some(900.0)).0, Outcome::Fail);
    let reasons = [
        judged(&|run| run.alone = false),
        judged(&|run| run.shared_steps = 10),
        judged(&|run| run.result_hash = None),
        judged(&|run| run.tokens_per_second = None),
        judged(&|run| run.machines = vec!["another".into()]),
    ];
    assert!(reasons.iter().all(|(outcome, _)| *outcome == Outcome::NotJudged));
    insta::assert_snapshot!(reasons.map(|(_, why)| why).join("\n"));
    // One fair run of the arm is enough.
    assert_eq!(judged(&|run| run.alone = run.seed == 0).0, Outcome::Pass);
}

#[test]
fn the_gravest_failure_decides() {
    let failing = |baseline| {
        let mut criteria = criteria();
        criteria.baseline = Some(baseline);
        judge("a", None, &criteria, pairs(&[0.01, 0.0101, 0.0099])).failure()
    };
    assert_eq!(failing(BaselineOutcome::Differs { detail: "x".into() }), Some(Class::HashMismatch));
    assert_eq!(failing(BaselineOutcome::Equal { runs: 6 }), Some(Class::Verdict));
    assert_eq!(
        failing(BaselineOutcome::OtherClass { within: false, detail: "x".into() }),
        Some(Class::Verdict)
    );
    assert_eq!(card(pairs(&[0.0, 0.0])).failure(), None);
}

#[test]
fn scorecards_look_like_this() {
    insta::assert_snapshot!("undecided", card(pairs(&[-0.001, 0.004, 0.0005])).to_string());
    let mut unfinished = pairs(&[-0.003, -0.0031, -0.0029]);
    (unfinished[4].result_hash, unfinished[4].ended) = (None, false);
    unfinished[4].metrics.clear();
    unfinished[4].tokens_per_second = None;
    unfinished[0].alone = false;
    unfinished[1].alone = false;
    unfinished[2].alone = false;
    insta::assert_snapshot!("unfinished", card(unfinished).to_string());
    let mut all = criteria();
    all.baseline = Some(BaselineOutcome::Differs {
        detail: "schedule.warmdown=sqrt, seed 1: loss differs first at step 17, by 2.4e-7".into(),
    });
    let failed = judge("d12_sqrt", None, &all, pairs(&[0.01, 0.0101, 0.0099]));
    insta::assert_snapshot!("failed", failed.to_string());
    let single = Criteria { controls: BTreeMap::new(), ..all };
    insta::assert_snapshot!("single", judge("ci", None, &single, vec![run("", 42, 2.5)]).to_string());
}

/// In a matrix of two axes every arm has the control of its own value on the other axis.
#[test]
fn each_arm_is_compared_with_its_own_control() {
    // Seeds scatter a little, and not alike in both arms.
    let arm = |name: &str, bpb: f64| [run(name, 1, bpb), run(name, 2, bpb + 0.001 + bpb * 1e-6)];
    let runs: Vec<_> = [("d2 linear", 3.0), ("d2 sqrt", 3.0005), ("d4 linear", 2.5), ("d4 sqrt", 2.75)]
        .into_iter()
        .flat_map(|(name, bpb)| arm(name, bpb))
        .chain(arm("apart", 2.0))
        .collect();
    let against = |arm: &str, control: &str| (arm.to_owned(), control.to_owned());
    let criteria = Criteria {
        controls: [against("d2 sqrt", "d2 linear"), against("d4 sqrt", "d4 linear")].into(),
        speed: None,
        baseline: None,
        ..criteria()
    };
    let card = judge("two_axes", None, &criteria, runs);
    insta::assert_snapshot!("two_controls", card.to_string());
    let told: Vec<_> = card.verdicts.iter().map(|v| (&*v.arm, v.control.as_deref(), v.outcome)).collect();
    assert_eq!(
        told,
        [
            ("d2 sqrt", Some("d2 linear"), Outcome::Pass),
            ("d4 sqrt", Some("d4 linear"), Outcome::Fail),
            ("apart", None, Outcome::NotJudged)
        ]
    );
}

#[test]
fn verdicts_become_rows() {
    let card = card(pairs(&[-0.001, 0.004, 0.0005]));
    let rows = card.rows();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (rows[0].verdict.as_str(), rows[0].outcome.as_str(), rows[0].pairs),
        ("quality", "undecided", 3)
    );
    assert!(rows[0].lower.unwrap() < rows[0].difference.unwrap());
    assert_eq!(rows[2].outcome, "no baseline");
}

/// The row "seeds that decide nothing": two seeds whose runs are one count as one, and a spread of exactly 0 is never
/// a pass, however the numbers came to be equal.
#[test]
fn seeds_that_decide_nothing() {
    let mut runs = pairs(&[-0.003, -0.003, -0.0031]);
    for run in runs.iter_mut().filter(|run| run.seed == 1) {
        run.result_hash = Some(Digest::of(format!("{}0", run.arm).as_bytes()));
    }
    let quality = |runs| card(runs).verdicts[0].clone();
    let verdict = quality(runs.clone());
    assert_eq!((verdict.pairs, verdict.outcome), (2, Outcome::Pass), "{}", verdict.detail);
    assert!(verdict.detail.contains("seed 1 repeats"), "{}", verdict.detail);
    runs.retain(|run| run.seed != 2);
    let verdict = quality(runs);
    assert_eq!((verdict.pairs, verdict.outcome, verdict.interval), (1, Outcome::Undecided, None));
    for equal in [0.0, -0.5, 0.5, -0.003] {
        let verdict = quality(pairs(&[equal, equal, equal]));
        assert_eq!(verdict.outcome, Outcome::Undecided, "{equal}: {}", verdict.detail);
        assert!(verdict.detail.contains("are equal"), "{}", verdict.detail);
    }
}

/// The row "arms that are one run": no verdict compares them, not even of speed.
#[test]
fn arms_that_are_one_run() {
    let mut runs = pairs(&[0.0, 0.0]);
    for run in runs.iter_mut().filter(|run| run.arm == SQRT) {
        run.result_hash = Some(Digest::of(format!("{LINEAR}{}", run.seed).as_bytes()));
    }
    let card = card(runs);
    for kind in [VerdictKind::Quality, VerdictKind::Speed] {
        let verdict = card.verdicts.iter().find(|verdict| verdict.kind == kind).unwrap();
        assert_eq!(verdict.outcome, Outcome::NotJudged);
        assert!(verdict.detail.contains("no effect here"), "{}", verdict.detail);
    }
}

/// The row "mixed environments": a pair of two classes is left out and said; pairs of one class each are compared, and
/// where their classes differ from seed to seed, that is said too.
#[test]
fn mixed_environments() {
    let judged = |places: &[(&str, u64, &str)]| {
        let mut runs = pairs(&[-0.003, -0.0031, -0.0029]);
        for (arm, seed, class) in places {
            let run = runs.iter_mut().find(|run| run.arm == *arm && run.seed == *seed).unwrap();
            run.environment_class = (*class).to_owned();
        }
        card(runs).verdicts.swap_remove(0)
    };
    assert_eq!(judged(&[]).outcome, Outcome::Pass);
    let mixed = judged(&[(SQRT, 1, "tch")]);
    assert_eq!((mixed.outcome, mixed.pairs), (Outcome::Undecided, 2));
    let said = "seeds are left out; seed 1 left out, trained in two environment classes, tch and cpu";
    assert_eq!(mixed.detail, said);
    let strata = judged(&[(SQRT, 1, "tch"), (LINEAR, 1, "tch")]);
    assert_eq!((strata.outcome, strata.pairs), (Outcome::Pass, 3));
    assert!(
        strata.detail.ends_with("; seeds of 2 environment classes, each within one"),
        "{}",
        strata.detail
    );
    let none = judged(&[0, 1, 2].map(|seed| (SQRT, seed, "tch")));
    assert_eq!((none.outcome, none.difference), (Outcome::NotJudged, None));
    assert!(none.detail.contains("two environment classes, tch and cpu"), "{}", none.detail);
    // A manifest that gives its arms two backends compares them, and the verdict says so.
    let mut runs = pairs(&[-0.003, -0.0031, -0.0029]);
    for run in runs.iter_mut().filter(|run| run.arm == SQRT) {
        (run.backend, run.environment_class) = ("tch on cpu in f32".to_owned(), "tch".to_owned());
    }
    let verdict = card(runs).verdicts.swap_remove(0);
    assert_eq!((verdict.outcome, verdict.pairs), (Outcome::Pass, 3));
    let said = "; across run.backend, tch on cpu in f32 against cpu in f32";
    assert!(verdict.detail.ends_with(said), "{}", verdict.detail);
}

#[test]
fn a_view_shows_a_part_and_judges_nothing_anew() {
    let whole = card(pairs(&[-0.003, -0.0031, -0.0029]));
    let view = whole.view(&|run| run == 4);
    assert_eq!((view.runs.len(), view.arms.len()), (1, 1));
    assert_eq!((view.arms[0].name.as_str(), view.arms[0].runs), (SQRT, 3));
    assert_eq!(view.verdicts, whole.verdicts);
    assert!(whole.view(&|run| run == 0).verdicts.iter().all(|verdict| verdict.arm.is_empty()));
    let mut judged = view.clone();
    judged.judge_reproducibility(&BaselineOutcome::Equal { runs: 1 });
    assert_eq!(judged.verdicts.len(), view.verdicts.len());
    assert_eq!(outcome(&judged, VerdictKind::Reproducibility), Outcome::Pass);
}

/// Seeds of which each has this difference, so many of them.
fn many(differences: &[f64]) -> Vec<RunSummary> {
    let mut runs = pairs(differences);
    for run in &mut runs {
        (run.steps, run.tokens, run.flops) = (1000, 1_000_000, 1e15);
        run.slopes = [("val_bpb".to_owned(), -1e-5)].into();
    }
    runs
}

#[test]
fn every_finding_looks_like_this() {
    let mut all: Vec<String> = Vec::new();
    for differences in [
        &[-0.003, -0.0031, -0.0029][..],
        &[-0.001, 0.001, 0.0, 0.0005, -0.0005, 0.0002],
        &[-0.004, 0.001, -0.002, -0.0035, -0.0015, 0.0002],
        &[0.001, 0.0011, 0.0009],
        &[0.01, 0.0101, 0.0099],
        &[-0.01, 0.01, 0.001],
    ] {
        let card = card(many(differences));
        let finding = card.verdicts[0].finding.unwrap();
        all.push(format!("## {finding}\n{card}\n"));
    }
    insta::assert_snapshot!(all.concat());
}

fn looking(after: &[usize], seeds: u64) -> Criteria {
    let looks = crate::plan::looks::Looks { seeds: (0..seeds).collect(), after: after.to_vec() };
    let quality = Quality { looks: Some(looks), variance: Variance::Pair, ..Quality::by("val_bpb", 0.002) };
    Criteria { quality: Some(quality), ..criteria() }
}

/// What comes after the look that decided is no part of it, whatever it is.
#[test]
fn looks_look_like_this() {
    let all = [0.01, 0.0111, 0.0092, 0.0105, 0.0094, 0.0101, 0.0098, 0.0103, 0.01, 0.01];
    let judged = |ended: &dyn Fn(&RunSummary) -> bool| {
        let mut runs = many(&all);
        for run in &mut runs {
            if !ended(run) {
                (run.ended, run.result_hash, run.tokens_per_second) = (false, None, None);
                run.metrics.clear();
            }
        }
        judge("d12_sqrt", None, &looking(&[3, 6, 10], 10), runs)
    };
    let none = judged(&|run| run.seed < 2);
    let first = judged(&|run| run.seed < 4);
    let decided = judged(&|run| run.seed < 6);
    let more = judged(&|_| true);
    for (card, state) in [(&none, None), (&first, None), (&decided, Some(Class::Verdict))] {
        assert_eq!(card.failure(), state);
    }
    assert_eq!(decided.verdicts[0].interval, more.verdicts[0].interval);
    assert_eq!(decided.sequence.as_ref().map(|s| (s.decided, s.taken.len())), Some((true, 2)));
    assert_eq!(more.runs.iter().filter(|run| run.not_needed).count(), 0);
    let texts = [none, first, decided].map(|card| card.to_string());
    insta::assert_snapshot!(texts.join("\n----\n"));
}

/// A run that diverged has ended, so the look is taken; its arm is never decided by what the others gave.
#[test]
fn a_run_that_diverged_holds_up_no_look_and_decides_nothing() {
    let mut runs = pairs(&[-0.01, -0.0101, -0.0099, -0.01]);
    runs[4].result_hash = None;
    runs[4].metrics.clear();
    let card = judge("d12_sqrt", None, &looking(&[2, 4], 4), runs);
    let sequence = card.sequence.unwrap();
    assert_eq!((sequence.taken.len(), sequence.decided), (2, false));
    assert_eq!(card.verdicts[0].outcome, Outcome::Undecided);
}

#[test]
fn metrics_and_targets_look_like_this() {
    use crate::plan::targets::Target;
    let mut runs = many(&[-0.003, -0.0031, -0.0029, -0.003]);
    for run in &mut runs {
        // No two seeds are alike.
        let seed = run.seed as f64;
        run.metrics.insert(
            "core".to_owned(),
            0.2 + if run.arm == SQRT { 0.01 + 0.001 * seed } else { 0.002 * seed },
        );
        if run.arm == SQRT {
            (run.tokens, run.flops) = (1_100_000, 1.2e15);
        }
        *run.metrics.get_mut("val_bpb").unwrap() += 0.0005 * seed;
    }
    let mut criteria = criteria();
    let core =
        Criterion { metric: "core".to_owned(), higher_is_better: true, margin: 0.005, sigma: Some(0.0001) };
    criteria.quality.as_mut().unwrap().metrics.push(core);
    let target = |bound, sigma, rule| Target {
        metric: "val_bpb".to_owned(),
        bound,
        at_least: false,
        p: 0.01,
        sigma,
        rule,
    };
    criteria.targets = vec![
        target(0.78, None, None),
        target(0.749, None, None),
        target(0.7, Some(0.0013), Some("modded-nanogpt's track 3")),
    ];
    let card = judge("d12_sqrt", Some("Is it better?"), &criteria, runs);
    assert_eq!(card.failure(), Some(Class::Verdict));
    insta::assert_snapshot!(card.to_string());
}

/// What a run keeps of `count` documents of 100 bytes each, on which it loses by `of` so many nats.
fn kept(count: u32, of: impl Fn(u32) -> f64) -> KeptDocuments {
    let sums = |document: u32| {
        let nats = ExactF64(of(document));
        GroupLosses { documents: 1, targets: 25, bytes: 100, nats, loss: nats }
    };
    KeptDocuments::Kept(DocumentLosses::of((0..count).map(|document| (document, sums(document)))).unwrap())
}

/// How much documents differ in what the arm changes; their mean is nothing.
fn uneven(document: u32) -> f64 {
    f64::from(document * 7 % 11) - 5.0
}

#[test]
fn what_another_text_would_do_looks_like_this() {
    let told = |differences: &[f64], of: &dyn Fn(&RunSummary) -> KeptDocuments| {
        let mut card = card(many(differences));
        let runs = card.runs.clone();
        card.tell_other_text(&mut |at| Ok(of(&runs[at]))).unwrap();
        card
    };
    // What the seed adds to all documents is no part of it, nor what makes a document hard for both arms.
    let scattered = |scale: f64| {
        move |run: &RunSummary| {
            let arm = if run.arm == SQRT { scale } else { 0.0 };
            kept(440, |document| 70.0 + f64::from(document % 13) + run.seed as f64 + arm * uneven(document))
        }
    };
    let absent = |_: &RunSummary| KeptDocuments::Absent;
    let damaged = |run: &RunSummary| match run.seed {
        1 => KeptDocuments::Damaged("the table `documents.parquet` cannot be read: it was cut short".into()),
        _ => kept(440, |_| 70.0),
    };
    let other = |run: &RunSummary| kept(if run.arm == SQRT { 439 } else { 440 }, |_| 70.0);
    let few = |_: &RunSummary| kept(9, uneven);
    let better = [-0.003, -0.0031, -0.0029];
    let cards = [
        ("little", told(&better, &scattered(0.02))),
        ("more than the seeds", told(&better, &scattered(0.1))),
        ("so much that it would be undecided", told(&better, &scattered(2.0))),
        ("undecided already", told(&[-0.01, 0.01, 0.001], &scattered(2.0))),
        ("an old version", told(&better, &absent)),
        ("damaged", told(&better, &damaged)),
        ("other documents", told(&better, &other)),
        ("too few", told(&better, &few)),
    ];
    let said = |card: &Scorecard| {
        let row = card.verdicts[0].row();
        let text = (row.text_deviation.is_some(), row.text_reach.is_some(), row.text_documents);
        format!("{}\n{}\n{text:?}\n", card.other_text().join("\n"), row.text_detail.unwrap())
    };
    let all: Vec<String> = cards.iter().map(|(name, card)| format!("## {name}\n{}", said(card))).collect();
    insta::assert_snapshot!(all.join("\n"));
    insta::assert_snapshot!("a_card_with_another_text", cards[0].1);
    insta::assert_snapshot!("a_card_without_another_text", cards[4].1);
    // It decides nothing.
    let plain = card(many(&better));
    for (name, told) in cards.iter().filter(|(name, _)| *name != "undecided already") {
        assert_eq!(told.verdicts[0].outcome, plain.verdicts[0].outcome, "{name}");
        assert_eq!(told.verdicts[0].interval, plain.verdicts[0].interval, "{name}");
    }
    // Nothing of it stands where nobody has looked, or where the metric is not of the text.
    assert_eq!(plain.other_text(), Vec::<String>::new());
    assert_eq!(plain.verdicts[0].row().text_detail, None);
}

/// The seeds that count are those of the verdict, of each arm with its own control, by each metric.
#[test]
fn another_text_is_told_of_every_arm_and_metric() {
    let arm = |name: &'static str, base: f64| {
        (0..3_u64).map(move |seed| run(name, seed, base + 0.0001 * ((seed * base.to_bits()) % 7) as f64))
    };
    let mut runs: Vec<RunSummary> = arm("a", 0.75).chain(arm("b", 0.76)).chain(arm("c", 0.74)).collect();
    for run in &mut runs {
        let bpb = run.metrics["val_bpb"];
        run.metrics.insert("val_loss".to_owned(), 3.0 * bpb);
        run.measured.insert("val_loss".to_owned(), Vec::new());
    }
    let mut criteria = criteria();
    criteria.controls = [("b".to_owned(), "a".to_owned()), ("c".to_owned(), "a".to_owned())].into();
    let quality = criteria.quality.as_mut().unwrap();
    for metric in ["val_loss", "train_loss"] {
        let sigma = Some(0.001);
        quality.metrics.push(Criterion {
            metric: metric.to_owned(),
            higher_is_better: false,
            margin: 0.01,
            sigma,
        });
    }
    let mut card = judge("several", None, &criteria, runs);
    let runs = card.runs.clone();
    let mut asked = Vec::new();
    card.tell_other_text(&mut |at| {
        asked.push(at);
        let scale = if runs[at].arm == "b" { 0.05 } else { 0.0 };
        Ok(kept(300, |document| 70.0 + scale * uneven(document)))
    })
    .unwrap();
    // The control's runs are read once, the others' once a metric.
    assert_eq!(asked.iter().filter(|at| **at < 3).count(), 3);
    assert_eq!(asked.len(), 3 + 2 * 6);
    let reach = |arm: &str, metric: &str| {
        let verdict = card.verdicts.iter().find(|verdict| verdict.arm == arm && verdict.metric == metric);
        verdict.unwrap().row().text_reach
    };
    assert_eq!(reach("c", "val_bpb"), Some(0.0));
    assert!(reach("b", "val_bpb").unwrap() > 0.0);
    // 100 bytes a document, or 25 targets.
    let ratio = reach("b", "val_loss").unwrap() / reach("b", "val_bpb").unwrap();
    assert!((ratio - 4.0 * std::f64::consts::LN_2).abs() < 1e-9, "{ratio}");
    assert_eq!(reach("b", "train_loss"), None);
    insta::assert_snapshot!(card.other_text().join("\n"));
}
