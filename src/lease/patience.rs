//! How long somebody is waited for of whom nothing is heard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What was seen of a lease: the generation and its nonce.
pub(super) type Moment = (u64, String);

/// What this process has seen of the leases of others, by its own clock.
pub(super) struct Patience {
    period: Duration,
    missed: u32,
    seen: Mutex<BTreeMap<PathBuf, Seen>>,
}

struct Seen {
    moment: Moment,
    looked: Instant,
    /// Time for which the nonce stood still while somebody looked.
    still: Duration,
}

impl Patience {
    pub(super) fn new(period: Duration, missed: u32) -> Self {
        Self { period, missed, seen: Mutex::default() }
    }

    /// Whether a lease that stands at `moment` has stood there for too long.
    ///
    /// Between two looks no more than a period counts. If this process was frozen itself, along with the holder, the
    /// time that it slept through says nothing of the holder.
    pub(super) fn is_over(&self, root: &Path, moment: &Moment, now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Seen { moment: moment.clone(), looked: now, still: Duration::ZERO };
        let known = seen.entry(root.to_owned()).or_insert_with(fresh);
        if known.moment != *moment {
            *known = fresh();
        }
        known.still += now.saturating_duration_since(known.looked).min(self.period);
        known.looked = now;
        let over = known.still >= self.period * self.missed;
        if over {
            // Whoever takes it over makes another generation.
            seen.remove(root);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::now;

    #[test]
    fn a_nonce_that_moves_is_waited_for_and_one_that_stands_still_is_not() {
        let patience = Patience::new(Duration::from_secs(30), 3);
        let start = now();
        let over = |beat: &str, seconds: u64| {
            patience.is_over(Path::new("a"), &(1, beat.to_owned()), start + Duration::from_secs(seconds))
        };
        assert!(!over("x", 0) && !over("x", 29) && !over("x", 58));
        // It beat.
        assert!(!over("y", 80) && !over("y", 110) && !over("y", 140));
        assert!(over("y", 171));
    }

    #[test]
    fn the_time_that_the_watcher_slept_through_does_not_count() {
        let patience = Patience::new(Duration::from_secs(30), 3);
        let start = now();
        let over = |seconds: u64| {
            patience.is_over(Path::new("a"), &(1, "x".to_owned()), start + Duration::from_secs(seconds))
        };
        assert!(!over(0) && !over(100_000) && !over(100_001));
        assert!(!over(100_030) && over(100_060));
    }

    #[test]
    fn another_holder_is_waited_for_anew() {
        let patience = Patience::new(Duration::from_secs(30), 3);
        let start = now();
        let over = |generation: u64, seconds: u64| {
            let moment = (generation, String::new());
            patience.is_over(Path::new("a"), &moment, start + Duration::from_secs(seconds))
        };
        assert!(!over(1, 0) && !over(1, 30) && !over(1, 60));
        assert!(!over(2, 90) && !over(2, 120));
    }
}
