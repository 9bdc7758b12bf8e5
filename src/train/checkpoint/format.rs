//! One checkpoint's directory: written as a whole, verified when read.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::CheckpointError;
use super::state::TrainState;
use super::tensors::{NamedTensor, read_safetensors, write_safetensors};
use crate::data::{Cursor, Document, documents_from_bytes, documents_to_bytes};
use crate::files::{FileError, Files, StagedDir};
use crate::hash::Digest;

/// The version of a whole checkpoint's format.
pub const FORMAT: u32 = 2;

/// That of one of which only the weights stay. Later ones are refused.
const WEIGHTS_ALONE: u32 = 3;

/// The first version that keeps the buffered documents in a file of their own; the one before has them in `state.json`,
/// as lists of numbers.
const DOCUMENTS_APART: u32 = 2;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const DOCUMENTS: &str = "documents.bin";
const STATE: &str = "state.json";
const MANIFEST: &str = "MANIFEST.json";

/// Everything a run needs to carry on.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint<'a> {
    /// The parameters, by upstream's state dict names.
    pub params: Vec<NamedTensor<'a>>,
    /// Optimizer state, named `<parameter>.<buffer>`.
    pub optimizer: Vec<NamedTensor<'a>>,
    /// The rest.
    pub state: TrainState,
    /// Whether the weights are all that stayed of it: they can be sampled from and evaluated, not trained on.
    pub weights_alone: bool,
}

/// `MANIFEST.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    step: u64,
    files: Vec<FileEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    name: String,
    bytes: u64,
    sha256: Digest,
}

impl Manifest {
    /// Its one spelling: a manifest that is spelled otherwise was damaged.
    fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

impl Checkpoint<'_> {
    /// Bytes that its tensors and documents take on disk, nearly: what else there is, is small.
    pub fn size(&self) -> u64 {
        let tensors = self
            .params
            .iter()
            .chain(&self.optimizer)
            .map(|tensor| (tensor.values.len() * tensor.values.dtype().1) as u64);
        let documents = self.state.cursor.iter().flat_map(Cursor::documents);
        tensors.sum::<u64>() + documents.map(|document| 4 * document.len() as u64).sum::<u64>()
    }

    /// Writes the directory `dir`, whose parent exists, replacing one that is there.
    pub fn write(&self, files: &Files, dir: &Path) -> Result<(), CheckpointError> {
        let staged = files.stage_dir(dir)?;
        let write_error = |name: &str, error| FileError::new("write", &dir.join(name), error);
        let mut manifest = Manifest { format: FORMAT, step: self.state.step, files: Vec::new() };
        let mut add = |name: &str, write: &dyn Fn(&mut HashingWriter) -> io::Result<()>| {
            let mut out = HashingWriter::new(&staged, name)?;
            write(&mut out).map_err(|error| write_error(name, error))?;
            manifest.files.push(out.finish(name)?);
            Ok::<_, FileError>(())
        };
        add(MODEL, &|out| write_safetensors(out, &self.params))?;
        add(OPTIMIZER, &|out| write_safetensors(out, &self.optimizer))?;
        let cursor = self.state.cursor.as_ref();
        let documents: Vec<Document> = cursor.iter().flat_map(|cursor| cursor.documents()).cloned().collect();
        add(DOCUMENTS, &|out| out.write_all(&documents_to_bytes(&documents)))?;
        let state = TrainState { cursor: cursor.map(Cursor::without_documents), ..self.state.clone() };
        add(STATE, &|out| Ok(serde_json::to_writer(out, &state)?))?;
        let manifest = manifest.to_bytes().map_err(|error| write_error(MANIFEST, error.into()))?;
        staged.write(MANIFEST, &manifest)?;
        Ok(staged.commit()?)
    }
}

impl TrainState {
    /// Of the checkpoint in `dir`, without its tensors and documents: for those who only watch a run.
    ///
    /// # Errors
    /// A checkpoint whose manifest or state does not verify.
    pub fn read(files: &Files, dir: &Path) -> Result<Self, CheckpointError> {
        let manifest = read_manifest(files, dir)?;
        let state = read_verified(files, dir, &manifest, STATE)?;
        serde_json::from_slice(&state)
            .map_err(|error| CheckpointError::Malformed { path: dir.join(STATE), what: error.to_string() })
    }
}

impl Checkpoint<'static> {
    /// Reads and verifies the directory `dir`.
    pub fn read(files: &Files, dir: &Path) -> Result<Self, CheckpointError> {
        let manifest = read_manifest(files, dir)?;
        let part = |name: &str| read_verified(files, dir, &manifest, name);
        let malformed = |name: &str, what: String| CheckpointError::Malformed { path: dir.join(name), what };
        let tensors =
            |name: &str| read_safetensors(&part(name)?).map_err(|error| malformed(name, error.to_string()));
        let mut state: TrainState =
            serde_json::from_slice(&part(STATE)?).map_err(|error| malformed(STATE, error.to_string()))?;
        let losses = state.step_losses.len() as u64;
        if state.step != manifest.step || losses != state.step {
            let what = format!("it tells of step {} and {losses} losses in {}", state.step, manifest.step);
            return Err(malformed(STATE, what));
        }
        let weights_alone = manifest.format >= WEIGHTS_ALONE;
        if weights_alone {
            // Of the documents that it would go on with, none stayed.
            state.cursor = None;
        } else if manifest.format >= DOCUMENTS_APART {
            let documents = documents_from_bytes(&part(DOCUMENTS)?)
                .ok_or_else(|| malformed(DOCUMENTS, "it holds no whole documents".to_owned()))?;
            state.cursor =
                with_documents(state.cursor, documents).map_err(|what| malformed(DOCUMENTS, what))?;
        }
        let optimizer = if weights_alone { Vec::new() } else { tensors(OPTIMIZER)? };
        Ok(Self { params: tensors(MODEL)?, optimizer, state, weights_alone })
    }

    /// Lets go of everything in `dir` but the weights and what is known of them. The manifest changes first, by a
    /// rename: at every moment the directory is a checkpoint, whole or of weights alone, and what it no longer names
    /// is nobody's.
    pub fn keep_weights(files: &Files, dir: &Path) -> Result<(), CheckpointError> {
        let mut manifest = read_manifest(files, dir)?;
        if manifest.format < WEIGHTS_ALONE {
            manifest.format = WEIGHTS_ALONE;
            manifest.files.retain(|entry| [MODEL, STATE].contains(&entry.name.as_str()));
            let path = dir.join(MANIFEST);
            let bytes = manifest.to_bytes().map_err(|error| FileError::new("write", &path, error.into()))?;
            files.write(&path, &bytes)?;
        }
        for name in [OPTIMIZER, DOCUMENTS] {
            if dir.join(name).exists() {
                files.remove_file(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Checks that it belongs to the run whose key at this step is `run_key`, made in the class `environment`.
    pub fn check_run(&self, run_key: &Digest, environment: &str) -> Result<(), CheckpointError> {
        let (step, state) = (self.state.step, &self.state);
        if state.run_key != *run_key {
            return Err(CheckpointError::OtherRun { step, expected: *run_key, found: state.run_key });
        }
        if state.environment_class != environment {
            let (expected, found) = (environment.to_owned(), state.environment_class.clone());
            return Err(CheckpointError::OtherEnvironment { step, expected, found });
        }
        Ok(())
    }
}

/// The cursor of `state.json`, which holds none, with its documents.
fn with_documents(cursor: Option<Cursor>, documents: Vec<Document>) -> Result<Option<Cursor>, String> {
    match cursor {
        None if documents.is_empty() => Ok(None),
        None => Err(format!("it holds {} documents of no cursor", documents.len())),
        Some(cursor) if cursor.documents().next().is_none() => {
            if documents.iter().any(|document| document.is_empty()) {
                return Err("a document of it is empty".to_owned());
            }
            let cursor = cursor.with_documents(documents);
            cursor
                .map(Some)
                .ok_or_else(|| "it holds more or fewer documents than its cursor names".to_owned())
        }
        Some(_) => Err("state.json holds documents too".to_owned()),
    }
}

fn read_manifest(files: &Files, dir: &Path) -> Result<Manifest, CheckpointError> {
    let path = dir.join(MANIFEST);
    let malformed = |what: &str| CheckpointError::Malformed { path: path.clone(), what: what.to_owned() };
    let missing = || CheckpointError::Missing { dir: dir.to_owned(), file: MANIFEST.to_owned() };
    let bytes = files.read_if_there(&path)?.ok_or_else(missing)?;
    // The version first: the rest may look otherwise in another one.
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| malformed(&e.to_string()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(found) if !(1..=u64::from(WEIGHTS_ALONE)).contains(&found) => {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(CheckpointError::Format { dir: dir.to_owned(), expected: WEIGHTS_ALONE, found });
        }
        _ => {}
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|e| malformed(&e.to_string()))?;
    if manifest.to_bytes().ok() != Some(bytes) {
        return Err(malformed("it is not spelled as it was written"));
    }
    Ok(manifest)
}

fn read_verified(
    files: &Files,
    dir: &Path,
    manifest: &Manifest,
    name: &str,
) -> Result<Vec<u8>, CheckpointError> {
    let missing = || CheckpointError::Missing { dir: dir.to_owned(), file: name.to_owned() };
    let entry = manifest.files.iter().find(|entry| entry.name == name).ok_or_else(missing)?;
    let path = dir.join(name);
    let bytes = files.read_if_there(&path)?.ok_or_else(missing)?;
    if bytes.len() as u64 != entry.bytes {
        return Err(CheckpointError::Length { path, expected: entry.bytes, found: bytes.len() as u64 });
    }
    let found = Digest::of(&bytes);
    if found != entry.sha256 {
        return Err(CheckpointError::Hash { path, expected: entry.sha256, found });
    }
    Ok(bytes)
}

/// Writes a file of the checkpoint and hashes it on the way.
struct HashingWriter {
    file: crate::files::StagedFile,
    hash: Sha256,
    bytes: u64,
}

impl HashingWriter {
    fn new(staged: &StagedDir, name: &str) -> Result<Self, FileError> {
        Ok(Self { file: staged.create(name)?, hash: Sha256::new(), bytes: 0 })
    }

    fn finish(self, name: &str) -> Result<FileEntry, FileError> {
        self.file.finish()?;
        let sha256 = Digest::from(<[u8; 32]>::from(self.hash.finalize()));
        Ok(FileEntry { name: name.to_owned(), bytes: self.bytes, sha256 })
    }
}

impl Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
