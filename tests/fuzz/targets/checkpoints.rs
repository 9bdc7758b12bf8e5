//! Checkpoints, file by file.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use nanorun::internals::data::{BatchShape, Cache, Corpus, Loader, Packing, Split, Tokenizer};
use nanorun::internals::files::Files;
use nanorun::internals::hash::Digest;
use nanorun::internals::train::checkpoint::{Checkpoint, CheckpointStore};

use super::data::DOCUMENT_WORDS;
use super::judged;
use super::tensors::TENSOR_WORDS;
use crate::harness::{Target, Verdict, scratch};
use crate::seeds;

/// Words of `state.json` and its like.
const STATE_WORDS: &[&[u8]] = &[
    b"\"buffered\":[[]]",
    b"\"buffered\":[[4294967295]]",
    b"\"file\":18446744073709551615",
    b"null",
    b"\"name\": \"../x\"",
    b"7fc00000",
    b"[[[[[[[[[[[[[[[[[[[[[",
];

/// A checkpoint of which one file is mutated, its manifest telling the hashes of what is there.
fn checkpoint_with(name: &'static str, file: &str) {
    let place = scratch();
    let dir = place.path().join("step_000002");
    seeds::checkpoint(&dir);
    let seed = fs::read(dir.join(file)).unwrap();
    let corpus = Corpus::embedded().unwrap();
    let tokenizer = seeds::path("tests/fixtures/data/tokenizer_300/tokenizer.pkl");
    let tokenizer = Arc::new(Tokenizer::load(&tokenizer).unwrap());
    let cache = Cache::at(place.path().join("cache"));
    let read = |input: &[u8]| {
        fs::write(dir.join(file), input).unwrap();
        if file != "MANIFEST.json" {
            fs::write(dir.join("MANIFEST.json"), manifest_of(&dir)).unwrap();
        }
        let checkpoint = match Checkpoint::read(&Files::new(), &dir) {
            Ok(checkpoint) => checkpoint,
            refused => return judged(refused, "step_000002"),
        };
        // Training would go on from the cursor.
        let shape = BatchShape { packing: Packing::BestFitBos, rows: 1, len: 16 };
        let (source, cursor) = (corpus.split(Split::Train), checkpoint.state.cursor);
        let loader = Loader::start(source, Arc::clone(&tokenizer), cache.clone(), shape, cursor);
        let batch = loader.and_then(|mut loader| loader.next());
        let inside = |&id: &i32| (0..tokenizer.vocab_size() as i32).contains(&id);
        if batch.as_ref().is_ok_and(|batch| !batch.inputs.iter().all(inside)) {
            return Err("an id beyond the vocabulary".to_owned());
        }
        judged(batch, "")
    };
    let words = match file.rsplit_once('.') {
        Some((_, "safetensors")) => TENSOR_WORDS,
        Some((_, "bin")) => DOCUMENT_WORDS,
        _ => STATE_WORDS,
    };
    Target::new(name, vec![seed], words, &read).run();
}

fn manifest_of(dir: &Path) -> Vec<u8> {
    let files = ["model.safetensors", "optimizer.safetensors", "documents.bin", "state.json"].map(|name| {
        let bytes = fs::read(dir.join(name)).unwrap();
        serde_json::json!({ "name": name, "bytes": bytes.len(), "sha256": Digest::of(&bytes).to_string() })
    });
    let manifest = serde_json::json!({ "format": 2, "step": 2, "files": files });
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

#[test]
fn checkpoint_documents() {
    checkpoint_with("checkpoint_documents", "documents.bin");
}

/// A checkpoint of format 1, its documents in `state.json`.
#[test]
fn checkpoint_format_1() {
    let fixture = seeds::path("tests/fixtures/checkpoints/format_1/step_000002");
    let place = scratch();
    let dir = place.path().join("step_000002");
    fs::create_dir(&dir).unwrap();
    for path in seeds::files_below(&fixture) {
        fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let manifest =
        String::from_utf8(seeds::file("tests/fixtures/checkpoints/format_1/step_000002/MANIFEST.json"));
    let manifest: serde_json::Value = serde_json::from_str(&manifest.unwrap()).unwrap();
    let seed = fs::read(dir.join("state.json")).unwrap();
    let read = |input: &[u8]| {
        fs::write(dir.join("state.json"), input).unwrap();
        let mut manifest = manifest.clone();
        manifest["files"][2]["bytes"] = input.len().into();
        manifest["files"][2]["sha256"] = Digest::of(input).to_string().into();
        fs::write(dir.join("MANIFEST.json"), format!("{manifest:#}\n")).unwrap();
        let old = match Checkpoint::read(&Files::new(), &dir) {
            Ok(old) => old,
            refused => return judged(refused, "step_000002"),
        };
        let anew = place.path().join("anew");
        old.write(&Files::new(), &anew).map_err(|error| format!("accepted, but {error}"))?;
        match Checkpoint::read(&Files::new(), &anew) {
            Ok(anew) if anew == old => Ok(Verdict::Accepted),
            Ok(_) => Err("accepted, but another one once written".to_owned()),
            Err(error) => Err(format!("accepted, but not once written: {error}")),
        }
    };
    Target::new("checkpoint_format_1", vec![seed], STATE_WORDS, &read).run();
}

/// How far an evaluation has come: as it is, and past its hash.
#[test]
fn evaluation() {
    let place = scratch();
    let store = CheckpointStore::new(Files::new(), place.path());
    store.save_evaluation(&seeds::evaluation()).unwrap();
    let path = place.path().join("evaluation.json");
    let file = fs::read_to_string(&path).unwrap();
    let seed = file.lines().next().unwrap().as_bytes().to_vec();
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        if store.evaluation().map_err(|error| error.to_string())?.is_some() {
            return Err("accepted without its hash".to_owned());
        }
        fs::write(&path, [input, format!("\n{}\n", Digest::of(input)).as_bytes()].concat()).unwrap();
        let Some(progress) = store.evaluation().map_err(|error| error.to_string())? else {
            return Ok(Verdict::Refused);
        };
        store.save_evaluation(&progress).map_err(|error| format!("accepted, but {error}"))?;
        match store.evaluation() {
            Ok(Some(again)) if again == progress => Ok(Verdict::Accepted),
            other => Err(format!("accepted, but once written {progress:?} is {other:?}")),
        }
    };
    Target::new("evaluation", vec![seed], STATE_WORDS, &read).run();
}
