//! What a crash left, undone.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::{FileError, FileResult};
use super::names::Temporary;
use super::seam::Files;
use super::trouble::reopened;
use crate::host::{Life, ProcessId};

/// How long something whose writer nobody here can tell of is left alone, where locks say that there is nobody else: on a
/// network file system they may be this machine's alone, and another one be about to register. Who is registered beats more
/// often than that.
pub(super) const UNSETTLED: Duration = Duration::from_secs(120);

/// Whose temporaries may go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Standing<'a> {
    /// Nobody else writes there but processes that are seen to live, and those that began after this time by the clock of the
    /// file server; none where there can be none of these.
    Alone(Option<SystemTime>),
    /// Others may: only what belongs to the provably dead, these among them.
    Beside(&'a [ProcessId]),
}

impl Standing<'_> {
    /// Whether what bears this name is nobody's any more.
    fn is_orphan(self, path: &Path, temporary: &Temporary) -> bool {
        match (temporary.writer(), self) {
            (Life::Alive, _) => false,
            (Life::Dead, _) | (Life::Unknown, Self::Alone(None)) => true,
            (Life::Unknown, Self::Alone(Some(since))) => {
                path.symlink_metadata().and_then(|meta| meta.modified()).is_ok_and(|written| written <= since)
            }
            (Life::Unknown, Self::Beside(dead)) => dead.iter().any(|process| temporary.is_of(process)),
        }
    }
}

impl Files {
    /// Undoes what a crash left anywhere under `root`: temporaries are removed, and a directory that was moved
    /// aside for its successor gets its name back if the successor never came. Returns what was found. What belongs to
    /// another process of this machine that lives stays. Only for the holder of the directory's lock, before it writes:
    /// what this process and those of other machines left is taken for a crash's. What cannot be removed stays, with a
    /// note.
    pub fn recover(&self, root: &Path) -> FileResult<Vec<PathBuf>> {
        self.recover_standing(root, Standing::Alone(None))
    }

    /// The same where others may write: only what belongs to processes that are provably dead is undone.
    ///
    /// # Errors
    /// Directories that cannot be read, files that cannot be renamed.
    pub fn recover_beside_others(&self, root: &Path) -> FileResult<Vec<PathBuf>> {
        self.recover_standing(root, Standing::Beside(&[]))
    }

    pub(super) fn recover_standing(&self, root: &Path, standing: Standing<'_>) -> FileResult<Vec<PathBuf>> {
        let mut found = Vec::new();
        self.recover_into(root, standing, &mut found)?;
        Ok(found)
    }

    fn recover_into(&self, dir: &Path, standing: Standing<'_>, found: &mut Vec<PathBuf>) -> FileResult<()> {
        let entries = reopened(|| fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect());
        let mut paths: Vec<PathBuf> = match entries {
            Ok(paths) => paths,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(FileError::new("read the directory", dir, e)),
        };
        paths.sort();
        for path in paths {
            let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            match Temporary::of(&path) {
                Some(temporary) if !standing.is_orphan(&path, &temporary) => {}
                Some(temporary) => {
                    self.undo(&path, &temporary)?;
                    found.push(path);
                }
                None if is_dir => self.recover_into(&path, standing, found)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Gives what was moved aside its name back if its successor never came; anything else of a crash goes.
    fn undo(&self, path: &Path, temporary: &Temporary) -> FileResult<()> {
        let original = path.with_file_name(&temporary.original);
        if temporary.aside && !original.exists() {
            self.rename(path, &original)?;
        } else {
            self.remove_leftover(path)?;
        }
        self.sync_parent(path)
    }

    /// Undoes what killed processes of this machine left of the file or directory at `target`, beside it: for places
    /// that no lock guards, where whatever else lies there is none of nanorun's business. A directory that cannot be
    /// read has nothing to undo.
    pub fn recover_beside(&self, target: &Path) -> FileResult<()> {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let Ok(entries) = fs::read_dir(parent.unwrap_or(Path::new("."))) else { return Ok(()) };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let Some(temporary) = Temporary::of(&path) else { continue };
            if temporary.is_for(target) && temporary.writer() == Life::Dead {
                self.undo(&path, &temporary)?;
            }
        }
        Ok(())
    }
}
