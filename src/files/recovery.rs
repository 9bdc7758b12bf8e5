//! What a crash left, undone.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::{FileError, FileResult};
use super::names::original_name;
use super::seam::Files;

impl Files {
    /// Undoes what a crash left anywhere under `root`: temporaries are removed, and a directory that was moved
    /// aside for its successor gets its name back if the successor never came. Returns what was found. Only for
    /// the holder of the directory's lock: another process's temporaries look the same.
    pub fn recover(&self, root: &Path) -> FileResult<Vec<PathBuf>> {
        let mut found = Vec::new();
        self.recover_into(root, &mut found)?;
        Ok(found)
    }

    fn recover_into(&self, dir: &Path, found: &mut Vec<PathBuf>) -> FileResult<()> {
        let error = |error| FileError::new("read the directory", dir, error);
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(error(e)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(error)?.path());
        }
        paths.sort();
        for path in paths {
            let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            match original_name(&path) {
                Some((name, "old")) if !dir.join(&name).exists() => {
                    self.rename(&path, &dir.join(&name))?;
                    self.sync_parent(&path)?;
                    found.push(path);
                }
                Some(_) => {
                    if is_dir {
                        self.remove_tree(&path)?;
                    } else {
                        self.remove_file(&path)?;
                    }
                    found.push(path);
                }
                None if is_dir => self.recover_into(&path, found)?,
                None => {}
            }
        }
        Ok(())
    }
}
