//! The one seam through which files are written.
//!
//! What a result is made of goes through [`Files`]: a file is written under a temporary name in its own
//! directory, synced, renamed, and its directory synced; a directory that belongs together (a checkpoint) is
//! built under a temporary name and renamed as a whole. So after a crash at any moment a name holds what it held
//! before or what it was to hold, never a part: of the process, and of the machine, as long as the file system keeps
//! what was synced and the order of changes within one directory. `Faults` lets tests make any single step fail;
//! [`DirLock`] keeps two runners out of one results directory.
//!
//! What can be lost or made again is written by its own module, which says why: leases, entries of the cache, notes of a
//! cluster's events, the log.
//!
//! This module knows nothing of what the files mean.

mod append;
mod atomic;
mod bits;
mod claims;
mod clock;
mod delivered;
mod directories;
mod error;
mod faults;
mod lock;
mod names;
pub mod numbered;
mod partial;
mod notes;
mod probe;
mod raw;
mod reading;
mod recovery;
mod seam;
mod space;
mod staged;
mod trouble;

#[cfg(test)]
pub(crate) mod power;
#[cfg(test)]
mod tests;

pub use bits::{ExactF32, ExactF64};
pub use clock::{now, system_now, unix, unix_now, utc_now};
pub use error::{FileError, FileResult};
#[cfg(test)]
pub(crate) use faults::Unsynced;
#[cfg(test)]
pub use faults::{Fault, FaultAt, Faults, Step};
pub use lock::{DirLock, LockError, LockHolder, SharedLock};
pub use names::{Temporary, is_abandoned, is_temporary, temporary_name};
pub use partial::PartialFile;
pub use probe::{Answer, FileSystemFacts, clock_of, file_system_facts};
pub use seam::Files;
pub use space::{Space, free_bytes, space};
pub use staged::{StagedDir, StagedFile};
pub use trouble::{reopened, uninterrupted};
