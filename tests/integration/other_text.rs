//! What runs keep of the documents of their last evaluation, and what cards say of another text by it.

use std::path::PathBuf;

use nanorun::internals::files::Files;
use nanorun::internals::record::{DocumentRow, RunResult, ScorecardRow, read_table};
use serde_json::Value;

use crate::attempts::files_below;
use crate::support::{Ended, Place, TINY};

const BACKENDS: &[&str] = if cfg!(feature = "tch") { &["cpu", "scalar", "tch"] } else { &["cpu", "scalar"] };

/// As many documents as tell something.
fn manifest() -> String {
    TINY.replace("tokens = 512", "tokens = 4096")
}

/// The files with documents below some results, with their bytes, by their places.
fn documents(place: &Place, results: &str) -> Vec<(String, Vec<u8>)> {
    let root = place.path(results);
    let found = files_below(&root).into_iter().filter(|(path, _)| path.ends_with("documents.parquet"));
    found.map(|(path, bytes)| (path.strip_prefix(&root).unwrap().display().to_string(), bytes)).collect()
}

fn first(place: &Place, results: &str) -> PathBuf {
    place.path(results).join(&documents(place, results)[0].0)
}

/// What is said of the only arm.
fn verdict(ended: &Ended) -> Value {
    let json = ended.json();
    json["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|verdict| verdict["verdict"] == "quality")
        .unwrap()
        .clone()
}

#[test]
fn what_is_kept_is_the_evaluation_and_the_same_however_it_was_made() {
    let place = Place::with(&manifest());
    let whole = place.run(&["run", "m.toml", "--json", "--threads", "1", "--jobs", "1"]).expect(0);
    let kept = documents(&place, "results");
    assert_eq!(kept.len(), 4);
    for (name, bytes) in &kept {
        assert!(
            name.ends_with("attempt/1/documents.parquet") && bytes.len() < 100_000,
            "{name}: {}",
            bytes.len()
        );
        let path = place.path("results").join(name);
        let rows: Vec<DocumentRow> = read_table(&Files::new(), &path).unwrap();
        let result = RunResult::read(&Files::new(), &path.with_file_name("result.json")).unwrap().unwrap();
        let sum = |of: fn(&DocumentRow) -> f64| rows.iter().map(of).sum::<f64>();
        let bpb = sum(|row| row.nats) / sum(|row| row.bytes as f64) / std::f64::consts::LN_2;
        let loss = sum(|row| row.loss) / sum(|row| row.targets as f64);
        for (ours, metric) in [(bpb, "val_bpb"), (loss, "val_loss")] {
            let theirs = result.final_value(metric).unwrap();
            assert!((ours - theirs).abs() < 1e-12 * theirs, "{metric}: {ours} against {theirs}");
        }
        assert_eq!(sum(|row| row.targets as f64), 4096.0);
        assert!(rows.len() >= 10, "{}", rows.len());
    }
    let said = verdict(&whole);
    assert!(said["text_reach"].as_f64().unwrap() > said["text_deviation"].as_f64().unwrap(), "{said}");
    assert!(
        said["text_deviation"].as_f64().unwrap() > 0.0 && said["text_documents"].as_u64().unwrap() >= 10,
        "{said}"
    );

    // Threads, company, a stop in the middle of the last evaluation.
    place.run(&["run", "m.toml", "-q", "--threads", "3", "--jobs", "2", "--results", "other"]).expect(0);
    assert_eq!(documents(&place, "other"), kept);
    let result = first(&place, "results").with_file_name("result.json");
    std::fs::remove_file(result).unwrap();
    std::fs::remove_file(first(&place, "results")).unwrap();
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(documents(&place, "results"), kept);
    // Whoever takes results over has them too; nothing that cleans removes them.
    std::fs::write(place.path("o.toml"), manifest().replace("name = \"tiny\"", "name = \"over\"")).unwrap();
    place.run(&["run", "o.toml", "-q", "--results", "over", "--reuse", "results/tiny"]).expect(0);
    let bytes = |kept: &[(String, Vec<u8>)]| kept.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>();
    assert_eq!(bytes(&documents(&place, "over")), bytes(&kept));
    place.run(&["clean", "results/tiny", "--yes"]).expect(0);
    assert_eq!(documents(&place, "results"), kept);
}

#[test]
fn every_backend_keeps_them() {
    for backend in BACKENDS {
        let small =
            TINY.replace("steps = 8", "steps = 2").replace("every = 4", "every = 0").replace("[1, 2]", "[1]");
        let place = Place::with(&small);
        let set = format!("run.backend=\"{backend}\"");
        place.run(&["run", "m.toml", "-q", "--set", &set]).expect(0);
        let kept = documents(&place, "results");
        // Over two steps both arms are one run.
        assert_eq!(kept.len(), 1, "{backend}");
    }
}

/// It decides nothing, so whatever became of it, hashes, verdicts and exit codes are what they were.
#[test]
fn without_it_the_card_says_that_it_is_not_measured() {
    let place = Place::with(&manifest());
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let report = || place.run(&["report", "m.toml"]).expect(0).stdout;
    let plain = place.run(&["report", "m.toml", "--json"]).expect(0);
    let (hashes, before) = (place.hashes(), verdict(&plain));
    let card = report();
    assert!(card.contains("other text") && card.contains("Another validation text of this size ("), "{card}");
    let rows: Vec<ScorecardRow> =
        read_table(&Files::new(), &place.path("results/tiny/scorecard.parquet")).unwrap();
    assert_eq!(rows[0].text_reach, before["text_reach"].as_f64());
    let page = std::fs::read_to_string(place.path("results/tiny/report.html")).unwrap();
    assert!(page.contains("Another validation text of this size (") && page.contains(">other text<"));
    let planned = place.run(&["plan", "m.toml"]).expect(0).stdout;
    assert!(
        planned.contains("another validation text of the same size would move a difference by"),
        "{planned}"
    );

    let path = first(&place, "results");
    let good = std::fs::read(&path).unwrap();
    let mut told = Vec::new();
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 4;
    for (name, bytes) in [
        ("changed", Some(damaged)),
        ("cut short", Some(good[..good.len() / 2].to_vec())),
        ("empty", Some(Vec::new())),
        ("gone", None),
    ] {
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let json = place.run(&["report", "m.toml", "--json"]).expect(0);
        let said = verdict(&json);
        assert!(said["text_reach"].is_null(), "{name}: {said}");
        for field in ["outcome", "finding", "difference", "lower", "upper", "detail"] {
            assert_eq!(said[field], before[field], "{name}");
        }
        let key = path.ancestors().nth(3).unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        told.push(format!("{name}: {}", said["text_detail"].as_str().unwrap().replace(&key, "[run]")));
        assert!(report().contains("is not measured: "), "{name}");
        assert_eq!(place.hashes(), hashes, "{name}");
        place.run(&["run", "m.toml", "-q"]).expect(0);
    }
    insta::assert_snapshot!(told.join("\n"));
    // One of another run tells nothing of this one.
    let other = place.path("results").join(&documents(&place, "results").last().unwrap().0);
    std::fs::copy(other, &path).unwrap();
    let said = verdict(&place.run(&["report", "m.toml", "--json"]).expect(0));
    assert!(said["text_detail"].as_str().unwrap().starts_with("not measured"), "{said}");
    std::fs::write(&path, good).unwrap();
    assert_eq!(verdict(&place.run(&["report", "m.toml", "--json"]).expect(0)), before);
}

/// Another evaluation is another attempt, which has its own; a try tells of the text too.
#[test]
fn another_evaluation_has_its_own() {
    let place = Place::with(&manifest());
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let before = verdict(&place.run(&["report", "m.toml", "--json"]).expect(0));
    std::fs::write(place.path("m.toml"), manifest().replace("tokens = 4096", "tokens = 8192")).unwrap();
    let after = verdict(&place.run(&["run", "m.toml", "--json"]).expect(0));
    assert_eq!(documents(&place, "results").len(), 8);
    // More of the text is more documents.
    assert!(before["text_documents"].as_u64() < after["text_documents"].as_u64(), "{before} {after}");
    assert_ne!(before["text_reach"], after["text_reach"]);
    let tried = place.run(&[
        "try",
        "m.toml",
        "--only",
        "schedule.warmdown=sqrt",
        "--against",
        "m.toml",
        "--json",
        "-q",
    ]);
    let said = tried.json();
    assert!(said["verdict"]["text_reach"].as_f64().unwrap() > 0.0, "{said}");
    assert!(said["answer"].as_str().unwrap().contains("Another validation text of this size ("), "{said}");
}
