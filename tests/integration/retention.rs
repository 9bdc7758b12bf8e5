//! What stays of checkpoints once runs are finished, and `nanorun clean`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nanorun::internals::files::{DirLock, Files, LockHolder};
use nanorun::internals::train::checkpoint::CheckpointStore;

use crate::attempts::files_below;
use crate::support::{Place, TINY};

/// One arm, one seed.
fn one() -> String {
    TINY.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]").replace("[1, 2]", "[1]")
}

fn checkpoint_files(place: &Place) -> Vec<String> {
    let files = files_below(&place.path("results/tiny/runs"));
    let below = |path: &PathBuf| {
        let text = path.display().to_string();
        text.split_once("/checkpoints/").map(|(_, below)| below.to_owned())
    };
    files.keys().filter_map(below).collect()
}

#[test]
fn in_the_end_weights_stay_or_all_or_none() {
    let kept = "\n[checkpoint]\nevery = 4\n";
    let weights =
        ["step_000008/MANIFEST.json", "step_000008/model.safetensors", "step_000008/state.json"].as_slice();
    for (last, whole) in [("", false), ("final = \"weights\"", false), ("final = \"all\"", true)] {
        let place = Place::with(&format!("{}{kept}{last}\n", one()));
        place.run(&["run", "m.toml", "-q"]).expect(0);
        let found = checkpoint_files(&place);
        for name in weights {
            assert!(found.iter().any(|file| file == name), "{last}: {found:?}");
        }
        for step in ["step_000004", "step_000008"] {
            for name in ["optimizer.safetensors", "documents.bin"] {
                assert_eq!(found.contains(&format!("{step}/{name}")), whole, "{last}: {found:?}");
            }
        }
        place.run(&["sample", "m.toml", "--tokens", "4", "-q"]).expect(0);
    }
    let place = Place::with(&format!("{}{kept}final = \"none\"\n", one()));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert!(checkpoint_files(&place).iter().all(|file| !file.starts_with("step_")));
    let none = place.run(&["sample", "m.toml", "-q"]).expect(2);
    assert!(none.stderr.contains("no weights of this experiment's runs were kept"), "{}", none.stderr);
    // It is no part of any key.
    place.run(&["run", "m.toml", "-q", "--set", "checkpoint.final=\"all\""]).expect(0);
    assert!(checkpoint_files(&place).iter().all(|file| !file.starts_with("step_")));
}

#[test]
fn weights_alone_are_evaluated_under_other_settings() {
    let place = Place::with(&one());
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let first = place.hashes();
    let before = files_below(&place.path("results/tiny/runs"));
    let text = one().replace("tokens = 512", "tokens = 1024");
    // What it comes to from its first step on.
    let whole = Place::with(&text);
    whole.run(&["run", "m.toml", "-q"]).expect(0);
    std::fs::write(place.path("m.toml"), &text).unwrap();
    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    assert_eq!((&plan["runs"][0]["status"], &plan["runs"][0]["step"]), (&"resumes".into(), &8.into()));
    let again = place.run(&["run", "m.toml", "--json"]).expect(0).json();
    assert!(again["first_step_seconds"].is_null(), "nothing is trained");
    assert_eq!(place.hashes(), whole.hashes());
    assert_ne!(place.hashes(), first);
    // The first result is there as it was, and speaks again under its own settings.
    let after = files_below(&place.path("results/tiny/runs"));
    let results = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        files
            .iter()
            .filter(|(path, _)| path.ends_with("attempt/1/result.json"))
            .map(|(_, b)| b.clone())
            .next()
    };
    assert_eq!(results(&after), results(&before));
    std::fs::write(place.path("m.toml"), one()).unwrap();
    let back = place.run(&["run", "m.toml", "--json"]).expect(0).json();
    assert!(back["first_step_seconds"].is_null());
    assert_eq!(place.hashes(), first);
}

#[test]
fn a_plan_says_what_a_changed_manifest_trains_anew() {
    let place = Place::with(&TINY.replace("[1, 2]", "[1]"));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    assert_eq!(plan["no_longer_counts"].as_array().unwrap().len(), 0);
    let key = &plan["runs"][1]["key"]["run"].as_str().unwrap()[..12];
    let text =
        TINY.replace("[1, 2]", "[1]").replace("aspect_ratio = 32", "aspect_ratio = 32\nsoftcap = 12.5");
    std::fs::write(place.path("m.toml"), text.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]")).unwrap();
    let told = place.run(&["plan", "m.toml"]).expect(0).stdout;
    assert!(told.contains("warmdown=linear seed=1 is trained anew, its result"), "{told}");
    assert!(told.contains("model.softcap was ") && told.contains(", is 12.5"), "{told}");
    let gone = format!("warmdown=sqrt seed=1 is no longer in the manifest; its result {key} stays");
    assert!(told.contains(&gone), "{told}");
}

#[test]
fn nothing_is_lost_where_letting_go_is_killed() {
    let text = format!("{}\n[checkpoint]\nevery = 2\n", one());
    let whole = Place::with(&text);
    whole.run(&["run", "m.toml", "-q"]).expect(0);
    let expected = whole.hashes();
    let arguments = ["run", "m.toml", "-q", "--jobs", "1", "--threads", "2"];
    for at in (100..400).step_by(4) {
        let place = Place::with(&text);
        let killed = place.command(&arguments).env("WRITE_FAULT", format!("kill@{at}")).output().unwrap();
        if killed.status.success() {
            break;
        }
        for (path, _) in files_below(&place.path("results/tiny/runs")) {
            let Some(dir) = path.ends_with("MANIFEST.json").then(|| path.parent().unwrap()) else { continue };
            if dir.file_name().unwrap().to_str().unwrap().starts_with('.') {
                continue;
            }
            let store = CheckpointStore::new(Files::new(), dir.parent().unwrap());
            let step = dir.file_name().unwrap().to_str().unwrap()[5..].parse().unwrap();
            store.load(step).unwrap();
        }
        place.run(&arguments).expect(0);
        assert_eq!(place.hashes(), expected, "killed at {at}");
    }
}

#[test]
fn clean() {
    let place = Place::with(&TINY.replace("[1, 2]", "[1]"));
    place.run(&["run", "m.toml", "-q", "--jobs", "1"]).expect(0);
    place.run(&["run", "m.toml", "-q", "--rerun", "--jobs", "1"]).expect(0);
    let hashes = place.hashes();
    let runs = place.path("results/tiny/runs");
    // One arm fewer; an attempt that was begun and another after it; what a dead process left.
    std::fs::write(place.path("m.toml"), one()).unwrap();
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    let key = &plan["runs"][0]["key"]["run"].as_str().unwrap()[..12];
    let run = runs.join(key);
    std::fs::create_dir_all(run.join("attempt/3/checkpoints/.step_000004.77-3.tmp")).unwrap();
    std::fs::write(run.join("attempt/3/checkpoints/.step_000004.77-3.tmp/model.safetensors"), "half")
        .unwrap();
    std::fs::write(run.join("attempt/1/.result.json.77-4.tmp"), "half").unwrap();
    let before = files_below(&runs);
    let listed = place.run(&["clean", "--json"]).expect(0).json();
    assert_eq!(files_below(&runs), before, "listing removes nothing");
    let items = listed["experiments"][0]["items"].as_array().unwrap();
    let mut whys: Vec<&str> = items.iter().map(|item| item["why"].as_str().unwrap()).collect();
    whys.sort_unstable();
    whys.dedup();
    assert_eq!(whys, ["evaluation", "further_attempt", "retired", "temporary"]);
    let total: u64 = items.iter().map(|item| item["bytes"].as_u64().unwrap()).sum();
    assert!(total > 0 && listed["bytes"] == total);
    // Another process works there: nothing is touched.
    {
        let _held = DirLock::acquire(&place.path("results/tiny"), &LockHolder::this_process("here")).unwrap();
        let held = place.run(&["clean", "results/tiny", "--yes"]).expect(0);
        assert!(held.stderr.contains("left alone: another nanorun works in"), "{}", held.stderr);
        assert_eq!(files_below(&runs), before);
    }
    let shown = place.run(&["clean", "tiny"]).expect(0);
    assert!(shown.stderr.contains("--yes removes it"), "{}", shown.stderr);
    place.run(&["clean", "results/tiny", "--yes"]).expect(0);
    let after = files_below(&runs);
    for (path, bytes) in &before {
        let gone = !after.contains_key(path);
        let text = path.display().to_string();
        let may_go =
            text.contains("/checkpoints/") || path.extension().is_some_and(|extension| extension == "tmp");
        assert!(!gone || may_go, "{text} is gone");
        assert!(gone || after[path] == *bytes, "{text} was changed");
    }
    // Of what the experiment still has, the weights are there.
    assert!(after.contains_key(&run.join("attempt/1/checkpoints/step_000008/model.safetensors")));
    assert!(!after.keys().any(|path| path.starts_with(run.join("attempt/2/checkpoints"))));
    place.run(&["sample", "m.toml", "--tokens", "2", "-q"]).expect(0);
    assert_eq!(place.hashes()[0], hashes[0]);
    let nothing = place.run(&["clean", "results/tiny", "--yes", "--json"]).expect(0).json();
    assert_eq!(nothing["bytes"], 0);
    place.run(&["clean", "nowhere"]).expect(2);
}
