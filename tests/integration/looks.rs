//! Looks: an experiment whose arms are decided after some of its seeds trains no more of them, wherever it was stopped
//! and whoever asks.

use nanorun::internals::files::Files;
use nanorun::internals::record::{RunRow, ScorecardRow, read_table};
use serde_json::Value;

use crate::support::{Place, TINY};

/// Four seeds, looked at after two. With a spread that is assumed to be next to nothing and a margin beyond everything
/// the first look decides; with one beyond everything no look does.
fn manifest(sigma: &str) -> String {
    TINY.replace(
        "margin = 0.5, confidence = 0.9 }",
        &format!("margin = 1000.0, confidence = 0.9, looks = [2], sigma = {sigma} }}"),
    )
    .replace("[1, 2]", "[1, 2, 3, 4]")
}

fn looks(place: &Place) -> Vec<Value> {
    let text = std::fs::read_to_string(place.path("results/tiny/looks.jsonl")).unwrap_or_default();
    text.lines()
        .map(|line| {
            let mut look: Value = serde_json::from_str(line).unwrap();
            look.as_object_mut().unwrap().remove("at");
            look
        })
        .collect()
}

fn statuses(place: &Place) -> Vec<(u64, String)> {
    let rows: Vec<RunRow> = read_table(&Files::new(), &place.path("results/tiny/runs.parquet")).unwrap();
    rows.into_iter().map(|row| (row.seed, row.status)).collect()
}

#[test]
fn once_every_arm_is_decided_no_more_seeds_are_begun() {
    let place = Place::with(&manifest("1e-9"));
    let planned = place.run(&["plan", "m.toml"]).expect(0).stdout;
    assert!(planned.contains("waits for the look after 2 seeds"), "{planned}");
    assert!(planned.contains("after 2 of 4 seeds, p < 0.0"), "{planned}");
    let ended = place.run(&["run", "m.toml", "--jobs", "2"]).expect(0);
    assert!(ended.stdout.starts_with("tiny: Decided after 2 of 4 seeds: "), "{}", ended.stdout);
    assert!(ended.stdout.contains("not needed") && ended.stdout.contains("1 of 2"), "{}", ended.stdout);
    let expected = |seed: u64| if seed <= 2 { "finished" } else { "not needed" };
    let found = statuses(&place);
    assert_eq!(found.len(), 8);
    assert!(found.iter().all(|(seed, status)| status == expected(*seed)), "{found:?}");
    let taken = looks(&place);
    assert_eq!(taken.len(), 1);
    assert_eq!((&taken[0]["decides"], &taken[0]["seeds"]), (&true.into(), &serde_json::json!([1, 2])));
    assert_eq!(taken[0]["not_needed"].as_array().unwrap().len(), 4);
    let rows: Vec<ScorecardRow> =
        read_table(&Files::new(), &place.path("results/tiny/scorecard.parquet")).unwrap();
    let look = rows.iter().find(|row| row.verdict == "look").unwrap();
    assert_eq!((look.look, look.looks, look.look_seeds, look.pairs), (Some(1), Some(2), Some(2), 2));

    // Whoever asks later is told the same, and nothing more is trained.
    let again = place.run(&["run", "m.toml", "--json"]).expect(0).json();
    assert_eq!((&again["looks"]["decided"], &again["interrupted"]), (&true.into(), &false.into()));
    let needless = again["runs"].as_array().unwrap().iter().filter(|run| run["not_needed"] == true).count();
    assert_eq!((needless, looks(&place).len()), (4, 1));
    assert_eq!(statuses(&place), found);
    let planned = place.run(&["plan", "m.toml"]).expect(0).stdout;
    assert_eq!(planned.matches("not needed: decided after 2 seeds").count(), 4, "{planned}");
    let resumed = place.run(&["resume", "results/tiny"]).expect(2);
    assert!(resumed.stderr.contains("quality was decided after 2 of 4 seeds"), "{}", resumed.stderr);
    let report = place.run(&["report", "m.toml"]).expect(0).stdout;
    assert!(report.starts_with("tiny: Decided after 2 of 4 seeds: "), "{report}");
    place.run(&["clean", "results/tiny", "--yes"]).expect(0);
    assert_eq!(looks(&place).len(), 1);
    let page = std::fs::read_to_string(place.path("results/tiny/report.html")).unwrap();
    assert!(page.contains("4 of 8, 4 not needed") && page.contains("looks-table"));

    // The gate counts what a look made needless as what it should be, and nothing else that is not there.
    place.run(&["verify", "m.toml", "--baseline", "b.toml", "--bless", "--read"]).expect(0);
    let verified = place.run(&["verify", "m.toml", "--baseline", "b.toml", "--read"]).expect(0).stdout;
    assert!(verified.contains("8 of 8 runs as in b.toml"), "{verified}");
    place.run(&["diff", "results/tiny", "results/tiny"]).expect(0);
    std::fs::remove_file(place.path("results/tiny/looks.jsonl")).unwrap();
    place.run(&["verify", "m.toml", "--baseline", "b.toml", "--read"]).expect(3);
    // What a look decides is found again from its results.
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(looks(&place), taken);

    // Seeds that are registered afterwards make other looks, and that is told.
    let text = std::fs::read_to_string(place.path("m.toml")).unwrap();
    std::fs::write(place.path("m.toml"), text.replace("[1, 2, 3, 4]", "[1, 2, 3, 4, 5]")).unwrap();
    let more = place.run(&["run", "m.toml"]).expect(0);
    assert!(more.stderr.contains("2 looks at 4 seeds were registered before"), "{}", more.stderr);
    assert_eq!(looks(&place).len(), 2);
}

#[test]
fn looks_that_decide_nothing_go_on_to_the_last_seed() {
    let place = Place::with(&manifest("1e9"));
    let ended = place.run(&["run", "m.toml"]).expect(0);
    assert!(ended.stdout.contains("is undecided"), "{}", ended.stdout);
    assert!(statuses(&place).iter().all(|(_, status)| status == "finished"));
    let taken = looks(&place);
    let brief: Vec<_> = taken.iter().map(|look| (look["look"].as_u64(), look["decides"].as_bool())).collect();
    assert_eq!(brief, [(Some(1), Some(false)), (Some(2), Some(false))]);

    // Seed by seed, in any order that looks leave: the same looks.
    let other = Place::with(&manifest("1e9"));
    let beyond = other.run(&["run", "m.toml", "--only", "run.seed=3"]).expect(0);
    assert!(beyond.stderr.contains("2 runs wait for the look after 2 seeds"), "{}", beyond.stderr);
    assert!(beyond.stdout.starts_with("tiny: Interim, 0 of 2 runs"), "{}", beyond.stdout);
    assert_eq!(looks(&other), [] as [Value; 0]);
    for only in ["run.seed=2", "schedule.warmdown=sqrt", "run.seed=1"] {
        other.run(&["run", "m.toml", "-q", "--only", only]).expect(0);
    }
    let interim = other.run(&["report", "m.toml"]).expect(0).stdout;
    assert!(interim.contains("looked at after 2 of 4 seeds, the next look is after 4"), "{interim}");
    assert_eq!(looks(&other), taken[..1]);
    other.run(&["resume", "results/tiny", "-q", "--only", "run.seed=3"]).expect(0);
    other.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(looks(&other), taken);
}

/// Stopped wherever, it comes to the same looks, and 130 is of an experiment that has something left alone.
#[cfg(unix)]
#[test]
fn stopped_and_carried_on_it_decides_the_same() {
    let whole = Place::with(&manifest("1e-9"));
    whole.run(&["run", "m.toml", "-q"]).expect(0);
    let place = Place::with(&manifest("1e-9"));
    for stop_after in [1, 30, 200, 400, 800] {
        let mut child = place.command(&["run", "m.toml", "-q", "--jobs", "1"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(stop_after));
        // SAFETY: sends a signal to a child that was not waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        child.wait().unwrap();
    }
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(looks(&place), looks(&whole));
    assert_eq!(statuses(&place), statuses(&whole));
}

#[test]
fn looks_that_cannot_be_are_refused() {
    let mut all = String::new();
    for looks in ["[3, 2]", "[2, 2]", "[1, 3]", "[2, 9]", "[]", "3"] {
        let place = Place::with(&manifest("false").replace("looks = [2]", &format!("looks = {looks}")));
        let ended = place.run(&["run", "m.toml"]).expect(2);
        all.extend(["== ", looks, "\n", &ended.stderr, "\n"]);
        assert!(!place.path("results").exists());
    }
    let without = manifest("1.0").replace("control = { \"schedule.warmdown\" = \"linear\" }\n", "");
    all.extend(["== no control\n", &Place::with(&without).run(&["plan", "m.toml"]).expect(2).stderr, "\n"]);
    let lacking = format!(
        "{}[[matrix.exclude]]\n\"schedule.warmdown\" = \"sqrt\"\n\"run.seed\" = 4\n",
        manifest("1.0")
    );
    all.extend([
        "== a seed that an arm lacks\n",
        &Place::with(&lacking).run(&["plan", "m.toml"]).expect(2).stderr,
    ]);
    insta::assert_snapshot!(all);
}

/// A try is asked once, over all of its seeds; the experiment that it is tried in keeps its own looks and card.
#[test]
fn a_try_takes_no_looks_and_changes_none() {
    let place = Place::with(&manifest("1e-9"));
    let first = place.run(&["run", "m.toml", "-q"]).expect(0);
    assert!(first.stdout.starts_with("tiny: Decided after 2 of 4 seeds: "), "{}", first.stdout);
    let arguments = [
        "try",
        "m.toml",
        "--set",
        "optimizer.matrix_lr=0.03",
        "--only",
        "schedule.warmdown=linear",
        "--json",
        "-q",
    ];
    let tried = place.run(&arguments).expect(0).json();
    assert_eq!(tried["seeds"], serde_json::json!([1, 2, 3, 4]), "{tried}");
    assert_eq!(
        (&tried["cost"]["finished_runs"], &tried["verdict"]["pairs"]),
        (&4.into(), &4.into()),
        "{tried}"
    );
    // The control's last seeds were trained for it.
    let seeds: Vec<u64> = statuses(&place)
        .into_iter()
        .filter(|(_, status)| status == "finished")
        .map(|(seed, _)| seed)
        .collect();
    assert_eq!(seeds, [1, 2, 3, 4, 1, 2]);
    assert_eq!(looks(&place).len(), 1);
    let card = std::fs::read_to_string(place.path("results/tiny/scorecard.txt")).unwrap();
    assert!(card.starts_with("tiny: Decided after 2 of 4 seeds: "), "{card}");
    let again = place.run(&["run", "m.toml", "-q"]).expect(0).stdout;
    assert!(again.starts_with("tiny: Decided after 2 of 4 seeds: "), "{again}");
}
