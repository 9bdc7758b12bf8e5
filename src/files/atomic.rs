//! Atomic replacement of single files, appending, and the small directory operations around them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{FileError, FileResult};
use super::faults::{Fault, FaultAt, Faults, Step};
use super::staged::StagedDir;
use crate::error::{Error, Result};

/// Bytes gathered before a write reaches the system.
const BUFFER: usize = 1 << 20;

/// Writes files. Cheap to clone; every writer of a process uses clones of one value.
#[derive(Clone, Default)]
pub struct Files {
    faults: Option<Arc<dyn Faults>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("faults", &self.faults.is_some()).finish()
    }
}

impl Files {
    /// Writes to the file system as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes to the file system as it is, unless `WRITE_FAULT` says which step is to fail (see [`FaultAt::parse`]):
    /// how tests reach into a whole process. Steps are counted over the clones of this value.
    ///
    /// # Errors
    /// A `WRITE_FAULT` that says nothing.
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
    pub fn with_faults(faults: Arc<dyn Faults>) -> Self {
        Self { faults: Some(faults) }
    }

    /// Replaces the file at `path` by `bytes`: afterwards it holds them all, whatever happens in between. Its
    /// directory must exist.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> FileResult<()> {
        let mut file = self.create(path)?;
        file.write_all(bytes).map_err(|error| FileError::new("write", path, error))?;
        file.commit()
    }

    /// Starts to replace the file at `path`; nothing is seen there before [`AtomicFile::commit`].
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

    /// Starts a directory that will appear at `path` as a whole. The parent must exist.
    pub fn stage_dir(&self, path: &Path) -> FileResult<StagedDir> {
        StagedDir::new(self.clone(), path)
    }

    /// Appends one line (given without its newline) and syncs it. A line that an earlier crash left without its
    /// end is cut off first, so that every line of the file is whole.
    pub fn append_line(&self, path: &Path, line: &str) -> FileResult<()> {
        let error = |error| FileError::new("append to", path, error);
        self.check(Step::Create, path).map_err(error)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(error)?;
        let length = file.metadata().map_err(error)?.len();
        let whole = whole_lines(&mut file, length).map_err(error)?;
        if whole < length {
            self.check(Step::Truncate(whole), path).map_err(error)?;
            file.set_len(whole).map_err(error)?;
        }
        file.seek(SeekFrom::Start(whole)).map_err(error)?;
        let mut raw = RawFile { files: self.clone(), file, path: path.to_owned() };
        raw.write_all(format!("{line}\n").as_bytes()).map_err(error)?;
        raw.sync().map_err(error)?;
        if length == 0 { self.sync_parent(path) } else { Ok(()) }
    }

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

    /// The bytes of a file.
    pub fn read(&self, path: &Path) -> FileResult<Vec<u8>> {
        fs::read(path).map_err(|error| FileError::new("read", path, error))
    }

    /// The bytes of a file, or none where there is no such file.
    pub fn read_if_there(&self, path: &Path) -> FileResult<Option<Vec<u8>>> {
        match self.read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
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

    pub(super) fn check(&self, step: Step<'_>, path: &Path) -> io::Result<()> {
        match self.fault(step, path) {
            #[cfg(test)]
            Some(Fault::Unsynced) => Ok(()),
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    /// Syncs through `sync`.
    fn check_sync(
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

    fn fault(&self, step: Step<'_>, path: &Path) -> Option<Fault> {
        self.faults.as_ref().and_then(|faults| faults.before(step, path))
    }

    pub(super) fn create_raw(&self, path: &Path) -> FileResult<RawFile> {
        let file = self
            .check(Step::Create, path)
            .and_then(|()| OpenOptions::new().write(true).create_new(true).open(path))
            .map_err(|error| FileError::new("create", path, error))?;
        Ok(RawFile { files: self.clone(), file, path: path.to_owned() })
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> FileResult<()> {
        self.check(Step::Rename { from }, to)
            .and_then(|()| fs::rename(from, to))
            .map_err(|error| FileError::new("write", to, error))
    }

    pub(super) fn remove_tree(&self, path: &Path) -> FileResult<()> {
        self.check(Step::Remove, path)
            .and_then(|()| fs::remove_dir_all(path))
            .map_err(|error| FileError::new("remove", path, error))
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> FileResult<()> {
        // Only Unix lets a directory be opened and synced; elsewhere the rename has to do.
        let sync = || if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) };
        self.check_sync(Step::SyncDir, dir, sync)
            .map_err(|error| FileError::new("sync the directory", dir, error))
    }

    pub(super) fn sync_parent(&self, path: &Path) -> FileResult<()> {
        match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => self.sync_dir(Path::new(".")),
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }
}

/// A file on its way to replace another. Dropped without [`AtomicFile::commit`], it leaves nothing.
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

/// An open file whose writes and syncs can be made to fail.
#[derive(Debug)]
pub(super) struct RawFile {
    files: Files,
    file: File,
    path: PathBuf,
}

impl RawFile {
    pub(super) fn sync(&self) -> io::Result<()> {
        self.files.check_sync(Step::Sync, &self.path, || self.file.sync_all())
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

/// How many bytes of the file belong to lines that have their newline.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut block = [0_u8; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// A hidden name beside `path` that no other writer has: `.NAME.PID-NUMBER.EXTENSION`.
pub(super) fn temporary_name(path: &Path, extension: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{number}.{extension}", std::process::id()))
}

/// The name that a temporary name was made from, and its extension; none for any other name.
fn original_name(path: &Path) -> Option<(String, &'static str)> {
    let name = path.file_name()?.to_str()?.strip_prefix('.')?;
    let (rest, extension) = name.rsplit_once('.')?;
    let extension = ["tmp", "old"].into_iter().find(|known| *known == extension)?;
    let (original, unique) = rest.rsplit_once('.')?;
    let (pid, number) = unique.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(pid) && digits(number)).then(|| (original.to_owned(), extension))
}
