//! The CORE metric of upstream's checkpoint, against upstream's own evaluator; stopped, carried on, refused.

use std::fs;
use std::path::{Path, PathBuf};

use crate::exchange::base;
use crate::support::{Place, TINY};

/// Tasks of every type, and what upstream's evaluator makes of them (tests/fixtures/generate/core_bundle.py).
fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/core_bundle")
}

fn expected() -> serde_json::Value {
    serde_json::from_slice(&fs::read(bundle().join("expected.json")).unwrap()).unwrap()
}

/// Those of the bundle's tasks that are named so, as a bundle in the place.
fn part(place: &Place, labels: &[&str]) -> PathBuf {
    let to = place.path("part");
    fs::create_dir_all(to.join("eval_data/lines")).unwrap();
    for name in ["eval_meta_data.csv", "eval_data/numbers.jsonl", "eval_data/lines/last.jsonl"] {
        fs::copy(bundle().join(name), to.join(name)).unwrap();
    }
    let list = fs::read_to_string(bundle().join("core.yaml")).unwrap().replace("-\n  label", "- label");
    let tasks = list.split("- label: ").skip(1);
    let chosen = tasks.filter(|task| labels.contains(&task.lines().next().unwrap()));
    let list: Vec<String> = chosen.map(|task| format!("- label: {task}")).collect();
    fs::write(to.join("core.yaml"), format!("icl_tasks:\n{}", list.concat())).unwrap();
    to
}

fn assert_upstreams(found: &serde_json::Value, expected: &serde_json::Value, backend: &str) {
    for task in found["tasks"].as_array().unwrap() {
        let label = task["task"].as_str().unwrap();
        for (ours, theirs) in [("accuracy", "results"), ("centered", "centered_results")] {
            assert_eq!(task[ours], expected[theirs][label], "{backend}: {label}");
        }
    }
}

#[test]
fn upstreams_accuracies_come_out() {
    let (place, base, expected) = (Place::with(TINY), base(), expected());
    let (base, all) = (base.to_str().unwrap(), bundle());
    let cache = place.path("cache");
    let core = |bundle: &Path, more: &[&str]| {
        let args = ["eval", base, "--core", bundle.to_str().unwrap(), "--json", "-q"];
        let mut command = place.command(&[&args, more].concat());
        let output = command.env("NANORUN_CACHE", &cache).output().unwrap();
        crate::support::Ended::of(&output, &place.path("")).expect(0).json()
    };
    for backend in if cfg!(feature = "tch") { &["cpu", "tch"][..] } else { &["cpu"] } {
        let found = core(&all, &["--backend", backend]);
        assert_upstreams(&found, &expected["all"], backend);
        assert_eq!(found["core"], expected["all"]["core_metric"], "{backend}");
        assert_eq!(found["tasks"].as_array().unwrap().len(), 7);
        // From the cache.
        assert_eq!(core(&all, &["--backend", backend]), found);
        let first = core(&all, &["--backend", backend, "--max-per-task", "11"]);
        assert_upstreams(&first, &expected["11"], backend);
        assert_eq!(first["core"], expected["11"]["core_metric"], "{backend}");
        assert_ne!(first["definition"], found["definition"]);
    }
    let few = part(&place, &["numbers", "last"]);
    let found = core(&few, &["--backend", "scalar"]);
    assert_upstreams(&found, &expected["all"], "scalar");
    assert_eq!(found["tasks"].as_array().unwrap().len(), 2);
}

#[test]
fn what_it_prints_and_what_is_refused() {
    let place = Place::with(TINY);
    let few = part(&place, &["numbers", "last"]);
    let (base, few) = (base(), few.to_str().unwrap().to_owned());
    let base = base.to_str().unwrap();
    let told = place.run(&["eval", base, "--core", &few]).expect(0);
    insta::assert_snapshot!("core", told.stdout);
    let bad: &[&[&str]] = &[
        &["--core", "nowhere"],
        &["--core", &few, "--tokens", "4096"],
        &["--max-per-task", "3"],
        &["--core", &few, "--max-per-task", "2"],
    ];
    for more in bad {
        let ended = place.run(&[&["eval", base], *more].concat()).expect(2);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
    // A run whose tokenizer does not know all characters.
    let manifest = TINY
        .replace("{ vocab_size = 300 }", "\"char\"")
        .replace("[\"linear\", \"sqrt\"]", "[\"linear\"]")
        .replace("[1, 2]", "[1]");
    let place = Place::with(&manifest);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let ended = place.run(&["eval", "m.toml", "--core", bundle().to_str().unwrap(), "-q"]).expect(2);
    assert!(ended.stderr.contains(".jsonl:"), "{}", ended.stderr);
}

/// In training it is measured after checkpoints, is in no hash, and can be judged by.
#[test]
fn runs_in_training_measure_it() {
    let bundle = bundle();
    let bundle = bundle.to_str().unwrap();
    let core = format!("core = {{ bundle = {bundle:?}, every = 4, max_per_task = 11 }}");
    let manifest = TINY
        .replace("tokens = 512\n", &format!("tokens = 512\n{core}\n"))
        .replace("metric = \"val_bpb\"", "metric = \"core\"");
    let (place, plain) = (Place::with(&manifest), Place::with(TINY));
    let told = place.run(&["run", "m.toml", "--json"]);
    // Speed may be judged as it will.
    assert!(matches!(told.code, Some(0 | 5)), "{}", told.stderr);
    plain.run(&["run", "m.toml", "-q"]);
    assert_eq!(place.hashes(), plain.hashes());
    let report = place.run(&["report", "m.toml", "--json"]).json();
    for run in report["runs"].as_array().unwrap() {
        let key = &run["run_key"].as_str().unwrap()[..12];
        let path = place.path(&format!("results/tiny/runs/{key}/attempt/1/result.json"));
        let result: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let measured = result["core"].as_array().unwrap();
        let steps: Vec<u64> = measured.iter().map(|point| point["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [4, 8]);
        let bits = measured[1]["values"]["core"].as_str().unwrap();
        let value = f64::from_bits(u64::from_str_radix(bits, 16).unwrap());
        let name = format!("results/tiny/{key}");
        let args = ["eval", &name, "--core", bundle, "--max-per-task", "11", "--json", "-q"];
        let found = place.run(&args).expect(0).json();
        assert_eq!(found["core"].as_f64().unwrap(), value);
        assert_eq!(found["definition"]["bundle"], measured[1]["settings"]);
    }
    let card = fs::read_to_string(place.path("results/tiny/scorecard.txt")).unwrap();
    assert!(card.contains("core"), "{card}");
    // Of other examples it is another number: what was measured is not taken for it.
    let other = ["report", "m.toml", "--set", "eval.core.max_per_task=12"];
    assert!(!place.run(&other).stdout.contains("no worse than the margin"));
    for (sets, named) in [
        (&["eval.core.bundle=nowhere"][..], "nowhere"),
        (&["eval.core.max_per_task=3"], "next_shots.jsonl"),
        (&["eval.core.max_per_task=0"], "eval.core.max_per_task"),
    ] {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let ended = place.run(&["plan", "m.toml"].into_iter().chain(sets).collect::<Vec<_>>()).expect(2);
        assert!(ended.stderr.contains(named), "{}", ended.stderr);
    }
    let alone = plain.run(&["plan", "m.toml", "--set", "eval.core.every=3"]).expect(2);
    assert!(alone.stderr.contains("eval.core.bundle"), "{}", alone.stderr);
    let judged = plain.run(&["plan", "m.toml", "--set", "scorecard.quality.metric=core"]).expect(2);
    assert!(judged.stderr.contains("is not measured"), "{}", judged.stderr);
}
