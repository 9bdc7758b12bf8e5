//! Threads that are not there: what each op would hand to so many of them is written down, and done by one. Sizes of tasks
//! are their multiply-adds, which the kernels count and leave out.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

thread_local! {
    /// Multiply-adds asked of this thread's kernels, where they are counted.
    static WORK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Counts a product. -> whether it is left out.
pub(super) fn counts(multiply_adds: usize) -> bool {
    WORK.with(|work| {
        let so_far = work.get();
        work.set(so_far.map(|sum| sum + multiply_adds as u64));
        so_far.is_some()
    })
}

/// Tasks that may go at the same time: those of one call. The next ones begin when all are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phase {
    /// Their multiply-adds, in the order in which they are handed out.
    pub(super) sizes: Vec<u64>,
}

/// What is noted of the threads there would be.
#[derive(Debug, Clone)]
pub(super) struct Simulated {
    pub(super) threads: usize,
    phases: Arc<Mutex<Vec<Phase>>>,
}

impl Simulated {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads, phases: Arc::default() }
    }

    /// What was handed out since the last time.
    pub(super) fn take(&self) -> Vec<Phase> {
        std::mem::take(&mut *self.phases.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs the tasks of one call on this thread.
    pub(super) fn run(&self, tasks: usize, f: impl Fn(usize)) {
        let mut phase = Phase { sizes: Vec::with_capacity(tasks) };
        for task in 0..tasks {
            WORK.set(Some(0));
            f(task);
            phase.sizes.push(WORK.take().unwrap_or(0));
        }
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).push(phase);
    }
}
