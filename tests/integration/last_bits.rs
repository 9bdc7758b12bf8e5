//! A library that takes subnormal numbers for zero is loaded beside nanorun, and nobody can tell from the result.

#![cfg(target_os = "linux")]

use crate::support::{Place, build_shim};

/// Weights too small for a full mantissa: nearly every number of this run is subnormal.
const SUBNORMAL: &str = "name = \"subnormal\"\nupstream.commit = \"92d63d4\"\n\
    run = { seed = 1, backend = \"cpu\" }\nbudget.steps = 5\nschedule.warmdown = \"linear\"\n\
    model = { kind = \"bigram\", sequence_len = 8, init_std = 1e-38, input_rmsnorm = false }\n\
    optimizer.kind = \"sgd\"\n\
    data = { shards = \"names.txt\", document = \"line\", tokenizer = \"char\" }\n\
    eval = { every = 0, tokens = 64 }\n";

#[test]
fn last_bits_survive_a_library_that_flushes_to_zero() {
    // As it was built, with every library that it loads.
    let place = Place::with(SUBNORMAL).with_libtorch();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(root.join("experiments/data/names.txt"), place.path("names.txt")).unwrap();
    let shim = place.path("ftz.so");
    build_shim("ftz.c", &shim, &[]);
    let hash = |preloaded: bool, arguments: &[&str]| {
        let mut command = place.command(&["run", "m.toml", "-q", "--json"]);
        command.args(arguments);
        if preloaded {
            command.env("LD_PRELOAD", &shim);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["runs"][0]["result_hash"].as_str().unwrap().to_owned()
    };
    let expected = hash(false, &["--results", "plain"]);
    for threads in ["1", "3"] {
        assert_eq!(hash(true, &["--results", threads, "--threads", threads]), expected, "{threads} threads");
    }
    // As it was before any thread set its own arithmetic.
    assert_eq!(expected, "01f294428b32771bbab50cf28816ea3b48e5b938c3b92fd5667df6ba0c42ef5d");
}
