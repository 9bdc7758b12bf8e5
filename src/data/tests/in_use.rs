//! What reading costs, and files that change under it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use polars::prelude::{Column, DataFrame, ParquetWriter};

use crate::data::config::DocumentSplit;
use crate::data::{Cache, Corpus, Split};
use crate::error::Result;

fn corpus(path: &Path, cache: &Cache) -> Result<Corpus> {
    Corpus::open_with(&[path.to_str().unwrap().to_owned()], DocumentSplit::Line, cache)
}

fn write_groups(path: &Path, texts: &[String], rows: usize) {
    let mut frame = DataFrame::new_infer_height(vec![Column::new("text".into(), texts)]).unwrap();
    let file = fs::File::create(path).unwrap();
    ParquetWriter::new(file).with_row_group_size(Some(rows)).finish(&mut frame).unwrap();
}

#[test]
fn cost_per_row_group() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("many.parquet");
    let texts: Vec<String> = (0..16_000).map(|number| format!("text {number}")).collect();
    write_groups(&path, &texts, 1);
    let begin = crate::files::now();
    let corpus = corpus(&path, &Cache::disabled()).unwrap();
    let mut found = corpus.split(Split::Train).documents().unwrap();
    found.extend(corpus.split(Split::Val).documents().unwrap());
    assert!(found == texts);
    // About a second where nothing else runs; it was a minute when each group cost as much as there are groups.
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_shard_replaced_while_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path().join("cache"));
    let texts = |word: &str| -> Vec<String> { (0..5000).map(|number| format!("{word} {number}")).collect() };
    let parquet = |path: &Path, word: &str| write_groups(path, &texts(word), 100);
    let text = |path: &Path, word: &str| fs::write(path, texts(word).join("\n")).unwrap();
    for name in ["a.parquet", "a.txt"] {
        let write = |path: &Path, word: &str| {
            if name == "a.txt" { text(path, word) } else { parquet(path, word) }
        };
        let path = directory.path().join(name);
        let begin = || {
            write(&path, "one");
            let corpus = corpus(&path, &cache).unwrap();
            corpus.digest(&cache).unwrap();
            let reader = corpus.split(Split::Train).open(0).unwrap();
            assert_eq!(reader.read(0).unwrap()[0], "one 0");
            (corpus, reader)
        };
        // The same bytes in a new file are no other shard.
        let (corpus, reader) = begin();
        let copy = directory.path().join("copy");
        fs::copy(&path, &copy).unwrap();
        fs::rename(&copy, &path).unwrap();
        assert!(reader.read(1).is_ok() && corpus.split(Split::Val).documents().is_ok());
        // Renamed over it, written into it, cut short, gone.
        let over = || {
            write(&copy, "two");
            fs::rename(&copy, &path).unwrap();
        };
        let into = || write(&path, "two");
        let cut = || fs::File::options().write(true).open(&path).unwrap().set_len(3000).unwrap();
        let gone = || fs::remove_file(&path).unwrap();
        for way in 0..4 {
            let (corpus, reader) = begin();
            match way {
                0 => over(),
                1 => into(),
                2 => cut(),
                _ => gone(),
            }
            let word = if way < 3 { "replaced" } else { "no longer there" };
            let split = corpus.split(Split::Train);
            for error in [reader.read(1).err(), reader.read(2).err(), split.open(0).err()] {
                let message = error.unwrap().to_string();
                assert!(message.contains(word) && message.contains(name), "{message}");
                assert!(message.contains("bring back the file"), "{message}");
            }
            assert!(split.documents().is_err());
        }
    }
}

#[test]
fn a_look_at_a_split_does_not_read_it_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.parquet");
    let texts: Vec<String> = (0..4000).map(|number| format!("{number:01000}")).collect();
    write_groups(&path, &texts, 4000);
    let corpus = corpus(&path, &Cache::disabled()).unwrap();
    let first = corpus.split(Split::Train).first_documents(10_000).unwrap();
    assert_eq!(first, texts[..10]);
    let val = corpus.split(Split::Val).first_documents(10_000).unwrap();
    assert_eq!(val, texts[3600..3610]);
}
