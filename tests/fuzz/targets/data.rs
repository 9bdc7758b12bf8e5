//! Shards, tokenizers and what is kept of their tokens.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use nanorun::internals::data::{
    Cache, Corpus, DocumentBatches as _, DocumentSplit, Nulls, Position, Reading, Split, TokenBytesRule,
    TokenStream, Tokenizer, documents_from_bytes, documents_to_bytes,
};
use nanorun::internals::error::Error;
use nanorun::internals::hash::Digest;
use nanorun::internals::pickle::Pickle;

use super::{PARQUET_WORDS, judged};
use crate::harness::{Target, Verdict, scratch};
use crate::seeds;

/// Every document of both splits.
fn read_corpus(path: &Path, reading: impl Into<Reading>) -> Result<(), Error> {
    let corpus = Corpus::open(&[path.to_str().unwrap_or_default().to_owned()], reading)?;
    for split in [Split::Train, Split::Val] {
        corpus.split(split).documents()?;
    }
    Ok(())
}

#[test]
fn parquet_shard() {
    let place = scratch();
    let path = place.path().join("fuzzed.parquet");
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        judged(read_corpus(&path, DocumentSplit::Block), "fuzzed.parquet")
    };
    let mut seeds = vec![seeds::file("tests/fixtures/data/pyarrow_small.parquet"), seeds::shard()];
    // Every encoding and compression, and both versions of pages.
    seeds.extend(WRITERS.map(seeds::packed_shard));
    Target::new("parquet_shard", seeds, PARQUET_WORDS, &read).run();
}

const WRITERS: [&str; 12] = [
    "categorical",
    "codec_brotli",
    "codec_gzip",
    "codec_lz4",
    "codec_snappy",
    "delta_byte_array_v1",
    "delta_byte_array_v2",
    "delta_length_byte_array_v2",
    "dictionary_v2_plain",
    "duckdb",
    "fallback",
    "fastparquet_nulls",
];

/// Rows that are null, passed over.
#[test]
fn parquet_nulls() {
    let place = scratch();
    let path = place.path().join("fuzzed.parquet");
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        let reading = Reading { nulls: Nulls::Skip, ..Reading::from(DocumentSplit::Block) };
        judged(read_corpus(&path, reading), "fuzzed.parquet")
    };
    let seeds = ["null_late_untold", "null_dictionary", "null_delta", "null_group"].map(seeds::packed_shard);
    Target::new("parquet_nulls", seeds.to_vec(), PARQUET_WORDS, &read).run();
}

#[test]
fn json_lines() {
    let place = scratch();
    let path = place.path().join("fuzzed.jsonl");
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        let reading = Reading { nulls: Nulls::Skip, ..Reading::from(DocumentSplit::Block) };
        judged(read_corpus(&path, reading), "fuzzed.jsonl")?;
        judged(read_corpus(&path, DocumentSplit::Block), "fuzzed.jsonl")
    };
    let seeds = vec![
        b"{\"text\": \"one\"}\n{\"id\": [1, {}], \"text\": \"two\"}\r\n".to_vec(),
        "\u{feff}{\"text\": \"caf\\u00e9\"}\n\n{\"text\":\"\u{10ffff}\",\"text\":\"b\"}".into(),
    ];
    Target::new("json_lines", seeds, JSON_WORDS, &read).run();
}

const JSON_WORDS: &[&[u8]] =
    &[b"\"text\":", b"null", b"\\ud83d\\ude00", b"\\ud800", b"[[[[[[[[", b"{\"a\":", b"1e999", b"\n"];

/// Whole files in either compression.
#[test]
fn compressed_shard() {
    let place = scratch();
    let paths = [place.path().join("fuzzed.txt.gz"), place.path().join("fuzzed.txt.zst")];
    let read = |input: &[u8]| {
        let mut verdict = Verdict::Refused;
        for path in &paths {
            fs::write(path, input).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            if judged(read_corpus(path, DocumentSplit::Line), name)? == Verdict::Accepted {
                verdict = Verdict::Accepted;
            }
        }
        Ok(verdict)
    };
    let text = b"one\ntwo\nthree\nfour four four four four four four\n";
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, text).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&text[..], 3).unwrap();
    let seeds = vec![gzip.clone(), [gzip.clone(), gzip].concat(), zstd];
    Target::new("compressed_shard", seeds, &[b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"], &read).run();
}

#[test]
fn text_shard() {
    let place = scratch();
    let path = place.path().join("fuzzed.txt");
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        judged(read_corpus(&path, DocumentSplit::Line), "fuzzed.txt")?;
        judged(read_corpus(&path, DocumentSplit::Block), "fuzzed.txt")
    };
    let seeds = vec![b"one\n\ntwo\nthree\n".to_vec(), "caf\u{e9}\r\n \r\n\u{10ffff}".into()];
    Target::new("text_shard", seeds, &[b"\n\n", b"\r\n", b"\xff", b"\xe2\x80\xa8"], &read).run();
}

#[test]
fn tokenizer() {
    let place = scratch();
    let path = place.path().join("fuzzed.pkl");
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        let tokenizer = match Tokenizer::load(&path) {
            Ok(tokenizer) => tokenizer,
            refused => return judged(refused, "fuzzed.pkl"),
        };
        let text = "It was the best of times; 1859, caf\u{e9} <|bos|>\n";
        let ids = tokenizer.encode(text).map_err(|error| format!("accepted, but {error}"))?;
        if tokenizer.decode(&ids) != text {
            return Err("accepted, but it does not give a text back".to_owned());
        }
        let bytes = tokenizer.token_bytes(TokenBytesRule::Decoded).len();
        if bytes != tokenizer.vocab_size() || tokenizer.bos() as usize >= bytes {
            return Err("accepted, but its tables do not fit".to_owned());
        }
        let saved = tokenizer.files(TokenBytesRule::Raw).and_then(|[_, (name, bytes)]| {
            let path = place.path().join("saved").join(name);
            let error = |error| nanorun::internals::error::Error::internal("cannot write").because(error);
            std::fs::create_dir_all(place.path().join("saved")).map_err(error)?;
            std::fs::write(&path, bytes).map_err(error)?;
            Tokenizer::load(&path)
        });
        match saved {
            Ok(saved) if saved.digest() == tokenizer.digest() => Ok(Verdict::Accepted),
            Ok(_) => Err("accepted, but another one once saved".to_owned()),
            Err(error) => Err(format!("accepted, but not once saved: {error}")),
        }
    };
    let seeds = vec![seeds::file("tests/fixtures/data/tokenizer_300/tokenizer.pkl")];
    Target::new("tokenizer", seeds, PICKLE_WORDS, &read).run();
}

const PICKLE_WORDS: &[&[u8]] = &[
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x8c\x05posix\x8c\x06system\x93",
    b"\x8c\x04true\x85R",
    b"cbuiltins\neval\n",
    b"ctiktoken.core\nEncoding\n)\x81",
    b"(((((((((((((((((((((((((((((((((((",
    b"]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    b"\x85\x85\x85\x85\x85\x85\x85\x85\x85\x85\x85\x85",
    b"}q\x00h\x00h\x00s",
    b"]\x94h\x00a",
    b"\x94",
    b"h\x00",
    b"j\xff\xff\xff\x7f",
    b"r\xff\xff\xff\xff",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"B\xff\xff\xff\x7f",
    b"\x8b\xff\xff\xff\xff",
    b"\x96\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\xff",
    b"b.",
    b"R.",
    b"u",
    b"e",
    b"Q",
];

#[test]
fn pickle() {
    let allowed = [("tiktoken.core", "Encoding"), ("collections", "OrderedDict")];
    let read = |input: &[u8]| match Pickle::read(input, &allowed) {
        Ok(pickle) => {
            pickle.get(pickle.root(), "pat_str");
            Ok(Verdict::Accepted)
        }
        Err(_) => Ok(Verdict::Refused),
    };
    let list = b"\x80\x04]\x94(K\x01K\x02\x8c\x01a\x94\x86\x94e.".to_vec();
    let seeds = vec![list, seeds::file("tests/fixtures/data/tokenizer_300/tokenizer.pkl")];
    Target::new("pickle", seeds, PICKLE_WORDS, &read).run();
}

/// A file of the cache: as it is, where its hash keeps all but the seed out, and past that hash.
#[test]
fn token_cache() {
    let place = scratch();
    let shard = place.path().join("shard.parquet");
    fs::write(&shard, seeds::shard()).unwrap();
    let corpus = Corpus::open(&[shard.to_str().unwrap().to_owned()], DocumentSplit::Block).unwrap();
    let tokenizer = seeds::path("tests/fixtures/data/tokenizer_300/tokenizer.pkl");
    let tokenizer = Arc::new(Tokenizer::load(&tokenizer).unwrap());
    let root = place.path().join("cache");
    let batch = || {
        let (source, tokenizer) = (corpus.split(Split::Train), Arc::clone(&tokenizer));
        TokenStream::new(source, tokenizer, Cache::at(&root), Position::START).next_batch()
    };
    let (expected, _) = batch().unwrap();
    let mut entries = seeds::files_below(&root);
    entries.retain(|path| path.to_string_lossy().contains("/tokens."));
    let [path] = &entries[..] else { panic!("one slice of a row group is cached") };
    let seed = fs::read(path).unwrap();
    let read = |input: &[u8]| {
        fs::write(path, input).unwrap();
        if batch().map_err(|error| error.to_string())?.0 != expected {
            return Err("a damaged entry decides the tokens".to_owned());
        }
        // The head names format and key, the end is a hash.
        let Some(payload) = input.get(40..input.len().saturating_sub(32)) else {
            return Ok(Verdict::Refused);
        };
        let content = [&seed[..40], payload].concat();
        fs::write(path, [&content[..], Digest::of(&content).as_bytes()].concat()).unwrap();
        let (documents, _) = batch().map_err(|error| error.to_string())?;
        if documents
            .iter()
            .flat_map(|document| document.iter())
            .any(|&id| id as usize >= tokenizer.vocab_size())
        {
            return Err("an id beyond the vocabulary".to_owned());
        }
        let fits = documents_from_bytes(payload).is_some();
        Ok(if fits { Verdict::Accepted } else { Verdict::Refused })
    };
    Target::new("token_cache", vec![seed.clone()], DOCUMENT_WORDS, &read).run();
}

/// Documents as the cache and checkpoints keep them.
#[test]
fn documents() {
    let read = |input: &[u8]| {
        let Some(documents) = documents_from_bytes(input) else { return Ok(Verdict::Refused) };
        // Four bytes an id where two would do come back as two.
        if documents_from_bytes(&documents_to_bytes(&documents)).as_ref() != Some(&documents) {
            return Err(format!("accepted, but {documents:?} once written are others"));
        }
        Ok(Verdict::Accepted)
    };
    let seed = |documents: &[&[u32]]| {
        documents_to_bytes(&documents.iter().map(|&document| document.into()).collect::<Vec<_>>())
    };
    let seeds = vec![seed(&[]), seed(&[&[299, 5, 6], &[299]]), seed(&[&[70_000, 1], &[]])];
    Target::new("documents", seeds, DOCUMENT_WORDS, &read).run();
}

/// Widths, and counts that nothing stands behind.
pub(super) const DOCUMENT_WORDS: &[&[u8]] =
    &[b"\x02\0\0\0", b"\x04\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"];
