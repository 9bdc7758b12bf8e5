//! What tells that a file is another than it was.

use std::io;
use std::path::Path;
use std::time::SystemTime;

/// Size, times and identity of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    /// Device, inode and time of the last change: those move even where a copy keeps the modification time.
    identity: Option<[i64; 4]>,
}

impl Stamp {
    /// Of the file at this path now.
    ///
    /// # Errors
    /// It is not there, or cannot be looked at.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        let identity = crate::system::identity(&metadata);
        Ok(Self { len: metadata.len(), modified: metadata.modified().ok(), identity })
    }

    /// Size in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }
}
