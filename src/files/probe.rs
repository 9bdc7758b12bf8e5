//! What a file system can do, found out by doing it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::clock::unix_now;
use super::error::{FileError, FileResult};
use super::names::temporary_name;
use super::space::space;

/// What a file system does with what nanorun asks of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileSystemFacts {
    /// Syncing a file: a power cut leaves it whole.
    pub file_sync: Answer,
    /// Syncing a directory: a power cut leaves its newest names.
    pub directory_sync: Answer,
    /// Locks between two that open one file.
    pub locks: Answer,
    /// A file replaced by the rename of another.
    pub file_rename: Answer,
    /// A directory with something in it renamed, and not over another one with something in it.
    pub directory_rename: Answer,
    /// Seconds that the times of its files are ahead of this machine's clock; negative where behind.
    pub clock_ahead_seconds: Option<i64>,
    /// Bytes this user may still write; a quota often shows only when it is reached.
    pub free_bytes: Option<u64>,
    /// Its bytes in all.
    pub total_bytes: Option<u64>,
}

/// Whether it works, and if not what the system answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether it works.
    pub works: bool,
    /// What the system answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

impl From<io::Result<()>> for Answer {
    fn from(done: io::Result<()>) -> Self {
        Self { works: done.is_ok(), answer: done.err().map(|error| error.to_string()) }
    }
}

/// Tries it all in a directory of its own in `dir`, which must exist and be writable. Leaves nothing.
///
/// # Errors
/// No directory can be made there.
pub fn file_system_facts(dir: &Path) -> FileResult<FileSystemFacts> {
    let place = temporary_name(&dir.join("doctor"), "tmp");
    fs::create_dir(&place).map_err(|error| FileError::new("create the directory", &place, error))?;
    let room = space(dir).ok();
    let facts = FileSystemFacts {
        file_sync: written(&place.join("synced"), "x").and_then(|file| file.sync_all()).into(),
        directory_sync: File::open(&place).and_then(|dir| dir.sync_all()).into(),
        locks: locks(&place.join("locked")).into(),
        file_rename: file_rename(&place).into(),
        directory_rename: directory_rename(&place).into(),
        clock_ahead_seconds: clock_ahead(&place).ok(),
        free_bytes: room.map(|room| room.free),
        total_bytes: room.map(|room| room.total),
    };
    // Should it stay, the next recovery takes it for what it is.
    let _ = fs::remove_dir_all(&place);
    Ok(facts)
}

fn written(path: &Path, text: &str) -> io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

fn locks(path: &Path) -> io::Result<()> {
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let (first, second) = (open()?, open()?);
    let lock = |file: &File| match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    };
    match (lock(&first)?, lock(&second)?) {
        (true, false) => {}
        (true, true) => return Err(wrong("two have one lock at the same time")),
        (false, _) => return Err(wrong("nobody gets the lock")),
    }
    drop(first);
    if lock(&second)? { Ok(()) } else { Err(wrong("the lock stays when its owner has gone")) }
}

fn file_rename(place: &Path) -> io::Result<()> {
    let (from, to) = (place.join("from"), place.join("to"));
    written(&from, "new")?;
    written(&to, "old")?;
    fs::rename(&from, &to)?;
    if from.exists() || fs::read_to_string(&to)? != "new" {
        return Err(wrong("the old file is still there"));
    }
    Ok(())
}

fn directory_rename(place: &Path) -> io::Result<()> {
    let full = |name: &str| -> io::Result<_> {
        let dir = place.join(name);
        fs::create_dir(&dir)?;
        written(&dir.join(name), "x")?;
        Ok(dir)
    };
    let (from, to) = (full("first")?, place.join("moved"));
    fs::rename(&from, &to)?;
    if from.exists() || !to.join("first").exists() {
        return Err(wrong("what was in it is not where it was moved to"));
    }
    match fs::rename(full("second")?, &to) {
        Ok(()) => Err(wrong("one directory takes the place of another that holds something")),
        Err(_) => Ok(()),
    }
}

/// What time it is by the clock that the files of `dir` get their times from, which is its server's where it is shared. A file
/// is written there for it and removed.
///
/// # Errors
/// Nothing can be written there.
pub fn clock_of(dir: &Path) -> io::Result<SystemTime> {
    // Should it stay, the next recovery takes it for what it is.
    let path = temporary_name(&dir.join("clock"), "tmp");
    let modified = written(&path, "x").and_then(|file| file.metadata()?.modified());
    let _ = fs::remove_file(&path);
    modified
}

/// Seconds that a new file's time is ahead.
fn clock_ahead(dir: &Path) -> io::Result<i64> {
    let before = unix_now();
    let modified = clock_of(dir)?;
    let after = unix_now();
    let modified = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Within the seconds that writing took there is no difference.
    Ok(modified.saturating_sub(after) as i64 - before.saturating_sub(modified) as i64)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_local_file_system_does_it_all_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let facts = file_system_facts(dir.path()).unwrap();
        let answers = [
            &facts.file_sync,
            &facts.directory_sync,
            &facts.locks,
            &facts.file_rename,
            &facts.directory_rename,
        ];
        assert!(answers.iter().all(|answer| answer.works), "{facts:?}");
        assert!(facts.clock_ahead_seconds.unwrap().abs() <= 2, "{facts:?}");
        assert!(facts.free_bytes.unwrap() > 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        file_system_facts(&dir.path().join("nothing")).unwrap_err();
    }
}
