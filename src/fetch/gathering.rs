//! The bytes of a shard that are here so far, and what is known of the file they belong to.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::client::{Promise, Reply};
use crate::error::Result;
use crate::files::{FileError, FileResult, Files, PartialFile};
use crate::hash::Digest;
use crate::host::ProcessId;

/// What is known of the file that a part belongs to; kept beside the part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The address it was asked for at.
    address: String,
    /// A strong `ETag` of who sent it.
    pub(super) version: Option<String>,
    /// Its length.
    pub(super) bytes: Option<u64>,
    /// Its hash.
    pub(super) sha256: Option<Digest>,
    /// The start of the system that wrote it. After another start, bytes that were never synced may be zeros.
    boot: Option<String>,
}

impl Note {
    /// What an answer says.
    pub(super) fn of(address: &str, reply: &Reply, total: Option<u64>) -> Self {
        // A weak tag does not promise the same bytes.
        let version = reply.header("etag").filter(|tag| tag.starts_with('"') && tag.ends_with('"'));
        Self {
            address: address.to_owned(),
            version,
            bytes: reply.promise.bytes.or(total),
            sha256: reply.promise.sha256,
            boot: boot(),
        }
    }

    /// Whether a part under this note can be carried on: by the hash it must have in the end, or by a version that the
    /// server compares, as long as all bytes are sure to be what was written.
    fn can_go_on(&self) -> bool {
        self.sha256.is_some() || (self.version.is_some() && self.boot.is_some() && self.boot == boot())
    }

    /// Whether the file that another note speaks of is not this one.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        let differ = |a: Option<String>, b: Option<String>| a.is_some() && b.is_some() && a != b;
        match (self.sha256, other.sha256) {
            (Some(a), Some(b)) => a != b,
            _ => {
                differ(self.version.clone(), other.version.clone())
                    || differ(self.bytes.map(|n| n.to_string()), other.bytes.map(|n| n.to_string()))
            }
        }
    }

    /// What it says of the file's bytes.
    pub(super) fn promise(&self) -> Promise {
        Promise { sha256: self.sha256, bytes: self.bytes }
    }
}

/// See the module.
pub(super) struct Gathering {
    files: Files,
    part: PartialFile,
    hasher: Sha256,
    note: Note,
    note_path: PathBuf,
}

impl Gathering {
    /// What an earlier life left of the file at `target` from `address`, or nothing yet.
    ///
    /// # Errors
    /// A directory that cannot be read or written.
    pub(super) fn open(files: &Files, target: &Path, address: &str) -> Result<Self> {
        let part = files.partial(target)?;
        let note_path = note_path(target);
        let note =
            files.read_if_there(&note_path)?.and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        let mut this =
            Self { files: files.clone(), part, hasher: Sha256::new(), note: Note::default(), note_path };
        match note.filter(|note| note.address == address && note.can_go_on()) {
            Some(note) if note.bytes.is_none_or(|bytes| this.part.bytes() <= bytes) => {
                this.hash_part()?;
                this.note = note;
            }
            _ => this.clear()?,
        }
        Ok(this)
    }

    /// Bytes of the file at `target` that an earlier life left.
    pub(super) fn left(target: &Path) -> u64 {
        fs::metadata(PartialFile::path_of(target)).map_or(0, |part| part.len())
    }

    /// Removes what is left beside a file that is here: of a life that ended just after the file got its name.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub(super) fn tidy(files: &Files, target: &Path) -> FileResult<()> {
        for path in [PartialFile::path_of(target), note_path(target)] {
            if path.exists() {
                files.remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn hash_part(&mut self) -> FileResult<()> {
        let error = |error| FileError::new("read", self.part.path(), error);
        let mut file = self.part.open()?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(error)? {
                0 => return Ok(()),
                read => self.hasher.update(buffer.get(..read).unwrap_or_default()),
            }
        }
    }

    /// How many bytes are here.
    pub(super) fn bytes(&self) -> u64 {
        self.part.bytes()
    }

    /// What is known of the file.
    pub(super) fn note(&self) -> &Note {
        &self.note
    }

    /// Where they are.
    pub(super) fn path(&self) -> &Path {
        self.part.path()
    }

    /// Throws away what is here.
    pub(super) fn clear(&mut self) -> FileResult<()> {
        if self.part.bytes() > 0 {
            self.part.clear()?;
        }
        self.hasher = Sha256::new();
        self.note = Note::default();
        Ok(())
    }

    /// Says what the bytes that follow belong to.
    pub(super) fn belongs_to(&mut self, note: Note) -> FileResult<()> {
        if note != self.note {
            let text = serde_json::to_vec(&note).unwrap_or_default();
            self.files.deliver(&self.note_path, &text)?;
            self.note = note;
        }
        Ok(())
    }

    /// Adds bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> FileResult<()> {
        self.part.push(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// The hash of what is here.
    pub(super) fn sha256(&self) -> Digest {
        Digest::from(<[u8; 32]>::from(self.hasher.clone().finalize()))
    }

    /// It is whole: it gets its name.
    pub(super) fn commit(self) -> FileResult<()> {
        self.part.commit()?;
        self.files.remove_file(&self.note_path)
    }
}

fn note_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.part.json"))
}

/// Which start of the system this is; none where it does not tell.
fn boot() -> Option<String> {
    Some(ProcessId::own().boot.clone()).filter(|id| !id.is_empty())
}
