//! What takes a while before the first step tells how far it is: hashing shards, training a tokenizer.
//!
//! Whoever works makes a `Task` and advances it; nobody need watch. A watcher ([`watch`]) is told of tasks that have
//! taken a second, a few times a second, and of their end. Nothing here changes a result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::files::now;

/// How long a task takes before anybody is told.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// How often a watcher is told at most.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// What a task counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things.
    Count,
}

/// A task as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand<'a> {
    /// What is being done, such as `hashing shards`.
    pub what: &'a str,
    /// How much of it is done.
    pub done: u64,
    /// How much there is; 0 where that is not known.
    pub total: u64,
    /// What both count.
    pub unit: Unit,
    /// Since it began.
    pub elapsed: Duration,
    /// Whether it is over.
    pub ended: bool,
}

/// Is told how tasks stand, from any thread.
pub trait Watcher: Send + Sync {
    /// A task that has taken a second stands so.
    fn stands(&self, stand: &Stand<'_>);
}

static WATCHER: RwLock<Option<Arc<dyn Watcher>>> = RwLock::new(None);

/// From now on this watcher is told of all tasks of the process, or nobody.
pub fn watch(watcher: Option<Arc<dyn Watcher>>) {
    *WATCHER.write().unwrap_or_else(PoisonError::into_inner) = watcher;
}

/// Something that takes a while, under way until it is dropped.
pub(crate) struct Task {
    what: &'static str,
    total: u64,
    unit: Unit,
    done: AtomicU64,
    began: Instant,
    /// When it was last told of.
    told: Mutex<Option<Instant>>,
}

impl Task {
    /// A task of `total` things; 0 where nobody knows.
    pub(crate) fn new(what: &'static str, total: u64, unit: Unit) -> Self {
        Self { what, total, unit, done: AtomicU64::new(0), began: now(), told: Mutex::new(None) }
    }

    /// So much more is done.
    pub(crate) fn advance(&self, by: u64) {
        self.done.fetch_add(by, Ordering::Relaxed);
        if self.began.elapsed() < WORTH_TELLING {
            return;
        }
        // Whoever finds it taken leaves the telling to the other.
        let Ok(mut told) = self.told.try_lock() else { return };
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(now());
            drop(told);
            self.tell(false);
        }
    }

    fn tell(&self, ended: bool) {
        let watcher = WATCHER.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(watcher) = watcher {
            let (what, total, unit) = (self.what, self.total, self.unit);
            let (done, elapsed) = (self.done.load(Ordering::Relaxed), self.began.elapsed());
            watcher.stands(&Stand { what, done, total, unit, elapsed, ended });
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.told.get_mut().unwrap_or_else(PoisonError::into_inner).is_some() {
            self.tell(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<(String, u64, bool)>>);

    impl Watcher for Seen {
        fn stands(&self, stand: &Stand<'_>) {
            if stand.what.starts_with("test ") {
                self.0.lock().unwrap().push((stand.what.to_owned(), stand.done, stand.ended));
            }
        }
    }

    #[test]
    fn what_takes_a_second_is_told_and_what_does_not_is_not() {
        let seen = Arc::new(Seen::default());
        watch(Some(Arc::clone(&seen) as Arc<dyn Watcher>));
        let short = Task::new("test short", 3, Unit::Count);
        (0..3).for_each(|_| short.advance(1));
        drop(short);
        let mut long = Task::new("test long", 5, Unit::Bytes);
        long.began = now().checked_sub(Duration::from_secs(2)).unwrap();
        (0..5).for_each(|_| long.advance(1));
        drop(long);
        watch(None);
        let long = |done, ended| ("test long".to_owned(), done, ended);
        assert_eq!(*seen.0.lock().unwrap(), [long(1, false), long(5, true)]);
    }
}
