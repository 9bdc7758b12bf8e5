//! Whole files read.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::error::{FileError, FileResult};
use super::seam::Files;
use super::trouble::reopened;

impl Files {
    /// The bytes of a file.
    pub fn read(&self, path: &Path) -> FileResult<Vec<u8>> {
        reopened(|| fs::read(path)).map_err(|error| FileError::new("read", path, error))
    }

    /// The bytes of a file, or none where there is no such file.
    pub fn read_if_there(&self, path: &Path) -> FileResult<Option<Vec<u8>>> {
        match self.read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
