//! A file that is gathered over several lives of the process and gets its name once it is whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::{FileError, FileResult};
use super::raw::RawFile;
use super::seam::Files;

/// A file under the name `.NAME.part` in its own directory: no glob of `*.parquet` takes it for a shard. Dropped
/// without [`PartialFile::commit`], it stays for the next life to carry on.
#[derive(Debug)]
pub struct PartialFile {
    files: Files,
    raw: RawFile,
    temporary: PathBuf,
    target: PathBuf,
    len: u64,
}

impl Files {
    /// What an earlier life gathered for the file at `target`, or nothing yet. The directory must exist.
    pub fn partial(&self, target: &Path) -> FileResult<PartialFile> {
        let temporary = PartialFile::path_of(target);
        let (raw, len) = RawFile::append_to(self, &temporary)
            .map_err(|error| FileError::new("write", &temporary, error))?;
        Ok(PartialFile { files: self.clone(), raw, temporary, target: target.to_owned(), len })
    }
}

impl PartialFile {
    /// Where the parts of the file at `target` are gathered.
    pub fn path_of(target: &Path) -> PathBuf {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        target.with_file_name(format!(".{name}.part"))
    }

    /// Where it is gathered.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Bytes gathered so far.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Opens what is gathered for reading.
    pub fn open(&self) -> FileResult<File> {
        File::open(&self.temporary).map_err(|error| FileError::new("read", &self.temporary, error))
    }

    /// Throws away what is gathered.
    pub fn clear(&mut self) -> FileResult<()> {
        self.raw.clear().map_err(|error| FileError::new("write", &self.temporary, error))?;
        self.len = 0;
        Ok(())
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: &[u8]) -> FileResult<()> {
        let written = self.raw.write_all(bytes);
        written.map_err(|error: io::Error| FileError::new("write", &self.temporary, error))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Syncs it and gives it its name.
    pub fn commit(self) -> FileResult<()> {
        self.raw.sync().map_err(|error| FileError::new("write", &self.target, error))?;
        self.files.rename(&self.temporary, &self.target)?;
        self.files.sync_parent(&self.target)
    }
}
