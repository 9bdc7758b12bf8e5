//! Pins: what is not the pinned data is not trained on.

use std::fs;

use super::support::{Place, TINY};

/// A manifest on three text files of its own, pinned, after a run that filled the token cache.
fn pinned() -> Place {
    let data = "[data]\nshards = [\"shards/*.txt\"]   # ours\ndocument = \"line\"\n";
    let manifest = TINY
        .replace("[data]\n", data)
        .replace("steps = 8", "steps = 2")
        .replace("warmup_steps = 2", "warmup_steps = 1")
        .replace("\"run.seed\" = [1, 2]", "\"run.seed\" = [1]");
    let place = Place::with(&manifest);
    fs::create_dir(place.path("shards")).unwrap();
    for (name, word) in [("a", "apple"), ("b", "bread"), ("c", "cider")] {
        let lines: Vec<_> =
            (0..400).map(|i| format!("{word} {i} and {} more of the {word} {}", i * 7, i * i)).collect();
        fs::write(place.path(&format!("shards/{name}.txt")), lines.join("\n")).unwrap();
    }
    place.run(&["run", "m.toml"]).expect(0);
    place.run(&["lock", "m.toml"]).expect(0);
    let text = fs::read_to_string(place.path("m.toml")).unwrap();
    assert!(
        text.contains("# ours") && text.contains("\"a.txt\" = \"") && text.contains("\ntokenizer = \""),
        "{text}"
    );
    place.run(&["run", "m.toml"]).expect(0);
    place
}

#[test]
fn other_bytes_are_noticed_though_the_tokens_are_cached() {
    let place = pinned();
    let path = place.path("shards/b.txt");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let text = fs::read_to_string(&path).unwrap().replacen("bread", "break", 1);
    fs::write(&path, text).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let ended = place.run(&["run", "m.toml", "--results", "again"]).expect(2);
    assert!(ended.stderr.contains("shards/b.txt` is not what the manifest pins"), "{}", ended.stderr);
    assert!(!place.path("again").exists());
}

#[test]
fn a_file_too_many_or_too_few_is_noticed() {
    let place = pinned();
    fs::copy(place.path("shards/a.txt"), place.path("shards/aa.txt")).unwrap();
    let ended = place.run(&["run", "m.toml"]).expect(2);
    assert!(ended.stderr.contains("it has no pin"), "{}", ended.stderr);
    fs::remove_file(place.path("shards/aa.txt")).unwrap();
    place.run(&["run", "m.toml"]).expect(0);
    fs::remove_file(place.path("shards/b.txt")).unwrap();
    let ended = place.run(&["run", "m.toml"]).expect(2);
    assert!(ended.stderr.contains("the pinned `b.txt` is not among the data"), "{}", ended.stderr);
}

#[test]
fn pins_are_the_manifests_own() {
    let place = pinned();
    let text = fs::read_to_string(place.path("m.toml")).unwrap();
    let profile = "\n[profile.small]\ndata.shards = \"embedded\"\ndata.document = \"block\"\n\n[profile.short]\nbudget.steps = 1\nschedule.warmup_steps = 0\n";
    fs::write(place.path("m.toml"), format!("{text}{profile}")).unwrap();
    // Pins of other data are dropped with the data; they hold where the data are the same.
    place.run(&["plan", "m.toml", "--profile", "small"]).expect(0);
    let ended = place.run(&["lock", "m.toml", "--profile", "small"]).expect(2);
    assert!(ended.stderr.contains("the profile or an override names other data"), "{}", ended.stderr);
    place.run(&["lock", "m.toml", "--profile", "short"]).expect(0);
    assert_eq!(fs::read_to_string(place.path("m.toml")).unwrap(), format!("{text}{profile}"));
    fs::write(place.path("shards/c.txt"), "other\ntext\nnow\n").unwrap();
    place.run(&["run", "m.toml", "--profile", "short"]).expect(2);
    place.run(&["run", "m.toml", "--set", "run.seed=2"]).expect(2);
}
