//! Time by operation and by phase of the step.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::files::now;

/// Part of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// From the tokens up to the last activations.
    #[default]
    Forward,
    /// `lm_head` and the loss, forward and backward in one.
    Loss,
    /// From the gradient of the last activations down to the embeddings; activations computed again are in it.
    Backward,
    /// Updates of the weights.
    Optimizer,
}

impl Phase {
    /// All, in the order of a step.
    pub const ALL: [Self; 4] = [Self::Forward, Self::Loss, Self::Backward, Self::Optimizer];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Loss => "loss",
            Self::Backward => "backward",
            Self::Optimizer => "optimizer",
        }
    }
}

/// What one operation took in a step.
#[derive(Debug, Clone, PartialEq)]
pub struct OpTime {
    /// Where in the step.
    pub phase: Phase,
    /// The op, as the traits name it.
    pub op: &'static str,
    /// Calls a step.
    pub calls: f64,
    /// Seconds a step.
    pub seconds: f64,
    /// Bytes that it moves a step; 0 where its time is that of products.
    pub bytes: f64,
}

/// Adds up the time of operations.
#[derive(Debug, Default)]
pub(super) struct Profile(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    phase: Phase,
    ops: BTreeMap<(Phase, &'static str), Sum>,
}

#[derive(Debug, Default)]
struct Sum {
    calls: u64,
    time: Duration,
    bytes: u64,
}

impl Profile {
    /// Runs `f` and counts its time for `op`, and the bytes that it moves. What the op is tells where the step stands.
    pub(super) fn time<R>(&self, op: &'static str, bytes: u64, f: impl FnOnce() -> R) -> R {
        let started = now();
        let result = f();
        let elapsed = started.elapsed();
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let phase = match op {
            "tokens" => Phase::Forward,
            "cross_entropy_train" => Phase::Loss,
            "adamw" | "muon" | "sgd" | "zero_grad" => Phase::Optimizer,
            _ => sums.phase,
        };
        sums.phase = if phase == Phase::Loss { Phase::Backward } else { phase };
        let sum = sums.ops.entry((phase, op)).or_default();
        sum.calls += 1;
        sum.time += elapsed;
        sum.bytes += bytes;
        result
    }

    /// Forgets what was counted.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ops.clear();
    }

    /// What was counted, per step, in the order of phases and then of time.
    pub(super) fn take(&self, steps: f64) -> Vec<OpTime> {
        let sums = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ops: Vec<OpTime> = sums
            .ops
            .into_iter()
            .map(|((phase, op), sum)| OpTime {
                phase,
                op,
                calls: sum.calls as f64 / steps,
                seconds: sum.time.as_secs_f64() / steps,
                bytes: sum.bytes as f64 / steps,
            })
            .collect();
        ops.sort_by(|a, b| a.phase.cmp(&b.phase).then(b.seconds.total_cmp(&a.seconds)));
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_are_counted_where_the_step_stands() {
        let profile = Profile::default();
        for _ in 0..2 {
            for op in ["tokens", "linear", "cross_entropy_train", "relu_squared", "linear_backward", "muon"] {
                assert_eq!(profile.time(op, 0, || 7), 7);
            }
        }
        let mut found: Vec<_> = profile.take(2.0).into_iter().map(|op| (op.phase, op.op, op.calls)).collect();
        found.sort_by_key(|op| (op.0, op.1));
        let expected = [
            (Phase::Forward, "linear", 1.0),
            (Phase::Forward, "tokens", 1.0),
            (Phase::Loss, "cross_entropy_train", 1.0),
            (Phase::Backward, "linear_backward", 1.0),
            (Phase::Backward, "relu_squared", 1.0),
            (Phase::Optimizer, "muon", 1.0),
        ];
        assert_eq!(found, expected);
        assert!(profile.take(1.0).is_empty());
    }
}
