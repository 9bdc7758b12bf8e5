//! Bits of the tch backend's CPU device depend on what the environment class names, and on nothing else.

#![cfg(all(feature = "tch", target_os = "linux"))]

use crate::support::{Ended, Place, build_shim};

/// Every op of a network with all options, in products and rows that are large enough for two threads.
const MANIFEST: &str = "name = \"bits\"\nupstream.commit = \"92d63d4\"\n\
    run = { seed = 1, backend = \"tch\" }\nbudget.steps = 2\nschedule.warmdown = \"linear\"\n\
    model = { depth = 2, aspect_ratio = 32, head_dim = 32, n_kv_head = 1, sequence_len = 192 }\n\
    train = { device_batch_size = 2, total_batch_size = 384 }\n\
    data.tokenizer.vocab_size = 300\neval = { every = 0, tokens = 384 }\n";

/// The run on two threads, with these variables beside the caller's.
fn run(place: &Place, results: &str, variables: &[(&str, &str)], more: &[&str]) -> Ended {
    let mut command =
        place.command(&["run", "m.toml", "-q", "--json", "--threads", "2", "--results", results]);
    command.args(more).envs(variables.iter().copied());
    Ended::of(&command.output().unwrap(), &place.path(""))
}

fn hash(ended: Ended) -> String {
    ended.expect(0).json()["runs"][0]["result_hash"].as_str().unwrap().to_owned()
}

/// MKL's vector functions find out in their first call what the CPU is. Before it was made by one thread at the start, one
/// process in thirty to a hundred computed its first attention with other last bits.
#[test]
fn the_first_exponential_is_computed_by_one_thread_alone() {
    let place = Place::with(MANIFEST);
    let (shim, told) = (place.path("first_exp.so"), place.path("told"));
    build_shim("first_exp.c", &shim, &["-ldl"]);
    let variables = [("LD_PRELOAD", shim.to_str().unwrap()), ("FIRST_EXP", told.to_str().unwrap())];
    hash(run(&place, "results", &variables, &[]));
    // Other CPUs than x86 have no MKL, and nobody asks.
    if cfg!(target_arch = "x86_64") || told.exists() {
        assert_eq!(std::fs::read_to_string(told).unwrap(), "alone");
    }
}

#[test]
fn variables_that_the_class_does_not_tell_of_change_nothing() {
    let place = Place::with(MANIFEST);
    for precision in ["f32", "bf16"] {
        let set = format!("run.precision={precision}");
        let of = |name: &str, variables: &[(&str, &str)]| {
            hash(run(&place, &format!("{precision}_{name}"), variables, &["--set", &set]))
        };
        let plain = of("plain", &[]);
        for (name, value) in [
            ("MKL_CBWR", "COMPATIBLE"),
            ("MKL_ENABLE_INSTRUCTIONS", "SSE4_2"),
            ("MKL_NUM_THREADS", "1"),
            ("OMP_NUM_THREADS", "1"),
            ("OMP_DYNAMIC", "true"),
            ("ONEDNN_MAX_CPU_ISA", "SSE41"),
            ("ONEDNN_DEFAULT_FPMATH_MODE", "ANY"),
        ] {
            assert_eq!(of(name, &[(name, value)]), plain, "{precision}, {name}={value}");
        }
    }
}

/// Their number is part of the class and decides bits; OpenMP would start fewer without a word.
#[test]
fn fewer_threads_than_the_class_would_name_are_refused() {
    let place = Place::with(MANIFEST);
    for (name, value) in [("OMP_THREAD_LIMIT", "1"), ("OMP_MAX_ACTIVE_LEVELS", "0")] {
        let ended = run(&place, name, &[(name, value)], &[]).expect(3);
        assert!(ended.stderr.contains("OpenMP starts 1 of the 2 threads"), "{}", ended.stderr);
        assert!(ended.stderr.contains("--threads 1"), "{}", ended.stderr);
        assert_eq!(std::fs::read_dir(place.path(name).join("bits/runs")).into_iter().flatten().count(), 0);
    }
    let one = place.command(&["run", "m.toml", "-q", "--threads", "1"]).env("OMP_THREAD_LIMIT", "1").output();
    Ended::of(&one.unwrap(), &place.path("")).expect(0);
}
