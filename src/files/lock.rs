//! One runner a results directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::utc_now;
use super::error::FileError;
use crate::error::{Class, Error};

/// The lock's name in the directory it guards.
const NAME: &str = ".lock";

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Process id.
    pub pid: u32,
    /// Host name.
    pub host: String,
    /// When it took the lock, UTC.
    pub since: String,
    /// Its command line.
    pub command: String,
}

impl LockHolder {
    /// This process, on `host`.
    pub fn this_process(host: &str) -> Self {
        let command: Vec<_> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
        Self { pid: std::process::id(), host: host.to_owned(), since: utc_now(), command: command.join(" ") }
    }
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process writes there.
    #[error("another nanorun works in `{}`{}", .dir.display(), describe(.holder.as_ref()))]
    Held {
        /// The directory.
        dir: PathBuf,
        /// Who, where the lock file tells.
        holder: Option<LockHolder>,
    },
    /// The lock file could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
}

fn describe(holder: Option<&LockHolder>) -> String {
    holder.map_or_else(String::new, |holder| {
        format!(": process {} on {} since {} (`{}`)", holder.pid, holder.host, holder.since, holder.command)
    })
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::File(error) => error.into(),
            LockError::Held { .. } => Self::new(Class::Run, error.to_string())
                .help("wait for it to end, or choose another place with --results DIR"),
        }
    }
}

/// An advisory lock on a directory, held until dropped. The system lets go of it when the process ends, however
/// it ends: the file that stays behind locks nobody out.
#[derive(Debug)]
pub struct DirLock {
    // The lock lives as long as the handle.
    _file: File,
}

impl DirLock {
    /// Takes the lock of `dir`, which must exist, or says who has it.
    pub fn acquire(dir: &Path, holder: &LockHolder) -> Result<Self, LockError> {
        let path = dir.join(NAME);
        let error = |error| LockError::File(FileError::new("lock", &path, error));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // What it says helps a person; it may be half written just now.
                file.read_to_string(&mut text).ok();
                return Err(LockError::Held {
                    dir: dir.to_owned(),
                    holder: serde_json::from_str(&text).ok(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(error(e)),
        }
        // Written in place: a renamed file would carry the lock away from its name.
        let text = serde_json::to_string(holder).unwrap_or_default();
        file.set_len(0).and_then(|()| file.rewind()).map_err(error)?;
        file.write_all(text.as_bytes()).map_err(error)?;
        Ok(Self { _file: file })
    }

    /// Takes the lock, waiting for it; `waiting` is told who has it before each pause and says whether to go on.
    pub fn acquire_waiting(
        dir: &Path,
        holder: &LockHolder,
        pause: Duration,
        mut waiting: impl FnMut(&LockError) -> bool,
    ) -> Result<Self, LockError> {
        loop {
            match Self::acquire(dir, holder) {
                Err(held @ LockError::Held { .. }) => {
                    if !waiting(&held) {
                        return Err(held);
                    }
                    std::thread::sleep(pause);
                }
                other => return other,
            }
        }
    }
}
