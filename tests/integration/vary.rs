//! An experiment's directory is the experiment's: what selects is a view on it, what varies goes elsewhere, and nothing
//! that is there is replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nanorun::internals::files::Files;
use nanorun::internals::record::{EvalRow, RunRow, StepRow, read_table};

use crate::attempts::files_below;
use crate::reproduce::exact_tables;
use crate::support::{Place, any_speed};

fn runs(place: &Place, dir: &str) -> Vec<RunRow> {
    read_table(&Files::new(), &place.path(dir).join("runs.parquet")).unwrap()
}

fn statuses(rows: &[RunRow]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row.status.as_str()).or_default() += 1;
    }
    counts
}

/// What a start may not touch, whatever it is about.
fn files_of(place: &Place, dir: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files_below(&place.path(dir));
    // A start says who it is.
    files.retain(|path, _| !path.ends_with(".lock"));
    files
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn trials_overwrite() {
    let place = Place::with(&any_speed());
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let (hashes, before) = (place.hashes(), files_of(&place, "results/tiny"));
    // A trial has a directory of its own, the same whatever it is said by.
    let shorter = ["--set", "budget.steps=3", "--set", "schedule.warmup_steps=1"];
    let dir = place.directory(&shorter);
    place.run(&[&["run", "m.toml", "-q"], &shorter[..]].concat()).expect(0);
    assert_eq!(files_of(&place, "results/tiny"), before);
    let mut directories = names(&place.path("results"));
    // The ledger of both, and what guards it.
    directories.retain(|name| name.starts_with("tiny"));
    assert_eq!(directories, ["tiny", dir.strip_prefix("results/").unwrap()]);
    let by_environment = |set: &[(&str, &str)], more: &[&str]| {
        let mut command = place.command(&[&["plan", "m.toml", "--json"], more].concat());
        command.envs(set.iter().copied());
        let plan: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        (plan["directory"].as_str().unwrap().to_owned(), plan["runs"].as_array().unwrap().clone())
    };
    let variables = [("NANORUN_BUDGET__STEPS", "3"), ("NANORUN_SCHEDULE__WARMUP_STEPS", "1")];
    let (same, found) = by_environment(&variables, &[]);
    assert_eq!(same, dir);
    assert!(found.iter().all(|run| run["status"] == "done"), "{found:?}");
    assert_eq!(by_environment(&variables[..1], &shorter[2..]).0, dir);
    let record = std::fs::read_to_string(place.path(&dir).join("plan.toml")).unwrap();
    assert!(record.contains("\"budget.steps = 3\""), "{record}");
    let told = place.run(&[&["plan", "m.toml"], &shorter[..]].concat()).expect(0).stdout;
    assert!(
        told.contains(&format!("varied: budget.steps = 3, schedule.warmup_steps = 1; results go to {dir}")),
        "{told}"
    );
    // A seed that the manifest has selects, by any means: tables, plan and scorecard stay those of all.
    let view = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = place.command(&[&["run", "m.toml", "--json"], arguments].concat());
        command.envs(variable);
        let report: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        report["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["label"].as_str().unwrap().to_owned())
            .collect()
    };
    let second = ["warmdown=linear seed=2".to_owned(), "warmdown=sqrt seed=2".to_owned()];
    let views: [Vec<String>; 3] = [
        view(&["--set", "run.seed=2"], None),
        view(&["--only", "run.seed=2"], None),
        view(&[], Some(("NANORUN_RUN__SEED", "2"))),
    ];
    assert!(views.iter().all(|view| *view == second), "{views:?}");
    assert_eq!(statuses(&runs(&place, "results/tiny")), [("finished", 4)].into());
    let after = files_of(&place, "results/tiny");
    for name in [
        "steps.parquet",
        "evals.parquet",
        "scorecard.txt",
        "scorecard.parquet",
        "manifest.toml",
        "report.html",
    ] {
        let path = place.path("results/tiny").join(name);
        assert_eq!(after[&path], before[&path], "{name}");
    }
    let recorded = std::fs::read_to_string(place.path("results/tiny/plan.toml")).unwrap();
    assert_eq!(recorded.matches("[[run]]").count(), 4, "{recorded}");
    // One that it does not have is a trial.
    assert_ne!(place.directory(&["--set", "run.seed=7"]), "results/tiny");
    assert_eq!(place.hashes(), hashes);
}

#[test]
fn two_manifests_of_one_name() {
    let place = Place::with(&any_speed().replace("[1, 2]", "[1]"));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let before = files_of(&place, "results/tiny");
    let other = any_speed()
        .replace("[1, 2]", "[1]")
        .replace("steps = 8", "steps = 3")
        .replace("warmup_steps = 2", "warmup_steps = 1");
    std::fs::write(place.path("other.toml"), &other).unwrap();
    let refused = place.run(&["run", "other.toml", "-q"]).expect(2);
    assert!(
        refused.stderr.contains("the directory holds the results of another manifest"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("m.toml"), "{}", refused.stderr);
    assert_eq!(files_of(&place, "results/tiny"), before);
    let told = place.run(&["plan", "other.toml"]).expect(0).stdout;
    assert!(told.contains("warning: the directory holds the results of another manifest"), "{told}");
    let report = place.run(&["report", "other.toml"]).expect(0);
    assert!(report.stderr.contains("another manifest of this name"), "{}", report.stderr);
    // What it advises helps.
    place.run(&["run", "other.toml", "-q", "--set", "name=other"]).expect(0);
    place.run(&["run", "other.toml", "-q", "--results", "elsewhere"]).expect(0);
    assert_eq!(files_of(&place, "results/tiny"), before);
    // A copy, and one that was moved and changed, are the same experiment.
    std::fs::copy(place.path("m.toml"), place.path("copy.toml")).unwrap();
    place.run(&["run", "copy.toml", "-q"]).expect(0);
    std::fs::remove_file(place.path("m.toml")).unwrap();
    std::fs::rename(place.path("copy.toml"), place.path("moved.toml")).unwrap();
    std::fs::write(place.path("moved.toml"), format!("# moved\n{}", any_speed().replace("[1, 2]", "[1]")))
        .unwrap();
    place.run(&["run", "moved.toml", "-q"]).expect(0);
}

#[test]
fn runs_that_the_manifest_no_longer_has_are_retired() {
    let place = Place::with(&any_speed());
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let all = runs(&place, "results/tiny");
    // Without the second seed, and with another arm.
    let text = any_speed().replace("[1, 2]", "[1]").replace("\"sqrt\"", "\"cosine\"");
    std::fs::write(place.path("m.toml"), text).unwrap();
    let ended = place.run(&["run", "m.toml"]).expect(0);
    let rows = runs(&place, "results/tiny");
    assert_eq!(statuses(&rows), [("finished", 2), ("retired", 3)].into());
    for row in rows.iter().filter(|row| row.status == "retired") {
        let then = all.iter().find(|then| then.run_key == row.run_key).unwrap();
        let now = RunRow { status: then.status.clone(), reason: None, ..row.clone() };
        assert_eq!(&now, then);
    }
    let (listed, judged) = (ended.stdout.find("retired: ").unwrap(), ended.stdout.find("verdict").unwrap());
    assert!(judged < listed && ended.stdout[listed..].contains("warmdown=sqrt"), "{}", ended.stdout);
    assert!(!ended.stdout[..listed].contains("sqrt"), "{}", ended.stdout);
    assert!(ended.stdout.contains("an interval needs two seeds, there are 1"), "{}", ended.stdout);
    let keys = |of: Vec<String>| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for key in of {
            *counts.entry(key).or_default() += 1;
        }
        counts
    };
    let results = place.path("results/tiny");
    let steps: Vec<StepRow> = read_table(&Files::new(), &results.join("steps.parquet")).unwrap();
    let steps = keys(steps.into_iter().map(|row| row.run_key).collect());
    let evals: Vec<EvalRow> = read_table(&Files::new(), &results.join("evals.parquet")).unwrap();
    let evals = keys(evals.into_iter().map(|row| row.run_key).collect());
    assert!(steps.len() == 5 && steps.values().all(|count| *count == 8), "{steps:?}");
    assert!(evals.len() == 5 && evals.values().all(|count| *count == 6), "{evals:?}");
    let report = place.run(&["report", "results/tiny", "--json"]).expect(0).json();
    assert_eq!(
        (report["runs"].as_array().unwrap().len(), report["retired"].as_array().unwrap().len()),
        (2, 3)
    );
    let plan = place.run(&["plan", "m.toml"]).expect(0).stdout;
    assert_eq!(plan.matches("is no longer in the manifest; its result").count(), 3, "{plan}");
    // One that is damaged is left out and hides no other; whoever goes back finds the rest finished.
    let damaged = place.path("results/tiny/runs").join(&all[1].run_key[..12]).join("attempt/1/result.json");
    let bytes = std::fs::read(&damaged).unwrap();
    std::fs::write(&damaged, &bytes[..100]).unwrap();
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(statuses(&runs(&place, "results/tiny")), [("finished", 2), ("retired", 2)].into());
    std::fs::write(&damaged, bytes).unwrap();
    std::fs::write(place.path("m.toml"), any_speed()).unwrap();
    let back = place.run(&["run", "m.toml", "--json"]).expect(0).json();
    assert!(back["first_step_seconds"].is_null(), "nothing is trained");
    assert_eq!(statuses(&runs(&place, "results/tiny")), [("finished", 4), ("retired", 1)].into());
}

/// What is selected is trained, the rest stays as it is; bit by bit the whole comes out in the end.
#[test]
fn only_trains_what_it_selects() {
    let whole = Place::with(&any_speed());
    whole.run(&["verify", "m.toml", "-q", "--bless", "--baseline", "b.toml"]).expect(0);
    let place = Place::with(&any_speed());
    std::fs::copy(whole.path("b.toml"), place.path("b.toml")).unwrap();
    let one = ["--only", "run.seed=1", "--only", "schedule.warmdown=sqrt"];
    let plan = place.run(&[&["plan", "m.toml", "--json"], &one[..]].concat()).expect(0).json();
    let states: Vec<&str> =
        plan["runs"].as_array().unwrap().iter().map(|run| run["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["not_selected", "not_selected", "to_do", "not_selected"]);
    assert_eq!(plan["directory"], "results/tiny");
    let told = place.run(&[&["run", "m.toml"], &one[..]].concat()).expect(0);
    assert!(
        told.stderr.contains("selected by run.seed = 1, schedule.warmdown = \"sqrt\": 1 of 4 runs"),
        "{}",
        told.stderr
    );
    assert!(!told.stdout.contains("linear seed") && !told.stdout.contains("unfinished"), "{}", told.stdout);
    assert_eq!(statuses(&runs(&place, "results/tiny")), [("finished", 1), ("planned", 3)].into());
    assert_eq!(names(&place.path("results/tiny/runs")).len(), 1);
    // Everything else that reads takes the same view.
    let read = ["verify", "m.toml", "--read", "-q", "--baseline", "b.toml"];
    let verified = place.run(&[&read[..], &one[..]].concat()).expect(0).stdout;
    assert!(verified.starts_with("tiny: 1 of 1 run as in b.toml"), "{verified}");
    place.run(&read).expect(3);
    let bless = place.run(&[&read[..], &one[..], &["--bless"]].concat()).expect(3);
    assert!(bless.stderr.contains("bless without --only"), "{}", bless.stderr);
    let sampled = place.run(&[&["sample", "m.toml", "--tokens", "2"], &one[..]].concat()).expect(0);
    assert!(sampled.stderr.contains("warmdown=sqrt seed=1"), "{}", sampled.stderr);
    let none = place.run(&["sample", "m.toml", "--only", "run.seed=2"]).expect(2);
    assert!(none.stderr.contains("--only 'run.seed=2'"), "{}", none.stderr);
    let json = place.run(&[&["report", "results/tiny", "--json"], &one[..]].concat()).expect(0).json();
    assert_eq!(json["runs"].as_array().unwrap().len(), 1);
    // It is the same start again that `resume` carries on; what it is about can be said otherwise.
    let over = place.run(&["resume", "results/tiny"]).expect(2);
    assert!(over.stderr.contains("every run that was selected is finished"), "{}", over.stderr);
    place.run(&["resume", "results/tiny", "-q", "--only", "run.seed=1"]).expect(0);
    assert_eq!(statuses(&runs(&place, "results/tiny")), [("finished", 2), ("planned", 2)].into());
    let whole_dir = whole.path("results/tiny").display().to_string();
    place.run(&["diff", &whole_dir, "results/tiny", "--only", "run.seed=1"]).expect(0);
    place.run(&["diff", &whole_dir, "results/tiny"]).expect(3);
    let wrong = place.run(&["diff", &whole_dir, "results/tiny", "--only", "run.seed=9"]).expect(2);
    assert!(wrong.stderr.contains("what a cell has: 1, 2"), "{}", wrong.stderr);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(place.hashes(), whole.hashes());
    assert_eq!(exact_tables(&place.path("results/tiny")), exact_tables(&whole.path("results/tiny")));
    // A verdict is over all there is, whatever is looked at.
    let quality = |arguments: &[&str]| {
        let shown = place.run(&[&["report", "m.toml"], arguments].concat()).expect(0).stdout;
        shown.lines().find(|line| line.starts_with("quality")).unwrap().to_owned()
    };
    assert_eq!(quality(&one), quality(&[]));
    let pins = place.run(&["lock", "m.toml", "--only", "run.seed=1"]).expect(2);
    assert!(pins.stderr.contains("pins are those of every cell"), "{}", pins.stderr);
}

#[test]
fn cells_that_are_not_selected_need_no_data() {
    let text = any_speed()
        .replace("[data]", "[data]\ndocument = \"line\"")
        .replace("tokenizer = { vocab_size = 300 }", "tokenizer = \"char\"\nvocab_size = 27")
        .replace(
            "\"schedule.warmdown\" = [\"linear\", \"sqrt\"]",
            "\"data.shards\" = [\"names.txt\", \"more.txt\"]",
        )
        .replace("control = { \"schedule.warmdown\" = \"linear\" }\n", "")
        .replace("[1, 2]", "[1]");
    let place = Place::with(&text);
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/data/names.txt");
    std::fs::copy(&names, place.path("names.txt")).unwrap();
    let missing = place.run(&["run", "m.toml", "-q"]).expect(2);
    assert!(missing.stderr.contains("more.txt"), "{}", missing.stderr);
    place.run(&["run", "m.toml", "-q", "--only", "data.shards=names.txt"]).expect(0);
    let finished = |place: &Place| place.hashes().iter().filter(|(_, hash)| hash.is_some()).count();
    std::fs::copy(&names, place.path("more.txt")).unwrap();
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(finished(&place), 2);
    // Results know the data that are gone.
    std::fs::remove_file(place.path("more.txt")).unwrap();
    let again = place.run(&["run", "m.toml", "--json", "--only", "data.shards=names.txt"]).expect(0).json();
    assert!(again["first_step_seconds"].is_null());
    assert_eq!(statuses(&runs(&place, "results/tiny")), [("finished", 2)].into());
}

/// A variation is named as any experiment, resumed from anywhere, and cleaned; profiles vary too.
#[test]
fn a_variation_is_an_experiment_of_its_own() {
    let text = format!("{}\n[profile.short]\nbudget.steps = 6\n", any_speed().replace("[1, 2]", "[1]"));
    let place = Place::with(&text);
    let varied = ["--set", "optimizer.matrix_lr=0.01"];
    let dir = place.directory(&varied);
    let arguments = [&["run", "m.toml", "-q", "--jobs", "1"], &varied[..]].concat();
    let killed = place.command(&arguments).env("WRITE_FAULT", "kill@150").output().unwrap();
    assert!(!killed.status.success());
    place.run(&["resume", &dir, "-q"]).expect(0);
    let hashes = place.hashes_with(&varied);
    assert!(hashes.iter().all(|(_, hash)| hash.is_some()), "{hashes:?}");
    let report = place.run(&["report", &dir, "--json"]).expect(0).json();
    assert_eq!(report["directory"].as_str().unwrap(), dir);
    assert_eq!(report["varied"], serde_json::json!(["optimizer.matrix_lr = 0.01"]));
    let key = report["runs"][1]["run_key"].as_str().unwrap()[..6].to_owned();
    for name in [format!("{dir}/{key}"), format!("{}/{key}", dir.strip_prefix("results/").unwrap())] {
        let one = place.run(&["report", &name, "--json"]).expect(0).json();
        assert_eq!(one["runs"].as_array().unwrap().len(), 1, "{name}");
        place.run(&["sample", &name, "--tokens", "2", "-q"]).expect(0);
        place.run(&["diff", &name, &name]).expect(0);
    }
    place.run(&["diff", &dir, &dir, "--only", "schedule.warmdown=sqrt"]).expect(0);
    assert!(!place.path("results/tiny").exists());
    // With a profile, which varies by what departs from it.
    let under = |set: &str| place.directory(&["--profile", "short", "--set", set]);
    assert_eq!(under("budget.steps=6"), "results/tiny@short");
    assert!(under("budget.steps=8").starts_with("results/tiny@short~"), "{}", under("budget.steps=8"));
    assert_eq!(under("optimizer.matrix_lr=0.01")["results/tiny@short".len()..], dir["results/tiny".len()..]);
    // Cleaning it looks at its own runs, and at what was selected of them.
    let rerun = [&["run", "m.toml", "-q", "--rerun"], &varied[..]].concat();
    place.run(&rerun).expect(0);
    let items = |more: &[&str]| {
        let found = place.run(&[&["clean", "--json"], more].concat()).expect(0).json();
        found["experiments"][0]["items"].as_array().unwrap().len()
    };
    let all = items(&[&dir]);
    assert!(all >= 2, "{all}");
    assert_eq!(items(&[&["m.toml"], &varied[..]].concat()), all);
    let one = ["--only", "schedule.warmdown=sqrt"];
    assert_eq!(items(&[&["m.toml"], &varied[..], &one[..]].concat()), all / 2);
    assert_eq!(items(&[&[dir.as_str()], &one[..]].concat()), all / 2);
    let refused = place.run(&["clean", &dir, "--set", "budget.steps=3"]).expect(2);
    assert!(refused.stderr.contains("results have the profile and the settings"), "{}", refused.stderr);
    place.run(&["clean", "--set", "budget.steps=3"]).expect(2);
}

/// Prefixes are shared with what is there, and what others may fork from stays until they are finished too.
#[test]
fn selecting_changes_no_bit_of_shared_steps() {
    let whole = Place::with(&crate::reproduce::shapes());
    whole.run(&["run", "m.toml", "-q"]).expect(0);
    let place = Place::with(&crate::reproduce::shapes());
    let hashes = whole.hashes();
    for (label, _) in hashes.iter().rev() {
        let shape = label.split([' ', '=']).nth(1).unwrap();
        place.run(&["run", "m.toml", "-q", "--only", &format!("schedule.warmdown={shape}")]).expect(0);
    }
    assert_eq!(place.hashes(), hashes);
    let forks = |place: &Place| {
        let mut found = files_below(&place.path("results"));
        found.retain(|path, _| path.ends_with("optimizer.safetensors"));
        found.len()
    };
    assert_eq!(forks(&place), forks(&whole));
}
