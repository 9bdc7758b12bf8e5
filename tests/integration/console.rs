//! What is said beside results: `--log`, `--progress json`, `--version --json`, completions, manual pages, width.

use serde_json::Value;

use crate::support::{Place, TINY};

#[test]
fn progress_for_programs_is_json_alone() {
    let place = Place::with(TINY);
    let ended = place.run(&["run", "m.toml", "--progress", "json", "--json"]).expect(0);
    let lines: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let event = |line: &Value| line["event"].as_str().unwrap().to_owned();
    assert_eq!((event(&lines[0]), &lines[0]["format"]), ("began".to_owned(), &Value::from(1)));
    let last = lines.last().unwrap();
    assert_eq!((event(last), &last["exit_code"]), ("ended".to_owned(), &Value::from(0)));
    assert!(lines.iter().all(|line| line["at"].as_str().unwrap().ends_with('Z')));
    for kind in ["run_started", "step", "evaluated", "saved", "run_ended"] {
        assert!(lines.iter().any(|line| event(line) == kind), "no {kind} in {}", ended.stderr);
    }
    let evaluated = lines.iter().find(|line| event(line) == "evaluated").unwrap();
    assert!(
        evaluated["values"]["val_bpb"].is_f64() && evaluated["run"].is_string() && evaluated["steps"] == 8
    );
    // The last step is always told.
    assert!(lines.iter().any(|line| event(line) == "step" && line["step"] == 8 && line["loss"].is_f64()));
    // Results are where they always are.
    assert!(ended.json()["answer"].is_array());
    // An error is an event, and so is a mistake in the command line.
    for arguments in [vec!["run", "no.toml", "--progress", "json"], vec!["run", "--progress=json", "--nope"]]
    {
        let ended = place.run(&arguments).expect(2);
        let lines: Vec<Value> =
            ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(
            lines.iter().any(|line| event(line) == "error" && line["exit_code"] == 2),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn the_log_has_what_stderr_has_with_times() {
    let place = Place::with(TINY);
    let ended = place.run(&["run", "m.toml", "--log", "run.log"]).expect(0);
    let log = std::fs::read_to_string(place.path("run.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.iter().all(|line| line.get(4..5) == Some("-") && line.get(19..21) == Some("Z ")), "{log}");
    for said in ended.stderr.lines().filter(|line| !line.contains("[place]")) {
        assert!(lines.iter().any(|line| line.ends_with(said)), "{said:?} is not in\n{log}");
    }
    assert!(lines.last().unwrap().ends_with("exit code 0"));
    // Added to, and with errors, also those of the command line.
    place.run(&["plan", "no.toml", "--log", "run.log"]).expect(2);
    place.run(&["plan", "--nope", "--log", "run.log"]).expect(2);
    let longer = std::fs::read_to_string(place.path("run.log")).unwrap();
    assert!(longer.starts_with(&log) && longer.contains("error: ") && longer.contains("--nope"), "{longer}");
    let ended = place.run(&["plan", "m.toml", "--log", "no/such/run.log"]).expect(2);
    assert!(ended.stderr.contains("the log cannot be written"), "{}", ended.stderr);
    // Silence on the terminal is none in the log.
    place.run(&["plan", "m.toml", "--log", "plan.log"]).expect(0);
    assert!(std::fs::read_to_string(place.path("plan.log")).unwrap().contains("nanorun"));
}

#[test]
fn the_version_says_what_has_one() {
    let place = Place::with(TINY);
    for arguments in [["--version", "--json"], ["--json", "-V"]] {
        let json = place.run(&arguments).expect(0).json();
        assert_eq!(json["nanorun"], env!("CARGO_PKG_VERSION"));
        assert!(json["features"].is_array() && json["kernels"]["cpu"].is_string());
        assert!(json["numerics_versions"]["cpu"]["f32"].is_u64());
        for format in ["results_layout", "result", "checkpoint", "divergence", "progress", "ledger", "tries"]
        {
            assert!(json["formats"][format].is_u64(), "{format} in {json}");
        }
        let commits: Vec<_> = json["upstream"].as_array().unwrap().iter().map(|one| &one["commit"]).collect();
        assert!(
            commits.len() >= 10
                && commits.iter().any(|commit| commit.as_str().unwrap().starts_with("92d63d4"))
        );
    }
    assert!(place.run(&["--version"]).expect(0).stdout.starts_with("nanorun "));
}

#[test]
fn shells_and_manuals_know_every_command() {
    let place = Place::with(TINY);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.run(&["completions", shell]).expect(0).stdout;
        for word in ["verify", "ledger", "completions", "progress"] {
            assert!(script.contains(word), "{shell} has no {word}");
        }
    }
    let page = place.run(&["man"]).expect(0).stdout;
    assert!(page.contains(".TH nanorun 1") && page.contains("nanorun\\-run(1)"), "{page}");
    assert!(place.run(&["man", "run"]).expect(0).stdout.contains("\\-\\-no\\-share"));
    place.run(&["man", "--dir", "man1"]).expect(0);
    for name in ["nanorun.1", "nanorun-run.1", "nanorun-ledger.1"] {
        assert!(place.path("man1").join(name).is_file(), "{name}");
    }
    let ended = place.run(&["man", "rnu"]).expect(2);
    assert!(ended.stderr.contains("did you mean `run`?"), "{}", ended.stderr);
}

#[test]
fn cards_and_errors_keep_to_the_width() {
    let place = Place::with(TINY);
    let narrow = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        let output = command.env("COLUMNS", "60").output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (card, _) = narrow(&["run", "m.toml", "--quiet"]);
    let answer: Vec<&str> = card.lines().take_while(|line| !line.is_empty()).collect();
    assert!(answer.len() > 2 && answer.iter().all(|line| line.chars().count() <= 60), "{card}");
    // What is kept is not broken.
    let kept = std::fs::read_to_string(place.path("results/tiny/scorecard.txt")).unwrap();
    assert!(kept.lines().next().unwrap().len() > 60);
    let (_, error) = narrow(&["runs", "--where", "val_bbp<2"]);
    assert!(error.lines().all(|line| line.chars().count() <= 60), "{error}");
    // JSON is one line, however narrow it is, and there are no colours where nobody looks.
    let (json, _) = narrow(&["runs", "--json"]);
    assert_eq!(json.lines().count(), 1);
    assert!(!card.contains('\u{1b}') && !error.contains('\u{1b}'));
}
