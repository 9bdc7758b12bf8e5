//! Room in the cache: what makes way for a new entry, and when nothing does.
//!
//! Training reads its corpus round after round. Were the entry that was used longest ago to make way, a corpus larger
//! than the cache would evict each entry just before its turn, and never find one. So what is in use stays: entries of
//! the corpora that this process reads, and those that any process used within the last hour. What does not fit
//! beside them is not kept, and a corpus of twice the cache finds half of its tokens there. What makes way, in this
//! order: leftovers of killed processes and entries of earlier versions; families that nobody uses, the one used longest
//! ago first; of the small kinds what has not been used for a month.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::limit::{Limit, LimitFrom, reserve};
use super::survey::{Found, survey};
use crate::files::{Space, now, space, system_now};

/// What was used within this time is in use.
const IN_USE: Duration = Duration::from_secs(60 * 60);

/// Small entries not used for this long may go where there is no room.
const LONG_UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A temporary file this old is of a process that is gone.
pub(super) const LEFT_OVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a use is written down on disk.
const TOUCH_EVERY: Duration = Duration::from_secs(10 * 60);

/// How long a look at the directory is good for: other processes write to it too.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);

/// The same in bytes, of the limit: what several processes may write past it between two looks.
const LOOK_EVERY_PART: u64 = 50;

/// How far below the limit it is made way, so that not every entry asks anew: this part of it.
const SLACK_PART: u64 = 20;

/// Room in one cache, shared by all who write to it in this process.
#[derive(Debug)]
pub(super) struct Room {
    root: PathBuf,
    limit: Limit,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes in the cache: by the last look, and what this process has written since.
    used: u64,
    written: u64,
    looked: Option<Instant>,
    /// Whether nothing more could make way at the last look.
    full: bool,
    /// Shelves that this process reads.
    own: BTreeSet<PathBuf>,
    /// When the use of a shelf was last written down.
    touched: BTreeMap<PathBuf, Instant>,
}

impl Room {
    pub(super) fn new(root: PathBuf, limit: Limit) -> Self {
        Self { root, limit, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk of the cache, as far as the system tells.
    pub(super) fn disk(&self) -> Option<Space> {
        let there = self.root.ancestors().find(|path| !path.as_os_str().is_empty() && path.exists());
        space(there.unwrap_or(Path::new("."))).ok()
    }

    /// The limit, with `used` bytes in the cache.
    pub(super) fn limit(&self, used: u64) -> (u64, LimitFrom) {
        self.limit.bytes(used, self.disk())
    }

    /// This process reads the entries of this shelf.
    pub(super) fn in_use(&self, shelf: &Path) {
        self.state().own.insert(shelf.to_owned());
    }

    /// An entry of this shelf was used.
    pub(super) fn used(&self, shelf: &Path) {
        let mut state = self.state();
        if state.touched.get(shelf).is_some_and(|at| at.elapsed() < TOUCH_EVERY) {
            return;
        }
        state.touched.insert(shelf.to_owned(), now());
        drop(state);
        set_used(shelf);
    }

    /// Whether an entry of so many bytes may be written, after what can make way has. The disk can turn out to be full
    /// all the same.
    pub(super) fn make_way(&self, bytes: u64) -> bool {
        let mut state = self.state();
        let disk = self.disk();
        let limit = |used| self.limit.bytes(used, disk).0;
        let free = disk.map_or(u64::MAX, |disk| disk.free.saturating_sub(reserve(disk)));
        let lack = |used: u64| (used + bytes).saturating_sub(limit(used)).max(bytes.saturating_sub(free));
        if bytes > limit(state.used) {
            return false;
        }
        let fresh = state.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY)
            && state.written <= limit(state.used) / LOOK_EVERY_PART;
        if !fresh || (lack(state.used) > 0 && !state.full) {
            let mut found = survey(&self.root);
            state.used = found.iter().map(|found| found.bytes).sum();
            (state.written, state.looked, state.full) = (0, Some(now()), false);
            let lack = lack(state.used);
            if lack > 0 {
                let goal = lack + limit(state.used) / SLACK_PART;
                let freed = self.evict(&mut found, goal, &state.own);
                state.used = state.used.saturating_sub(freed);
                state.full = freed < lack;
            }
        }
        if state.full {
            return false;
        }
        state.used += bytes;
        state.written += bytes;
        true
    }

    /// Removes entries until `goal` bytes are freed or nothing more may go. Returns the bytes freed.
    fn evict(&self, found: &mut [Found], goal: u64, own: &BTreeSet<PathBuf>) -> u64 {
        let mut freed = 0;
        // Those that were used longest ago first.
        found.sort_by_key(|found| std::cmp::Reverse(found.age));
        let stale = |found: &Found| found.kind.old || found.left_over;
        let unused =
            |found: &Found| found.kind.name == "tokens" && found.age > IN_USE && !own.contains(&found.shelf);
        let forgotten = |found: &Found| found.kind.name != "tokens" && found.age > LONG_UNUSED;
        let classes: [&dyn Fn(&Found) -> bool; 3] = [&stale, &unused, &forgotten];
        for class in classes {
            for found in found.iter().filter(|found| class(found)) {
                if freed >= goal {
                    return freed;
                }
                freed += found.remove(&self.root);
            }
        }
        freed
    }
}

/// Writes down that a small entry was used, once in a while.
pub(super) fn touch(path: &Path) {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > Duration::from_secs(24 * 60 * 60)) {
        set_used(path);
    }
}

/// Makes now the time of the last use. Where that cannot be done, the entry only seems older than it is.
fn set_used(path: &Path) {
    set_time(path, system_now());
}

/// Makes `at` the time of the last use.
pub(super) fn set_time(path: &Path, at: SystemTime) {
    let _ = std::fs::File::open(path).and_then(|file| file.set_modified(at));
}
