//! What every write passes: the file system, and before it the fault layer.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{FileError, FileResult};
#[cfg(any(test, feature = "internals"))]
use super::faults::FaultAt;
use super::faults::{Fault, Faults, Step};
use super::notes::{Notes, Once};
use super::trouble::{cannot_sync, cannot_sync_directory, uninterrupted};
#[cfg(any(test, feature = "internals"))]
use crate::error::Error;
use crate::error::Result;

/// Writes files. Cheap to clone; every writer of a process uses clones of one value.
#[derive(Clone, Default)]
pub struct Files {
    faults: Option<Arc<dyn Faults>>,
    shared: Arc<Shared>,
}

/// What all clones of one value know.
#[derive(Default)]
struct Shared {
    notes: Notes,
    /// What could not be removed.
    leftovers: Mutex<Vec<PathBuf>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("faults", &self.faults.is_some()).finish_non_exhaustive()
    }
}

impl Files {
    /// Writes to the file system as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes to the file system as it is. Only what is built with the feature `internals`, as tests are, looks whether
    /// `WRITE_FAULT` says which step is to fail (see `FaultAt::parse`): how tests reach into a whole process. Steps are
    /// counted over the clones of this value.
    ///
    /// # Errors
    /// A `WRITE_FAULT` that says nothing.
    #[cfg(not(any(test, feature = "internals")))]
    pub fn from_env() -> Result<Self> {
        Ok(Self::new())
    }

    /// The same with faults.
    #[cfg(any(test, feature = "internals"))]
    pub fn from_env() -> Result<Self> {
        let Some(text) = std::env::var_os("WRITE_FAULT") else { return Ok(Self::new()) };
        let fault = text.to_str().and_then(FaultAt::parse).ok_or_else(|| {
            Error::input(format!("WRITE_FAULT is {}", text.display())).expected(
                "nothing, or FAULT@STEP with a fault of full, io, short, readonly, kill, as tests set it",
            )
        })?;
        Ok(Self::with_faults(Arc::new(fault)))
    }

    /// Writes without syncing: for tests of other things.
    #[cfg(test)]
    pub(crate) fn unsynced() -> Self {
        Self::with_faults(Arc::new(super::faults::Unsynced(())))
    }

    /// Asks `faults` before every step.
    #[cfg(any(test, feature = "internals"))]
    pub fn with_faults(faults: Arc<dyn Faults>) -> Self {
        Self { faults: Some(faults), shared: Arc::default() }
    }

    pub(super) fn check(&self, step: Step<'_>, path: &Path) -> io::Result<()> {
        match self.fault(step, path) {
            #[cfg(test)]
            Some(Fault::Unsynced) => Ok(()),
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    /// Syncs through `sync`.
    pub(super) fn check_sync(
        &self,
        step: Step<'_>,
        path: &Path,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        match self.fault(step, path) {
            #[cfg(test)]
            Some(Fault::Unsynced) => Ok(()),
            Some(fault) => Err(fault.error()),
            None => sync(),
        }
    }

    pub(super) fn fault(&self, step: Step<'_>, path: &Path) -> Option<Fault> {
        self.faults.as_ref().and_then(|faults| faults.before(step, path))
    }

    pub(super) fn notes(&self) -> &Notes {
        &self.shared.notes
    }

    /// Remembers what could not be removed.
    pub(super) fn leave(&self, path: PathBuf) {
        self.shared.leftovers.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }

    /// What could not be removed, handed out once.
    pub(super) fn take_leftovers(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.shared.leftovers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> FileResult<()> {
        self.check(Step::Rename { from }, to)
            .and_then(|()| uninterrupted(|| fs::rename(from, to)))
            .map_err(|error| FileError::new("write", to, error))
    }

    /// Removes a file or a directory with all in it.
    pub(super) fn remove_tree(&self, path: &Path) -> FileResult<()> {
        let remove = || match path.symlink_metadata() {
            Ok(found) if !found.is_dir() => fs::remove_file(path),
            _ => fs::remove_dir_all(path),
        };
        self.check(Step::Remove, path)
            .and_then(|()| uninterrupted(remove))
            .map_err(|error| FileError::new("remove", path, error))
    }

    /// Syncs an open file; where the file system cannot, that is noted.
    pub(super) fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        match self.check_sync(Step::Sync, path, || file.sync_all()) {
            Err(error) if cannot_sync(&error, path) => {
                self.note_once(Once::FileSync, || {
                    format!(
                        "files cannot be synced in `{}` ({error}): after a power cut the newest ones may be torn; a kill \
                         or a crash of nanorun loses nothing",
                        path.parent().unwrap_or(path).display()
                    )
                });
                Ok(())
            }
            other => other,
        }
    }

    /// Syncs a directory; where the file system cannot, that is noted.
    pub(super) fn sync_dir(&self, dir: &Path) -> FileResult<()> {
        // Only Unix lets a directory be opened and synced; elsewhere the rename has to do.
        let sync = || if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) };
        match self.check_sync(Step::SyncDir, dir, sync) {
            Err(error) if cannot_sync_directory(&error, dir) => {
                self.note_once(Once::DirectorySync, || {
                    format!(
                        "directories cannot be synced in `{}` ({error}): after a power cut the newest files may be missing; \
                         a kill or a crash of nanorun loses nothing",
                        dir.display()
                    )
                });
                Ok(())
            }
            other => other.map_err(|error| FileError::new("sync the directory", dir, error)),
        }
    }

    pub(super) fn sync_parent(&self, path: &Path) -> FileResult<()> {
        match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => self.sync_dir(Path::new(".")),
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }
}
