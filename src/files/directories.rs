//! Directories made, and files and directories removed.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::error::{FileError, FileResult};
use super::faults::Step;
use super::names::temporary_name;
use super::notes::Once;
use super::seam::Files;
use super::trouble::{stays_for_now, uninterrupted};

impl Files {
    /// Creates a directory and its parents, each of them durably.
    pub fn create_dir_all(&self, path: &Path) -> FileResult<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.create_dir_all(parent)?;
        }
        let created = self.check(Step::CreateDir, path).and_then(|()| uninterrupted(|| fs::create_dir(path)));
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
        let removed = self.check(Step::Remove, path).and_then(|()| uninterrupted(|| fs::remove_file(path)));
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(FileError::new("remove", path, error)),
            _ => self.sync_parent(path),
        }
    }

    /// Removes a directory and all in it: it loses its name first, so that no part of it is ever seen under it. What of
    /// it cannot be removed under its hidden name stays for now, with a note, and is tried again with later ones and by
    /// [`Files::recover`].
    ///
    /// # Errors
    /// The name stays, or the disk fails.
    pub fn remove_dir(&self, path: &Path) -> FileResult<()> {
        self.retry_leftovers();
        if !path.exists() {
            return Ok(());
        }
        let doomed = temporary_name(path, "tmp");
        match self.rename(path, &doomed) {
            Ok(()) => {}
            // A layered file system (overlayfs) does not move a directory of a lower layer, but removes it. A crash
            // meanwhile leaves a part under the name: whoever reads it must check what is there, as for checkpoints.
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                self.remove_tree(path)?;
                return self.sync_parent(path);
            }
            Err(error) => return Err(FileError { action: "remove", path: path.to_owned(), ..error }),
        }
        self.sync_parent(path)?;
        self.remove_leftover(&doomed)
    }

    /// [`Files::remove_dir`] of what only takes room: where it cannot be removed now, it stays with a note.
    ///
    /// # Errors
    /// The disk fails.
    pub fn discard_dir(&self, path: &Path) -> FileResult<()> {
        self.may_stay(self.remove_dir(path))
    }

    /// How it went to make room: what cannot be let go of now only takes room, so it stays with a note.
    ///
    /// # Errors
    /// The disk fails.
    pub fn may_stay(&self, outcome: FileResult<()>) -> FileResult<()> {
        match outcome {
            Err(error) if stays_for_now(&error.source) => {
                self.note_stays(&error);
                Ok(())
            }
            other => other,
        }
    }

    /// Removes what nothing has the name of any more.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn remove_leftover(&self, path: &Path) -> FileResult<()> {
        match self.remove_tree(path) {
            Err(error) if stays_for_now(&error.source) => {
                self.note_stays(&error);
                self.leave(path.to_owned());
                Ok(())
            }
            other => other,
        }
    }

    /// Tries again to remove what could not be removed before.
    fn retry_leftovers(&self) {
        for path in self.take_leftovers() {
            // Only room is lost with it, and that was said.
            if self.remove_tree(&path).is_err() && path.symlink_metadata().is_ok() {
                self.leave(path);
            }
        }
    }

    fn note_stays(&self, error: &FileError) {
        self.note_once(Once::Removal, || format!("{error}: it stays for now and is tried again later"));
    }
}
