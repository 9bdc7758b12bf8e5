//! The readers.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use nanorun::data::pickle::Pickle;
use nanorun::data::{
    BatchShape, Cache, Corpus, Cursor, DocumentSplit, Loader, Packing, Split, TokenBytesRule, Tokenizer,
};
use nanorun::error::{Class, Error};
use nanorun::files::Files;
use nanorun::gate::{Baseline, Tolerance, compare, junit, markdown, read_results};
use nanorun::hash::Digest;
use nanorun::manifest::settings::Budget;
use nanorun::manifest::{Manifest, Options, with_pins};
use nanorun::plan::run_config::{DataConfig, TokenizerChoice};
use nanorun::plan::{DataFacts, Facts, plan};
use nanorun::record::column::table_rows;
use nanorun::record::journal::Journal;
use nanorun::record::{ExperimentDir, RunResult, RunRow, StepRow, read_table};
use nanorun::tensors::{read_safetensors, write_safetensors};
use nanorun::train::checkpoint::Checkpoint;

use super::harness::{Target, Verdict, scratch};
use super::seeds;

/// What a reader answered: an error must be the input's, and name `file`.
fn judged<T>(answer: Result<T, impl Into<Error>>, file: &str) -> Result<Verdict, String> {
    match answer {
        Ok(_) => Ok(Verdict::Accepted),
        Err(error) => {
            let error = error.into();
            if error.class() == Class::Internal {
                return Err(format!("bad input is taken for a defect: {error}"));
            }
            if !error.to_string().contains(file) {
                return Err(format!("the error does not name {file}: {error}"));
            }
            Ok(Verdict::Refused)
        }
    }
}

/// Data that suit any manifest.
struct Plenty;

impl Facts for Plenty {
    fn data(&self, data: &DataConfig) -> Result<DataFacts, Error> {
        let vocab_size = match data.tokenizer {
            TokenizerChoice::Train { vocab_size } => Some(vocab_size),
            TokenizerChoice::Char => Some(27),
            TokenizerChoice::Path(_) => None,
        };
        Ok(DataFacts { vocab_size, content: Some(Digest::of(b"content")) })
    }

    fn init_file(&self, path: &str) -> Result<Digest, Error> {
        Ok(Digest::of(path.as_bytes()))
    }
}

const NUMBER_WORDS: [&[u8]; 4] = [b"null", b"true", b"{}", b"[[[[[[[[[[[[[[[[[[[["];

#[test]
fn manifest() {
    let place = scratch();
    let path = place.path().join("fuzzed.toml");
    let env = vec![("HOME".to_owned(), "/home/someone".to_owned())];
    let options = Options { env, ..Options::default() };
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        let manifest = match Manifest::load(&path, &options) {
            Ok(manifest) => manifest,
            refused => return judged(refused, "fuzzed.toml"),
        };
        let pins = [("shard 1.parquet".to_owned(), Digest::of(b"").to_string())];
        match with_pins(&path, &manifest.text, &pins) {
            Ok(pinned) => {
                if with_pins(&path, &pinned, &pins).ok() != Some(pinned) {
                    return Err("pinning twice is not pinning once".to_owned());
                }
            }
            refused => {
                judged(refused, "fuzzed.toml")?;
            }
        }
        // Keys are made step by step; a plan of millions of them takes its time by right.
        let small = manifest.cells.iter().all(|cell| match cell.settings.budget {
            Budget::Steps(steps) => steps <= 5000,
            Budget::Tokens(tokens) => tokens <= 5000,
            Budget::Flops(_) | Budget::ParamDataRatio(_) => false,
        });
        if small && manifest.cells.len() <= 64 {
            judged(plan(&manifest, &Plenty), "")
        } else {
            Ok(Verdict::Accepted)
        }
    };
    let words: &[&[u8]] = &[
        b"[matrix]\n",
        b"\n[[matrix.zip]]\n",
        b"\n[[matrix.exclude]]\n",
        b"\n[[matrix.include]]\n",
        b"\n[profile.x]\n",
        b"\n[data.sha256]\nx = \"00\"\n",
        b"\n[optimizer]\n",
        b"model.kind = \"bigram\"\n",
        b"\"run.seed\" = [1, 2]\n",
        b"window_pattern = \"SSSL\"\n",
        b"steps = 1\n",
        b"false",
        b"true",
        b"inf",
        b"nan",
        b"[]",
        b"{}",
        b"\"",
        b"'''",
        b"[[[[[[[[[[[[[[[[",
        b"a.b.c.d = 1\n",
        b"1979-05-27T07:32:00Z",
    ];
    Target::new("manifest", seeds::manifests(), words, &read).run();
}

/// Every document of both splits.
fn read_corpus(path: &Path, document: DocumentSplit) -> Result<(), Error> {
    let corpus = Corpus::open(&[path.to_str().unwrap_or_default().to_owned()], document)?;
    for split in [Split::Train, Split::Val] {
        corpus.split(split).documents()?;
    }
    Ok(())
}

const PARQUET_WORDS: &[&[u8]] = &[
    b"PAR1",
    b"\x15\x00",
    b"\x15\x02",
    b"\x15\x04",
    b"\x15\x06",
    b"\x19\xfc",
    b"text",
    b"schema",
    b"\x00\x00",
];

#[test]
fn parquet_shard() {
    let place = scratch();
    let path = place.path().join("fuzzed.parquet");
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        judged(read_corpus(&path, DocumentSplit::Block), "fuzzed.parquet")
    };
    let seeds = vec![seeds::file("tests/fixtures/data/pyarrow_small.parquet"), seeds::shard()];
    Target::new("parquet_shard", seeds, PARQUET_WORDS, &read).run();
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
        let saved = tokenizer.save(&place.path().join("saved")).and_then(|path| Tokenizer::load(&path));
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

const TENSOR_WORDS: &[&[u8]] = &[
    b"\"dtype\":\"F32\"",
    b"\"dtype\":\"F64\"",
    b"\"dtype\":\"I32\"",
    b"\"dtype\":\"BF16\"",
    b"\"shape\":[]",
    b"\"shape\":[18446744073709551615,2]",
    b"\"data_offsets\":[0,0]",
    b"\"data_offsets\":[0,18446744073709551615]",
    b"__metadata__",
    b",",
    b"{",
    b"}",
    b"[[[[[[[[[[[[[[[[[[[[[",
    b" ",
];

/// Reads tensors; what was accepted is written and read again.
fn read_tensors(input: &[u8]) -> Result<Verdict, String> {
    let Ok(tensors) = read_safetensors(input) else { return Ok(Verdict::Refused) };
    let mut bytes = Vec::new();
    write_safetensors(&mut bytes, &tensors).map_err(|error| format!("accepted, but {error}"))?;
    match read_safetensors(&bytes) {
        Ok(again) if again == tensors => Ok(Verdict::Accepted),
        Ok(again) => Err(format!("accepted, but once written {tensors:?} is {again:?}")),
        Err(error) => Err(format!("accepted, but not once written: {error}")),
    }
}

#[test]
fn safetensors() {
    Target::new("safetensors", seeds::tensors(), TENSOR_WORDS, &read_tensors).run();
}

/// The header alone is mutated; its length and the data behind it are made to fit.
#[test]
fn safetensors_header() {
    let read = |header: &[u8]| {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        file.extend_from_slice(&[0; 32]);
        read_tensors(&file)
    };
    let file = &seeds::tensors()[2];
    let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header = file[8..8 + len].to_vec();
    Target::new("safetensors_header", vec![header], TENSOR_WORDS, &read).run();
}

/// A checkpoint of which one file is mutated, its manifest telling the hashes of what is there.
fn checkpoint_with(name: &'static str, file: &str) {
    let place = scratch();
    let dir = place.path().join("step_000002");
    seeds::checkpoint(&dir);
    let seed = fs::read(dir.join(file)).unwrap();
    let corpus = Corpus::embedded().unwrap();
    let tokenizer = seeds::path("tests/fixtures/data/tokenizer_300/tokenizer.pkl");
    let tokenizer = Arc::new(Tokenizer::load(&tokenizer).unwrap());
    let read = |input: &[u8]| {
        fs::write(dir.join(file), input).unwrap();
        if file != "MANIFEST.json" {
            fs::write(dir.join("MANIFEST.json"), manifest_of(&dir)).unwrap();
        }
        let checkpoint = match Checkpoint::<Cursor>::read(&Files::new(), &dir) {
            Ok(checkpoint) => checkpoint,
            refused => return judged(refused, "step_000002"),
        };
        // Training would go on from the cursor.
        let shape = BatchShape { packing: Packing::BestFitBos, rows: 1, len: 16 };
        let (source, cursor) = (corpus.split(Split::Train), checkpoint.state.cursor);
        let loader = Loader::start(source, Arc::clone(&tokenizer), Cache::disabled(), shape, Some(cursor));
        judged(loader.and_then(|mut loader| loader.next()), "")
    };
    let words: &[&[u8]] = &[
        b"\"buffered\":[[]]",
        b"\"buffered\":[[4294967295]]",
        b"\"file\":18446744073709551615",
        b"null",
        b"\"name\": \"../x\"",
        b"7fc00000",
        b"[[[[[[[[[[[[[[[[[[[[[",
    ];
    let words = if file.ends_with("safetensors") { TENSOR_WORDS } else { words };
    Target::new(name, vec![seed], words, &read).run();
}

fn manifest_of(dir: &Path) -> Vec<u8> {
    let files = ["model.safetensors", "optimizer.safetensors", "state.json"].map(|name| {
        let bytes = fs::read(dir.join(name)).unwrap();
        serde_json::json!({ "name": name, "bytes": bytes.len(), "sha256": Digest::of(&bytes).to_string() })
    });
    let manifest = serde_json::json!({ "format": 1, "step": 2, "files": files });
    format!("{manifest:#}\n").into_bytes()
}

#[test]
fn checkpoint_manifest() {
    checkpoint_with("checkpoint_manifest", "MANIFEST.json");
}

#[test]
fn checkpoint_state() {
    checkpoint_with("checkpoint_state", "state.json");
}

#[test]
fn checkpoint_tensors() {
    checkpoint_with("checkpoint_tensors", "model.safetensors");
}

/// A baseline's TOML.
#[test]
fn baseline() {
    let place = scratch();
    let path = place.path().join("fuzzed.toml");
    fs::write(path.with_extension("parquet"), seeds::file("baselines/ci.parquet")).unwrap();
    let original = RefCell::new(None);
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        let baseline = match Baseline::read(&Files::new(), &path) {
            Ok(Some(baseline)) => baseline,
            Ok(None) => return Err("the baseline is there".to_owned()),
            Err(error) => return judged(Err::<(), _>(error), "fuzzed.toml"),
        };
        // The first one read, the seed itself, is compared with every other.
        let mut original = original.borrow_mut();
        let original = original.get_or_insert_with(|| baseline.clone());
        let found: Vec<_> = original.runs.iter().cloned().map(Into::into).collect();
        let comparison = baseline.compare("ci", &found, &path);
        drop((comparison.to_string(), junit(&comparison, None), markdown(&comparison, None)));
        Ok(Verdict::Accepted)
    };
    let words: &[&[u8]] =
        &[b"[[run]]\n", b"format = 1\n", b"nan", b"inf", b"-inf", b"[tolerance]\n", b"seed = 1\n"];
    Target::new("baseline", vec![seeds::file("baselines/ci.toml")], words, &read).run();
}

/// The parquet beside a baseline, which tells its hash.
#[test]
fn baseline_steps() {
    let place = scratch();
    let path = place.path().join("fuzzed.toml");
    let text = String::from_utf8(seeds::file("baselines/ci.toml")).unwrap();
    let (head, rest) = text.split_once("steps_sha256 = \"").unwrap();
    let read = |input: &[u8]| {
        fs::write(path.with_extension("parquet"), input).unwrap();
        fs::write(&path, format!("{head}steps_sha256 = \"{}{}", Digest::of(input), &rest[64..])).unwrap();
        match Baseline::read(&Files::new(), &path) {
            Ok(Some(baseline)) if baseline.without_steps.is_none() => Ok(Verdict::Accepted),
            Ok(Some(_)) => Ok(Verdict::Refused),
            Ok(None) => Err("the baseline is there".to_owned()),
            Err(error) => judged(Err::<(), _>(error), "fuzzed"),
        }
    };
    let seeds = vec![seeds::file("baselines/ci.parquet")];
    Target::new("baseline_steps", seeds, PARQUET_WORDS, &read).run();
}

/// A results directory of which one file is mutated.
fn results_with(
    name: &'static str,
    file: &dyn Fn(&ExperimentDir) -> std::path::PathBuf,
    words: &'static [&'static [u8]],
) {
    let place = scratch();
    let dir = ExperimentDir::at(place.path().join("fuzzed"));
    seeds::results(&dir);
    let whole = read_results(&Files::new(), &dir).unwrap().candidates;
    let expected: Vec<_> = whole.into_iter().filter_map(|candidate| candidate.record).collect();
    assert_eq!(expected.len(), 1);
    let path = file(&dir);
    let seed = fs::read(&path).unwrap();
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        // Past the checksum of a result, which keeps all but the seed out: written again, it has one of its own.
        if let Ok(result) = serde_json::from_slice::<RunResult>(input) {
            result.write(&Files::new(), &path).unwrap();
        }
        match read_results(&Files::new(), &dir) {
            Ok(found) => {
                let candidates = &found.candidates;
                let comparison =
                    compare(&found.experiment, candidates, "fuzzed", &expected, Tolerance::default());
                drop((comparison.to_string(), junit(&comparison, None), markdown(&comparison, None)));
                Ok(Verdict::Accepted)
            }
            refused => judged(refused, "fuzzed"),
        }
    };
    Target::new(name, vec![seed], words, &read).run();
}

#[test]
fn result() {
    let file = |dir: &ExperimentDir| dir.run(&Digest::of(b"key")).result();
    results_with("result", &file, &NUMBER_WORDS);
}

#[test]
fn plan_record() {
    results_with(
        "plan_record",
        &|dir| dir.file("plan.toml"),
        &[b"[[run]]\n", b"arm = \"\"\n", b"seed = 1\n"],
    );
}

#[test]
fn journal() {
    let place = scratch();
    let dir = ExperimentDir::at(place.path().join("fuzzed"));
    seeds::results(&dir);
    let path = dir.run(&Digest::of(b"key")).journal();
    let seed = fs::read(&path).unwrap();
    let journal = Journal::new(Files::new(), &path);
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        judged(journal.read(), "journal.jsonl")
    };
    Target::new("journal", vec![seed], &NUMBER_WORDS, &read).run();
}

/// A table of results.
#[test]
fn table() {
    let place = scratch();
    let dir = ExperimentDir::at(place.path().join("fuzzed"));
    seeds::results(&dir);
    let path = dir.file("steps.parquet");
    let seed = fs::read(&path).unwrap();
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        judged(read_table::<StepRow>(&Files::new(), &path), "steps.parquet")?;
        // Past the checksum, which keeps all but the seed out.
        if table_rows::<RunRow>(input).is_ok() {
            return Err("steps are taken for runs".to_owned());
        }
        Ok(if table_rows::<StepRow>(input).is_ok() { Verdict::Accepted } else { Verdict::Refused })
    };
    Target::new("table", vec![seed], PARQUET_WORDS, &read).run();
}
