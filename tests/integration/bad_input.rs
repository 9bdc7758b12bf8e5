//! Every bad input: one clear message, exit 2, nothing written.

use polars::prelude::{Column, DataFrame, ParquetWriter};

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
    refused("head_size_odd", "head_dim = 32", "head_dim = 33");
    refused("heads_of_key_and_value", "aspect_ratio = 32", "aspect_ratio = 96\nn_kv_head = 2");
    refused("heads_of_a_gpt", "head_dim = 32", "head_dim = 32\nn_head = 3");
    refused("batch_not_divisible", "total_batch_size = 128", "total_batch_size = 200");
    refused("window_letters", "depth = 1", "depth = 1\nwindow_pattern = \"SXL\"");
    refused("small_vocabulary", "vocab_size = 300", "vocab_size = 264");
}

#[test]
fn heads_that_do_not_divide_the_width() {
    let small = TINY
        .replace("depth = 1\naspect_ratio = 32\nhead_dim = 32\n", "kind = \"microgpt\"\nn_embd = 18\n")
        .replace("tokenizer = { vocab_size = 300 }", "tokenizer = \"char\"");
    refused_in("head_size_of_a_microgpt", &Place::with(&small), "m.toml");
}

#[test]
fn values_in_quotes() {
    refused("number_in_quotes", "depth = 1", "depth = \"1\"");
}

#[test]
fn matrices() {
    refused("empty_axis", "\"run.seed\" = [1, 2]", "\"run.seed\" = []");
    refused("axis_of_nothing", "\"run.seed\" = [1, 2]", "\"run.sed\" = [1, 2]");
    let all = "\"run.seed\" = [1, 2]\n[[matrix.exclude]]\nrun.seed = 1\n[[matrix.exclude]]\nrun.seed = 2";
    refused("exclude_all", "\"run.seed\" = [1, 2]", all);
    let label = "\"run.seed\" = [1, 2]\n\n[[matrix.include]]\nlabel = \"warmdown=sqrt\"\nmodel.smear = false";
    refused("label_of_another_arm", "\"run.seed\" = [1, 2]", label);
    let alike = "\"run.seed\" = [1, 2]\n\"eval.tokens\" = [256, 512]";
    refused("evaluations_of_one_run", "\"run.seed\" = [1, 2]", alike);
}

#[test]
fn shards() {
    let data = |shards: &str| TINY.replace("[data]", &format!("[data]\nshards = \"{shards}\""));
    refused_in("shard_missing", &Place::with(&data("no/such.parquet")), "m.toml");
    refused_in("shard_matched_by_nothing", &Place::with(&data("*.parquet")), "m.toml");
    let tokenizer = TINY.replace("{ vocab_size = 300 }", "{ path = \"nowhere\" }\nvocab_size = 300");
    refused_in("tokenizer_missing", &Place::with(&tokenizer), "m.toml");
    let place = Place::with(&data("x.parquet"));
    let column = |name: &str| Column::new(name.into(), ["a", "b"]);
    let mut frame = DataFrame::new(2, vec![column("content"), column("url")]).unwrap();
    let file = std::fs::File::create(place.path("x.parquet")).unwrap();
    ParquetWriter::new(file).finish(&mut frame).unwrap();
    refused_in("shard_wrong_column", &place, "m.toml");
    let whole = std::fs::read(place.path("x.parquet")).unwrap();
    std::fs::write(place.path("x.parquet"), &whole[..whole.len() / 2]).unwrap();
    refused_in("shard_cut_in_half", &place, "m.toml");
    for (name, bytes) in [("shard_empty", &b""[..]), ("shard_truncated", b"PAR1 and then no more of it")] {
        let place = Place::with(&data("x.parquet"));
        std::fs::write(place.path("x.parquet"), bytes).unwrap();
        refused_in(name, &place, "m.toml");
    }
}

#[test]
fn files_that_are_no_manifest() {
    let place = Place::with(TINY);
    std::fs::write(place.path("latin1.toml"), b"name = \"a\"\nquestion = \"caf\xe9?\"\n").unwrap();
    let wide: Vec<u8> = "\u{feff}name".encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(place.path("wide.toml"), wide).unwrap();
    std::fs::create_dir(place.path("experiments")).unwrap();
    refused_in("directory_without_manifests", &place, "experiments");
    std::fs::write(place.path("experiments/m.toml"), TINY).unwrap();
    refused_in("not_utf8", &place, "latin1.toml");
    refused_in("utf16", &place, "wide.toml");
    refused_in("directory", &place, "experiments");
    refused_in("no_manifest", &place, "experiments/n.toml");
    refused_in("no_directory", &place, "experiment/m.toml");
}

#[test]
fn results_that_cannot_be_written() {
    let place = Place::with(TINY);
    std::fs::write(place.path("file"), "").unwrap();
    let ended = place.run(&["run", "m.toml", "--results", "file"]).expect(2);
    insta::assert_snapshot!("results_not_writable", ended.stderr);
    assert_eq!(std::fs::read(place.path("file")).unwrap(), b"");
    std::fs::create_dir(place.path("taken")).unwrap();
    std::fs::write(place.path("taken/tiny"), "").unwrap();
    let ended = place.run(&["run", "m.toml", "--results", "taken"]).expect(2);
    insta::assert_snapshot!("results_in_the_way", ended.stderr);
    #[cfg(target_os = "linux")]
    {
        let ended = place.run(&["run", "m.toml", "--results", "/proc/none"]).expect(2);
        insta::assert_snapshot!("results_not_made", ended.stderr);
    }
}
