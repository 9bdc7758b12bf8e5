//! An open file whose every step asks the fault layer first.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error::{FileError, FileResult};
use super::faults::{Fault, Step};
use super::seam::Files;
use super::trouble::uninterrupted;

impl Files {
    pub(super) fn create_raw(&self, path: &Path) -> FileResult<RawFile> {
        let file = self
            .check(Step::Create, path)
            .and_then(|()| uninterrupted(|| OpenOptions::new().write(true).create_new(true).open(path)))
            .map_err(|error| FileError::new("create", path, error))?;
        Ok(RawFile { files: self.clone(), file, path: path.to_owned() })
    }
}

/// An open file whose writes and syncs can be made to fail.
#[derive(Debug)]
pub(super) struct RawFile {
    pub(super) files: Files,
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl RawFile {
    /// The file at `path`, made where it is not there, to be written on from its end. Returns its length too.
    pub(super) fn append_to(files: &Files, path: &Path) -> io::Result<(Self, u64)> {
        files.check(Step::Create, path)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        Ok((Self { files: files.clone(), file, path: path.to_owned() }, length))
    }

    /// Throws away what the file holds.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.files.check(Step::Truncate(0), &self.path)?;
        self.file.set_len(0)?;
        self.file.rewind()
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.files.sync_file(&self.file, &self.path)
    }
}

impl Write for RawFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.files.fault(Step::Write(bytes), &self.path) {
            None => {
                self.file.write_all(bytes)?;
                Ok(bytes.len())
            }
            Some(fault) => {
                if let Fault::Short(count, _) | Fault::Abort(count) = fault {
                    self.file.write_all(&bytes[..count.min(bytes.len())])?;
                }
                Err(fault.error())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
