//! One grammar for naming a run, and results that are read and carried on from anywhere, without manifest and data.

use std::path::Path;

use crate::support::{Ended, Place, TINY};

/// Two arms on shards that can be taken away, named by a relative path.
fn with_shards() -> Place {
    let place = Place::with(
        &TINY
            .replace("[data]", "[data]\nshards = \"names.txt\"\ndocument = \"line\"")
            .replace("tokenizer = { vocab_size = 300 }", "tokenizer = \"char\""),
    );
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/data/names.txt");
    std::fs::copy(names, place.path("names.txt")).unwrap();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    place
}

/// A command carried out in another directory.
fn elsewhere(place: &Place, arguments: &[&str]) -> Ended {
    let output = place.command(arguments).current_dir(place.path("elsewhere")).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn what_needs_the_data() {
    let place = with_shards();
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let shown = place.run(&["report", "m.toml"]).expect(0).stdout;
    let blessed = ["verify", "m.toml", "--read", "--baseline", "b.toml"];
    place.run(&[&blessed[..], &["--bless"]].concat()).expect(0);
    std::fs::remove_file(place.path("names.txt")).unwrap();
    for name in ["m.toml", "results/tiny", "tiny"] {
        assert_eq!(place.run(&["report", name]).expect(0).stdout, shown, "{name}");
    }
    place.run(&blessed).expect(0);
    place.run(&["diff", "results/tiny", "m.toml"]).expect(0);
    // Neither the manifest nor the working directory of then.
    let text = std::fs::read_to_string(place.path("m.toml")).unwrap();
    std::fs::remove_file(place.path("m.toml")).unwrap();
    assert_eq!(elsewhere(&place, &["report", "../results/tiny"]).expect(0).stdout, shown);
    let read = ["verify", "../results/tiny", "--read", "--baseline", "../b.toml", "--junit", "gate.xml"];
    elsewhere(&place, &read).expect(0);
    assert!(place.path("elsewhere/gate.xml").exists());
    elsewhere(&place, &["diff", "../results/tiny", "../results/tiny"]).expect(0);
    // What the results know of their data is no answer for others.
    std::fs::write(place.path("m.toml"), text.replace("names.txt", "other.txt")).unwrap();
    std::fs::write(place.path("other.txt"), "one\ntwo\nthree\nfour\n".repeat(200)).unwrap();
    let other = place.run(&["report", "m.toml", "--json"]).expect(0).json();
    assert!(other["runs"].as_array().unwrap().iter().all(|run| run["result_hash"].is_null()), "{other}");
    // What trains or encodes needs them, and says so.
    assert!(elsewhere(&place, &["sample", "../results/tiny"]).expect(2).stderr.contains("names.txt"));
    std::fs::write(place.path("names.txt"), "other\nnames\nof\nnobody\n".repeat(200)).unwrap();
    let other = elsewhere(&place, &["sample", "../results/tiny"]).expect(2).stderr;
    assert!(other.contains("are not those that this run was trained with"), "{other}");
}

#[test]
fn started_elsewhere() {
    let place = with_shards();
    place.run(&["run", "m.toml", "-q", "--results", "whole"]).expect(0);
    let whole = place.run(&["report", "whole/tiny", "--json"]).expect(0).json();
    let arguments = ["run", "m.toml", "-q", "--jobs", "1"];
    let killed = place.command(&arguments).env("WRITE_FAULT", "kill@150").output().unwrap();
    assert!(!killed.status.success());
    std::fs::remove_file(place.path("m.toml")).unwrap();
    elsewhere(&place, &["resume", "../results/tiny", "-q"]).expect(0);
    let resumed = elsewhere(&place, &["report", "../results/tiny", "--json"]).expect(0).json();
    let hashes = |report: &serde_json::Value| -> Vec<serde_json::Value> {
        report["runs"].as_array().unwrap().iter().map(|run| run["result_hash"].clone()).collect()
    };
    assert_eq!(hashes(&resumed), hashes(&whole));
    // A copy of the results, where nothing else is.
    std::fs::remove_dir_all(place.path("whole")).unwrap();
    std::fs::rename(place.path("results"), place.path("elsewhere/moved")).unwrap();
    let moved = elsewhere(&place, &["report", "moved/tiny", "--json"]).expect(0).json();
    assert_eq!(hashes(&moved), hashes(&whole));
}

#[test]
fn a_run_is_named_by_the_first_digits_of_its_key() {
    let place = with_shards();
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    let key = |at: usize| plan["runs"][at]["key"]["run"].as_str().unwrap()[..12].to_owned();
    let one = format!("results/tiny/{}", &key(2)[..6]);
    let report = place.run(&["report", &one, "--json"]).expect(0).json();
    assert_eq!(report["runs"].as_array().unwrap().len(), 1);
    assert_eq!(report["runs"][0]["label"], "warmdown=sqrt seed=1");
    let sample =
        |name: &str| place.run(&["sample", name, "--tokens", "8", "--seed", "3", "-q"]).expect(0).stdout;
    let drawn = sample(&one);
    assert_eq!(sample(&format!("tiny/{}", key(2))), drawn);
    let run = format!("results/tiny/runs/{}", key(2));
    assert_eq!(sample(&run), drawn);
    assert_eq!(sample(&format!("{run}/attempt/1/checkpoints/step_000008")), drawn);
    let by_option = ["sample", "m.toml", "--run", &key(2), "--tokens", "8", "--seed", "3", "-q"];
    assert_eq!(place.run(&by_option).expect(0).stdout, drawn);
    // Two runs of one experiment.
    place.run(&["diff", &one, &one]).expect(0);
    let other = format!("results/tiny/{}", key(0));
    let diff = place.run(&["diff", &other, &one]).expect(4);
    assert!(diff.stdout.contains("lr_multiplier"), "{}", diff.stdout);
    let unknown = place.run(&["report", "results/tiny/zz"]).expect(2);
    assert!(unknown.stderr.contains("no results directory and no run"), "{}", unknown.stderr);
    let unknown = place.run(&["sample", "results/tiny/0000000"]).expect(2);
    assert!(unknown.stderr.contains("no run's key begins with"), "{}", unknown.stderr);
    let over = place.run(&["report", "results/tiny", "--set", "run.seed=2"]).expect(2);
    assert!(over.stderr.contains("results have the profile and the settings"), "{}", over.stderr);
}

/// Layout 1 has no manifest of its own and knows nothing of the data but what its runs' manifests say.
#[test]
fn results_of_layout_1_are_read_without_their_data() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layout_1");
    let place = Place::with(&std::fs::read_to_string(fixture.join("m.toml")).unwrap());
    let results = place.path("results/old");
    crate::attempts::copy(&fixture.join("old"), &results);
    for name in ["results/old", "m.toml"] {
        let report = place.run(&["report", name, "--json"]).expect(0).json();
        assert_eq!(report["runs"][0]["result_hash"].as_str().unwrap()[..12], *"3645208a14b1", "{name}");
    }
}
