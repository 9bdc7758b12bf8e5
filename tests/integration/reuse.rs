//! The row "same run, other experiment": what other results have finished is taken over where that is asked for.

use std::path::PathBuf;

use nanorun::internals::files::Files;
use nanorun::internals::record::{Journal, RunResult, RunRow, read_table};

use crate::attempts::files_below;
use crate::support::{Ended, Place, any_speed};

/// The same cells under another name, and one more arm.
fn other() -> String {
    any_speed()
        .replace("name = \"tiny\"", "name = \"other\"")
        .replace("[\"linear\", \"sqrt\"]", "[\"linear\", \"sqrt\", \"cosine\"]")
        .replace("[1, 2]", "[1]")
}

/// An experiment that is finished, and another manifest with two of its runs.
fn finished() -> Place {
    let place = Place::with(&any_speed());
    place.run(&["run", "m.toml", "-q"]).expect(0);
    std::fs::write(place.path("other.toml"), other()).unwrap();
    place
}

fn results(place: &Place, dir: &str) -> Vec<PathBuf> {
    let found = files_below(&place.path(dir).join("runs"));
    let attempt = |path: &PathBuf| path.parent().unwrap().parent().unwrap().ends_with("attempt");
    found.into_keys().filter(|path| path.ends_with("result.json") && attempt(path)).collect()
}

fn reuse(place: &Place, from: &str) -> Ended {
    place.run(&["run", "other.toml", "--json", "--reuse", from, "--jobs", "1"])
}

/// The labels of the runs that say where they were taken over from.
fn taken(report: &Ended) -> Vec<String> {
    let json = report.json();
    let runs = json["runs"].as_array().unwrap();
    assert!(runs.iter().all(|run| run["finished"] == true), "{json}");
    let taken = runs.iter().filter(|run| !run["taken_over_from"].is_null());
    taken.map(|run| run["label"].as_str().unwrap().to_owned()).collect()
}

/// Hashes of the other experiment as it comes out by itself.
fn hashes(report: &Ended) -> Vec<String> {
    let json = report.json();
    json["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["result_hash"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn same_run_other_experiment() {
    let place = finished();
    let by_itself = place.run(&["run", "other.toml", "--json", "--results", "alone"]).expect(0);
    let plan = place.run(&["plan", "other.toml", "--json", "--reuse", "results"]).expect(0).json();
    let states: Vec<&str> =
        plan["runs"].as_array().unwrap().iter().map(|run| run["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["taken_over", "taken_over", "to_do"]);
    let shown = place.run(&["plan", "other.toml", "--reuse", "results/tiny"]).expect(0).stdout;
    assert!(shown.contains("taken over from results/tiny/runs/"), "{shown}");
    assert!(!place.path("results/other").exists());

    let ended = reuse(&place, "results").expect(0);
    assert_eq!(taken(&ended), ["warmdown=linear seed=1", "warmdown=sqrt seed=1"]);
    assert_eq!(hashes(&ended), hashes(&by_itself));
    assert!(
        ended.stderr.contains("warmdown=sqrt seed=1: taken over from results/tiny/runs/"),
        "{}",
        ended.stderr
    );
    // With what belongs to it, and where it is from, for good.
    let rows: Vec<RunRow> = read_table(&Files::new(), &place.path("results/other/runs.parquet")).unwrap();
    let from = |row: &RunRow| row.reason.as_ref().is_some_and(|reason| reason.contains("taken over from /"));
    assert_eq!(rows.iter().filter(|row| from(row) && row.status == "finished").count(), 2);
    for path in results(&place, "results/other") {
        let attempt = path.parent().unwrap();
        for name in ["steps.parquet", "samples.txt", "checkpoints/step_000008/model.safetensors"] {
            assert!(attempt.join(name).is_file(), "{name}");
        }
        let theirs =
            place.path("results/tiny").join(attempt.strip_prefix(place.path("results/other")).unwrap());
        if theirs.exists() {
            for name in ["steps.parquet", "samples.txt"] {
                assert_eq!(
                    std::fs::read(attempt.join(name)).unwrap(),
                    std::fs::read(theirs.join(name)).unwrap()
                );
            }
            let journal = Journal::new(Files::new(), attempt.join("journal.jsonl")).read().unwrap();
            assert!(journal.damaged.is_empty());
            let last = format!("{:?}", journal.entries.last().unwrap().event);
            assert!(last.starts_with("TakenOver"), "{last}");
        }
    }
    // It stands by itself: the other results may go.
    std::fs::remove_dir_all(place.path("results/tiny")).unwrap();
    let again = place.run(&["run", "other.toml", "--json"]).expect(0);
    assert!(again.json()["first_step_seconds"].is_null());
    assert_eq!(taken(&again).len(), 2);
    let report = place.run(&["report", "results/other"]).expect(0);
    assert!(report.stderr.contains("warmdown=linear seed=1: taken over from "), "{}", report.stderr);
    place.run(&["sample", "other.toml", "--only", "schedule.warmdown=sqrt", "--tokens", "2"]).expect(0);
    place.run(&["diff", "alone/other", "results/other"]).expect(0);
    // What somebody asks to train is trained.
    let rerun = place.run(&["run", "other.toml", "--json", "--rerun", "--reuse", "alone"]).expect(0);
    assert!(rerun.json()["first_step_seconds"].is_f64() || !cfg!(target_os = "linux"));
}

#[test]
fn what_is_damaged_partial_or_of_another_kind_is_not_taken_over() {
    let place = finished();
    let good = hashes(&reuse(&place, "results").expect(0));
    let of_first = || {
        let key = &good[0];
        let found = results(&place, "results/tiny");
        let is_first = |path: &PathBuf| std::fs::read_to_string(path).unwrap().contains(key.as_str());
        found.into_iter().find(is_first).unwrap()
    };
    let path = of_first();
    let whole = std::fs::read_to_string(&path).unwrap();
    let read = || RunResult::read(&Files::new(), &path).unwrap().unwrap();
    let result = read();
    let tries: [(&str, &dyn Fn(), &str); 4] = [
        (
            "one digit was changed",
            &|| {
                std::fs::write(&path, whole.replacen("\"eval_seconds\": ", "\"eval_seconds\": 1", 1))
                    .unwrap();
            },
            "was changed after it was written",
        ),
        ("half of it", &|| std::fs::write(&path, &whole[..whole.len() / 2]).unwrap(), "is damaged"),
        (
            "of another class",
            &|| {
                let other = RunResult { environment_class: "cpu/other".to_owned(), ..result.clone() };
                other.write(&Files::new(), &path).unwrap();
            },
            "its environment class is cpu/other",
        ),
        ("not finished", &|| std::fs::remove_file(&path).unwrap(), ""),
    ];
    for (what, spoil, told) in tries {
        spoil();
        std::fs::remove_dir_all(place.path("results/other")).unwrap();
        let plan = place.run(&["plan", "other.toml", "--reuse", "results/tiny"]).expect(0).stdout;
        assert!(plan.contains(told), "{what}: {plan}");
        let ended = reuse(&place, "results/tiny").expect(0);
        assert!(ended.stderr.contains(told), "{what}: {}", ended.stderr);
        assert_eq!(taken(&ended), ["warmdown=sqrt seed=1"], "{what}");
        assert_eq!(hashes(&ended), good, "{what}");
        std::fs::write(&path, &whole).unwrap();
    }
    // Under another definition of an evaluation it is another result.
    std::fs::remove_dir_all(place.path("results/other")).unwrap();
    let text = other().replace("tokens = 512", "tokens = 1024");
    std::fs::write(place.path("other.toml"), text).unwrap();
    assert_eq!(taken(&reuse(&place, "results").expect(0)), [""; 0]);
    std::fs::remove_dir_all(place.path("results/other")).unwrap();
    std::fs::write(place.path("other.toml"), other()).unwrap();
    // Two that contradict each other: nobody knows which is right.
    crate::attempts::copy(&place.path("results/tiny"), &place.path("second/tiny"));
    let mut evals = result.evals.clone();
    evals.last_mut().unwrap().values.values_mut().for_each(|value| value.0 += 1e-9);
    let RunResult { run_key, environment_class, numerics_version, train_hash, .. } = result.clone();
    let (losses, timings, host) = (result.step_losses.clone(), result.timings.clone(), result.host.clone());
    let forged = RunResult::new(
        run_key,
        environment_class,
        numerics_version,
        train_hash,
        losses,
        evals,
        timings,
        host,
    );
    let second = place.path("second").join(path.strip_prefix(place.path("results")).unwrap());
    forged.unwrap().write(&Files::new(), &second).unwrap();
    let arguments = ["run", "other.toml", "--json", "--reuse", "results/tiny", "--reuse", "second"];
    let ended = place.run(&arguments).expect(0);
    assert!(ended.stderr.contains("it contradicts results/tiny/runs/"), "{}", ended.stderr);
    assert_eq!((taken(&ended), hashes(&ended)), (vec!["warmdown=sqrt seed=1".to_owned()], good));
    // A place without results is said before anything is written.
    std::fs::create_dir(place.path("empty")).unwrap();
    for nowhere in ["nowhere", "empty", "m.toml"] {
        let arguments = ["run", "other.toml", "--results", "new", "--reuse", nowhere];
        let refused = place.run(&arguments).expect(2);
        assert!(refused.stderr.contains("at --reuse"), "{nowhere}: {}", refused.stderr);
        assert!(!place.path("new").exists());
    }
}

/// Weights that are damaged are not brought along; the result is.
#[test]
fn damaged_weights_stay_behind() {
    let place = finished();
    for (path, bytes) in files_below(&place.path("results/tiny/runs")) {
        if path.ends_with("model.safetensors") {
            std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        }
    }
    let ended = reuse(&place, "results").expect(0);
    assert_eq!(taken(&ended).len(), 2);
    assert!(ended.stderr.contains("its weights are not taken over: "), "{}", ended.stderr);
}

/// Killed at any moment, what was there is whole, and the same command or one without `--reuse` comes to the same.
#[test]
fn stopped_anywhere_a_takeover_leaves_whole_runs() {
    let place = finished();
    let expected = hashes(&place.run(&["run", "other.toml", "--json", "--results", "alone"]).expect(0));
    let arguments = ["run", "other.toml", "-q", "--reuse", "results/tiny", "--results", "new", "--jobs", "1"];
    let mut stopped = 0;
    for at in (0..64).step_by(3) {
        let killed = place.command(&arguments).env("WRITE_FAULT", format!("kill@{at}")).output().unwrap();
        stopped += usize::from(!killed.status.success());
        for path in results(&place, "new/other") {
            RunResult::read(&Files::new(), &path).unwrap().unwrap();
        }
        let mut after = arguments.to_vec();
        if at % 2 == 0 {
            after.retain(|argument| !["--reuse", "results/tiny"].contains(argument));
        }
        after.push("--json");
        let ended = place.run(&after).expect(0);
        assert_eq!(hashes(&ended), expected, "killed at {at}");
        std::fs::remove_dir_all(place.path("new")).unwrap();
    }
    assert!(stopped > 12, "{stopped}");
}
