//! Parquet as other programs write it: tests/fixtures/data/shards, made by tests/fixtures/generate/shards.py.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::config::{DocumentSplit, Nulls, Reading};
use crate::data::{Cache, Corpus, Split};
use crate::error::{Error, Result};

/// The texts of a fixture.
fn texts() -> Vec<String> {
    (0..60).map(|i| format!("document {i} {}", "ab é ".repeat(i % 7))).collect()
}

fn names() -> Vec<String> {
    let shards = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/shards");
    let mut names: Vec<String> = fs::read_dir(shards)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().replace(".parquet.zst", ""))
        .collect();
    names.sort();
    names
}

/// Unpacks a fixture into `directory`.
fn unpacked(name: &str, directory: &Path) -> PathBuf {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/shards");
    let packed = fs::read(packed.join(format!("{name}.parquet.zst"))).unwrap();
    let path = directory.join(format!("{name}.parquet"));
    fs::write(&path, zstd::decode_all(&*packed).unwrap()).unwrap();
    path
}

fn reading(nulls: Nulls) -> Reading {
    Reading { nulls, ..Reading::from(DocumentSplit::Block) }
}

fn read(path: &Path, reading: Reading, cache: &Cache) -> Result<Vec<String>> {
    let corpus = Corpus::open_with(&[path.to_str().unwrap().to_owned()], reading, cache)?;
    let [mut train, val] = [Split::Train, Split::Val].map(|split| corpus.split(split));
    let sizes = [train.size()?, val.size()?];
    let mut all = std::mem::replace(&mut train, val.clone()).documents()?;
    let held_out = val.documents()?;
    assert_eq!(sizes.map(|size| size.documents), [all.len() as u64, held_out.len() as u64]);
    all.extend(held_out);
    Ok(all)
}

fn refused(name: &str, nulls: Nulls) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let path = unpacked(name, directory.path());
    let outcome = Corpus::open(&[path.to_str().unwrap().to_owned()], reading(nulls));
    let error = outcome.err().unwrap_or_else(|| panic!("{name} was accepted"));
    assert_eq!(error.class().exit_code(), 2);
    error
}

/// What is no column of texts, or has nulls.
const OTHERS: [&str; 10] = [
    "binary",
    "binary_polars",
    "content",
    "decimals",
    "fixed_binary",
    "integers",
    "lists",
    "nulls_alone",
    "structs",
    "timestamps",
];

#[test]
fn shards_of_other_writers() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for name in names() {
        let expected = match name.as_str() {
            "long_header" => {
                texts().into_iter().chain(["a", "z"].map(|letter| letter.repeat(33_000))).collect()
            }
            "many_rows" => vec!["same".to_owned(); 2_000_000],
            "many_groups" => (0..300).map(|i| format!("text {}", i % 10)).collect(),
            long if long.starts_with("long_") => {
                vec!["a".repeat(9_000_000), "b".to_owned(), "c".repeat(17_000_000)]
            }
            null if null.starts_with("null") => continue,
            other if OTHERS.contains(&other) => continue,
            _ => texts(),
        };
        let path = unpacked(&name, directory.path());
        let found = read(&path, reading(Nulls::Error), &Cache::disabled());
        assert!(found.unwrap_or_else(|error| panic!("{name}: {error}")) == expected, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 38);
}

#[test]
fn nulls_found_late() {
    // The group and the row are named before anything is trained, footer or no footer.
    for (name, group) in [
        ("null_early", "row group 0"),
        ("null_late", "row group 3"),
        ("null_late_untold", "row group 3"),
        ("null_late_untold_v2", "row group 3"),
        ("null_dictionary", "row group 0"),
        ("null_group", "row group 1"),
        ("null_delta", "row group 0"),
    ] {
        let message = refused(name, Nulls::Error).to_string();
        assert!(message.contains(group) && message.contains("null in column `text`"), "{name}: {message}");
        assert!(message.contains("data.nulls = \"skip\""), "{message}");
    }
    let third: Vec<String> =
        texts().into_iter().enumerate().filter(|(i, _)| i % 3 > 0).map(|(_, text)| text).collect();
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path().join("cache"));
    for (name, expected) in [
        ("null_early", texts()),
        ("null_late", texts()),
        ("null_late_untold", texts()),
        ("null_late_untold_v2", texts()),
        ("null_group", texts()),
        ("null_many", third.clone()),
        ("null_dictionary", third.clone()),
        ("null_delta", third),
    ] {
        let path = unpacked(name, directory.path());
        // Without a cache, into it, and out of it.
        for cache in [&Cache::disabled(), &cache, &cache] {
            assert_eq!(read(&path, reading(Nulls::Skip), cache).unwrap(), expected, "{name}");
        }
    }
    // Without a null nothing is skipped, and nothing else has another key.
    let path = unpacked("dictionary", directory.path());
    let digest = |nulls| {
        let corpus = Corpus::open(&[path.to_str().unwrap().to_owned()], reading(nulls)).unwrap();
        corpus.digest(&Cache::disabled()).unwrap()
    };
    assert_eq!(digest(Nulls::Error), digest(Nulls::Skip));
}

#[test]
fn what_is_no_column_of_texts_is_named() {
    let mut messages = Vec::new();
    for name in OTHERS {
        messages.push(refused(name, Nulls::Error).what().to_owned());
    }
    messages.push(refused("content", Nulls::Error).help_text().unwrap().to_owned());
    insta::assert_snapshot!(messages.join("\n"));
    let directory = tempfile::tempdir().unwrap();
    let path = unpacked("content", directory.path());
    let other = |column: &str| Reading { column: column.to_owned(), ..reading(Nulls::Error) };
    assert_eq!(read(&path, other("content"), &Cache::disabled()).unwrap(), texts());
    let error = read(&path, other("contents"), &Cache::disabled()).unwrap_err();
    assert_eq!(error.help_text(), Some("did you mean `data.column = \"content\"`?"));
    assert!(read(&path, other("id"), &Cache::disabled()).unwrap_err().to_string().contains("holds i64"));
}

/// Bits flipped anywhere in files of every kind: refused by name, or read; never a panic, never exabytes.
#[test]
fn damage_in_any_encoding_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for name in [
        "dictionary",
        "delta_byte_array_v2",
        "delta_length_byte_array_v1",
        "fallback",
        "codec_lz4",
        "null_delta",
    ] {
        let path = unpacked(name, directory.path());
        let whole = fs::read(&path).unwrap();
        let mut refused = 0;
        for at in (0..whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            fs::write(&path, &damaged).unwrap();
            if let Err(error) = read(&path, reading(Nulls::Skip), &Cache::disabled()) {
                assert_eq!(error.class().exit_code(), 2, "{error}");
                assert!(error.to_string().contains(name), "{error}");
                refused += 1;
            }
        }
        assert!(refused > 30, "{name}: {refused}");
    }
}
