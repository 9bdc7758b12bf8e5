//! `nanorun cache`, and runs whose cache is small, full, cleared meanwhile or of another version.

use std::path::Path;

use crate::support::{Ended, Place};

const MANIFEST: &str = "name = \"cached\"\nupstream.commit = \"92d63d4\"\nrun = { seed = 1, backend = \"cpu\" }\n\
     budget.steps = 4\nschedule.warmdown = \"linear\"\nmodel = { kind = \"bigram\", sequence_len = 32 }\n\
     data = { shards = \"data\", document = \"line\", tokenizer = { vocab_size = 300 } }\neval.tokens = 4096\n";

/// A place with a corpus of some files; `m.toml` reads it.
fn place() -> Place {
    let place = Place::with(MANIFEST);
    std::fs::create_dir(place.path("data")).unwrap();
    for file in 0..3 {
        let lines: Vec<String> = (0..3000)
            .map(|line| format!("{line} lines of file {file}, {} words", line * 7919 % 1013))
            .collect();
        let path = place.path("data").join(format!("{file}.txt"));
        std::fs::write(&path, lines.join("\n")).unwrap();
        // Digests of files that changed a moment ago are not remembered at once.
        let hour_ago = nanorun::internals::files::system_now() - std::time::Duration::from_secs(3600);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(hour_ago).unwrap();
    }
    place
}

fn run(place: &Place, arguments: &[&str], cache: &str, gigabytes: &str) -> Ended {
    let mut command = place.command(arguments);
    command.env("NANORUN_CACHE", place.path(cache)).env("NANORUN_CACHE_GB", gigabytes);
    let output = command.output().unwrap();
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&place.path("").display().to_string(), "");
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

fn hash(place: &Place, results: &str, cache: &str, gigabytes: &str) -> String {
    let ended = run(place, &["m.toml", "--json", "--results", results], cache, gigabytes).expect(0);
    ended.json()["runs"][0]["result_hash"].as_str().unwrap().to_owned()
}

fn bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() { bytes(&entry.path()) } else { metadata.len() }
        })
        .sum()
}

/// Whatever the cache is, the result is one; and it stays within its bound.
#[test]
fn cache_of_any_size_changes_no_result() {
    let place = place();
    let expected = hash(&place, "results-large", "large", "1");
    let full = bytes(&place.path("large"));
    assert!(full > 20_000, "{full}");
    for (name, gigabytes, most) in [("none", "0", 0), ("small", "0.00003", 30_000), ("again", "1", full)] {
        let cache = if name == "again" { "large" } else { name };
        assert_eq!(hash(&place, &format!("results-{name}"), cache, gigabytes), expected, "{name}");
        assert!(bytes(&place.path(cache)) <= most, "{name}: {} bytes", bytes(&place.path(cache)));
    }
    // Entries that are damaged, or gone, or another version's.
    for (number, change) in ["damage", "remove", "old"].into_iter().enumerate() {
        change_entries(&place.path("large"), change);
        assert_eq!(hash(&place, &format!("results-{number}"), "large", "1"), expected, "{change}");
    }
}

fn change_entries(directory: &Path, change: &str) {
    if change == "old" {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            std::fs::rename(&path, path.with_extension("0")).unwrap();
        }
        return;
    }
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            change_entries(&path, change);
        } else if change == "damage" {
            std::fs::write(&path, "damaged").unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn cache_command_shows_and_clears() {
    let place = place();
    let cache = |arguments: &[&str]| run(&place, arguments, "cache", "2");
    let facts = || cache(&["cache", "--json"]).expect(0).json();
    let entries = |kind: &str| {
        let facts = facts();
        let kinds = facts["kinds"].as_array().unwrap();
        kinds.iter().find(|found| found["kind"] == kind).unwrap()["entries"].as_u64().unwrap()
    };
    assert_eq!((facts()["bytes"].as_u64(), facts()["limit_bytes"].as_u64()), (Some(0), Some(2_000_000_000)));
    hash(&place, "results", "cache", "2");
    assert!(entries("tokens") >= 2 && entries("tokenizers") == 1);
    assert_eq!(facts()["limit_from"], "NANORUN_CACHE_GB");
    let shown = cache(&["cache"]).expect(0).stdout;
    for word in ["cache", "of at most 2.0 GB", "tokens", "tokenizers", "digests", "old"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }

    // Without --yes nothing goes.
    let before = entries("tokens");
    let told = cache(&["cache", "clear", "--kind", "tokens"]).expect(0).stdout;
    assert!(told.starts_with(&format!("would remove {before} entries")), "{told}");
    assert_eq!(entries("tokens"), before);
    assert!(
        cache(&["cache", "clear", "--older-than", "1d", "--yes"])
            .expect(0)
            .stdout
            .contains("removed 0 entries")
    );
    let json = cache(&["cache", "clear", "--kind", "tokens", "--yes", "--json"]).expect(0).json();
    assert_eq!((json["entries"].as_u64(), json["removed"].as_bool()), (Some(before), Some(true)));
    assert_eq!((entries("tokens"), entries("tokenizers")), (0, 1));
    cache(&["cache", "clear", "--yes"]).expect(0);
    assert_eq!(facts()["bytes"], 0);

    for wrong in [&["cache", "clear", "--kind", "photos"][..], &["cache", "clear", "--older-than", "7 days"]]
    {
        cache(wrong).expect(2);
    }
    let error = run(&place, &["m.toml"], "cache", "20GB").expect(2).stderr;
    assert!(
        error.contains("NANORUN_CACHE_GB is `20GB`") && error.contains("gigabytes as a number"),
        "{error}"
    );
}
