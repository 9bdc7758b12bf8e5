//! Files that are replaced as a whole.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::error::{FileError, FileResult};
use super::names::temporary_name;
use super::raw::RawFile;
use super::seam::Files;

/// Bytes gathered before a write reaches the system.
const BUFFER: usize = 1 << 20;

impl Files {
    /// Replaces the file at `path` by `bytes`: afterwards it holds them all, whatever happens in between. Its
    /// directory must exist.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> FileResult<()> {
        let mut file = self.create(path)?;
        file.write_all(bytes).map_err(|error| FileError::new("write", path, error))?;
        file.commit()
    }

    /// Starts to replace the file at `path`; nothing is seen there before `AtomicFile::commit`.
    pub fn create(&self, path: &Path) -> FileResult<AtomicFile> {
        let temporary = temporary_name(path, "tmp");
        let raw = self.create_raw(&temporary).map_err(|e| FileError::new("write", path, e.source))?;
        Ok(AtomicFile {
            files: self.clone(),
            writer: Some(BufWriter::with_capacity(BUFFER, raw)),
            temporary,
            target: path.to_owned(),
        })
    }
}

/// A file on its way to replace another. Dropped without `AtomicFile::commit`, it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    files: Files,
    writer: Option<BufWriter<RawFile>>,
    temporary: PathBuf,
    target: PathBuf,
}

impl AtomicFile {
    /// Syncs what was written and gives it its name.
    pub fn commit(mut self) -> FileResult<()> {
        let error = |error| FileError::new("write", &self.target, error);
        if let Some(writer) = self.writer.take() {
            let raw = writer.into_inner().map_err(|e| error(e.into_error()))?;
            raw.sync().map_err(error)?;
        }
        self.files.rename(&self.temporary, &self.target)?;
        self.files.sync_parent(&self.target)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.writer {
            Some(writer) => writer.write(bytes),
            None => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            drop(writer.into_parts());
        }
        // After a commit the name is gone; a failed removal is swept up by `Files::recover`.
        if self.temporary.exists() {
            self.files.remove_file(&self.temporary).ok();
        }
    }
}
