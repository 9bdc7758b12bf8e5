//! Every bad input: one clear message, exit 2, nothing written.

use polars::prelude::{Column, DataFrame, ParquetWriter};

use crate::support::{Place, TINY, Told};

/// The tiny manifest with `old` replaced, through `run`.
#[track_caller]
fn refused(told: &mut Told, name: &str, old: &str, new: &str) {
    assert!(TINY.contains(old), "{old}");
    refused_in(told, name, &Place::with(&TINY.replacen(old, new, 1)), "m.toml");
}

#[track_caller]
fn refused_in(told: &mut Told, name: &str, place: &Place, manifest: &str) {
    let ended = place.run(&["run", manifest]).expect(2);
    assert_eq!(ended.stdout, "");
    assert!(!place.path("results").exists(), "{name} wrote results");
    told.add(name, &ended.stderr);
}

#[test]
fn fields() {
    let mut told = Told::default();
    refused(&mut told, "unknown_key", "warmup_steps = 2", "warmup_step = 2");
    refused(&mut told, "wrong_type", "steps = 8", "steps = \"eight\"");
    refused(&mut told, "missing_pin", "commit = \"92d63d4\"", "");
    refused(&mut told, "two_budgets", "steps = 8", "steps = 8\ntokens = 1024");
    refused(&mut told, "unknown_commit", "92d63d4", "1234567");
    insta::assert_snapshot!("fields", told.text);
}

#[test]
fn kernels_that_nothing_has() {
    let mut told = Told::default();
    let place = Place::with(TINY);
    let plan = |kernels: &str| {
        place.command(&["plan", "m.toml"]).env("NANORUN_CPU_KERNELS", kernels).output().unwrap()
    };
    for kernels in ["", "portable"] {
        assert_eq!(plan(kernels).status.code(), Some(0), "{kernels}");
    }
    let ended = plan("sse");
    assert_eq!(ended.status.code(), Some(2));
    told.add("kernels_that_nothing_has", &String::from_utf8(ended.stderr).unwrap());
    insta::assert_snapshot!("kernels_that_nothing_has", told.text);
}

#[test]
fn a_system_that_nothing_is() {
    let mut told = Told::default();
    let place = Place::with(TINY);
    let plan =
        |system: &str| place.command(&["plan", "m.toml"]).env("NANORUN_SYSTEM", system).output().unwrap();
    for system in ["", "portable"] {
        assert_eq!(plan(system).status.code(), Some(0), "{system}");
    }
    let ended = plan("beos");
    assert_eq!(ended.status.code(), Some(2));
    told.add("a_system_that_nothing_is", &String::from_utf8(ended.stderr).unwrap());
    insta::assert_snapshot!("a_system_that_nothing_is", told.text);
}

#[test]
fn sizes() {
    let mut told = Told::default();
    refused(&mut told, "depth_zero", "depth = 1", "depth = 0");
    refused(&mut told, "head_size_odd", "head_dim = 32", "head_dim = 33");
    refused(&mut told, "heads_of_key_and_value", "aspect_ratio = 32", "aspect_ratio = 96\nn_kv_head = 2");
    refused(&mut told, "heads_of_a_gpt", "head_dim = 32", "head_dim = 32\nn_head = 3");
    refused(&mut told, "batch_not_divisible", "total_batch_size = 128", "total_batch_size = 200");
    refused(&mut told, "window_letters", "depth = 1", "depth = 1\nwindow_pattern = \"SXL\"");
    refused(&mut told, "small_vocabulary", "vocab_size = 300", "vocab_size = 264");
    insta::assert_snapshot!("sizes", told.text);
}

#[test]
fn heads_that_do_not_divide_the_width() {
    let mut told = Told::default();
    let small = TINY
        .replace("depth = 1\naspect_ratio = 32\nhead_dim = 32\n", "kind = \"microgpt\"\nn_embd = 18\n")
        .replace("tokenizer = { vocab_size = 300 }", "tokenizer = \"char\"");
    refused_in(&mut told, "head_size_of_a_microgpt", &Place::with(&small), "m.toml");
    insta::assert_snapshot!("heads_that_do_not_divide_the_width", told.text);
}

#[test]
fn values_in_quotes() {
    let mut told = Told::default();
    refused(&mut told, "number_in_quotes", "depth = 1", "depth = \"1\"");
    insta::assert_snapshot!("values_in_quotes", told.text);
}

#[test]
fn matrices() {
    let mut told = Told::default();
    refused(&mut told, "empty_axis", "\"run.seed\" = [1, 2]", "\"run.seed\" = []");
    refused(&mut told, "axis_of_nothing", "\"run.seed\" = [1, 2]", "\"run.sed\" = [1, 2]");
    let all = "\"run.seed\" = [1, 2]\n[[matrix.exclude]]\nrun.seed = 1\n[[matrix.exclude]]\nrun.seed = 2";
    refused(&mut told, "exclude_all", "\"run.seed\" = [1, 2]", all);
    let label = "\"run.seed\" = [1, 2]\n\n[[matrix.include]]\nlabel = \"warmdown=sqrt\"\nmodel.smear = false";
    refused(&mut told, "label_of_another_arm", "\"run.seed\" = [1, 2]", label);
    let alike = "\"run.seed\" = [1, 2]\n\"eval.tokens\" = [256, 512]";
    refused(&mut told, "evaluations_of_one_run", "\"run.seed\" = [1, 2]", alike);
    insta::assert_snapshot!("matrices", told.text);
}

#[test]
fn shards() {
    let mut told = Told::default();
    let data = |shards: &str| TINY.replace("[data]", &format!("[data]\nshards = \"{shards}\""));
    refused_in(&mut told, "shard_missing", &Place::with(&data("no/such.parquet")), "m.toml");
    refused_in(&mut told, "shard_matched_by_nothing", &Place::with(&data("*.parquet")), "m.toml");
    let tokenizer = TINY.replace("{ vocab_size = 300 }", "{ path = \"nowhere\" }\nvocab_size = 300");
    refused_in(&mut told, "tokenizer_missing", &Place::with(&tokenizer), "m.toml");
    let place = Place::with(&data("x.parquet"));
    let column = |name: &str| Column::new(name.into(), ["a", "b"]);
    let mut frame = DataFrame::new(2, vec![column("content"), column("url")]).unwrap();
    let file = std::fs::File::create(place.path("x.parquet")).unwrap();
    ParquetWriter::new(file).finish(&mut frame).unwrap();
    refused_in(&mut told, "shard_wrong_column", &place, "m.toml");
    let whole = std::fs::read(place.path("x.parquet")).unwrap();
    std::fs::write(place.path("x.parquet"), &whole[..whole.len() / 2]).unwrap();
    refused_in(&mut told, "shard_cut_in_half", &place, "m.toml");
    for (name, bytes) in [("shard_empty", &b""[..]), ("shard_truncated", b"PAR1 and then no more of it")] {
        let place = Place::with(&data("x.parquet"));
        std::fs::write(place.path("x.parquet"), bytes).unwrap();
        refused_in(&mut told, name, &place, "m.toml");
    }
    insta::assert_snapshot!("shards", told.text);
}

#[test]
fn files_that_are_no_manifest() {
    let mut told = Told::default();
    let place = Place::with(TINY);
    std::fs::write(place.path("latin1.toml"), b"name = \"a\"\nquestion = \"caf\xe9?\"\n").unwrap();
    let wide: Vec<u8> = "\u{feff}name".encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(place.path("wide.toml"), wide).unwrap();
    std::fs::create_dir(place.path("experiments")).unwrap();
    refused_in(&mut told, "directory_without_manifests", &place, "experiments");
    std::fs::write(place.path("experiments/m.toml"), TINY).unwrap();
    refused_in(&mut told, "not_utf8", &place, "latin1.toml");
    refused_in(&mut told, "utf16", &place, "wide.toml");
    refused_in(&mut told, "directory", &place, "experiments");
    refused_in(&mut told, "no_manifest", &place, "experiments/n.toml");
    refused_in(&mut told, "no_directory", &place, "experiment/m.toml");
    insta::assert_snapshot!("files_that_are_no_manifest", told.text);
}

#[test]
fn results_that_cannot_be_written() {
    let mut told = Told::default();
    let place = Place::with(TINY);
    std::fs::write(place.path("file"), "").unwrap();
    let ended = place.run(&["run", "m.toml", "--results", "file"]).expect(2);
    told.add("results_not_writable", &ended.stderr);
    assert_eq!(std::fs::read(place.path("file")).unwrap(), b"");
    std::fs::create_dir(place.path("taken")).unwrap();
    std::fs::write(place.path("taken/tiny"), "").unwrap();
    let ended = place.run(&["run", "m.toml", "--results", "taken"]).expect(2);
    told.add("results_in_the_way", &ended.stderr);
    #[cfg(target_os = "linux")]
    {
        let ended = place.run(&["run", "m.toml", "--results", "/proc/none"]).expect(2);
        insta::assert_snapshot!("results_not_made", ended.stderr);
    }
    insta::assert_snapshot!("results_that_cannot_be_written", told.text);
}
