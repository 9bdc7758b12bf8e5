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

/// What is known of a holder by its nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It has moved since this process first looked: somebody beats.
    Moving,
    /// It has not, and that may yet come.
    Nothing,
    /// It has stood still for too long.
    Silent,
}

struct Seen {
    moment: Moment,
    /// Whether it was another one before.
    moved: bool,
    looked: Instant,
    /// Time for which the nonce stood still while somebody looked.
    still: Duration,
}

impl Patience {
    pub(super) fn new(period: Duration, missed: u32) -> Self {
        Self { period, missed, seen: Mutex::default() }
    }

    /// What is known of the holder of a lease that stands at `moment`.
    ///
    /// Between two looks no more than a period counts. If this process was frozen itself, along with the holder, the
    /// time that it slept through says nothing of the holder.
    pub(super) fn judge(&self, root: &Path, moment: &Moment, now: Instant) -> Heard {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |moved| Seen { moment: moment.clone(), moved, looked: now, still: Duration::ZERO };
        let known = seen.entry(root.to_owned()).or_insert_with(|| fresh(false));
        if known.moment != *moment {
            *known = fresh(true);
        }
        known.still += now.saturating_duration_since(known.looked).min(self.period);
        known.looked = now;
        if known.still >= self.period * self.missed {
            // Whoever takes it over makes another generation.
            seen.remove(root);
            Heard::Silent
        } else if known.moved {
            Heard::Moving
        } else {
            Heard::Nothing
        }
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
            let at = start + Duration::from_secs(seconds);
            patience.judge(Path::new("a"), &(1, beat.to_owned()), at) == Heard::Silent
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
            let at = start + Duration::from_secs(seconds);
            patience.judge(Path::new("a"), &(1, "x".to_owned()), at) == Heard::Silent
        };
        assert!(!over(0) && !over(100_000) && !over(100_001));
        assert!(!over(100_030) && over(100_060));
    }

    #[test]
    fn who_has_not_been_heard_of_is_told_from_who_has() {
        let patience = Patience::new(Duration::from_secs(30), 3);
        let start = now();
        let heard = |beat: &str, seconds: u64| {
            patience.judge(Path::new("a"), &(1, beat.to_owned()), start + Duration::from_secs(seconds))
        };
        // At the first look nobody can tell whether it ever moves.
        assert_eq!(heard("x", 0), Heard::Nothing);
        assert_eq!(heard("x", 20), Heard::Nothing);
        assert_eq!(heard("y", 31), Heard::Moving);
        assert_eq!(heard("y", 55), Heard::Moving);
    }

    #[test]
    fn another_holder_is_waited_for_anew() {
        let patience = Patience::new(Duration::from_secs(30), 3);
        let start = now();
        let over = |generation: u64, seconds: u64| {
            let moment = (generation, String::new());
            patience.judge(Path::new("a"), &moment, start + Duration::from_secs(seconds)) == Heard::Silent
        };
        assert!(!over(1, 0) && !over(1, 30) && !over(1, 60));
        assert!(!over(2, 90) && !over(2, 120));
    }
}
