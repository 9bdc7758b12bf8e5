//! Commands beside `run`, and that what they print for machines can be read.

use crate::support::{Place, TINY};

#[test]
fn a_plan_needs_no_data() {
    let text = include_str!("../../experiments/d12_sqrt.toml");
    let place = Place::with(&text.replace("~/.cache", "nowhere"));
    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    let runs = plan["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 6);
    for run in runs {
        assert_eq!(run["status"], "blocked");
        let (model, batch) = (&run["config"]["model"], &run["config"]["batch"]);
        assert_eq!((&model["n_embd"], &model["n_head"]), (&768.into(), &6.into()), "{model}");
        assert_eq!(batch["total_batch_size"], 524288);
        assert_eq!(run["sizes"]["steps"], 2520);
    }
    assert_eq!(plan["missing_data"].as_array().unwrap().len(), 2);
    let human = place.run(&["plan", "m.toml", "--threads", "2"]).expect(0).stdout;
    // Whether memory and disk suffice depends on the machine.
    let human: Vec<&str> =
        human.lines().filter(|line| !["memory: ", "disk: "].iter().any(|of| line.starts_with(of))).collect();
    insta::assert_snapshot!("plan_without_data", human.join("\n"));
    assert!(!place.path("results").exists());
    let ended = place.run(&["run", "m.toml"]).expect(2);
    // Without Python first.
    let (own, upstreams) = ("nanorun data get climbmix --shards 35", "python -m nanochat.dataset -n 35");
    let at = |command| ended.stderr.find(command).unwrap_or_else(|| panic!("{}", ended.stderr));
    assert!(at(own) < at("nanorun tokenizer train m.toml") && at(own) < at(upstreams), "{}", ended.stderr);
}

#[test]
fn doctor_is_readable_by_machines() {
    let found = Place::with(TINY).run(&["doctor", "--json"]).expect(0).json();
    assert_eq!(found["backends"]["cpu"]["works"], true);
    assert_eq!(found["results"]["writable"], true);
    let baseline: toml::Table = include_str!("../../baselines/ci.toml").parse().unwrap();
    assert_eq!(found["environment_class"].as_str(), baseline["environment_class"].as_str());
}

#[test]
fn resuming_nothing_is_an_error() {
    let place = Place::with(TINY);
    let ended = place.run(&["resume", "results/tiny"]).expect(2);
    insta::assert_snapshot!("resume_nothing", ended.stderr);
}

#[test]
fn pins_hold() {
    let place = Place::with(TINY);
    let key =
        |place: &Place| place.run(&["plan", "m.toml", "--json"]).expect(0).json()["runs"][0]["key"].clone();
    let unpinned = key(&place);
    place.run(&["lock", "m.toml"]).expect(0);
    let text = std::fs::read_to_string(place.path("m.toml")).unwrap();
    assert_eq!(key(&place), unpinned, "pins are no part of a run");
    assert!(text.contains("\"shard_00000.parquet\" = \""), "{text}");
    place.run(&["lock", "m.toml"]).expect(0);
    assert_eq!(std::fs::read_to_string(place.path("m.toml")).unwrap(), text);
    // The tokenizer of an override is not the manifest's.
    let refused = place.run(&["lock", "m.toml", "--set", "data.tokenizer.vocab_size=310"]).expect(2);
    assert!(refused.stderr.contains("the pin of `tokenizer` would not hold"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(place.path("m.toml")).unwrap(), text);
    let at = text.find("\"shard_00001.parquet\" = \"").unwrap() + 25;
    let digit = if &text[at..=at] == "0" { "1" } else { "0" };
    let mut other = text.clone();
    other.replace_range(at..=at, digit);
    std::fs::write(place.path("m.toml"), other).unwrap();
    let ended = place.run(&["run", "m.toml"]).expect(2);
    assert!(ended.stderr.contains("shard_00001.parquet` is not what the manifest pins"), "{}", ended.stderr);
    assert!(!place.path("results").exists());
}

#[test]
fn pins_hold_under_sweeps_and_profiles() {
    let sweep = TINY
        .replace(
            "\"schedule.warmdown\" = [\"linear\", \"sqrt\"]",
            "\"data.tokenizer.vocab_size\" = [300, 310]",
        )
        .replace("control = { \"schedule.warmdown\" = \"linear\" }", "")
        .replace("[1, 2]", "[1]");
    let place = Place::with(&format!("{sweep}\n[profile.other]\ndata = {{ shards = \"other.txt\" }}\n"));
    let blocks: Vec<String> =
        (0..2000).map(|n| format!("block {n} of {}, {}\n\n", n * 7919, n * n * 31)).collect();
    std::fs::write(place.path("other.txt"), blocks.concat()).unwrap();
    place.run(&["lock", "m.toml", "-q"]).expect(0);
    let text = std::fs::read_to_string(place.path("m.toml")).unwrap();
    assert!(text.contains("\"shard_00000.parquet\" = \"") && !text.contains("\ntokenizer = \""), "{text}");
    place.run(&["lock", "m.toml", "-q"]).expect(0);
    assert_eq!(std::fs::read_to_string(place.path("m.toml")).unwrap(), text);
    let steps = ["--set", "budget.steps=1"];
    let run = |arguments: &[&str]| place.run(&[&["run", "m.toml", "-q"], &steps[..], arguments].concat());
    run(&[]).expect(0);
    // Other shards are not what the pins speak of.
    run(&["--profile", "other"]).expect(0);
    let refused = place.run(&["lock", "m.toml", "--profile", "other"]).expect(2);
    assert!(refused.stderr.contains("the profile or an override names other data"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(place.path("m.toml")).unwrap(), text);
    // The sweep over tokenizers leaves the shards pinned.
    let at = text.find("\"shard_00000.parquet\" = \"").unwrap() + 25;
    let digit = if &text[at..=at] == "0" { "1" } else { "0" };
    let mut wrong = text.clone();
    wrong.replace_range(at..=at, digit);
    std::fs::write(place.path("m.toml"), wrong).unwrap();
    let refused = run(&["--results", "elsewhere"]).expect(2);
    assert!(
        refused.stderr.contains("shard_00000.parquet` is not what the manifest pins"),
        "{}",
        refused.stderr
    );
    run(&["--profile", "other", "--results", "elsewhere"]).expect(0);
}
