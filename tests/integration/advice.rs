//! The row "advice in a circle": what a message advises is carried out, and the message does not come back.

use std::path::PathBuf;

use crate::attempts::files_below;
use crate::support::{Place, TINY, any_speed};

/// One situation: what leads there, the command that is refused or tells of it, and what its message advises.
struct Case {
    name: &'static str,
    manifest: String,
    before: &'static dyn Fn(&Place),
    command: &'static [&'static str],
    /// Part of the message.
    message: &'static str,
    /// Part of the advice.
    advice: &'static str,
    /// Does what the advice says, up to the command that is then tried again.
    follow: &'static dyn Fn(&Place),
    /// The command as the advice has it.
    then: &'static [&'static str],
}

fn small() -> String {
    TINY.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]").replace("[1, 2]", "[1]")
}

fn run(place: &Place, arguments: &[&str]) {
    place.run(arguments).expect(0);
}

fn trained(place: &Place) {
    run(place, &["run", "m.toml", "-q"]);
}

fn nothing(_: &Place) {}

/// The one file of this name in the results.
fn file(place: &Place, ends: &str) -> PathBuf {
    let files = files_below(&place.path("results"));
    files.into_keys().find(|path| path.ends_with(ends)).unwrap_or_else(|| panic!("no {ends}"))
}

/// The weights of every checkpoint that is whole.
fn weights(place: &Place) -> Vec<PathBuf> {
    let of_step = |path: &PathBuf| {
        let dir = path.parent().and_then(|dir| dir.file_name()).unwrap_or_default();
        path.ends_with("model.safetensors") && dir.to_string_lossy().starts_with("step_")
    };
    files_below(&place.path("results")).into_keys().filter(of_step).collect()
}

fn halve(place: &Place, ends: &str) {
    let path = file(place, ends);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
}

fn remove(place: &Place, ends: &str) {
    std::fs::remove_file(file(place, ends)).unwrap();
}

fn edit(place: &Place, from: &str, to: &str) {
    let text = std::fs::read_to_string(place.path("m.toml")).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(place.path("m.toml"), text.replace(from, to)).unwrap();
}

const RESULT: &str = "attempt/1/result.json";

fn cases() -> Vec<Case> {
    let case = |name, message, advice| Case {
        name,
        manifest: small(),
        before: &nothing,
        command: &["run", "m.toml"],
        message,
        advice,
        follow: &nothing,
        then: &[],
    };
    vec![
        Case {
            before: &|place| {
                trained(place);
                halve(place, RESULT);
            },
            follow: &|place| remove(place, RESULT),
            ..case("a damaged result, removed", "is damaged", "remove that file and start again")
        },
        Case {
            before: &|place| {
                trained(place);
                halve(place, RESULT);
            },
            command: &["plan", "m.toml"],
            // The plan says so in the run's state.
            follow: &|place| run(place, &["run", "m.toml", "-q", "--rerun"]),
            ..case("a damaged result, trained again", "is damaged", "--rerun trains it again")
        },
        Case {
            before: &|place| {
                trained(place);
                std::fs::write(place.path("results/tiny/plan.toml"), "runs = 3\n").unwrap();
            },
            command: &["report", "results/tiny"],
            follow: &|place| {
                std::fs::remove_file(place.path("results/tiny/plan.toml")).unwrap();
                trained(place);
            },
            ..case("a damaged plan", "plan.toml` is damaged", "remove that file and start again")
        },
        Case {
            before: &|place| {
                trained(place);
                halve(place, "attempt/1/steps.parquet");
            },
            command: &["diff", "results/tiny", "results/tiny"],
            follow: &|place| {
                remove(place, "attempt/1/steps.parquet");
                trained(place);
            },
            ..case("a damaged table", "steps.parquet", "the next start of the experiment makes it again")
        },
        Case {
            manifest: small() + "\n[checkpoint]\nfinal = \"none\"\n",
            before: &trained,
            command: &["sample", "m.toml", "--tokens", "2"],
            follow: &|place| {
                run(place, &["run", "m.toml", "-q", "--rerun", "--set", "checkpoint.final=weights"]);
            },
            ..case(
                "weights that were let go of",
                "no weights of this experiment's runs were kept",
                "nanorun run m.toml --rerun --set checkpoint.final=weights",
            )
        },
        Case {
            command: &["sample", "m.toml", "--tokens", "2", "--set", "budget.steps=4"],
            follow: &|place| run(place, &["run", "m.toml", "-q", "--set", "budget.steps=4"]),
            ..case(
                "no weights yet",
                "no run of this experiment has weights yet",
                "train it first: nanorun run m.toml --set 'budget.steps=4'",
            )
        },
        Case {
            before: &|place| {
                trained(place);
                halve(place, "model.safetensors");
            },
            command: &["sample", "m.toml", "--tokens", "2"],
            follow: &|place| {
                run(place, &["run", "m.toml", "-q", "--rerun", "--set", "checkpoint.final=weights"]);
            },
            ..case("damaged weights of a finished run", "model.safetensors", "--rerun")
        },
        Case {
            before: &|place| {
                trained(place);
                edit(place, "steps = 8", "steps = 6");
                std::fs::copy(place.path("m.toml"), place.path("results/tiny/manifest.toml")).unwrap();
            },
            command: &["resume", "results/tiny"],
            follow: &|place| run(place, &["run", "m.toml", "-q"]),
            then: &["report", "results/tiny"],
            ..case("results that changed", "changed since this experiment was begun", "nanorun run m.toml")
        },
        Case {
            before: &trained,
            command: &["resume", "results/tiny"],
            then: &["report", "results/tiny"],
            ..case("nothing to resume", "every run is finished", "shows the scorecard")
        },
        Case {
            manifest: any_speed().replace("[1, 2]", "[1]"),
            before: &|place| run(place, &["run", "m.toml", "-q", "--only", "schedule.warmdown=sqrt"]),
            command: &["resume", "results/tiny"],
            then: &["resume", "results/tiny", "--only", "schedule.warmdown=linear"],
            ..case(
                "nothing selected to resume",
                "every run that was selected is finished",
                "nanorun resume results/tiny --only PATH=VALUE",
            )
        },
        Case {
            before: &trained,
            command: &["report", "results/tiny", "--set", "run.seed=1"],
            then: &["report", "m.toml", "--set", "run.seed=1"],
            ..case("settings over results", "results have the profile and the settings", "name the manifest")
        },
        Case {
            command: &["verify", "m.toml", "--baseline", "b.toml"],
            then: &["verify", "m.toml", "--baseline", "b.toml", "--bless"],
            ..case("no baseline", "b.toml", "run the same command with --bless to write it")
        },
        Case {
            before: &|place| {
                run(place, &["verify", "m.toml", "-q", "--baseline", "b.toml", "--bless"]);
                std::fs::write(place.path("b.toml"), "format = 1\n").unwrap();
            },
            command: &["verify", "m.toml", "--baseline", "b.toml"],
            follow: &|place| {
                std::fs::remove_file(place.path("b.toml")).unwrap();
                run(place, &["verify", "m.toml", "-q", "--baseline", "b.toml", "--bless"]);
            },
            ..case("a damaged baseline", "cannot be read", "remove it and write a new one with --bless")
        },
        Case {
            command: &["verify", "m.toml", "--read", "--baseline", "b.toml", "--bless"],
            then: &["verify", "m.toml", "--baseline", "b.toml", "--bless"],
            before: &|place| {
                run(place, &["run", "m.toml", "-q"]);
                remove(place, RESULT);
            },
            ..case("nothing to bless", "nothing to bless", "run without --read")
        },
        Case {
            manifest: small() + "\n[run2]\n",
            before: &|place| {
                edit(
                    place,
                    "\n[run2]\n",
                    "\n[data.sha256]\n\"other.parquet\" = \"0000000000000000000000000000000000000000000000000000000000000000\"\n",
                );
            },
            follow: &|place| run(place, &["lock", "m.toml", "-q"]),
            ..case(
                "a pin of a file that is not there",
                "is not among the data",
                "`nanorun lock` pins what is",
            )
        },
        Case {
            manifest: small().replace(
                "tokenizer = { vocab_size = 300 }",
                "shards = \"away/*.parquet\"\ntokenizer = { path = \"away/tokenizer\" }\nvocab_size = 300",
            ),
            then: &[
                "run",
                "m.toml",
                "--set",
                "data.shards=\"embedded\"",
                "--set",
                "data.tokenizer.vocab_size=4096",
            ],
            ..case(
                "data that are not here",
                "the data are not here",
                "--set 'data.shards=\"embedded\"' --set data.tokenizer.vocab_size=4096",
            )
        },
        Case {
            manifest: small().replace(
                "tokenizer = { vocab_size = 300 }",
                "shards = \"away/*.parquet\"\ntokenizer = { path = \"away/tokenizer\" }",
            ),
            command: &["plan", "m.toml"],
            then: &["plan", "m.toml", "--set", "data.vocab_size=300"],
            ..case("a vocabulary that nobody knows", "vocabulary", "add `vocab_size = N` to [data]")
        },
        Case {
            before: &|place| {
                trained(place);
                let other = small().replace("steps = 8", "steps = 6");
                std::fs::write(place.path("other.toml"), other).unwrap();
            },
            command: &["run", "other.toml"],
            then: &["run", "other.toml", "--set", "name=NAME"],
            ..case("two manifests of one name", "another manifest", "--set name=NAME")
        },
        Case {
            manifest: small().replace("head_dim = 32", "head_dim = 512"),
            command: &["plan", "m.toml"],
            then: &["plan", "m.toml", "--set", "model.head_dim=256"],
            ..case("heads that cpu cannot compute", "512", "256")
        },
        Case {
            manifest: small().replace("total_batch_size = 128", "total_batch_size = 200"),
            command: &["plan", "m.toml"],
            then: &["plan", "m.toml", "--set", "train.total_batch_size=256"],
            ..case("a batch that does not divide", "200", "256")
        },
        Case {
            manifest: small().replace("[matrix]\n", "[matrix]\n\"data.tokenizer.vocab_size\" = [300, 310]\n"),
            command: &["tokenizer", "train", "m.toml", "--to", "made"],
            then: &[
                "tokenizer",
                "train",
                "m.toml",
                "--to",
                "made",
                "--only",
                "data.tokenizer.vocab_size=310",
            ],
            ..case(
                "cells with several tokenizers",
                "several tokenizers",
                "--only 'data.tokenizer.vocab_size=310'",
            )
        },
        Case {
            manifest: small().replace("[matrix]\n", "[matrix]\n\"eval.tokens\" = [512, 1024]\n"),
            command: &["plan", "m.toml"],
            follow: &|place| edit(place, "\"eval.tokens\" = [512, 1024]\n", ""),
            then: &["plan", "m.toml", "--set", "eval.tokens=1024"],
            ..case(
                "evaluations alone that differ",
                "differ in their evaluation alone",
                "--set or a manifest of its own",
            )
        },
        Case {
            manifest: small().replace("[data]\n", "[data]\nvocab_size = 999\n"),
            follow: &|place| edit(place, "vocab_size = 999\n", ""),
            ..case("a vocabulary that is not that of the tokenizer", "999", "correct it, or leave it out")
        },
        Case {
            manifest: small()
                .replace("[data]\n", "[data]\nshards = \"a.txt\"\ndocument = \"line\"\n")
                .replace("tokenizer = { vocab_size = 300 }", "tokenizer = \"char\""),
            before: &|place| {
                std::fs::write(place.path("a.txt"), "one\ntwo\nthree\nfour\n".repeat(200)).unwrap();
                trained(place);
                std::fs::write(place.path("a.txt"), "five\nsix\nseven\n".repeat(300)).unwrap();
            },
            command: &["sample", "results/tiny", "--tokens", "2"],
            follow: &|place| {
                std::fs::write(place.path("a.txt"), "one\ntwo\nthree\nfour\n".repeat(200)).unwrap();
            },
            ..case(
                "data that changed",
                "are not those that this run was trained with",
                "bring back the shards",
            )
        },
        Case {
            manifest: small() + "\n[checkpoint]\nfinal = \"all\"\nevery = 4\n",
            before: &|place| {
                // Killed once a checkpoint of the middle is there, and before the last.
                for at in (40..).step_by(5) {
                    std::fs::remove_dir_all(place.path("results")).ok();
                    let mut command = place.command(&["run", "m.toml", "-q", "--jobs", "1"]);
                    let killed = command.env("WRITE_FAULT", format!("kill@{at}")).output().unwrap();
                    assert!(!killed.status.success(), "no kill was between two checkpoints");
                    if !weights(place).is_empty() {
                        break;
                    }
                }
                for path in weights(place) {
                    std::fs::write(path, "no weights").unwrap();
                }
            },
            command: &["sample", "m.toml", "--tokens", "2"],
            follow: &|place| {
                for path in weights(place) {
                    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
                }
                trained(place);
            },
            ..case("a damaged checkpoint on the way", "model.safetensors", "remove that directory")
        },
        Case {
            command: &["run", "m.toml", "--results", "m.toml"],
            then: &["run", "m.toml", "--results", "elsewhere"],
            ..case("results where none can be", "the results directory cannot be made", "--results DIR")
        },
    ]
}

#[test]
fn advice_in_a_circle() {
    for case in cases() {
        let Case { name, manifest, before, command, message, advice, follow, then } = case;
        let place = Place::with(&manifest);
        before(&place);
        let told = place.run(command);
        let said = format!("{}{}", told.stdout, told.stderr);
        assert!(said.contains(message), "{name}: {said}");
        assert!(said.contains(advice), "{name}: {said}");
        follow(&place);
        let then = if then.is_empty() { command } else { then };
        let after = place.run(then);
        let said = format!("{}{}", after.stdout, after.stderr);
        assert_eq!(after.code, Some(0), "{name}: {said}");
        assert!(!said.contains("error: "), "{name}: {said}");
    }
}

/// A divergence says to lower the learning rate, and that the run stays as it is until `--rerun`.
#[test]
fn advice_on_a_divergence_helps() {
    let place = Place::with(&crate::attempts::wild(60));
    let told = place.run(&["run", "m.toml", "-q"]).expect(3).stderr;
    assert!(told.contains("then lower the learning rate"), "{told}");
    place.run(&["run", "m.toml", "-q", "--set", "optimizer.lr=0.01"]).expect(0);
    // Asked for, it is trained again; nothing else does it.
    let attempts = |place: &Place| {
        files_below(&place.path("results")).keys().filter(|path| path.ends_with("diverged.json")).count()
    };
    place.run(&["run", "m.toml", "-q"]).expect(3);
    assert_eq!(attempts(&place), 1);
    place.run(&["run", "m.toml", "-q", "--rerun"]).expect(3);
    assert_eq!(attempts(&place), 2);
}
