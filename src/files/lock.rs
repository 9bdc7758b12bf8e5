//! One runner a results directory.
//!
//! Where the file system has locks, the kernel keeps this one and lets go of it however its process ends. Where it has
//! none, a claim does ([`super::claims`]). Each looks for the other: machines that share a directory need not mount it
//! alike.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::claims::{self, Claim, Refused, Standing};
use super::clock::{system_now, utc_now};
use super::error::{FileError, FileResult};
use super::probe::clock_of;
use super::recovery;
use super::seam::Files;
use super::trouble::{has_no_locks, reopened, uninterrupted};
use crate::error::{Class, Error};
use crate::host::{Life, ProcessId};

/// The lock's name in the directory it guards.
const NAME: &str = ".lock";

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Process id.
    pub pid: u32,
    /// Host name.
    pub host: String,
    /// When it took the lock, UTC.
    pub since: String,
    /// Its command line.
    pub command: String,
    /// Which process it is; none where a nanorun wrote it that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
}

impl LockHolder {
    /// This process, on `host`.
    pub fn this_process(host: &str) -> Self {
        let command: Vec<_> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
        Self {
            pid: std::process::id(),
            host: host.to_owned(),
            since: utc_now(),
            command: command.join(" "),
            process: Some(ProcessId::own().clone()),
        }
    }

    /// Whether it lives, as far as can be told here.
    pub fn life(&self) -> Life {
        self.process.as_ref().map_or(Life::Unknown, ProcessId::life)
    }
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process writes there.
    #[error("another nanorun works in `{}`{}", .dir.display(), describe(.holder.as_deref()))]
    Held {
        /// The directory.
        dir: PathBuf,
        /// Who, where the lock file tells.
        holder: Option<Box<LockHolder>>,
    },
    /// Another process may write there: nobody here can tell whether it lives.
    #[error("another nanorun may work in `{}`{}", .dir.display(), describe(.holder.as_deref()))]
    Unknown {
        /// The directory.
        dir: PathBuf,
        /// Who, where that can be read.
        holder: Option<Box<LockHolder>>,
        /// What a person removes who knows that it has ended.
        remove: PathBuf,
    },
    /// The lock file could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
}

fn describe(holder: Option<&LockHolder>) -> String {
    holder.map_or_else(String::new, |holder| {
        format!(": process {} on {} since {} (`{}`)", holder.pid, holder.host, holder.since, holder.command)
    })
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        let what = error.to_string();
        match error {
            LockError::File(error) => error.into(),
            LockError::Held { .. } => {
                Self::run(what).help("wait for it to end, or choose another place with --results DIR")
            }
            LockError::Unknown { remove, .. } => Self::new(Class::Run, what)
                .expected("a process of this machine, of which it can be told whether it lives: the file system has no locks")
                .help(format!(
                    "if it has ended, remove `{}` and start again; if it runs, wait for it, or choose another place with \
                     --results DIR",
                    remove.display()
                )),
        }
    }
}

/// A directory's lock, shared with others until dropped.
#[derive(Debug)]
pub struct SharedLock {
    /// None where there are no locks.
    _file: Option<File>,
}

/// An advisory lock on a directory, held until dropped.
#[derive(Debug)]
pub struct DirLock(Kind);

#[derive(Debug)]
enum Kind {
    /// The system lets go of it when the process ends, however it ends: the file that stays behind locks nobody out.
    Lock(File),
    /// Where there are no locks.
    Claim(Claim),
}

impl DirLock {
    /// Takes the lock of `dir`, which must exist, or says who has it.
    pub fn acquire(dir: &Path, holder: &LockHolder) -> Result<Self, LockError> {
        let path = dir.join(NAME);
        let error = |error| LockError::File(FileError::new("lock", &path, error));
        let mut file = open(&path).map_err(error)?;
        match lock(&file) {
            Ok(true) => {}
            Ok(false) => return Err(LockError::Held { dir: dir.to_owned(), holder: said(&mut file) }),
            Err(why) if has_no_locks(&why) => {
                return Self::claim(dir, holder, said(&mut file));
            }
            Err(e) => return Err(error(e)),
        }
        // A file system may grant every lock there is: then it has none.
        let second = open(&path).map_err(error)?;
        if matches!(lock(&second), Ok(true)) {
            drop(second);
            return Self::claim(dir, holder, said(&mut file));
        }
        match claims::standing(dir).map_err(|e| LockError::File(FileError::new("lock", dir, e)))? {
            Standing::Free => {}
            taken => return Err(held(dir, taken)),
        }
        // Written in place: a renamed file would carry the lock away from its name.
        let text = serde_json::to_string(holder).unwrap_or_default();
        file.set_len(0).and_then(|()| file.rewind()).map_err(error)?;
        file.write_all(text.as_bytes()).map_err(error)?;
        Ok(Self(Kind::Lock(file)))
    }

    /// Shares `dir` with others that do: whoever takes its lock, such as a nanorun that knows no sharing, waits for all of
    /// them. Where there are no locks, it makes sure that nobody has it at the moment.
    ///
    /// # Errors
    /// Somebody has the lock, or may have it.
    pub fn share(dir: &Path) -> Result<SharedLock, LockError> {
        let path = dir.join(NAME);
        let error = |error| LockError::File(FileError::new("lock", &path, error));
        let mut file = open(&path).map_err(error)?;
        let taken = |file: &File| match file.try_lock_shared() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        };
        let shared = match uninterrupted(|| taken(&file)) {
            Ok(true) => true,
            Ok(false) => return Err(LockError::Held { dir: dir.to_owned(), holder: said(&mut file) }),
            Err(why) if has_no_locks(&why) => false,
            Err(e) => return Err(error(e)),
        };
        if !shared {
            refuse_beside(dir, said(&mut file))?;
        }
        match claims::standing(dir).map_err(|e| LockError::File(FileError::new("lock", dir, e)))? {
            Standing::Free => Ok(SharedLock { _file: shared.then_some(file) }),
            taken => Err(held(dir, taken)),
        }
    }

    /// Without locks; `locked` is what the lock file says of somebody who may have one.
    fn claim(dir: &Path, holder: &LockHolder, locked: Option<Box<LockHolder>>) -> Result<Self, LockError> {
        refuse_beside(dir, locked)?;
        match claims::claim(dir, holder) {
            Ok(claim) => Ok(Self(Kind::Claim(claim))),
            Err(Refused::Standing(taken)) => Err(held(dir, taken)),
            Err(Refused::Failed(e)) => {
                Err(LockError::File(FileError::new("lock", &dir.join(claims::NAME), e)))
            }
        }
    }

    /// Takes the lock, waiting for it; `waiting` is told who has it before each pause and says whether to go on. Nobody
    /// waits for a process of which it cannot be told whether it lives.
    pub fn acquire_waiting(
        dir: &Path,
        holder: &LockHolder,
        pause: Duration,
        waiting: impl FnMut(&LockError) -> bool,
    ) -> Result<Self, LockError> {
        Self::wait(|| Self::acquire(dir, holder), pause, waiting)
    }

    /// [`Self::share`], waiting for it as [`Self::acquire_waiting`] does.
    pub fn share_waiting(
        dir: &Path,
        pause: Duration,
        waiting: impl FnMut(&LockError) -> bool,
    ) -> Result<SharedLock, LockError> {
        Self::wait(|| Self::share(dir), pause, waiting)
    }

    fn wait<T>(
        mut action: impl FnMut() -> Result<T, LockError>,
        pause: Duration,
        mut waiting: impl FnMut(&LockError) -> bool,
    ) -> Result<T, LockError> {
        loop {
            match action() {
                Err(held @ LockError::Held { .. }) => {
                    if !waiting(&held) {
                        return Err(held);
                    }
                    std::thread::sleep(pause);
                }
                other => return other,
            }
        }
    }

    /// Who works in `dir`, or may do so on another machine, as far as can be told by reading alone: nobody where its process
    /// is gone or has let go.
    pub fn holder(dir: &Path) -> Option<LockHolder> {
        let locked = std::fs::read(dir.join(NAME)).ok();
        let locked = locked.and_then(|text| serde_json::from_slice::<LockHolder>(&text).ok());
        let claimed = || match claims::standing(dir).ok()? {
            Standing::Held(holder) | Standing::Unknown(Some(holder)) => Some(*holder),
            _ => None,
        };
        locked.filter(|holder| holder.process.is_some() && holder.life() != Life::Dead).or_else(claimed)
    }

    /// [`Files::recover`] for what this lock guards, save what processes of elsewhere wrote just now, who may have a lock that
    /// is their machine's alone: with a claim alone only what belongs to the provably dead goes.
    pub fn recover(&self, files: &Files, root: &Path) -> FileResult<Vec<PathBuf>> {
        match &self.0 {
            Kind::Lock(_) => {
                let now = clock_of(root).unwrap_or_else(|_| system_now());
                let settled = now.checked_sub(recovery::UNSETTLED);
                files.recover_standing(root, recovery::Standing::Alone(settled))
            }
            Kind::Claim(claim) => files.recover_standing(root, recovery::Standing::Beside(&claim.dead)),
        }
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        if let Kind::Lock(file) = &self.0 {
            // Whoever has no locks learns from it that nobody works there; whoever has them does not need to.
            let _ = file.set_len(0);
        }
    }
}

/// What the lock file says of who has it. That helps a person; it may be half written just now.
fn said(file: &mut File) -> Option<Box<LockHolder>> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok();
    serde_json::from_str(&text).ok()
}

/// Refuses where there are no locks and the lock file names somebody who lives, or may live.
fn refuse_beside(dir: &Path, locked: Option<Box<LockHolder>>) -> Result<(), LockError> {
    // A holder that lets go empties the file. A nanorun that did not yet do so does not say which process it is.
    let Some(locked) = locked.filter(|locked| locked.process.is_some()) else { return Ok(()) };
    let (dir, remove) = (dir.to_owned(), dir.join(NAME));
    match locked.life() {
        Life::Alive => Err(LockError::Held { dir, holder: Some(locked) }),
        Life::Dead => Ok(()),
        Life::Unknown => Err(LockError::Unknown { dir, holder: Some(locked), remove }),
    }
}

fn open(path: &Path) -> io::Result<File> {
    reopened(|| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path))
}

/// -> whether the lock is had; else somebody has it
fn lock(file: &File) -> io::Result<bool> {
    uninterrupted(|| match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    })
}

fn held(dir: &Path, taken: Standing) -> LockError {
    let (dir, remove) = (dir.to_owned(), dir.join(claims::NAME));
    match taken {
        Standing::Held(holder) => LockError::Held { dir, holder: Some(holder) },
        Standing::Unknown(holder) => LockError::Unknown { dir, holder, remove },
        Standing::Free => LockError::Held { dir, holder: None },
    }
}
