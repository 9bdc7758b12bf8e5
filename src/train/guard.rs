//! The memory-drift guard: an evaluation must not leave more behind than it found.
//!
//! Readings are taken between batches, when everything a batch needed should be gone: before the evaluation, after its
//! first batch (the warm-up, which may create what later ones use again), after every further batch and at the end.
//! What is counted is what the evaluation itself adds, so neither the size of the model nor growth while training
//! enters. It is upstream's issue 427, stopped before memory runs out.

use crate::error::{Error, Result};
use crate::host::rss_bytes;

use super::engine::Engine;

/// Bytes held at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBytes {
    /// Tensors of the backend, exactly.
    pub backend: u64,
    /// Resident memory of the process; none where it is not known, or not this run's alone.
    pub process: Option<u64>,
}

impl HeldBytes {
    /// What an engine holds. `alone` says that nothing else runs in this process: only then is resident memory read.
    pub fn read(engine: &dyn Engine, alone: bool) -> Self {
        Self { backend: engine.live_bytes(), process: if alone { rss_bytes() } else { None } }
    }
}

/// Watches the evaluations of one run.
#[derive(Debug)]
pub struct DriftGuard {
    /// `eval.max_drift_bytes`.
    max_drift_bytes: u64,
    warmed_up: bool,
    /// Backend bytes that the evaluations so far have left behind; negative where they released some.
    left_behind: i64,
}

impl DriftGuard {
    /// A guard with the manifest's limit.
    pub fn new(max_drift_bytes: u64) -> Self {
        Self { max_drift_bytes, warmed_up: false, left_behind: 0 }
    }

    /// Starts watching an evaluation from the reading before it.
    pub fn start(&mut self, before: HeldBytes) -> Watch<'_> {
        Watch { guard: self, backend: before.backend, process: None, batches: 0 }
    }
}

/// One evaluation under watch.
#[derive(Debug)]
#[must_use = "an evaluation is watched up to `finish`"]
pub struct Watch<'a> {
    guard: &'a mut DriftGuard,
    /// What growth is counted from.
    backend: u64,
    /// Likewise, from the warm-up on: freed memory stays resident with the allocator.
    process: Option<u64>,
    batches: u64,
}

impl Watch<'_> {
    /// Takes the reading after a batch, once its values are dropped. The first one is the warm-up.
    ///
    /// # Errors
    /// More growth than `eval.max_drift_bytes`; class `Run`.
    pub fn after_batch(&mut self, now: HeldBytes) -> Result<()> {
        self.batches += 1;
        if self.batches == 1 {
            self.process = now.process;
            if !self.guard.warmed_up {
                // What the very first batch of a run creates and keeps is made once.
                self.backend = self.backend.max(now.backend);
                self.guard.warmed_up = true;
            }
        }
        self.check(now)
    }

    /// Takes the last reading, when the evaluation is over and its values are dropped.
    ///
    /// # Errors
    /// More growth than `eval.max_drift_bytes`, in this evaluation or over all of them; class `Run`.
    pub fn finish(self, now: HeldBytes) -> Result<()> {
        self.check(now)?;
        let drift = now.backend as i64 - self.backend as i64;
        let guard = self.guard;
        guard.left_behind = guard.left_behind.saturating_add(drift);
        let left_behind = u64::try_from(guard.left_behind).unwrap_or(0);
        if left_behind > guard.max_drift_bytes {
            return Err(drift_error("the evaluations so far have left", left_behind, guard.max_drift_bytes));
        }
        Ok(())
    }

    fn check(&self, now: HeldBytes) -> Result<()> {
        let limit = self.guard.max_drift_bytes;
        let backend = now.backend.saturating_sub(self.backend);
        if backend > limit {
            return Err(drift_error("the evaluation leaves", backend, limit).because(batches(self.batches)));
        }
        let process = match (now.process, self.process) {
            (Some(now), Some(before)) => now.saturating_sub(before),
            _ => 0,
        };
        if process > limit {
            let error = drift_error("the process grew during the evaluation by", process, limit);
            return Err(error.because(batches(self.batches)));
        }
        Ok(())
    }
}

fn batches(count: u64) -> String {
    format!("after {count} batches")
}

fn drift_error(what: &str, bytes: u64, limit: u64) -> Error {
    Error::run(format!("{what} {bytes} bytes behind"))
        .key("eval.max_drift_bytes")
        .expected(format!("at most {limit} bytes"))
        .help(
            "memory that each evaluation leaves behind ends in running out of it: the run's last checkpoint is from \
             before this evaluation. Raise the limit only if the growth is known to stop",
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scalar::{ScalarBackend, Tensor};
    use crate::ops::ForwardOps;

    const LIMIT: u64 = 10_000;

    fn reading(ops: &ScalarBackend) -> HeldBytes {
        HeldBytes { backend: ops.live_bytes(), process: None }
    }

    /// An evaluation of `batches` batches that makes a large tensor in each and keeps what `keep` says.
    fn evaluate(
        guard: &mut DriftGuard,
        ops: &ScalarBackend,
        batches: usize,
        mut keep: impl FnMut(usize, Tensor),
    ) -> Result<()> {
        let mut watch = guard.start(reading(ops));
        for batch in 0..batches {
            keep(batch, ops.zeros(50, 50).unwrap());
            watch.after_batch(reading(ops))?;
        }
        watch.finish(reading(ops))
    }

    #[test]
    fn a_leak_in_every_batch_fires() {
        let (mut guard, ops) = (DriftGuard::new(LIMIT), ScalarBackend::new());
        let mut leaked = Vec::new();
        let error = evaluate(&mut guard, &ops, 5, |_, tensor| leaked.push(tensor)).unwrap_err();
        assert_eq!(leaked.len(), 2, "it fires at the first batch after the warm-up");
        assert_eq!(error.class().exit_code(), 3);
        assert_eq!(error.key_path(), Some("eval.max_drift_bytes"));
        insta::assert_snapshot!(error);
    }

    #[test]
    fn a_large_but_released_use_does_not_fire() {
        let (mut guard, ops) = (DriftGuard::new(LIMIT), ScalarBackend::new());
        for _ in 0..3 {
            evaluate(&mut guard, &ops, 5, |_, tensor| drop(tensor)).unwrap();
        }
    }

    #[test]
    fn what_the_first_batch_of_a_run_makes_is_made_once() {
        let (mut guard, ops) = (DriftGuard::new(LIMIT), ScalarBackend::new());
        let mut scratch = Vec::new();
        evaluate(&mut guard, &ops, 3, |batch, tensor| {
            if batch == 0 {
                scratch.push(tensor);
            }
        })
        .unwrap();
        evaluate(&mut guard, &ops, 3, |_, tensor| drop(tensor)).unwrap();
        let again = evaluate(&mut guard, &ops, 3, |batch, tensor| {
            if batch == 0 {
                scratch.push(tensor);
            }
        });
        assert_eq!(again.unwrap_err().class().exit_code(), 3);
    }

    #[test]
    fn small_leaks_add_up_over_evaluations() {
        let mut guard = DriftGuard::new(LIMIT);
        let mut held = HeldBytes { backend: 1 << 20, process: None };
        let mut evaluation = || {
            let mut watch = guard.start(held);
            watch.after_batch(held)?;
            held.backend += LIMIT / 4;
            watch.after_batch(held)?;
            watch.finish(held)
        };
        let outcomes: Vec<bool> = (0..6).map(|_| evaluation().is_ok()).collect();
        assert_eq!(outcomes, [true, true, true, true, false, false]);
    }

    #[test]
    fn growth_while_training_does_not_count() {
        let mut guard = DriftGuard::new(LIMIT);
        for backend in [1 << 10, 1 << 20, 1 << 30] {
            let held = HeldBytes { backend, process: Some(backend) };
            let mut watch = guard.start(held);
            watch.after_batch(held).unwrap();
            watch.finish(held).unwrap();
        }
    }

    #[test]
    fn growth_of_the_process_counts_from_the_warm_up_on() {
        let mut guard = DriftGuard::new(LIMIT);
        let held = |process: u64| HeldBytes { backend: 0, process: Some(process) };
        let mut watch = guard.start(held(0));
        watch.after_batch(held(1 << 30)).unwrap();
        watch.after_batch(held((1 << 30) + LIMIT)).unwrap();
        let error = watch.after_batch(held((1 << 30) + LIMIT + 1)).unwrap_err();
        assert!(error.what().starts_with("the process grew"));
    }
}
