//! What a user reads when data are bad: each message names the file and says what to do.

use std::fs;
use std::path::Path;

use polars::prelude::{Column, DataFrame, NamedFrom, ParquetWriter, Series};

use crate::data::config::{DocumentSplit, Packing, TokenizerChoice};
use crate::data::{BatchShape, Cache, Corpus, Loader, Split, Tokenizer, missing};
use crate::error::Error;

fn write_parquet(path: &Path, columns: Vec<Series>) {
    let columns: Vec<Column> = columns.into_iter().map(Column::from).collect();
    let mut frame = DataFrame::new_infer_height(columns).unwrap();
    ParquetWriter::new(fs::File::create(path).unwrap())
        .with_row_group_size(Some(2))
        .finish(&mut frame)
        .unwrap();
}

fn texts(path: &Path, texts: &[&str]) {
    write_parquet(path, vec![Series::new("text".into(), texts)]);
}

fn open(patterns: &[&Path]) -> Result<Corpus, Error> {
    let patterns: Vec<String> = patterns.iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    Corpus::open(&patterns, DocumentSplit::Block)
}

/// The message with the temporary directory left out.
fn message(error: &Error, directory: &Path) -> String {
    assert_eq!(error.class().exit_code(), 2);
    error.to_string().replace(directory.to_str().unwrap(), "[dir]")
}

#[test]
fn bad_shards_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    texts(&path("good.parquet"), &["a", "b", "c", "d"]);
    let whole = fs::read(path("good.parquet")).unwrap();
    fs::write(path("empty.parquet"), b"").unwrap();
    fs::write(path("truncated.parquet"), &whole[..whole.len() / 2]).unwrap();
    fs::write(path("prose.parquet"), "It was the best of times, it was the worst of times").unwrap();
    fs::write(path("latin1.txt"), b"one\n\ncaf\xe9\n").unwrap();
    fs::write(path("blank.txt"), " \n\n").unwrap();
    fs::create_dir(path("nothing")).unwrap();
    fs::create_dir(path("directory.parquet")).unwrap();
    write_parquet(
        &path("wrong_column.parquet"),
        vec![Series::new("content".into(), ["a"]), Series::new("id".into(), [1_i64])],
    );
    write_parquet(&path("wrong_type.parquet"), vec![Series::new("text".into(), [1_i64, 2])]);
    write_parquet(&path("no_rows.parquet"), vec![Series::new("text".into(), Vec::<String>::new())]);
    texts(&path("one_row.parquet"), &["alone"]);

    let mut messages = Vec::new();
    for name in [
        "missing.parquet",
        "missing_*.parquet",
        "empty.parquet",
        "truncated.parquet",
        "prose.parquet",
        "wrong_column.parquet",
        "wrong_type.parquet",
        "no_rows.parquet",
        "one_row.parquet",
        "latin1.txt",
        "blank.txt",
        "nothing",
    ] {
        let error = open(&[&path(name)]).err().unwrap_or_else(|| panic!("{name} was accepted"));
        messages.push(format!("{name}\n{}", message(&error, directory.path())));
    }
    let error = Corpus::open(&["embedded".to_owned(), "more.parquet".to_owned()], DocumentSplit::Block);
    messages.push(format!("embedded and more\n{}", message(&error.err().unwrap(), directory.path())));
    let error = Corpus::open(&[], DocumentSplit::Block);
    messages.push(format!("none\n{}", message(&error.err().unwrap(), directory.path())));
    insta::assert_snapshot!(messages.join("\n\n"));

    // A bad file among good ones is found too.
    assert!(open(&[&path("good.parquet"), &path("truncated.parquet")]).is_err());
    let patterns = ["good.parquet", "missing.parquet", "missing_*.parquet"]
        .map(|name| path(name).to_str().unwrap().to_owned());
    assert_eq!(missing(&patterns).unwrap(), patterns[1..]);
}

#[test]
fn bad_rows_are_found_before_the_loader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nulls.parquet");
    write_parquet(
        &path,
        vec![Series::new("text".into(), [Some("a"), Some("b"), Some("c"), None, Some("d")])],
    );
    insta::assert_snapshot!(message(&open(&[&path]).err().unwrap(), directory.path()));
}

#[test]
fn bad_tokenizers_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    texts(&path("tiny.parquet"), &["aaaa", "bb"]);
    fs::write(path("prose.pkl"), "not a pickle").unwrap();
    // What `os.system("true")` pickles to.
    fs::write(
        path("malicious.pkl"),
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x85R.",
    )
    .unwrap();
    let whole = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/data/tokenizer_300/tokenizer.pkl");
    let whole = fs::read(whole).unwrap();
    fs::write(path("truncated.pkl"), &whole[..1000]).unwrap();
    let three = String::from_utf8_lossy(&whole).find("{1,2}").unwrap();
    let pattern = whole.windows(5).position(|window| window == b"{1,2}").unwrap();
    assert!(three >= pattern);
    let mut other = whole.clone();
    other[pattern + 3] = b'3';
    fs::write(path("pattern.pkl"), other).unwrap();

    let corpus = open(&[&path("tiny.parquet")]).unwrap();
    let mut messages = Vec::new();
    let named = |name: &str| TokenizerChoice::Path(path(name).to_str().unwrap().to_owned());
    for choice in [
        TokenizerChoice::Train { vocab_size: 264 },
        TokenizerChoice::Train { vocab_size: 300 },
        named("missing"),
        named("prose.pkl"),
        named("malicious.pkl"),
        named("truncated.pkl"),
        named("pattern.pkl"),
    ] {
        let error = Tokenizer::resolve(&choice, &corpus, &Cache::disabled()).err().unwrap();
        messages.push(message(&error, directory.path()));
    }
    insta::assert_snapshot!(messages.join("\n\n"));
}

#[test]
fn damaged_parquet_never_panics() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("damaged.parquet");
    // Written by pyarrow, as upstream's shards are: three row groups, dictionaries, zstd.
    let whole = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/data/pyarrow_small.parquet");
    let whole = fs::read(whole).unwrap();
    let (mut refused, mut unharmed) = (0, 0);
    for at in 0..whole.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= mask;
            fs::write(&path, &damaged).unwrap();
            let read = open(&[&path]).and_then(|corpus| {
                let reader = corpus.split(Split::Train).open(0)?;
                (0..reader.groups()).map(|group| reader.read(group)).collect::<Result<Vec<_>, _>>()
            });
            match read {
                Ok(_) => unharmed += 1,
                Err(error) => {
                    assert_eq!(error.class().exit_code(), 2, "{error}");
                    assert!(error.to_string().contains("damaged.parquet"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100 && unharmed > 0, "{refused} refused, {unharmed} unharmed");
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(open(&[&path]).is_err(), "cut to {len} bytes");
    }
}

#[test]
fn a_single_file_holds_out_its_last_tenth() {
    let directory = tempfile::tempdir().unwrap();
    let read = |path: &Path, split| -> Vec<String> {
        let corpus = open(&[path]).unwrap();
        let reader = corpus.split(split).open(0).unwrap();
        (0..reader.groups()).flat_map(|group| reader.read_split(group).unwrap()).collect()
    };
    let all: Vec<String> = (0..25).map(|i| i.to_string()).collect();
    let parquet = directory.path().join("one.parquet");
    texts(&parquet, &all.iter().map(String::as_str).collect::<Vec<_>>());
    let text = directory.path().join("one.txt");
    fs::write(&text, all.join("\n\n")).unwrap();
    for path in [&parquet, &text] {
        assert_eq!(read(path, Split::Train), all[..23]);
        assert_eq!(read(path, Split::Val), all[23..]);
    }
}

#[test]
fn characters_and_documents_of_a_list_of_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("names.txt");
    fs::write(&path, "anna\nbob\nada\n").unwrap();
    let corpus = Corpus::open(&[path.to_str().unwrap().to_owned()], DocumentSplit::Line).unwrap();
    let tokenizer = Tokenizer::resolve(&TokenizerChoice::Char, &corpus, &Cache::disabled()).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos()), (6, 5));
    assert_eq!(tokenizer.encode("band").unwrap(), [1, 0, 3, 2]);
    assert_eq!(tokenizer.decode(&[1, 0, 3, 2, 5]), "band<|bos|>");
    assert!(tokenizer.encode("z").unwrap_err().to_string().contains("'z'"));

    let shape = BatchShape { packing: Packing::Document, rows: 2, len: 4 };
    let mut loader =
        Loader::start(corpus.split(Split::Train), tokenizer, Cache::disabled(), shape, None).unwrap();
    let batch = loader.next().unwrap();
    assert_eq!(batch.inputs, [5, 0, 3, 3, 5, 1, 4, 1]);
    assert_eq!(batch.targets, [0, 3, 3, 0, 1, 4, 1, 5]);
    assert_eq!(batch.state.epoch, 1);
    assert_eq!(loader.next().unwrap().state.epoch, 2);
}
