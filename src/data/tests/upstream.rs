//! Every id, token and row of the fixtures.

use std::path::PathBuf;
use std::sync::Arc;

use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

use crate::data::config::{DocumentSplit, Packing, TokenBytesRule, TokenizerChoice};
use crate::data::{
    Batch, BatchShape, Cache, Corpus, DataFacts, EncodePool, Loader, Split, Tokenizer, tokenizer_pickle,
};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data").join(path)
}

fn json<T: for<'de> Deserialize<'de>>(path: &str) -> T {
    serde_json::from_slice(&std::fs::read(fixture(path)).unwrap()).unwrap()
}

fn embedded_4096() -> (Corpus, Arc<Tokenizer>) {
    let corpus = Corpus::embedded().unwrap();
    let tokenizer =
        Tokenizer::resolve(&TokenizerChoice::Train { vocab_size: 4096 }, &corpus, &Cache::disabled())
            .unwrap();
    (corpus, tokenizer)
}

/// Trained on all documents of upstream's training text: a second file takes the place of validation.
fn multilingual_1024() -> Tokenizer {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.parquet", "b.parquet"] {
        std::fs::copy(fixture("tokenizer_multilingual_1024/train_text.parquet"), directory.path().join(name))
            .unwrap();
    }
    let patterns = [directory.path().to_str().unwrap().to_owned()];
    let corpus = Corpus::open(&patterns, DocumentSplit::Block).unwrap();
    Tokenizer::train(&corpus.split(Split::Train), 1024, &Cache::disabled()).unwrap()
}

fn assert_vocabulary(tokenizer: &Tokenizer, name: &str) {
    let vocab: Value = json(&format!("{name}/vocab.json"));
    assert_eq!(tokenizer.vocab_size() as u64, vocab["vocab_size"]);
    assert_eq!(u64::from(tokenizer.bos()), vocab["bos"]);
    for (id, hex) in vocab["token_bytes_hex"].as_array().unwrap().iter().enumerate() {
        if let Some(hex) = hex.as_str() {
            let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            let bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
            assert_eq!(tokenizer.token(id as u32).unwrap(), bytes, "token {id}");
        }
    }
    let specials = vocab["specials"].as_object().unwrap();
    assert_eq!(specials.len(), 9);
    for (name, id) in specials {
        assert_eq!(tokenizer.special(name).map(u64::from), id.as_u64(), "{name}");
    }
}

#[derive(Deserialize)]
struct Encoding {
    text: String,
    ids: Vec<u32>,
}

fn assert_encodings(tokenizer: &Tokenizer, name: &str) {
    let encodings: Vec<Encoding> = json(&format!("{name}/encodings.json"));
    assert!(encodings.len() > 60);
    for Encoding { text, ids } in &encodings {
        assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(&tokenizer.decode(ids), text);
    }
    let texts: Vec<&str> = encodings.iter().map(|encoding| encoding.text.as_str()).collect();
    let mut pool = EncodePool::default();
    // Twice, so that the second time meets what the workers remember.
    for _ in 0..2 {
        let documents = tokenizer.encode_documents(&texts, &mut pool).unwrap();
        for (document, encoding) in documents.iter().zip(&encodings) {
            assert_eq!(document[0], tokenizer.bos());
            assert_eq!(document[1..], encoding.ids);
        }
    }
}

#[test]
fn trained_on_the_embedded_corpus() {
    let (_, tokenizer) = embedded_4096();
    assert_vocabulary(&tokenizer, "tokenizer_4096");
    assert_encodings(&tokenizer, "tokenizer_4096");
    let bytes: Vec<u32> = json("tokenizer_4096/token_bytes.json");
    assert_eq!(tokenizer.token_bytes(TokenBytesRule::Raw), bytes);
    let pickled = Tokenizer::load(&fixture("tokenizer_4096")).unwrap();
    assert_eq!(tokenizer.digest(), pickled.digest());
}

#[test]
fn trained_on_many_languages() {
    let tokenizer = multilingual_1024();
    assert_vocabulary(&tokenizer, "tokenizer_multilingual_1024");
    assert_encodings(&tokenizer, "tokenizer_multilingual_1024");
    for (rule, commit) in [(TokenBytesRule::Decoded, "2f09686"), (TokenBytesRule::Raw, "92d63d4")] {
        let bytes: Vec<u32> = json(&format!("tokenizer_multilingual_1024/token_bytes_{commit}.json"));
        assert_eq!(tokenizer.token_bytes(rule), bytes, "{rule:?}");
    }
    assert_ne!(tokenizer.token_bytes(TokenBytesRule::Decoded), tokenizer.token_bytes(TokenBytesRule::Raw));
}

#[test]
fn training_does_not_depend_on_threads() {
    let digests: Vec<_> = [1, 3, 8]
        .into_iter()
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| multilingual_1024().digest())
        })
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
}

#[test]
fn pickles_are_read_and_written_back_byte_for_byte() {
    for name in ["tokenizer_300", "tokenizer_4096", "tokenizer_multilingual_1024"] {
        let path = fixture(name);
        let tokenizer = Tokenizer::load(&path).unwrap();
        let [_, (_, written)] = tokenizer.files(TokenBytesRule::Raw).unwrap();
        assert!(written == std::fs::read(path.join("tokenizer.pkl")).unwrap(), "{name}");
    }
    let tokenizer = Tokenizer::load(&fixture("tokenizer_300")).unwrap();
    assert_eq!(tokenizer.vocab_size(), 300);
    let bytes: Vec<u32> = json("tokenizer_300/token_bytes.json");
    assert_eq!(tokenizer.token_bytes(TokenBytesRule::Raw), bytes);
}

#[test]
fn token_bytes_are_written_as_torch_saves_them() {
    let cases = [
        ("tokenizer_4096", "token_bytes.pt", TokenBytesRule::Raw),
        ("tokenizer_multilingual_1024", "token_bytes_92d63d4.pt", TokenBytesRule::Raw),
        ("tokenizer_multilingual_1024", "token_bytes_2f09686.pt", TokenBytesRule::Decoded),
    ];
    for (name, file, rule) in cases {
        let [(_, written), _] = Tokenizer::load(&fixture(name)).unwrap().files(rule).unwrap();
        assert!(written == std::fs::read(fixture(name).join(file)).unwrap(), "{file}");
    }
}

#[test]
fn damaged_pickles_are_refused_without_a_panic() {
    let whole = std::fs::read(fixture("tokenizer_300/tokenizer.pkl")).unwrap();
    let digest = tokenizer_pickle::read(&whole).unwrap().digest();
    for len in 0..whole.len() {
        assert!(tokenizer_pickle::read(&whole[..len]).is_err(), "cut to {len} bytes");
    }
    let mut changed = 0;
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            // A flip in a token's bytes may leave another, sound vocabulary; anything else is refused.
            changed += u32::from(tokenizer_pickle::read(&damaged).is_ok_and(|read| read.digest() != digest));
        }
    }
    assert!(changed > 0);
}

fn tensor(file: &SafeTensors<'_>, name: &str) -> Vec<i32> {
    let data = file.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn loader(
    corpus: &Corpus,
    tokenizer: &Arc<Tokenizer>,
    split: Split,
    rows: usize,
    len: usize,
    cache: &Cache,
) -> Loader {
    let shape = BatchShape { packing: Packing::BestFitBos, rows, len };
    Loader::start(corpus.split(split), Arc::clone(tokenizer), cache.clone(), shape, None).unwrap()
}

#[test]
fn packed_rows_are_upstreams() {
    let (corpus, tokenizer) = embedded_4096();
    let bytes = std::fs::read(fixture("tokenizer_4096/packed_rows_B4_T512.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let states: Vec<(String, usize, Value)> = json("tokenizer_4096/packed_states.json");
    let directory = tempfile::tempdir().unwrap();
    // Without a cache, filling one, and from it.
    for cache in [Cache::disabled(), Cache::at(directory.path()), Cache::at(directory.path())] {
        for (name, split) in [("train", Split::Train), ("val", Split::Val)] {
            let mut loader = loader(&corpus, &tokenizer, split, 4, 512, &cache);
            for (_, index, state) in states.iter().filter(|(of, ..)| of == name) {
                let batch = loader.next().unwrap();
                assert!(batch.inputs == tensor(&file, &format!("{name}.{index}.x")), "{name}.{index}.x");
                assert!(batch.targets == tensor(&file, &format!("{name}.{index}.y")), "{name}.{index}.y");
                assert_eq!(batch.state.file as u64, state["pq_idx"]);
                assert_eq!(batch.state.group as u64, state["rg_idx"]);
                assert_eq!(batch.state.epoch, state["epoch"]);
            }
        }
    }
}

#[test]
fn a_loader_carries_on_from_any_cursor() {
    let corpus = Corpus::embedded().unwrap();
    let tokenizer = Arc::new(Tokenizer::load(&fixture("tokenizer_300")).unwrap());
    for split in [Split::Train, Split::Val] {
        let mut straight = loader(&corpus, &tokenizer, split, 3, 700, &Cache::disabled());
        let batches: Vec<Batch> = (0..6).map(|_| straight.next().unwrap()).collect();
        for done in 0..5 {
            let text = serde_json::to_string(&batches[done].cursor_after).unwrap();
            let cursor = serde_json::from_str(&text).unwrap();
            let shape = BatchShape { packing: Packing::BestFitBos, rows: 3, len: 700 };
            let mut resumed = Loader::start(
                corpus.split(split),
                Arc::clone(&tokenizer),
                Cache::disabled(),
                shape,
                Some(cursor),
            )
            .unwrap();
            for batch in &batches[done + 1..] {
                assert!(resumed.next().unwrap() == *batch, "resumed after {done}");
            }
        }
    }
}

#[test]
fn parity_batches_are_upstreams() {
    let corpus = Corpus::embedded().unwrap();
    let tokenizer = Arc::new(Tokenizer::load(&fixture("tokenizer_300")).unwrap());
    for (file, split, names) in [
        (
            "train_batches",
            Split::Train,
            (0..12).flat_map(|s| (0..2).map(move |m| format!("step{s:02}.micro{m}"))).collect(),
        ),
        ("val_batches", Split::Val, (0..4).map(|i| format!("val{i}")).collect::<Vec<_>>()),
    ] {
        let bytes = std::fs::read(fixture(&format!("tokenizer_300/{file}.safetensors"))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut loader = loader(&corpus, &tokenizer, split, 2, 256, &Cache::disabled());
        for name in names {
            let Batch { inputs, targets, .. } = loader.next().unwrap();
            assert!(inputs == tensor(&tensors, &format!("{name}.x")), "{name}.x");
            assert!(targets == tensor(&tensors, &format!("{name}.y")), "{name}.y");
        }
    }
}

#[test]
fn facts_come_from_contents_alone() {
    let cache = Cache::disabled();
    let corpus = Corpus::embedded().unwrap();
    let tokenizer = Tokenizer::load(&fixture("tokenizer_300")).unwrap();
    let facts = DataFacts::of(&corpus, &tokenizer, &cache).unwrap();
    assert_eq!(facts.vocab_size, 300);

    // The same bytes under other names.
    let directory = tempfile::tempdir().unwrap();
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/data/embedded");
    for (from, to) in [("shard_00000.parquet", "a.parquet"), ("shard_00001.parquet", "b.parquet")] {
        std::fs::copy(source.join(from), directory.path().join(to)).unwrap();
    }
    let open = |pattern: String| Corpus::open(&[pattern], DocumentSplit::Line).unwrap();
    let path = directory.path().to_str().unwrap();
    let copied = open(format!("{path}/*.parquet"));
    assert_eq!(DataFacts::of(&copied, &tokenizer, &cache).unwrap(), facts);

    let alone = open(format!("{path}/b.parquet"));
    assert_ne!(DataFacts::of(&alone, &tokenizer, &cache).unwrap(), facts);
}
