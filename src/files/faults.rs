//! Faults on demand: how tests make any single step of a write fail, in a function or in a whole process.

use std::io::{self, ErrorKind};
use std::path::Path;
#[cfg(any(test, feature = "internals"))]
use std::sync::atomic::{AtomicUsize, Ordering};

/// The steps that writing consists of; each asks the fault layer first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A directory is created.
    CreateDir,
    /// A file is created or opened for appending.
    Create,
    /// These bytes are written at the end of the file.
    Write(&'a [u8]),
    /// A file is synced.
    Sync,
    /// The name is taken from where it stood before.
    Rename {
        /// That place.
        from: &'a Path,
    },
    /// A directory is synced.
    SyncDir,
    /// A file is cut to this length.
    Truncate(u64),
    /// A file or directory is removed.
    Remove,
}

/// What happens to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(any(test, feature = "internals")), allow(dead_code, reason = "only tests make faults"))]
pub enum Fault {
    /// It does not take place; the caller sees this kind of error.
    Fail(ErrorKind),
    /// Of the bytes to write only so many reach the file, then the caller sees this kind of error.
    /// Any other step than [`Step::Write`] fails whole.
    Short(usize, ErrorKind),
    /// Of the bytes to write only so many reach the file, then the process is gone, as if it had been killed: nothing
    /// is cleaned up.
    Abort(usize),
    /// Reported done without being done; a sync, any other step takes place.
    #[cfg(test)]
    Unsynced,
}

impl Fault {
    /// The error the caller sees.
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Fail(kind) | Self::Short(_, kind) => io::Error::new(kind, "injected fault"),
            Self::Abort(_) => std::process::abort(),
            #[cfg(test)]
            Self::Unsynced => io::Error::other("no fault"),
        }
    }
}

/// Decides before each step whether it fails.
pub trait Faults: Send + Sync {
    /// The fault of this step, if it is to have one.
    fn before(&self, step: Step<'_>, path: &Path) -> Option<Fault>;
}

/// The faults of another, and no sync reaches the disk: it takes most of the time of small runs.
#[cfg(test)]
pub(crate) struct Unsynced<F>(pub(crate) F);

#[cfg(test)]
impl<F: Faults> Faults for Unsynced<F> {
    fn before(&self, step: Step<'_>, path: &Path) -> Option<Fault> {
        let unsynced = matches!(step, Step::Sync | Step::SyncDir).then_some(Fault::Unsynced);
        self.0.before(step, path).or(unsynced)
    }
}

#[cfg(test)]
impl Faults for () {
    fn before(&self, _step: Step<'_>, _path: &Path) -> Option<Fault> {
        None
    }
}

#[cfg(test)]
impl<F: Faults + ?Sized> Faults for std::sync::Arc<F> {
    fn before(&self, step: Step<'_>, path: &Path) -> Option<Fault> {
        (**self).before(step, path)
    }
}

/// Fails one step by its number, counted over everything that uses the same value.
///
/// A *kill* also fails every later step, so that nothing is cleaned up: what is on disk afterwards is what a
/// process leaves that was stopped there.
#[cfg(any(test, feature = "internals"))]
#[derive(Debug)]
pub struct FaultAt {
    at: usize,
    fault: Fault,
    kill: bool,
    seen: AtomicUsize,
}

#[cfg(any(test, feature = "internals"))]
impl FaultAt {
    /// Step number `at` (from 0) meets `fault`; the others work.
    pub fn once(at: usize, fault: Fault) -> Self {
        Self { at, fault, kill: false, seen: AtomicUsize::new(0) }
    }

    /// The process is as good as dead from step number `at` on; a write there still puts `bytes` on disk.
    #[cfg(test)]
    pub fn kill(at: usize, bytes: usize) -> Self {
        Self { at, fault: Fault::Short(bytes, ErrorKind::Interrupted), kill: true, seen: AtomicUsize::new(0) }
    }

    /// From a text such as `full@17`: the fault and the number of the step. `full` is no space left, `io` an I/O error,
    /// `short` a write that ends early, `readonly` a read-only file system, `kill` the end of the process in the middle
    /// of the step.
    pub fn parse(text: &str) -> Option<Self> {
        let (fault, at) = text.split_once('@')?;
        let at = at.parse().ok()?;
        let fault = match fault {
            "full" => Fault::Fail(ErrorKind::StorageFull),
            "io" => Fault::Fail(ErrorKind::Other),
            "readonly" => Fault::Fail(ErrorKind::ReadOnlyFilesystem),
            "short" => Fault::Short(7, ErrorKind::StorageFull),
            "kill" => Fault::Abort(7),
            _ => return None,
        };
        Some(Self::once(at, fault))
    }

    /// How many steps have asked so far.
    #[cfg(test)]
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

#[cfg(any(test, feature = "internals"))]
impl Faults for FaultAt {
    fn before(&self, _step: Step<'_>, _path: &Path) -> Option<Fault> {
        let number = self.seen.fetch_add(1, Ordering::Relaxed);
        if number == self.at {
            Some(self.fault)
        } else if self.kill && number > self.at {
            Some(Fault::Fail(ErrorKind::Other))
        } else {
            None
        }
    }
}
