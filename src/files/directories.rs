//! Directories made, and files and directories removed.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::error::{FileError, FileResult};
use super::faults::Step;
use super::names::temporary_name;
use super::seam::Files;

impl Files {
    /// Creates a directory and its parents, each of them durably.
    pub fn create_dir_all(&self, path: &Path) -> FileResult<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.create_dir_all(parent)?;
        }
        let created = self.check(Step::CreateDir, path).and_then(|()| fs::create_dir(path));
        match created {
            // Somebody else was faster.
            Err(_) if path.is_dir() => Ok(()),
            Err(error) => Err(FileError::new("create the directory", path, error)),
            Ok(()) => self.sync_parent(path),
        }
    }

    /// Makes sure of a directory in which files can be written, by writing one; nothing is left behind.
    pub fn check_writable(&self, dir: &Path) -> FileResult<()> {
        self.create_dir_all(dir)?;
        drop(self.create(&dir.join("writable")).map_err(|e| FileError::new("write in", dir, e.source))?);
        Ok(())
    }

    /// Removes a file; one that is not there is as good as removed.
    pub fn remove_file(&self, path: &Path) -> FileResult<()> {
        let removed = self.check(Step::Remove, path).and_then(|()| fs::remove_file(path));
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(FileError::new("remove", path, error)),
            _ => self.sync_parent(path),
        }
    }

    /// Removes a directory and all in it: it loses its name first, so that no part of it is ever seen under it.
    pub fn remove_dir(&self, path: &Path) -> FileResult<()> {
        if !path.exists() {
            return Ok(());
        }
        let doomed = temporary_name(path, "tmp");
        self.rename(path, &doomed)?;
        self.sync_parent(path)?;
        self.remove_tree(&doomed)
    }
}
