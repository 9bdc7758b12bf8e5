//! `nanorun quickstart`: a manifest of the user's own, and a run of it.

use std::fs;

use crate::support::{Place, TINY, Told};

/// The quickstart in a second.
const SMALL: [&str; 12] = [
    "--only",
    "run.seed=1",
    "--set",
    "budget.steps=2",
    "--set",
    "schedule.warmup_steps=1",
    "--set",
    "model.depth=1",
    "--set",
    "data.tokenizer={ vocab_size = 300 }",
    "--set",
    "eval.tokens=2048",
];

#[test]
fn it_leaves_the_manifest_it_ran() {
    let place = Place::with(TINY);
    let manifest = place.path("quickstart.toml");
    let command = [&["quickstart"][..], &SMALL].concat();
    let first = place.run(&command).expect(0);
    assert!(first.stderr.contains("wrote quickstart.toml"), "{}", first.stderr);
    assert_eq!(fs::read(&manifest).unwrap(), fs::read("experiments/quickstart.toml").unwrap());
    // Again, by either name, it is the same experiment: nothing is written and nothing trained.
    for command in [command, [&["quickstart.toml"][..], &SMALL].concat()] {
        let again = place.run(&command).expect(0);
        assert!(!again.stderr.contains("wrote"), "{}", again.stderr);
        assert_eq!(again.stdout, first.stdout);
    }
}

#[test]
fn it_takes_nothing_from_what_is_there() {
    let place = Place::with(TINY);
    let manifest = place.path("quickstart.toml");
    let mut told = Told::default();
    fs::write(&manifest, "name = \"mine\"\n").unwrap();
    told.add("another manifest", &place.run(&["quickstart"]).expect(2).stderr);
    assert_eq!(fs::read_to_string(&manifest).unwrap(), "name = \"mine\"\n");
    fs::remove_file(&manifest).unwrap();
    fs::create_dir(&manifest).unwrap();
    told.add("a directory of that name", &place.run(&["quickstart"]).expect(2).stderr);
    insta::assert_snapshot!("quickstart_refused", told.text);
}
