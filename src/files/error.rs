//! What can go wrong with a file, told so that a person can act on it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Class, Error};
use crate::system::{Meaning, means};

/// `Result` with a [`FileError`].
pub type FileResult<T> = std::result::Result<T, FileError>;

/// A step on a file or directory that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {}", .path.display(), reason(.action, .source))]
pub struct FileError {
    /// What was attempted: a verb that fits "cannot ...".
    pub action: &'static str,
    /// The file or directory it was attempted on.
    pub path: PathBuf,
    /// What the system answered. Not the `source()` of this error, because its message is part of this one's.
    pub source: io::Error,
}

impl FileError {
    /// A failed `action` on `path`.
    pub fn new(action: &'static str, path: &Path, error: io::Error) -> Self {
        Self { action, path: path.to_owned(), source: error }
    }

    /// The kind of the error underneath.
    pub fn kind(&self) -> ErrorKind {
        self.source.kind()
    }
}

/// The common kinds in plain words, the others as the system says them.
fn reason(action: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound if writes(action) => "its directory does not exist".to_owned(),
        ErrorKind::NotFound => "it does not exist".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        ErrorKind::StorageFull => "no space left on the device".to_owned(),
        ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "a file stands where a directory is needed".to_owned()
        }
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        ErrorKind::InvalidFilename => "its name or path is too long for the file system".to_owned(),
        ErrorKind::FileTooLarge => "it is larger than the file system or `ulimit -f` allows".to_owned(),
        ErrorKind::StaleNetworkFileHandle => {
            "it was removed or replaced on the file server (a stale handle)".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Whether a file is made by it.
fn writes(action: &str) -> bool {
    matches!(action, "write" | "append to" | "create" | "lock")
}

/// Whether the device itself fails: EIO.
fn is_broken(error: &io::Error) -> bool {
    means(error, Meaning::Broken)
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        let class = match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::AlreadyExists
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidFilename => Class::Input,
            _ => Class::Run,
        };
        let help = match error.kind() {
            _ if writes(error.action) && error.kind() == ErrorKind::NotFound => Some(
                "make that directory; if it was there when nanorun began, it was removed meanwhile: start again",
            ),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Some("give a directory that can be written with --results DIR")
            }
            ErrorKind::StorageFull => Some("free some space and start again: what was finished is kept"),
            ErrorKind::QuotaExceeded => Some(
                "the disk has room, your share of it does not: remove some of your files there or have the quota raised \
                 (`quota -s` shows it), and start again: what was finished is kept",
            ),
            ErrorKind::FileTooLarge => Some("raise the limit, or choose another place with --results DIR"),
            ErrorKind::InvalidFilename => {
                Some("choose a shorter name, or a shorter place with --results DIR")
            }
            _ if is_broken(&error.source) => Some(
                "the disk or the way to it fails (`dmesg` says more): mend it and start again: what was finished is kept",
            ),
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                Some("move that file away or choose another place with --results DIR")
            }
            _ => None,
        };
        let this = Self::new(class, error.to_string());
        match help {
            Some(help) => this.help(help),
            None => this,
        }
    }
}
