//! Every bad input: one clear message, exit 2, nothing written.

use crate::support::{Place, TINY};

/// The tiny manifest with `old` replaced, through `run`.
#[track_caller]
fn refused(name: &str, old: &str, new: &str) {
    assert!(TINY.contains(old), "{old}");
    refused_in(name, &Place::with(&TINY.replacen(old, new, 1)), "m.toml");
}

#[track_caller]
fn refused_in(name: &str, place: &Place, manifest: &str) {
    let ended = place.run(&["run", manifest]).expect(2);
    assert_eq!(ended.stdout, "");
    assert!(!place.path("results").exists(), "{name} wrote results");
    insta::assert_snapshot!(name, ended.stderr);
}

#[test]
fn fields() {
    refused("unknown_key", "warmup_steps = 2", "warmup_step = 2");
    refused("wrong_type", "steps = 8", "steps = \"eight\"");
    refused("missing_pin", "commit = \"92d63d4\"", "");
    refused("two_budgets", "steps = 8", "steps = 8\ntokens = 1024");
    refused("unknown_commit", "92d63d4", "1234567");
}

#[test]
fn sizes() {
    refused("depth_zero", "depth = 1", "depth = 0");
    refused("head_size", "head_dim = 32", "head_dim = 32\nn_head = 3");
    refused("batch_not_divisible", "total_batch_size = 128", "total_batch_size = 200");
    refused("window_letters", "depth = 1", "depth = 1\nwindow_pattern = \"SXL\"");
    refused("small_vocabulary", "vocab_size = 300", "vocab_size = 264");
}

#[test]
fn matrices() {
    refused("empty_axis", "\"run.seed\" = [1, 2]", "\"run.seed\" = []");
    refused("axis_of_nothing", "\"run.seed\" = [1, 2]", "\"run.sed\" = [1, 2]");
    let all = "\"run.seed\" = [1, 2]\n[[matrix.exclude]]\nrun.seed = 1\n[[matrix.exclude]]\nrun.seed = 2";
    refused("exclude_all", "\"run.seed\" = [1, 2]", all);
}

#[test]
fn shards() {
    let data = |shards: &str| TINY.replace("[data]", &format!("[data]\nshards = \"{shards}\""));
    refused_in("shard_missing", &Place::with(&data("no/such.parquet")), "m.toml");
    for (name, bytes) in [("shard_empty", &b""[..]), ("shard_truncated", b"PAR1 and then no more of it")] {
        let place = Place::with(&data("x.parquet"));
        std::fs::write(place.path("x.parquet"), bytes).unwrap();
        refused_in(name, &place, "m.toml");
    }
}

#[test]
fn files_that_are_no_manifest() {
    let place = Place::with(TINY);
    std::fs::write(place.path("latin1.toml"), b"name = \"caf\xe9\"\n").unwrap();
    std::fs::create_dir(place.path("directory.toml")).unwrap();
    refused_in("not_utf8", &place, "latin1.toml");
    refused_in("directory", &place, "directory.toml");
    refused_in("no_manifest", &place, "m.tml");
}

#[test]
fn results_that_cannot_be_written() {
    let place = Place::with(TINY);
    std::fs::write(place.path("file"), "").unwrap();
    let ended = place.run(&["run", "m.toml", "--results", "file"]).expect(2);
    insta::assert_snapshot!("results_not_writable", ended.stderr);
}
