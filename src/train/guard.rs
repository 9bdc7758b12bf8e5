//! The memory-drift guard: an evaluation must not leave more behind than it found.
//!
//! Watched is what an evaluation itself holds, by exact counts: the backend's tensors, KV caches among them, and the
//! buffers of its loader. Readings are taken between batches, when everything a batch needed should be gone: before the
//! evaluation, after its first batch (the warm-up, which may create what later ones use again), after every further
//! batch and at the end. It is upstream's issue 427, stopped before memory runs out.
//!
//! - *Tensors* must not grow by more than `eval.max_drift_bytes`, in one evaluation or over all of a run.
//! - *The loader* has buffers that fill while it reads: they may hold what their own bounds allow, and that limit more.
//! - *The process* does other things beside: caches fill, an allocator keeps what was freed, the training loader reads
//!   ahead. Its growth is never an error; where it goes on evenly (`train::even_growth`), a note tells of it.

use crate::data::LoaderBytes;
use crate::error::{Error, Result};
use crate::host::rss_bytes;

use super::engine::Engine;
use super::even_growth::EvenGrowth;

/// Bytes held at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldBytes {
    /// Tensors of the backend, exactly.
    pub backend: u64,
    /// Buffers of the evaluation's loader, by its own count.
    pub loader: LoaderBytes,
    /// Resident memory of the process; none where it is not known, or not this run's alone.
    pub process: Option<u64>,
}

impl HeldBytes {
    /// What an engine and a loader hold. `alone` says that nothing else runs in this process: only then is resident
    /// memory read.
    pub fn read(engine: &dyn Engine, loader: LoaderBytes, alone: bool) -> Self {
        Self { backend: engine.live_bytes(), loader, process: if alone { rss_bytes() } else { None } }
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
    /// Whether growth of the process has been told.
    told: bool,
}

impl DriftGuard {
    /// A guard with the manifest's limit.
    pub fn new(max_drift_bytes: u64) -> Self {
        Self { max_drift_bytes, warmed_up: false, left_behind: 0, told: false }
    }

    /// Starts watching an evaluation from the reading before it.
    pub fn start(&mut self, before: HeldBytes) -> Watch<'_> {
        Watch { guard: self, backend: before.backend, beside: EvenGrowth::default(), batches: 0 }
    }
}

/// One evaluation under watch.
#[derive(Debug)]
#[must_use = "an evaluation is watched up to `finish`"]
pub struct Watch<'a> {
    guard: &'a mut DriftGuard,
    /// What growth of the backend is counted from.
    backend: u64,
    /// Memory of the process beside what the evaluation holds, from the warm-up on.
    beside: EvenGrowth,
    batches: u64,
}

impl Watch<'_> {
    /// Takes the reading after a batch, once its values are dropped. The first one is the warm-up.
    ///
    /// # Errors
    /// More held than the evaluation may; class `Run`.
    pub fn after_batch(&mut self, now: HeldBytes) -> Result<()> {
        self.batches += 1;
        if self.batches == 1 && !self.guard.warmed_up {
            // What the very first batch of a run creates and keeps is made once.
            self.backend = self.backend.max(now.backend);
            self.guard.warmed_up = true;
        }
        if let Some(process) = now.process {
            let own = now.backend.saturating_add(now.loader.held);
            self.beside.add(process as i64 - own as i64);
        }
        self.check(now)
    }

    /// Takes the last reading, when the evaluation is over and its values are dropped. Returns what there is to tell.
    ///
    /// # Errors
    /// More left behind than an evaluation may, in this one or over all of them; class `Run`.
    pub fn finish(self, now: HeldBytes) -> Result<Option<String>> {
        self.check(now)?;
        let drift = now.backend as i64 - self.backend as i64;
        let Self { guard, beside, batches, .. } = self;
        guard.left_behind = guard.left_behind.saturating_add(drift);
        let left_behind = u64::try_from(guard.left_behind).unwrap_or(0);
        if left_behind > guard.max_drift_bytes {
            return Err(drift_error(
                format!("the evaluations so far have left {left_behind} bytes behind"),
                guard.max_drift_bytes,
            ));
        }
        let grown = beside.evenly().filter(|&grown| grown > guard.max_drift_bytes && !guard.told);
        guard.told |= grown.is_some();
        Ok(grown.map(|grown| {
            format!(
                "the process grew evenly, by {:.1} MB over the {batches} batches of this evaluation, beside what the \
                 evaluation holds; nothing is stopped for it",
                grown as f64 / 1e6
            )
        }))
    }

    fn check(&self, now: HeldBytes) -> Result<()> {
        let limit = self.guard.max_drift_bytes;
        let backend = now.backend.saturating_sub(self.backend);
        if backend > limit {
            let error = drift_error(format!("the evaluation leaves {backend} bytes behind"), limit);
            return Err(error.because(batches(self.batches)));
        }
        let LoaderBytes { held, most } = now.loader;
        if held.saturating_sub(most) > limit {
            let what = format!("the loader of the evaluation holds {held} bytes, where {most} are its bound");
            return Err(drift_error(what, limit).because(batches(self.batches)));
        }
        Ok(())
    }
}

fn batches(count: u64) -> String {
    format!("after {count} batches")
}

fn drift_error(what: String, limit: u64) -> Error {
    Error::run(what)
        .key("eval.max_drift_bytes")
        .expected(format!("at most {limit} bytes more than it began with"))
        .help(
            "what was evaluated is kept: the same command carries on after the last batch, in a process with fresh \
             memory. If the growth is known to stop, raise the limit: --set eval.max_drift_bytes=BYTES changes no \
             result",
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scalar::{ScalarBackend, Tensor};
    use crate::ops::ForwardOps;

    const LIMIT: u64 = 10_000;

    fn reading(ops: &ScalarBackend) -> HeldBytes {
        HeldBytes { backend: ops.live_bytes(), ..HeldBytes::default() }
    }

    /// An evaluation of `batches` batches that makes a large tensor in each and keeps what `keep` says.
    fn evaluate(
        guard: &mut DriftGuard,
        ops: &ScalarBackend,
        batches: usize,
        mut keep: impl FnMut(usize, Tensor),
    ) -> Result<Option<String>> {
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
        let mut held = HeldBytes { backend: 1 << 20, ..HeldBytes::default() };
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
            let held = HeldBytes { backend, process: Some(backend), ..HeldBytes::default() };
            let mut watch = guard.start(held);
            watch.after_batch(held).unwrap();
            watch.finish(held).unwrap();
        }
    }

    /// Buffers of the loader fill up to their bound, however large; past it and the limit is a leak.
    #[test]
    fn the_loader_may_hold_what_its_bounds_allow_and_no_more() {
        let mut guard = DriftGuard::new(LIMIT);
        let most = 1 << 30;
        let loader = |held| HeldBytes { loader: LoaderBytes { held, most }, ..HeldBytes::default() };
        let mut watch = guard.start(loader(0));
        for held in [1000, 1 << 20, most, most + LIMIT] {
            watch.after_batch(loader(held)).unwrap();
        }
        let error = watch.after_batch(loader(most + LIMIT + 1)).unwrap_err();
        assert_eq!(error.key_path(), Some("eval.max_drift_bytes"));
        assert!(error.what().starts_with("the loader of the evaluation holds 10737"), "{error}");
    }

    /// How an evaluation ends whose process holds this much beside it after each batch.
    fn beside(guard: &mut DriftGuard, process: impl Iterator<Item = u64>) -> Option<String> {
        let mut held = HeldBytes::default();
        let mut watch = guard.start(held);
        for process in process {
            held.process = Some(process);
            watch.after_batch(held).unwrap();
        }
        watch.finish(held).unwrap()
    }

    /// Caches that fill, an allocator that keeps, a group larger than those before: nothing is told, nothing stops.
    #[test]
    fn memory_guard_takes_caches_and_prefetch_for_a_leak() {
        let mut guard = DriftGuard::new(LIMIT);
        let cache = (0..400_u64).map(|batch| (1 << 30) - (1 << 30) / (1 + batch / 8));
        assert_eq!(beside(&mut guard, cache), None);
        let jump = (0..400_u64).map(|batch| if batch < 200 { 1 << 20 } else { 1 << 28 });
        assert_eq!(beside(&mut guard, jump), None);
        let small = (0..400_u64).map(|batch| batch * LIMIT / 400);
        assert_eq!(beside(&mut guard, small), None);
        let few = (0..20_u64).map(|batch| batch << 20);
        assert_eq!(beside(&mut guard, few), None);
    }

    #[test]
    fn even_growth_of_the_process_is_told_once_and_stops_nothing() {
        let mut guard = DriftGuard::new(LIMIT);
        let even = || (0..400_u64).map(|batch| batch * 100_000 + (batch * 7919) % 50_000);
        insta::assert_snapshot!(beside(&mut guard, even()).unwrap());
        assert_eq!(beside(&mut guard, even()), None);
    }

    /// What the evaluation itself holds is no growth beside it.
    #[test]
    fn what_the_loader_holds_is_not_beside_it() {
        let mut guard = DriftGuard::new(LIMIT);
        let mut watch = guard.start(HeldBytes::default());
        let held = |batch: u64| HeldBytes {
            backend: 0,
            loader: LoaderBytes { held: batch << 20, most: 1 << 40 },
            process: Some((1 << 28) + (batch << 20)),
        };
        for batch in 0..400 {
            watch.after_batch(held(batch)).unwrap();
        }
        assert_eq!(watch.finish(held(399)).unwrap(), None);
    }
}
