//! Directories that appear as a whole.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::{FileError, FileResult};
use super::faults::Step;
use super::names::temporary_name;
use super::raw::RawFile;
use super::seam::Files;

impl Files {
    /// Starts a directory that will appear at `path` as a whole. The parent must exist.
    pub fn stage_dir(&self, path: &Path) -> FileResult<StagedDir> {
        StagedDir::new(self.clone(), path)
    }
}

/// A directory under a temporary name. Dropped without [`StagedDir::commit`], it leaves nothing.
#[derive(Debug)]
pub struct StagedDir {
    files: Files,
    temporary: PathBuf,
    target: PathBuf,
}

impl StagedDir {
    pub(super) fn new(files: Files, target: &Path) -> FileResult<Self> {
        let temporary = temporary_name(target, "tmp");
        files
            .check(Step::CreateDir, &temporary)
            .and_then(|()| std::fs::create_dir(&temporary))
            .map_err(|error| FileError::new("create the directory", target, error))?;
        Ok(Self { files, temporary, target: target.to_owned() })
    }

    /// Starts a file in it; it must be finished with [`StagedFile::finish`].
    pub fn create(&self, name: &str) -> FileResult<StagedFile> {
        let raw = self.files.create_raw(&self.temporary.join(name))?;
        Ok(StagedFile { writer: BufWriter::with_capacity(1 << 20, raw), path: self.target.join(name) })
    }

    /// Writes a whole file in it and syncs it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> FileResult<()> {
        let mut file = self.create(name)?;
        file.write_all(bytes).map_err(|error| FileError::new("write", &file.path, error))?;
        file.finish()
    }

    /// Gives the directory its name. One that had it is moved aside first and removed afterwards; if the process
    /// stops in between, [`Files::recover`] gives it its name back.
    pub fn commit(self) -> FileResult<()> {
        self.files.sync_dir(&self.temporary)?;
        let aside = temporary_name(&self.target, "old");
        let replaces = self.target.exists();
        if replaces {
            self.files.rename(&self.target, &aside)?;
        }
        if let Err(error) = self.files.rename(&self.temporary, &self.target) {
            if replaces {
                self.files.rename(&aside, &self.target)?;
            }
            return Err(error);
        }
        self.files.sync_parent(&self.target)?;
        if replaces { self.files.remove_tree(&aside) } else { Ok(()) }
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        // After a commit the name is gone; a failed removal is swept up by `Files::recover`.
        if self.temporary.exists() {
            self.files.remove_tree(&self.temporary).ok();
        }
    }
}

/// A file of a [`StagedDir`].
#[derive(Debug)]
pub struct StagedFile {
    writer: BufWriter<RawFile>,
    path: PathBuf,
}

impl StagedFile {
    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what is buffered and syncs it.
    pub fn finish(self) -> FileResult<()> {
        let error = |error| FileError::new("write", &self.path, error);
        let raw = self.writer.into_inner().map_err(|e| error(e.into_error()))?;
        raw.sync().map_err(error)
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
