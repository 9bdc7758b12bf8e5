//! A bundle's own numbers from upstream's evaluator, and bundles that are refused.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::bundle::{Bundle, Limits};
use super::evaluate::{CoreResult, Score};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/core_bundle")
}

/// A copy that a test may change.
fn copy() -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    fs::create_dir_all(to.path().join("eval_data/lines")).unwrap();
    for name in [
        "core.yaml",
        "eval_meta_data.csv",
        "eval_data/numbers.jsonl",
        "eval_data/lines/next.jsonl",
        "eval_data/lines/next_shots.jsonl",
        "eval_data/lines/before.jsonl",
        "eval_data/lines/last.jsonl",
        "eval_data/lines/again.jsonl",
    ] {
        fs::copy(fixture().join(name), to.path().join(name)).unwrap();
    }
    to
}

#[test]
fn a_bundle_is_read() {
    let bundle = Bundle::open(&fixture(), Limits::default()).unwrap();
    let tasks: Vec<_> = bundle
        .tasks
        .iter()
        .map(|task| (task.label.as_str(), task.kind.name(), task.shots, task.examples()))
        .collect();
    insta::assert_debug_snapshot!(tasks);
    assert_eq!(bundle.examples(), tasks.iter().map(|(.., examples)| examples).sum::<usize>());
    let first = Bundle::open(&fixture(), Limits { max_per_task: Some(11) }).unwrap();
    assert!(first.tasks.iter().all(|task| task.examples() == 11));
    assert_ne!(first.digest(), bundle.digest());
    // What limits nothing defines nothing.
    let all = Bundle::open(&fixture(), Limits { max_per_task: Some(1000) }).unwrap();
    assert_eq!(all.digest(), bundle.digest());
    // Examples and shots are the same whenever they are asked for, and an example is none of its own shots.
    for task in &bundle.tasks {
        for index in [0, 1, task.examples() - 1] {
            let shots = task.shots_of(index).unwrap();
            assert_eq!(shots.len(), task.shots);
            assert_eq!(shots, task.shots_of(index).unwrap());
            assert!(!shots.contains(&task.example(index).unwrap()));
        }
        assert!(task.example(task.examples()).is_err());
    }
}

/// Upstream's arithmetic, bit for bit, from how many were right.
#[test]
fn accuracies_are_centred_as_upstream_does_it() {
    let expected: serde_json::Value =
        serde_json::from_slice(&fs::read(fixture().join("expected.json")).unwrap()).unwrap();
    for (limit, name) in [(None, "all"), (Some(11), "11")] {
        let bundle = Bundle::open(&fixture(), Limits { max_per_task: limit }).unwrap();
        let mut right = expected[name]["right"].as_str().unwrap();
        let mut score = |task: &super::bundle::Task| {
            let (of_task, rest) = right.split_at(task.examples());
            right = rest;
            let correct = of_task.bytes().filter(|&digit| digit == b'1').count() as u64;
            Score { correct, examples: task.examples() as u64 }
        };
        let scores: Vec<Score> = bundle.tasks.iter().map(&mut score).collect();
        let found = CoreResult::of(&bundle, &scores);
        assert_eq!(found.core.to_bits(), expected[name]["core_metric"].as_f64().unwrap().to_bits());
        for task in &found.tasks {
            let of = |what: &str| expected[name][what][&task.label].as_f64().unwrap();
            assert_eq!(task.accuracy, of("results"), "{}", task.label);
            assert_eq!(task.centered, of("centered_results"), "{}", task.label);
        }
        assert_eq!(right, "");
    }
}

/// What is wrong with a bundle is told with file, and line where there is one.
#[test]
fn bad_bundles_are_refused() {
    let changes: &[(&str, &str, &str)] = &[
        ("core.yaml", "icl_tasks:", "tasks:"),
        ("core.yaml", "icl_task_type: schema", "icl_task_type: chess"),
        ("core.yaml", "label: next\n", "label: next_zeroshot\n"),
        ("core.yaml", "label: next\n", "name: next\n"),
        ("core.yaml", "num_fewshot: [10]", "num_fewshot: 10"),
        ("core.yaml", "num_fewshot: [10]", "num_fewshot: [-1]"),
        ("core.yaml", "num_fewshot: [10]", "num_fewshot: [400]"),
        ("core.yaml", "dataset_uri: numbers.jsonl", "dataset_uri: ../numbers.jsonl"),
        ("core.yaml", "dataset_uri: numbers.jsonl", "dataset_uri: /etc/passwd"),
        ("core.yaml", "dataset_uri: numbers.jsonl", "dataset_uri: lines"),
        ("core.yaml", "dataset_uri: numbers.jsonl", "dataset_uri: absent.jsonl"),
        ("core.yaml", "continuation_delimiter: \"\\nNext: \"", "continuation_delimiter: [a]"),
        ("core.yaml", "icl_tasks:\n", "icl_tasks: &a [*a]\nrest:\n"),
        ("core.yaml", "icl_tasks:\n", "icl_tasks: []\nrest:\n"),
        ("eval_meta_data.csv", "Random baseline", "Guessing"),
        ("eval_meta_data.csv", "before_shots,", "before_other,"),
        ("eval_meta_data.csv", "33", "100"),
        ("eval_data/numbers.jsonl", "\"gold\": 0}\n", "\"gold\": 9}\n"),
        ("eval_data/numbers.jsonl", "{\"query\": \"Twice\"", "\n{\"query\": \"Twice\""),
        ("eval_data/lines/last.jsonl", "\"context\"", "\"text\""),
    ];
    let mut all = String::new();
    for (name, from, to) in changes {
        let place = copy();
        let path = place.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name}: {from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = Bundle::open(place.path(), Limits::default()).unwrap_err();
        assert_eq!(error.class().exit_code(), 2, "{error}");
        all += &format!("{error}\n\n").replace(&place.path().display().to_string(), "[bundle]");
    }
    let place = copy();
    let few = Bundle::open(place.path(), Limits { max_per_task: Some(10) }).unwrap_err();
    all += &few.to_string().replace(&place.path().display().to_string(), "[bundle]");
    fs::write(place.path().join("eval_data/lines/next.jsonl"), "").unwrap();
    let empty = Bundle::open(place.path(), Limits::default()).unwrap_err();
    all += &format!("\n\n{empty}").replace(&place.path().display().to_string(), "[bundle]");
    insta::assert_snapshot!(all);
    for name in ["core.yaml", "eval_meta_data.csv", "eval_data/lines/before.jsonl"] {
        let place = copy();
        fs::remove_file(place.path().join(name)).unwrap();
        let error = Bundle::open(place.path(), Limits::default()).unwrap_err();
        assert_eq!(error.class().exit_code(), 2, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_file_that_is_replaced_meanwhile_is_told() {
    let place = copy();
    let bundle = Bundle::open(place.path(), Limits::default()).unwrap();
    let path = place.path().join("eval_data/numbers.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    // In place, so that it is the file that is open.
    fs::write(&path, text.replace("and", "und")).unwrap();
    let task = bundle.tasks.iter().find(|task| task.label == "numbers").unwrap();
    let error = (0..task.examples()).find_map(|index| task.example(index).err()).unwrap();
    assert!(error.what().contains("replaced while it was in use"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever its files say, a bundle is read or refused.
    #[test]
    fn any_bytes_are_read_or_refused(
        which in 0_usize..4,
        at in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..12),
        cut in any::<bool>(),
    ) {
        let names = ["core.yaml", "eval_meta_data.csv", "eval_data/numbers.jsonl", "eval_data/lines/last.jsonl"];
        let place = copy();
        let path = place.path().join(names[which]);
        let mut whole = fs::read(&path).unwrap();
        let at = at.index(whole.len());
        if cut {
            whole.truncate(at);
        }
        whole.splice(at..at, bytes);
        fs::write(&path, whole).unwrap();
        match Bundle::open(place.path(), Limits { max_per_task: Some(20) }) {
            Ok(bundle) => {
                for task in &bundle.tasks {
                    task.example(0).unwrap();
                    task.shots_of(task.examples() - 1).unwrap();
                }
            }
            Err(error) => prop_assert_eq!(error.class().exit_code(), 2),
        }
    }
}
