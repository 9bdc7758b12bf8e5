//! A whole experiment: tables, a second start, `--rerun`, the scorecard.

use crate::support::{Place, TINY};

/// A scorecard with `#` in the place of every measured speed.
fn without_rates(scorecard: &str) -> String {
    const HEADING: &str = "tokens/s";
    let mut column = None;
    let lines = scorecard.lines().map(|line| {
        if let Some(at) = line.find(HEADING) {
            column = Some(at..at + HEADING.len());
            return line.to_owned();
        }
        // Columns are counted in characters: a line may have a `±`.
        let Some(column) = column.clone().filter(|column| line.chars().count() >= column.end) else {
            column = None;
            return line.to_owned();
        };
        let masked = line.chars().enumerate().map(|(at, letter)| match column.contains(&at) {
            true if at + 1 == column.end => '#',
            true => ' ',
            false => letter,
        });
        masked.collect()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_experiment_leaves_what_it_promises() {
    let place = Place::with(TINY);
    let first = place.run(&["m.toml"]).expect(0);
    insta::assert_snapshot!("scorecard", without_rates(&first.stdout));
    let hashes = place.hashes();
    assert_eq!(hashes.len(), 4);
    assert!(hashes.iter().all(|(_, hash)| hash.is_some()), "{hashes:?}");
    let results = place.path("results/tiny");
    for name in [
        "manifest.toml",
        "plan.toml",
        "runs.parquet",
        "steps.parquet",
        "evals.parquet",
        "scorecard.parquet",
        "scorecard.txt",
        "report.html",
    ] {
        assert!(results.join(name).is_file(), "{name}");
    }
    for run in std::fs::read_dir(results.join("runs")).unwrap() {
        let run = run.unwrap().path();
        for name in ["journal.jsonl", "result.json", "steps.parquet", "checkpoints"] {
            assert!(run.join("attempt/1").join(name).exists(), "{name}");
        }
        assert!(run.join("manifest.toml").exists());
        let samples = std::fs::read_to_string(run.join("attempt/1/samples.txt")).unwrap();
        assert!(samples.starts_with("--- prompt \"\", temperature 0\n"), "{samples}");
    }
    assert_eq!(std::fs::read_to_string(results.join("scorecard.txt")).unwrap().trim(), first.stdout.trim());

    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    assert!(plan["runs"].as_array().unwrap().iter().all(|run| run["status"] == "done"), "{plan}");
    // The second start finds everything done: no result is written again.
    let key = plan["runs"][0]["key"]["run"].as_str().unwrap()[..12].to_owned();
    let result = results.join("runs").join(&key).join("attempt/1/result.json");
    let before = std::fs::read(&result).unwrap();
    let second = place.run(&["run", "m.toml", "--json"]).expect(0).json();
    assert!(second["first_step_seconds"].is_null(), "no step was taken");
    assert_eq!(std::fs::read(&result).unwrap(), before);
    let again =
        place.run(&["run", "m.toml", "--rerun", "--no-share", "--threads", "1", "--json"]).expect(0).json();
    assert_eq!(again["first_step_seconds"].is_f64(), cfg!(target_os = "linux"));
    // Another attempt beside the first, which still speaks for the run.
    assert_eq!(std::fs::read(&result).unwrap(), before);
    let second = results.join("runs").join(&key).join("attempt/2/result.json");
    assert!(std::fs::read(second).unwrap() != before);
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
