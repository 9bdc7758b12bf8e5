//! What `--help` says.

use crate::support::{Place, TINY};

#[test]
fn every_command_explains_itself() {
    let place = Place::with(TINY);
    insta::assert_snapshot!("help", place.run(&["--help"]).expect(0).stdout);
    for command in [
        "quickstart",
        "run",
        "plan",
        "work",
        "submit",
        "status",
        "cancel",
        "resume",
        "verify",
        "diff",
        "report",
        "eval",
        "sample",
        "export",
        "import",
        "parity",
        "bench",
        "lock",
        "clean",
        "doctor",
        "cache",
        "fields",
        "runs",
        "show",
        "compare",
        "watch",
        "try",
        "ledger",
        "new",
        "completions",
        "man",
    ] {
        let help = place.run(&[command, "--help"]).expect(0).stdout;
        assert!(help.contains("Examples:"), "{command} has no example");
        insta::assert_snapshot!(format!("help_{command}"), help);
    }
    for (command, part) in [
        ("data", "get"),
        ("data", "check"),
        ("tokenizer", "train"),
        ("tokenizer", "encode"),
        ("tokenizer", "decode"),
        ("tokenizer", "compare"),
        ("tokenizer", "import"),
        ("tokenizer", "export"),
    ] {
        let help = place.run(&[command, part, "--help"]).expect(0).stdout;
        assert!(help.contains("Examples:"), "{command} {part} has no example");
        insta::assert_snapshot!(format!("help_{command}_{part}"), help);
    }
}

/// What every command takes may stand before it too, whether the command is said or not.
#[test]
fn options_of_all_commands_stand_anywhere() {
    let place = Place::with(TINY);
    for arguments in [
        vec!["--progress", "off", "plan", "m.toml", "--json"],
        vec!["--log=x.log", "--progress=off", "plan", "m.toml", "--json"],
        vec!["plan", "m.toml", "--json", "--progress", "off"],
        vec!["--progress", "off", "m.toml", "--json"],
    ] {
        let ended = place.run(&arguments).expect(0);
        assert_eq!(ended.json()["runs"].as_array().unwrap().len(), 4, "{arguments:?}");
        assert_eq!(ended.stderr, "", "{arguments:?}");
    }
}

#[test]
fn a_misspelt_command_is_corrected() {
    let ended = Place::with(TINY).run(&["pln", "m.toml"]).expect(2);
    insta::assert_snapshot!("misspelt_command", ended.stderr);
}

#[test]
fn a_wrong_option_is_bad_input() {
    let ended = Place::with(TINY).run(&["run", "m.toml", "--thread", "2"]).expect(2);
    assert!(ended.stderr.contains("--threads"), "{}", ended.stderr);
}
