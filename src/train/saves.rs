//! What of a run is on disk, and when time alone asks for more.

use std::time::{Duration, Instant};

/// A save may take this share of the time between two of them.
const SHARE: u32 = 10;

/// The checkpoints of one session.
#[derive(Debug)]
pub(super) struct Saves {
    /// The step whose checkpoint is on disk.
    step: Option<u64>,
    /// `checkpoint.minutes`; none saves nothing by time.
    interval: Option<Duration>,
    /// When the last save was over or, before the first, the session began.
    last: Instant,
    /// How long it took.
    took: Duration,
}

impl Saves {
    /// At the start of a session; `step` is on disk already.
    pub(super) fn new(step: Option<u64>, minutes: Option<f64>, now: Instant) -> Self {
        let interval = minutes.map(|minutes| Duration::try_from_secs_f64(60.0 * minutes));
        // More time than a clock can count never passes.
        let interval = interval.map(|interval| interval.unwrap_or(Duration::MAX));
        Self { step, interval, last: now, took: Duration::ZERO }
    }

    /// Whether the checkpoint of a step is on disk.
    pub(super) fn has(&self, step: u64) -> bool {
        self.step == Some(step)
    }

    /// Whether it is time for one.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.interval.is_some_and(|interval| {
            // 0 is after every step, whatever that costs.
            let wait =
                if interval.is_zero() { interval } else { interval.max(self.took.saturating_mul(SHARE)) };
            now.saturating_duration_since(self.last) >= wait
        })
    }

    /// Takes down that a step was saved.
    pub(super) fn saved(&mut self, step: u64, began: Instant, ended: Instant) {
        self.step = Some(step);
        self.last = ended;
        self.took = ended.saturating_duration_since(began);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::now;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn nothing_is_lost_for_longer_than_the_interval() {
        let start = now();
        let mut saves = Saves::new(None, Some(10.0), start);
        assert!(!saves.is_due(start + 9 * MINUTE + Duration::from_millis(59_999)));
        assert!(saves.is_due(start + 10 * MINUTE));
        // Any save counts, whoever asked for it.
        saves.saved(7, start + 4 * MINUTE, start + 4 * MINUTE);
        assert!(saves.has(7) && !saves.has(8));
        assert!(!saves.is_due(start + 13 * MINUTE));
        assert!(saves.is_due(start + 14 * MINUTE));
    }

    #[test]
    fn a_long_save_stretches_the_interval() {
        let start = now();
        let mut saves = Saves::new(None, Some(10.0), start);
        saves.saved(1, start, start + 2 * MINUTE);
        assert!(!saves.is_due(start + 21 * MINUTE));
        assert!(saves.is_due(start + 22 * MINUTE));
        // A tenth does not.
        saves.saved(2, start, start + MINUTE);
        assert!(saves.is_due(start + 11 * MINUTE));
    }

    #[test]
    fn zero_is_always_and_false_is_never() {
        let start = now();
        let mut saves = Saves::new(None, Some(0.0), start);
        saves.saved(1, start, start + MINUTE);
        assert!(saves.is_due(start + MINUTE));
        let later = start + 1000 * 1000 * MINUTE;
        assert!(!Saves::new(None, None, start).is_due(later));
        assert!(!Saves::new(None, Some(f64::MAX), start).is_due(later));
        // A clock that goes back is no reason.
        assert!(!Saves::new(None, Some(1.0), later).is_due(start));
    }
}
