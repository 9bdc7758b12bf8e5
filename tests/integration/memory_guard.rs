//! Runs whose caches fill and whose loaders read ahead while they evaluate: the memory guard keeps still.

use std::path::Path;

use crate::support::Place;

/// Bytes of the validation split.
const SPLIT: usize = 30_000_000;

/// Documents of about 4 KB, whose words never stop being new.
fn write_text(path: &Path, bytes: usize) {
    let mut text = String::with_capacity(bytes + 5000);
    let mut state = 1_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    while text.len() < bytes {
        for _ in 0..600 {
            // Half of the words are of a hundred, the others hardly ever seen before.
            let word = if next(2) == 0 { next(100) } else { next(1 << 28) };
            for letter in 0..(2 + word % 9) {
                text.push((b'a' + ((word >> (2 * letter)) % 26) as u8) as char);
            }
            text.push(' ');
        }
        text.push('\n');
    }
    std::fs::write(path, text).unwrap();
}

/// One thread computes, any number tokenises: from a cold cache the evaluation goes through the whole split.
#[test]
fn memory_guard_takes_caches_and_prefetch_for_a_leak() {
    let place = Place::with(
        "name = \"rss\"\n[upstream]\ncommit = \"92d63d4\"\n[run]\nseed = 1\nbackend = \"cpu\"\n\
         [budget]\nsteps = 2\n[schedule]\nwarmdown = \"linear\"\n\
         [model]\nkind = \"bigram\"\nsequence_len = 64\n[train]\ndevice_batch_size = 8\n\
         [data]\nshards = \"data\"\ndocument = \"line\"\ntokenizer = { vocab_size = 320 }\npacking = \"document\"\n\
         [eval]\nevery = 0\ntokens = 450000\n",
    );
    std::fs::create_dir(place.path("data")).unwrap();
    write_text(&place.path("data/a.txt"), 200_000);
    write_text(&place.path("data/b.txt"), SPLIT);
    let mut hashes = Vec::new();
    for workers in ["1", "2", "16", "64"] {
        let mut command = place.command(&["m.toml", "--threads", "1", "--json", "--results", workers]);
        command
            .env("NANORUN_CACHE", place.path(&format!("cache{workers}")))
            .env("RAYON_NUM_THREADS", workers);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{workers} workers: {stderr}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        hashes.push(json["runs"][0]["result_hash"].clone());
        // The text file read whole, its documents, and the stated bounds of the loaders of both splits.
        let peak = json["runs"][0]["peak_rss_bytes"].as_u64().unwrap();
        assert!(peak < 400_000_000, "{workers} workers: {peak} bytes at most");
    }
    assert!(hashes.iter().all(|hash| hash.is_string() && *hash == hashes[0]), "{hashes:?}");
}
