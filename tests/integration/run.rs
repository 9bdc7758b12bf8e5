//! A whole experiment: tables, a second start, `--rerun`, the scorecard.

use crate::support::{Place, TINY};

#[test]
fn an_experiment_leaves_what_it_promises() {
    let place = Place::with(TINY);
    let first = place.run(&["m.toml"]).expect(0);
    let hashes = place.hashes();
    assert_eq!(hashes.len(), 4);
    assert!(hashes.iter().all(|(_, hash)| hash.is_some()), "{hashes:?}");
    let results = place.path("results/tiny");
    for name in
        ["plan.toml", "runs.parquet", "steps.parquet", "evals.parquet", "scorecard.parquet", "scorecard.txt"]
    {
        assert!(results.join(name).is_file(), "{name}");
    }
    for run in std::fs::read_dir(results.join("runs")).unwrap() {
        let run = run.unwrap().path();
        for name in ["manifest.toml", "journal.jsonl", "result.json", "checkpoints"] {
            assert!(run.join(name).exists(), "{name}");
        }
        let samples = std::fs::read_to_string(run.join("samples.txt")).unwrap();
        assert!(samples.starts_with("--- prompt \"\", temperature 0\n"), "{samples}");
    }
    assert_eq!(std::fs::read_to_string(results.join("scorecard.txt")).unwrap().trim(), first.stdout.trim());

    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    assert!(plan["runs"].as_array().unwrap().iter().all(|run| run["status"] == "done"), "{plan}");
    // The second start finds everything done: no result is written again.
    let key = plan["runs"][0]["key"]["run"].as_str().unwrap()[..12].to_owned();
    let result = results.join("runs").join(&key).join("result.json");
    let before = std::fs::read(&result).unwrap();
    place.run(&["run", "m.toml"]).expect(0);
    assert_eq!(std::fs::read(&result).unwrap(), before);
    place.run(&["run", "m.toml", "--rerun", "--no-share", "--threads", "1"]).expect(0);
    assert_ne!(std::fs::read(&result).unwrap(), before);
    assert_eq!(place.hashes(), hashes);

    // Everything is finished, so there is nothing to resume.
    let resumed = place.run(&["resume", "results/tiny"]).expect(2);
    assert!(resumed.stderr.contains("every run is finished"), "{}", resumed.stderr);
    let drawn = |seed| {
        place
            .run(&["sample", "m.toml", "--run", &key, "--tokens", "8", "--seed", seed, "-q"])
            .expect(0)
            .stdout
    };
    assert_eq!(drawn("1"), drawn("1"));
    let long = "word ".repeat(100);
    let refused = place.run(&["sample", "m.toml", "--prompt", &long]).expect(2);
    assert!(refused.stderr.contains("the context 64"), "{}", refused.stderr);
}
