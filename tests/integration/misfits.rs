//! Weights, switches, prompts and data that do not fit, through the program: named, exit 2. And the small models as
//! people use them: trained, then sampled from, on every backend alike.

use std::path::PathBuf;

use crate::support::{Place, Told};

/// A small model on names, trained for a moment.
fn manifest(kind: &str, rest: &str) -> String {
    let names = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/data/names.txt");
    format!(
        "name = \"small\"\nupstream.commit = \"92d63d4\"\nrun.seed = 1\nrun.backend = \"cpu\"\nbudget.steps = 40\n\
         schedule.warmdown = \"linear\"\nmodel.kind = \"{kind}\"\ndata.shards = \"{names}\"\n\
         data.document = \"line\"\ndata.tokenizer = \"char\"\neval.tokens = 64\neval.every = 0\n{rest}"
    )
}

/// The trained weights of the only run in `results/small`.
fn weights(place: &Place) -> PathBuf {
    let runs = std::fs::read_dir(place.path("results/small/runs")).unwrap();
    let run = runs.map(|run| run.unwrap().path()).next().unwrap();
    run.join("attempt/1/checkpoints/step_000040/model.safetensors")
}

#[track_caller]
fn refused(told: &mut Told, name: &str, place: &Place, manifest: &str) {
    std::fs::write(place.path("m.toml"), manifest).unwrap();
    let ended = place.run(&["run", "m.toml", "--results", "other", "-q"]).expect(2);
    told.add(name, &ended.stderr);
}

#[test]
fn weights_of_another_model() {
    let mut told = Told::default();
    let place = Place::with(&manifest("microgpt", ""));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let from = weights(&place);
    std::fs::copy(&from, place.path("weights.safetensors")).unwrap();
    let init = "model.init.file = \"weights.safetensors\"\n";
    // They do fit the model they are from.
    std::fs::write(place.path("m.toml"), manifest("microgpt", init)).unwrap();
    place.run(&["run", "m.toml", "--results", "again", "-q"]).expect(0);
    refused(&mut told, "weights_missing", &place, &manifest("microgpt", &format!("model.depth = 2\n{init}")));
    refused(&mut told, "weights_unexpected", &place, &manifest("bigram", init));
    refused(&mut told, "weights_shape", &place, &manifest("microgpt", &format!("model.n_embd = 8\n{init}")));
    let bytes = std::fs::read(&from).unwrap();
    // Integers take as much room: the header alone says what the values are.
    let (len, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, values) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let header = std::str::from_utf8(header).unwrap().replace("\"F32\"", "\"I32\"");
    let integers = [len.as_slice(), header.as_bytes(), values].concat();
    std::fs::write(place.path("weights.safetensors"), integers).unwrap();
    refused(&mut told, "weights_type", &place, &manifest("microgpt", init));
    std::fs::write(place.path("weights.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    refused(&mut told, "weights_truncated", &place, &manifest("microgpt", init));
    std::fs::remove_file(place.path("weights.safetensors")).unwrap();
    refused(&mut told, "weights_gone", &place, &manifest("microgpt", init));
    insta::assert_snapshot!("weights_of_another_model", told.text);
}

#[test]
fn switches_that_a_kind_does_not_have() {
    let mut told = Told::default();
    let place = Place::with("");
    refused(&mut told, "bigram_smear", &place, &manifest("bigram", "model.smear = true\n"));
    refused(&mut told, "bigram_depth", &place, &manifest("bigram", "model.depth = 2\n"));
    refused(&mut told, "microgpt_windows", &place, &manifest("microgpt", "model.window_pattern = \"SL\"\n"));
    refused(&mut told, "microgpt_kv_heads", &place, &manifest("microgpt", "model.n_kv_head = 2\n"));
    refused(&mut told, "gpt_tied", &place, &manifest("gpt", "model.tie_lm_head = true\n"));
    refused(&mut told, "bigram_muon", &place, &manifest("bigram", "optimizer.kind = \"muon_adamw\"\n"));
    refused(&mut told, "microgpt_heads", &place, &manifest("microgpt", "model.n_head = 3\n"));
    insta::assert_snapshot!("switches_that_a_kind_does_not_have", told.text);
}

#[test]
fn a_validation_split_without_text() {
    let mut told = Told::default();
    let place = Place::with("");
    let on = |names: &str| {
        manifest("bigram", "")
            .replace(concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/data/names.txt"), names)
    };
    std::fs::write(place.path("one.txt"), "anna\n").unwrap();
    refused(&mut told, "split_empty", &place, &on("one.txt"));
    std::fs::write(place.path("none.txt"), "\n\n").unwrap();
    refused(&mut told, "split_nothing", &place, &on("none.txt"));
    insta::assert_snapshot!("a_validation_split_without_text", told.text);
}

#[test]
fn small_models_are_sampled_alike_on_every_backend() {
    let backends =
        if cfg!(feature = "tch") { "[\"scalar\", \"cpu\", \"tch\"]" } else { "[\"scalar\", \"cpu\"]" };
    for kind in ["microgpt", "bigram"] {
        let matrix = format!("optimizer.lr = 0.02\n[matrix]\n\"run.backend\" = {backends}\n");
        let place = Place::with(&manifest(kind, &matrix));
        place.run(&["run", "m.toml", "-q"]).expect(0);
        let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
        let keys = plan["runs"].as_array().unwrap().iter();
        let keys: Vec<String> =
            keys.map(|run| run["key"]["run"].as_str().unwrap()[..12].to_owned()).collect();
        let sample = |key: &str, more: &[&str]| {
            let arguments = [&["sample", "m.toml", "-q", "--run", key, "--tokens", "12"], more].concat();
            place.run(&arguments).expect(0).stdout
        };
        for prompt in ["", "a", "mar", "jo"] {
            let greedy = |key: &String| match prompt {
                "" => sample(key, &["--temperature", "0"]),
                _ => sample(key, &["--prompt", prompt, "--temperature", "0"]),
            };
            let first = greedy(&keys[0]);
            assert!(keys.iter().all(|key| greedy(key) == first), "{kind} {prompt:?}");
        }
        let drawn = |seed: &str| sample(&keys[0], &["--seed", seed, "--number", "5", "--temperature", "1"]);
        assert_eq!(drawn("1"), drawn("1"));
        assert_ne!(drawn("1"), drawn("2"));
        assert!(
            drawn("1").lines().all(|name| name.chars().all(|c| c.is_ascii_lowercase())),
            "{}",
            drawn("1")
        );

        let long = "a".repeat(16);
        let refused = place.run(&["sample", "m.toml", "-q", "--prompt", &long]).expect(2);
        insta::allow_duplicates! { insta::assert_snapshot!("prompt_too_long", refused.stderr) };
        let unknown = place.run(&["sample", "m.toml", "-q", "--prompt", "Ada?"]).expect(2);
        insta::allow_duplicates! { insta::assert_snapshot!("prompt_unknown_character", unknown.stderr) };
        // A prompt that fills the context gets one token more, and no overrun.
        place.run(&["sample", "m.toml", "-q", "--prompt", &long[1..], "--tokens", "99"]).expect(0);
    }
}
