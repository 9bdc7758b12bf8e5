//! Disks that fail, directories that cannot be written, two runners at once, locks of the dead, clocks that go back.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nanorun::internals::files::{Files, now};
use nanorun::internals::record::{RunRow, read_table};

use crate::reproduce::exact_tables;
use crate::support::{Place, TINY};

/// One arm, two seeds, three steps, on short documents: a checkpoint holds the next thousand of them.
fn short() -> String {
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/data/names.txt");
    let data =
        format!("shards = {:?}\ndocument = \"line\"\ntokenizer = \"char\"", names.display().to_string());
    TINY.replace("tokenizer = { vocab_size = 300 }", &data)
        .replace("steps = 8", "steps = 3")
        .replace("warmup_steps = 2", "warmup_steps = 1")
        .replace("[\"linear\", \"sqrt\"]", "[\"linear\"]")
        .replace("every = 4", "every = 2")
}

/// One run, long enough to be met while it trains.
fn long() -> String {
    short().replace("steps = 3", "steps = 3000").replace("every = 2", "every = 0").replace("[1, 2]", "[1]")
}

fn results_of(place: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let runs = std::fs::read_dir(place.join("tiny/runs")).into_iter().flatten();
    let results =
        runs.map(|run| run.unwrap().path().join("attempt/1/result.json")).filter(|path| path.exists());
    results.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// A start whose every process writes the same steps in the same order.
fn arguments(results: &str) -> [&str; 9] {
    ["run", "m.toml", "-q", "--jobs", "1", "--threads", "2", "--results", results]
}

/// Waits until `there` is true; a minute at most.
#[track_caller]
fn wait_for(what: &str, there: impl Fn() -> bool) {
    let waited = now();
    while !there() {
        assert!(waited.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_step_of_writing_may_fail_and_nothing_finished_is_lost() {
    let place = Place::with(&short());
    place.run(&arguments("whole")).expect(0);
    let whole = exact_tables(&place.path("whole/tiny"));
    let kinds = ["full", "io", "short", "kill", "readonly"];
    let (mut kept, mut codes) = (0, BTreeMap::new());
    // Every third: the kinds of fault take turns, and every step of a run itself is tested in `src/run/tests`.
    for at in (0..).step_by(3) {
        let kind = kinds[at % kinds.len()];
        let results = format!("at_{at}");
        let fault = format!("{kind}@{at}");
        let failed = place.command(&arguments(&results)).env("WRITE_FAULT", &fault).output().unwrap();
        if failed.status.success() {
            // What only makes room may be refused without harm: it stays for now.
            if kind == "readonly" {
                assert_eq!(exact_tables(&place.path(&results).join("tiny")), whole, "{fault}");
                continue;
            }
            assert!(at > 150, "{at} steps");
            break;
        }
        let told = String::from_utf8_lossy(&failed.stderr);
        let code = failed.status.code();
        match kind {
            "kill" => assert_eq!(code, None, "{fault}: {told}"),
            // Before a run begins a directory that cannot be made is bad input; later the run fails.
            _ => assert!(matches!(code, Some(2 | 3)), "{fault}: {code:?} {told}"),
        }
        *codes.entry((kind, code)).or_insert(0) += 1;
        if kind != "kill" {
            let reason = match kind {
                "full" | "short" => "no space left on the device",
                "readonly" => "the file system is read-only",
                _ => "injected fault",
            };
            assert!(told.contains(reason) && told.contains(&results), "{fault}: {told}");
        }
        let before = results_of(&place.path(&results));
        place.run(&arguments(&results)).expect(0);
        let after = results_of(&place.path(&results));
        for (path, result) in &before {
            assert_eq!(&after[path], result, "{fault}: a finished run was done again");
        }
        kept += before.len();
        assert_eq!(exact_tables(&place.path(&results).join("tiny")), whole, "{fault}");
        std::fs::remove_dir_all(place.path(&results)).unwrap();
    }
    assert!(kept > 10, "{kept} {codes:?}");
    for kind in ["full", "io", "short"] {
        assert!(codes[&(kind, Some(3))] > 6, "{codes:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_results_directory_that_cannot_be_written_is_bad_input() {
    let place = Place::with(&short());
    // Nobody makes directories there, not even root.
    let ended = place.run(&["run", "m.toml", "-q", "--results", "/proc/self/nowhere"]).expect(2);
    assert!(ended.stderr.contains("/proc/self/nowhere"), "{}", ended.stderr);
    std::fs::write(place.path("file"), "").unwrap();
    let ended = place.run(&["run", "m.toml", "-q", "--results", "file"]).expect(2);
    assert!(ended.stderr.contains("a file stands where a directory is needed"), "{}", ended.stderr);
}

#[cfg(unix)]
#[test]
fn the_second_runner_waits_and_trains_nothing_again() {
    let place = Place::with(&long());
    let spawn = |arguments: &[&str]| {
        let mut command = place.command(&[&["run", "m.toml"], arguments].concat());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let first = spawn(&["--threads", "1"]);
    let runs = place.path("results/tiny/runs");
    wait_for("the first runner's start", || runs.exists());
    let second = spawn(&["--threads", "1"]);
    let mut third = spawn(&["--threads", "1"]);
    let mut lines = std::io::BufReader::new(third.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(": trained by process ")), "the third runner did not wait");
    let asked = std::process::Command::new("kill").args(["-INT", &third.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let first_id = first.id();
    let [first, second, third] = [first, second, third].map(|child| child.wait_with_output().unwrap());
    let told = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(first.status.code(), Some(0), "{}", told(&first));
    assert_eq!(second.status.code(), Some(0), "{}", told(&second));
    assert!(told(&second).contains(&format!(": trained by process {first_id} on ")), "{}", told(&second));
    assert_eq!(third.status.code(), Some(130), "{}", told(&third));
    let [run] = &std::fs::read_dir(&runs).unwrap().collect::<Vec<_>>()[..] else { panic!("one run") };
    let journal =
        std::fs::read_to_string(run.as_ref().unwrap().path().join("attempt/1/journal.jsonl")).unwrap();
    for event in ["started", "finished"] {
        let count = journal.lines().filter(|line| line.contains(&format!("\"event\":\"{event}\""))).count();
        assert_eq!(count, 1, "{journal}");
    }
}

#[cfg(unix)]
#[test]
fn the_lock_of_a_killed_runner_locks_nobody_out() {
    let place = Place::with(&long());
    let mut first = place.command(&["run", "m.toml", "-q"]).spawn().unwrap();
    let runs = place.path("results/tiny/runs");
    wait_for("the first runner's start", || runs.exists());
    first.kill().unwrap();
    first.wait().unwrap();
    let text = std::fs::read_to_string(place.path("m.toml")).unwrap();
    let steps = text.lines().find(|line| line.starts_with("steps = ")).unwrap();
    std::fs::write(place.path("m.toml"), text.replace(steps, "steps = 3")).unwrap();
    let second = place.run(&["run", "m.toml"]).expect(0);
    assert!(!second.stderr.contains("waiting") && !second.stderr.contains("trained by"), "{}", second.stderr);
}

#[test]
fn a_clock_that_went_back_harms_nothing() {
    let place = Place::with(&short());
    place.run(&["run", "m.toml", "-q", "--results", "whole"]).expect(0);
    // Killed in the second run; all of it happened in the year 2099.
    let journals = || -> Vec<PathBuf> {
        let runs = std::fs::read_dir(place.path("results/tiny/runs")).into_iter().flatten();
        runs.map(|run| run.unwrap().path().join("attempt/1/journal.jsonl"))
            .filter(|path| path.exists())
            .collect()
    };
    for at in (100..).step_by(10) {
        let mut command = place.command(&arguments("results"));
        let killed = command.env("WRITE_FAULT", format!("kill@{at}")).output().unwrap();
        assert_eq!(killed.status.code(), None, "no kill was in the second run");
        if journals().len() == 2 {
            break;
        }
        std::fs::remove_dir_all(place.path("results")).unwrap();
    }
    let mut aged = 0;
    for path in journals() {
        let text = std::fs::read_to_string(&path).unwrap();
        let now = &text[text.find("\"at\":\"").unwrap() + 6..][..4];
        let later = text.replace(&format!("\"at\":\"{now}"), "\"at\":\"2099");
        aged += usize::from(later != text);
        std::fs::write(&path, later).unwrap();
    }
    assert_eq!(aged, 2);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(exact_tables(&place.path("results/tiny")), exact_tables(&place.path("whole/tiny")));
    place.run(&["diff", "whole/tiny", "results/tiny"]).expect(0);
    place.run(&["report", "m.toml"]).expect(0);
    place.run(&["plan", "m.toml"]).expect(0);
    let rows: Vec<RunRow> = read_table(&Files::new(), &place.path("results/tiny/runs.parquet")).unwrap();
    assert!(rows.iter().any(|row| row.started > row.finished), "the test moved no clock");
    for row in rows {
        let seconds = [row.train_seconds, row.eval_seconds, row.checkpoint_seconds];
        assert!(
            seconds.iter().all(|&s| s >= 0.0) && row.tokens_per_second.is_none_or(|t| t > 0.0),
            "{row:?}"
        );
    }
}
