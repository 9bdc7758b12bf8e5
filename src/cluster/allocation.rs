//! The end of a job's allocation: known in time, a run is saved before it.

use std::time::Duration;

use super::call::call_in_utc;
use crate::files::{unix, unix_now};
use crate::stop::StopFlag;

/// The time that a scheduler gives this process, read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// Its end, in seconds since 1970; none where there is none, or nobody says.
    pub end: Option<u64>,
}

impl Allocation {
    /// That of this process: Slurm's newer versions tell it in the environment, older ones when asked.
    pub fn read() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(end) = set("SLURM_JOB_END_TIME") {
            return Self { end: end.parse().ok() };
        }
        let shown = set("SLURM_JOB_ID")
            .and_then(|job| call_in_utc("scontrol", &["show", "job", "-o", &job]).ok())
            .filter(|answer| answer.ok);
        Self { end: shown.and_then(|answer| end_time(&answer.out)) }
    }

    /// Raises `stop` so many seconds before the end; at once where less is left. Long margins of short allocations are
    /// half of what is left: whoever has a minute trains for some of it.
    pub fn stops(self, stop: &StopFlag, margin: Duration) {
        let Some(left) = self.left(margin, unix_now()) else { return };
        let stop = stop.clone();
        std::thread::spawn(move || {
            std::thread::sleep(left);
            stop.raise();
        });
    }

    /// How long until the stop.
    fn left(self, margin: Duration, now: u64) -> Option<Duration> {
        let whole = Duration::from_secs(self.end?.saturating_sub(now));
        Some(whole.saturating_sub(margin.min(whole / 2)))
    }
}

/// The end in what `scontrol show job -o` prints.
fn end_time(shown: &str) -> Option<u64> {
    let text = shown.split_whitespace().find_map(|word| word.strip_prefix("EndTime="))?;
    unix(&format!("{text}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_in_what_slurm_shows() {
        let shown = "JobId=2 StartTime=2026-11-29T16:41:33 EndTime=2026-11-29T16:46:33 Deadline=N/A";
        assert_eq!(end_time(shown), unix("2026-11-29T16:46:33Z"));
        assert!(end_time(shown).is_some());
        assert_eq!(end_time("JobId=2 EndTime=Unknown Deadline=N/A"), None);
        assert_eq!(end_time("slurm_load_jobs error: Invalid job id specified"), None);
    }

    #[test]
    fn it_stops_before_the_end() {
        let left = |end: u64, margin| Allocation { end: Some(end) }.left(Duration::from_secs(margin), 1000);
        assert_eq!(left(4600, 180), Some(Duration::from_secs(3420)));
        assert_eq!(left(1060, 180), Some(Duration::from_secs(30)));
        assert_eq!(left(900, 180), Some(Duration::ZERO));
        assert_eq!(Allocation { end: None }.left(Duration::ZERO, 1000), None);
        let stop = StopFlag::default();
        Allocation { end: Some(1) }.stops(&stop, Duration::from_secs(180));
        assert!((0..2000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            stop.is_raised()
        }));
    }
}
