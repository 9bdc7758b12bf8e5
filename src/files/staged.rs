//! Directories that appear as a whole.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::error::{FileError, FileResult};
use super::faults::Step;
use super::names::temporary_name;
use super::notes::Once;
use super::raw::RawFile;
use super::seam::Files;
use super::trouble::{stays_for_now, uninterrupted};

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
            .and_then(|()| uninterrupted(|| std::fs::create_dir(&temporary)))
            .map_err(|error| FileError::new("create the directory", target, error))?;
        Ok(Self { files, temporary, target: target.to_owned() })
    }

    /// Makes a directory in it.
    pub fn create_dir(&self, name: &str) -> FileResult<()> {
        let path = self.temporary.join(name);
        self.files
            .check(Step::CreateDir, &path)
            .and_then(|()| uninterrupted(|| std::fs::create_dir(&path)))
            .map_err(|error| FileError::new("create the directory", &self.target.join(name), error))
    }

    /// Syncs it and the directories in it, the innermost first.
    fn sync(&self, dir: &Path) -> FileResult<()> {
        let read = |error| FileError::new("read the directory", dir, error);
        for entry in std::fs::read_dir(dir).map_err(read)? {
            let entry = entry.map_err(read)?;
            if entry.file_type().map_err(read)?.is_dir() {
                self.sync(&entry.path())?;
            }
        }
        self.files.sync_dir(dir)
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

    /// Gives the directory its name. Whatever had it is moved aside first and removed afterwards; if the process
    /// stops in between, [`Files::recover`] gives it its name back.
    pub fn commit(self) -> FileResult<()> {
        let files = &self.files;
        self.sync(&self.temporary)?;
        let mut tries = 3;
        let aside = loop {
            let aside = self.move_aside()?;
            let Err(error) = files.rename(&self.temporary, &self.target) else { break aside };
            tries -= 1;
            match aside {
                Some(aside) => files.rename(&aside, &self.target)?,
                // Another process was faster between the look and the rename.
                None if is_taken(&error) && tries > 0 => continue,
                None => {}
            }
            return Err(error);
        };
        files.sync_parent(&self.target)?;
        let Some(aside) = aside else { return Ok(()) };
        // Under a name that is never given back, should it have to stay: once its successor is gone it is history.
        match files.remove_tree(&aside) {
            Err(error) if stays_for_now(&error.source) => {
                let doomed = temporary_name(&self.target, "tmp");
                files.rename(&aside, &doomed)?;
                files.remove_leftover(&doomed)
            }
            other => other,
        }
    }

    /// Moves aside what has the name. -> its name meanwhile, if there was anything
    fn move_aside(&self) -> FileResult<Option<PathBuf>> {
        let files = &self.files;
        if self.target.symlink_metadata().is_err() {
            return Ok(None);
        }
        let aside = temporary_name(&self.target, "old");
        match files.rename(&self.target, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // A layered file system (overlayfs) does not move a directory of a lower layer, but removes it.
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                files.note_once(Once::Replacement, || {
                    format!(
                        "`{}` cannot be replaced in one step ({}): a crash in just that moment leaves neither the old \
                         one nor the new one",
                        self.target.display(),
                        error.source
                    )
                });
                files.remove_tree(&self.target).map(|()| None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether something has the name that was to be given.
fn is_taken(error: &FileError) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory)
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
