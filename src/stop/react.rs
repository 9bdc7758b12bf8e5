//! What a signal leads to, given those before it. Atomics alone: a handler asks this.

use std::sync::atomic::{AtomicU64, Ordering};

/// Signals are numbered below this.
const SIGNALS: usize = 128;

/// From this long after a signal on, in milliseconds, the same one again ends the process: whoever sends it has waited.
/// Schedulers repeat themselves sooner: a preempted Slurm step gets SIGTERM twice within 15 ms.
const REPEAT: u64 = 2000;

/// A second Ctrl-C sooner than this is the first one, passed on by a program between terminal and process.
const SAME_KEY: u64 = 50;

/// What to do about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Stop in good order.
    Stop,
    /// Nothing more than was asked before.
    Nothing,
    /// End at once.
    End,
}

/// A signal with its manners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manners {
    /// Its number.
    pub(super) number: i32,
    /// Whether a second one ends the process: Ctrl-C at a terminal.
    pub(super) by_hand: bool,
    /// Whether the system sends it again and again by itself, as SIGXCPU every second of processor time.
    pub(super) repeats_itself: bool,
}

/// When each signal first came.
#[derive(Debug)]
pub(super) struct Asked([AtomicU64; SIGNALS]);

impl Asked {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; SIGNALS])
    }

    /// Takes a signal that came `at`, in milliseconds on a clock that never goes back.
    pub(super) fn react(&self, signal: Manners, at: u64) -> Reaction {
        let Some(first) = usize::try_from(signal.number).ok().and_then(|number| self.0.get(number)) else {
            return Reaction::Stop;
        };
        // 0 stands for never.
        let Err(first) = first.compare_exchange(0, at + 1, Ordering::SeqCst, Ordering::SeqCst) else {
            return Reaction::Stop;
        };
        let since = (at + 1).saturating_sub(first);
        let ends = since >= REPEAT || (signal.by_hand && since >= SAME_KEY);
        if ends && !signal.repeats_itself { Reaction::End } else { Reaction::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Manners = Manners { number: 15, by_hand: false, repeats_itself: false };
    const INT: Manners = Manners { number: 2, by_hand: false, repeats_itself: false };
    const CTRL_C: Manners = Manners { number: 2, by_hand: true, repeats_itself: false };
    const XCPU: Manners = Manners { number: 24, by_hand: false, repeats_itself: true };

    fn reactions(signals: &[(Manners, u64)]) -> Vec<Reaction> {
        let asked = Asked::new();
        signals.iter().map(|(signal, at)| asked.react(*signal, *at)).collect()
    }

    #[test]
    fn two_signals_of_a_scheduler_are_one() {
        use Reaction::{Nothing, Stop};
        assert_eq!(reactions(&[(TERM, 0), (TERM, 15)]), [Stop, Nothing]);
        assert_eq!(reactions(&[(TERM, 7), (TERM, 1900)]), [Stop, Nothing]);
        // A warning, then the end of the allocation.
        assert_eq!(reactions(&[(INT, 0), (TERM, 5000)]), [Stop, Stop]);
    }

    #[test]
    fn a_repeat_after_seconds_ends_at_once() {
        use Reaction::{End, Nothing, Stop};
        assert_eq!(reactions(&[(TERM, 100), (TERM, 2100)]), [Stop, End]);
        assert_eq!(reactions(&[(TERM, 100), (TERM, 115), (TERM, 2200)]), [Stop, Nothing, End]);
    }

    #[test]
    fn a_second_interrupt_ends_at_once_from_a_terminal_alone() {
        use Reaction::{End, Nothing, Stop};
        assert_eq!(reactions(&[(CTRL_C, 0), (CTRL_C, 200)]), [Stop, End]);
        assert_eq!(reactions(&[(CTRL_C, 0), (CTRL_C, 3)]), [Stop, Nothing]);
        assert_eq!(reactions(&[(INT, 0), (INT, 200)]), [Stop, Nothing]);
        assert_eq!(reactions(&[(TERM, 0), (CTRL_C, 200)]), [Stop, Stop]);
    }

    #[test]
    fn a_limit_that_repeats_itself_never_ends_at_once() {
        use Reaction::{Nothing, Stop};
        assert_eq!(reactions(&[(XCPU, 0), (XCPU, 1000), (XCPU, 60_000)]), [Stop, Nothing, Nothing]);
    }
}
