//! Results that changed on disk: noticed by every command that reads them, named, and a way out that works.

use std::path::PathBuf;

use crate::support::{Ended, Place, TINY};

/// The file's text with one digit, `offset` bytes behind the first `mark`, changed.
fn flipped(text: &str, mark: &str, offset: usize) -> String {
    let at = text.find(mark).unwrap() + offset;
    let digit = if &text[at..=at] == "0" { "1" } else { "0" };
    let mut text = text.to_owned();
    text.replace_range(at..=at, digit);
    text
}

/// What a command says, without what differs from machine to machine.
fn told(ended: &Ended, hidden: &[&str]) -> String {
    let hide = |text: String, name: &&str| text.replace(*name, "[..]");
    hidden.iter().fold(ended.stderr.clone(), hide)
}

fn first_result(place: &Place) -> PathBuf {
    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    let key = &plan["runs"][0]["key"]["run"].as_str().unwrap()[..12];
    place.path("results/tiny/runs").join(key).join("attempt/1/result.json")
}

#[test]
fn a_changed_result_is_noticed() {
    let place = Place::with(TINY);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    place.run(&["run", "m.toml", "-q", "--results", "other"]).expect(0);
    let hashes = place.hashes();
    let result = first_result(&place);
    let good = std::fs::read_to_string(&result).unwrap();
    let key = result.ancestors().nth(3).unwrap().file_name().unwrap().to_str().unwrap();
    let commands: [&[&str]; 5] = [
        &["plan", "m.toml"],
        &["report", "m.toml"],
        &["run", "m.toml"],
        &["diff", "results/tiny", "other/tiny"],
        &["verify", "m.toml", "--read", "--baseline", "b.toml", "--bless"],
    ];
    // A loss, a time, the file's own checksum.
    for (mark, offset) in [("step_losses", 22), ("eval_seconds", 18), ("\"sha256\"", 15)] {
        std::fs::write(&result, flipped(&good, mark, offset)).unwrap();
        for command in commands {
            let ended = place.run(command).expect(2);
            assert!(
                ended.stderr.contains("result.json` was changed after it was written"),
                "{}",
                ended.stderr
            );
        }
    }
    std::fs::write(&result, &good[..good.find("\"evals\"").unwrap()]).unwrap();
    let ended = place.run(&["report", "m.toml"]).expect(2);
    insta::assert_snapshot!("result_cut_short", told(&ended, &[key]));
    // The advice: without the file, the run is taken up from its last checkpoint.
    std::fs::remove_file(&result).unwrap();
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(place.hashes(), hashes);
    // Running again needs no whole result.
    std::fs::write(&result, "").unwrap();
    place.run(&["run", "m.toml", "-q", "--rerun"]).expect(0);
    assert_eq!(place.hashes(), hashes);
}

#[test]
fn a_changed_table_is_noticed() {
    let place = Place::with(TINY);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    place.run(&["run", "m.toml", "-q", "--results", "other"]).expect(0);
    // The experiment's own tables are made from the runs', which is what is compared.
    let runs = std::fs::read_dir(place.path("results/tiny/runs")).unwrap();
    let run = runs.map(|run| run.unwrap().path()).min().unwrap();
    let table = run.join("attempt/1/steps.parquet");
    let good = std::fs::read(&table).unwrap();
    let diff = ["diff", "results/tiny", "other/tiny"];
    place.run(&diff).expect(0);
    assert_eq!(place.run(&["diff", "results/tiny", "other/tiny", "--json"]).expect(0).json()["passed"], true);
    for at in [0, 40, good.len() / 2, good.len() - 6, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(&table, bad).unwrap();
        let ended = place.run(&diff).expect(2);
        assert!(ended.stderr.contains("steps.parquet` cannot be read"), "{at}: {}", ended.stderr);
    }
    std::fs::write(&table, &good[..good.len() / 2]).unwrap();
    let ended = place.run(&diff).expect(2);
    insta::assert_snapshot!("table_cut_short", ended.stderr);
    std::fs::remove_file(&table).unwrap();
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(std::fs::read(&table).unwrap(), good);
    place.run(&diff).expect(0);
}
