use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;

use super::column::{table_bytes, table_rows};
use super::*;
use crate::files::{ExactF32, ExactF64, Fault, FaultAt, Files};
use crate::hash::Digest;
use crate::train::checkpoint::EvalPoint;

fn result(loss: f32) -> RunResult {
    let train_hash = Digest::of(&loss.to_le_bytes());
    let eval = EvalPoint {
        step: 2,
        settings: Digest::of(b"settings"),
        train_hash,
        values: [("val_bpb".to_owned(), ExactF64(f64::from(loss)))].into(),
    };
    let losses = vec![ExactF32(3.0), ExactF32(loss)];
    let timings = Timings { step_seconds: vec![0.5, 0.25], alone: true, ..Timings::default() };
    let host = HostFacts { host: "crunch".into(), ..HostFacts::default() };
    RunResult::new(Digest::of(b"key"), "cpu".into(), 1, train_hash, losses, vec![eval], timings, host)
        .unwrap()
}

#[test]
fn a_result_comes_back_and_looks_like_this() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("result.json");
    assert_eq!(RunResult::read(&Files::new(), &path).unwrap(), None);
    result(2.5).write(&Files::new(), &path).unwrap();
    assert_eq!(RunResult::read(&Files::new(), &path).unwrap(), Some(result(2.5)));
    insta::assert_snapshot!(fs::read_to_string(&path).unwrap());
    assert_eq!(result(2.5).final_value("val_bpb"), Some(2.5));
    assert!(result(2.5).contradicts(&result(2.25)));
    assert!(!result(2.5).contradicts(&result(2.5)));
    let elsewhere = RunResult { environment_class: "tch".into(), ..result(2.25) };
    assert!(!result(2.5).contradicts(&elsewhere));
}

#[test]
fn a_result_that_contradicts_itself_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("result.json");
    let other = Digest::of(b"other");
    let mut value = result(2.5);
    value.evals[0].values.insert("val_bpb".to_owned(), ExactF64(2.25));
    let results = [
        value,
        RunResult { result_hash: other, ..result(2.5) },
        RunResult { eval_hash: other, ..result(2.5) },
        RunResult { train_hash: other, ..result(2.5) },
        RunResult { evals: Vec::new(), ..result(2.5) },
    ];
    let told = results.map(|result| {
        result.write(&Files::new(), &path).unwrap();
        refusal(&path)
    });
    result(2.5).write(&Files::new(), &path).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let texts = [
        good.replace("\"format\": 2", "\"format\": 9"),
        good.replace("\"alone\": true", "\"alone\": false"),
        good.replace("  \"sha256\"", "  \"sha257\""),
        good[..good.len() / 2].to_owned(),
        String::new(),
    ];
    let changed = texts.map(|text| {
        assert_ne!(text, good);
        fs::write(&path, text).unwrap();
        refusal(&path)
    });
    insta::assert_snapshot!(told.into_iter().chain(changed).collect::<Vec<_>>().join("\n"));
}

/// What is said of a result that is not read.
fn refusal(path: &std::path::Path) -> String {
    let error = crate::error::Error::from(RunResult::read(&Files::new(), path).unwrap_err());
    assert_eq!(error.class().exit_code(), 2);
    assert!(error.help_text().is_some());
    error.what().replace(&path.display().to_string(), "result.json")
}

#[test]
fn no_bit_of_a_result_changes_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("result.json");
    result(2.5).write(&Files::new(), &path).unwrap();
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, bad).unwrap();
        if let Ok(read) = RunResult::read(&Files::new(), &path) {
            // White space between values says nothing.
            assert_eq!((read, good[at].is_ascii_whitespace()), (Some(result(2.5)), true), "byte {at}");
        }
    }
}

#[test]
fn no_bit_of_a_table_changes_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evals.parquet");
    write_table(&Files::new(), &path, &[EvalRow::default(), EvalRow::default()]).unwrap();
    assert_eq!(read_table::<EvalRow>(&Files::new(), &path).unwrap().len(), 2);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, bad).unwrap();
        read_table::<EvalRow>(&Files::new(), &path).unwrap_err();
    }
}

#[test]
fn a_run_is_finished_or_not_under_every_fault() {
    let count = Arc::new(FaultAt::once(usize::MAX, Fault::Fail(ErrorKind::Other)));
    let dir = tempfile::tempdir().unwrap();
    result(2.5).write(&Files::with_faults(count.clone()), &dir.path().join("result.json")).unwrap();
    for at in 0..count.seen() {
        for fault in [FaultAt::once(at, Fault::Short(9, ErrorKind::StorageFull)), FaultAt::kill(at, 9)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("result.json");
            result(2.5).write(&Files::with_faults(Arc::new(fault)), &path).unwrap_err();
            let read = RunResult::read(&Files::new(), &path).unwrap();
            assert!(read.is_none() || read == Some(result(2.5)));
        }
    }
}

#[test]
fn tables_come_back_bit_by_bit() {
    let steps: Vec<_> = (0..1000_u64)
        .map(|step| StepRow {
            arm: "schedule.warmdown=sqrt".into(),
            step,
            loss: f32::from_bits(0x7f80_0000 + step as u32),
            lr_multiplier: -0.0,
            seconds: 1.0 / step as f64,
            ..StepRow::default()
        })
        .collect();
    let bytes = table_bytes(&steps).unwrap();
    assert_eq!(bytes, table_bytes(&steps).unwrap());
    let back: Vec<StepRow> = table_rows(&bytes).unwrap();
    assert_eq!(back.len(), steps.len());
    for (a, b) in back.iter().zip(&steps) {
        assert_eq!(a.loss.to_bits(), b.loss.to_bits());
        assert_eq!(a.lr_multiplier.to_bits(), b.lr_multiplier.to_bits());
        assert_eq!((&a.arm, a.step, a.seconds.to_bits()), (&b.arm, b.step, b.seconds.to_bits()));
    }
    let runs = [
        RunRow {
            arm: "a".into(),
            val_bpb: None,
            peak_rss_bytes: Some(u64::MAX),
            peak_device_bytes: Some(1),
            alone: true,
            ..RunRow::default()
        },
        RunRow { arm: "b".into(), val_bpb: Some(2.5), reason: Some("NaN".into()), ..RunRow::default() },
    ];
    assert_eq!(table_rows::<RunRow>(&table_bytes(&runs).unwrap()).unwrap(), runs);
    assert_eq!(table_rows::<RunRow>(&table_bytes::<RunRow>(&[]).unwrap()).unwrap(), []);
}

/// Readers see no difference: one table, whatever parts it was made from.
#[test]
fn a_table_made_in_parts_is_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let row = |step: u64| OwnStepRow { step, seconds: step as f64 / 7.0, ..OwnStepRow::default() };
    let write = |name: &str, parts: &[std::ops::Range<u64>]| {
        let path = dir.path().join(name);
        write_table_of(&Files::new(), &path, parts.iter().map(|part| part.clone().map(row).collect()))
            .unwrap();
        path
    };
    // Small ones are the same bytes as written whole.
    let whole = dir.path().join("whole.parquet");
    write_table(&Files::new(), &whole, &(0..90).map(row).collect::<Vec<_>>()).unwrap();
    for parts in [&[0..0, 0..90][..], &[0..1, 1..40, 40..40, 40..90]] {
        assert_eq!(fs::read(write("parts.parquet", parts)).unwrap(), fs::read(&whole).unwrap(), "{parts:?}");
    }
    let empty = write("empty.parquet", &[]);
    assert_eq!(read_table::<OwnStepRow>(&Files::new(), &empty).unwrap(), []);
    // Large ones are several row groups, also where one part is larger than a row group.
    for parts in [&[0..0, 0..300_000][..], &[0..70_000, 70_000..80_000, 80_000..300_000]] {
        let rows = read_table::<OwnStepRow>(&Files::new(), &write("large.parquet", parts)).unwrap();
        assert!(
            rows.iter().zip(0..).all(|(found, step)| *found == row(step)) && rows.len() == 300_000,
            "{parts:?}"
        );
    }
}

/// One table as three versions have it.
mod versions {
    #![allow(unreachable_pub)]

    use crate::record::column::table;

    table! {
        Before, "runs.parquet", "As an older version wrote it.",
        arm: String, "", exact, "the cell without its seed";
    }

    table! {
        WithSeeds, "runs.parquet", "With a column that is never empty.",
        arm: String, "", exact, "the cell without its seed";
        seed: u64, "", exact, "seed of the initial weights";
    }

    table! {
        WithValues, "runs.parquet", "With a column that may be empty.",
        arm: String, "", exact, "the cell without its seed";
        val_bpb: Option<f64>, "bits/byte", exact, "final validation";
    }
}

/// A column that may be empty is, where the table is older than the column; any other is missed.
#[test]
fn tables_of_before_a_column_was_added_are_read() {
    use versions::{Before, WithSeeds, WithValues};
    let before = table_bytes(&[Before { arm: "a".into() }, Before { arm: "b".into() }]).unwrap();
    assert_eq!(table_rows::<WithSeeds>(&before).unwrap_err(), "it has no column `seed`");
    let rows = table_rows::<WithValues>(&before).unwrap();
    assert_eq!(
        rows.iter().map(|row| (row.arm.as_str(), row.val_bpb)).collect::<Vec<_>>(),
        [("a", None), ("b", None)]
    );
}

#[test]
fn a_table_of_another_kind_is_named() {
    let evals = table_bytes(&[EvalRow::default()]).unwrap();
    assert_eq!(table_rows::<StepRow>(&evals).unwrap_err(), "it has no column `loss`");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("steps.parquet");
    for bytes in [&b""[..], b"PAR1", b"not parquet at all", &evals[..evals.len() - 3]] {
        fs::write(&path, bytes).unwrap();
        let error = read_table::<StepRow>(&Files::new(), &path).unwrap_err();
        assert!(matches!(error, TableError::Malformed { .. }), "{error}");
    }
    write_table(&Files::new(), &path, &[StepRow::default()]).unwrap();
    assert_eq!(read_table::<StepRow>(&Files::new(), &path).unwrap(), [StepRow::default()]);
}

#[test]
fn the_schemas_are_documented() {
    insta::assert_snapshot!(schemas_markdown());
}

#[test]
fn a_plan_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = ExperimentDir::new(dir.path(), "d12_sqrt", Some("smoke"));
    assert_eq!(experiment.path(), dir.path().join("d12_sqrt@smoke"));
    Files::new().create_dir_all(experiment.path()).unwrap();
    let plan = PlanRecord {
        layout: LAYOUT,
        name: "d12_sqrt".into(),
        question: None,
        hypothesis: None,
        manifest: "experiments/d12_sqrt.toml".into(),
        directory: Some("/home/ada/nanorun".into()),
        profile: Some("smoke".into()),
        sets: Vec::new(),
        env: std::collections::BTreeMap::new(),
        only: Vec::new(),
        varied: Vec::new(),
        no_share: false,
        nanorun: "0.1.0".into(),
        control: Some("schedule.warmdown=linear".into()),
        runs: vec![PlannedRun {
            data: None,
            arm: "schedule.warmdown=sqrt".into(),
            seed: 1,
            key: Digest::of(b"key"),
            steps: 3,
            evaluation: Some(Digest::of(b"evaluation")),
            vocab_size: Some(4096),
            content: Some(Digest::of(b"content")),
            cell: [("schedule.warmdown".to_owned(), toml::Value::from("sqrt"))].into(),
        }],
    };
    plan.write(&Files::new(), &experiment).unwrap();
    assert_eq!(PlanRecord::read(&Files::new(), &experiment).unwrap(), plan);
    insta::assert_snapshot!(fs::read_to_string(experiment.file("plan.toml")).unwrap());
    let text = fs::read_to_string(experiment.file("plan.toml")).unwrap();
    fs::write(experiment.file("plan.toml"), text.replace("layout = 2", "layout = 3\nruns = 7")).unwrap();
    let told = "have layout 3; this nanorun reads layouts up to 2";
    for refused in [
        PlanRecord::read(&Files::new(), &experiment).map(drop),
        PlanRecord::check_layout(&Files::new(), &experiment),
    ] {
        let error = crate::error::Error::from(refused.unwrap_err());
        assert!(error.what().ends_with(told) && error.what().contains("d12_sqrt@smoke"), "{error}");
        assert!(error.help_text().unwrap().starts_with("a newer nanorun wrote them"), "{error}");
    }
    fs::write(experiment.file("plan.toml"), "name = 3").unwrap();
    assert!(matches!(PlanRecord::read(&Files::new(), &experiment), Err(RecordError::Malformed { .. })));
}
