//! The threads of a backend, and the scratch memory each of them keeps.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;

use super::pool::{Buffer, Pool};
use crate::control_word;
use crate::ops::{OpError, OpResult};
use crate::stop::StopFlag;

thread_local! {
    static SCRATCH: RefCell<Option<Buffer>> = const { RefCell::new(None) };
}

/// Floats of scratch that a task has at least.
pub(super) const SCRATCH_LEN: usize = 420 * 1024;
/// Floats of a large page.
const PAGE: usize = 512 * 1024;

/// What a thread takes of a pool for so many floats of scratch: whole large pages, as it is what kernels use most.
pub(super) const fn scratch_room(len: usize) -> usize {
    len.next_multiple_of(PAGE)
}

/// A pool of threads.
#[derive(Debug)]
pub(super) struct Workers {
    threads: rayon::ThreadPool,
    /// Floats of scratch that a task has.
    scratch: usize,
    /// Raised when whoever runs them asks to stop.
    pub(super) stop: StopFlag,
    /// Whether tasks may then be left out: what they would have written is dropped.
    pub(super) may_skip: AtomicBool,
    /// Threads that there would be instead.
    #[cfg(test)]
    pub(super) simulated: Option<super::simulated::Simulated>,
}

impl Workers {
    /// `threads` threads, each with its scratch memory from `pool`.
    pub(super) fn new(threads: usize, pool: &Pool) -> OpResult<Self> {
        Self::with_scratch(threads, pool, SCRATCH_LEN)
    }

    /// The same with so many floats of scratch a thread, at least [`SCRATCH_LEN`].
    pub(super) fn with_scratch(threads: usize, pool: &Pool, scratch: usize) -> OpResult<Self> {
        let scratch = scratch.max(SCRATCH_LEN);
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("cpu-{i}"))
            .start_handler(|_| {
                control_word::set();
            })
            .build()
            .map_err(|e| OpError::Backend { op: "threads", message: e.to_string() })?;
        let memory = threads.broadcast(|_| -> OpResult<()> {
            let buffer = pool.zeroed("scratch", scratch_room(scratch))?;
            SCRATCH.with_borrow_mut(|slot| *slot = Some(buffer));
            Ok(())
        });
        memory.into_iter().collect::<OpResult<Vec<()>>>()?;
        Ok(Self {
            threads,
            scratch,
            stop: StopFlag::default(),
            may_skip: AtomicBool::new(false),
            #[cfg(test)]
            simulated: None,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return simulated.threads;
        }
        self.threads.current_num_threads()
    }

    /// Runs `f` on one of the threads; what it spawns stays among them.
    pub(super) fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.threads.install(f)
    }

    /// Runs `f` on one of the threads, from where it reaches the others without waking this one in between.
    ///
    /// # Safety
    /// What `f` holds must not be bound to this thread, which waits.
    pub(super) unsafe fn install_closely<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Moved<T>(T);
        // SAFETY: the caller's promise; this thread waits until what was moved has come back.
        unsafe impl<T> Send for Moved<T> {}
        impl<T> Moved<T> {
            // A closure that names the field would hold that alone, not what makes it `Send`.
            fn take(self) -> T {
                self.0
            }
        }
        let f = Moved(f);
        self.threads.install(move || Moved(f.take()())).take()
    }

    /// Runs `f(0) .. f(tasks - 1)`, in any order, in parallel. Those not begun when a stop is asked for are left out
    /// where that is allowed, so that an op of minutes is over in a moment.
    pub(super) fn run(&self, tasks: usize, f: impl Fn(usize) + Send + Sync) {
        let f = |task| {
            if !self.skips() {
                f(task);
            }
        };
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return self.install(|| simulated.run(tasks, f));
        }
        self.install(|| match tasks {
            0 => {}
            1 => f(0),
            _ => (0..tasks).into_par_iter().with_max_len(1).for_each(f),
        });
    }

    /// [`Self::run_with_scratch`], of tasks that are begun in their order: each thread that is free takes the next one. So
    /// the longest can come first.
    pub(super) fn run_in_order(&self, tasks: usize, f: impl Fn(usize, &mut [f32]) + Send + Sync) {
        #[cfg(test)]
        if self.simulated.is_some() {
            return self.run_with_scratch(tasks, f);
        }
        let next = AtomicUsize::new(0);
        // No more than a number is handed over by it.
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|task| *task < tasks);
        self.run_with_scratch(tasks.min(self.count()), |_, scratch| {
            while let Some(task) = take() {
                if self.skips() {
                    break;
                }
                f(task, scratch);
            }
        });
    }

    #[inline]
    fn skips(&self) -> bool {
        self.may_skip.load(Ordering::Relaxed) && self.stop.is_raised()
    }

    /// [`Self::run`] with the thread's scratch memory, whose contents are unspecified. `f` must not spawn.
    pub(super) fn run_with_scratch(&self, tasks: usize, f: impl Fn(usize, &mut [f32]) + Send + Sync) {
        self.run(tasks, |task| {
            SCRATCH.with_borrow_mut(|slot| {
                // `new` gave every thread its scratch.
                if let Some(room) = slot.as_mut() {
                    f(task, &mut room[..self.scratch]);
                }
            });
        });
    }
}

/// Task `task` of those that split `0..len` into pieces of `size`.
#[inline]
pub(super) fn piece(len: usize, size: usize, task: usize) -> Range<usize> {
    let start = (task * size).min(len);
    start..(start + size).min(len)
}

/// A pointer to memory whose parts several tasks write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared<T>(*mut T, usize);

// SAFETY: the users of a `Shared` promise, at each `slice_mut`, that no two tasks touch one element.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Shares the whole slice.
    pub(super) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr(), slice.len())
    }

    /// Element `at`, with `len` elements from there on asserted to be in bounds: for kernels that write by pointers.
    #[inline]
    pub(super) fn reach(self, at: usize, len: usize) -> *mut T {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.1), "a kernel would write out of bounds");
        self.0.wrapping_add(at)
    }

    /// A part of it.
    ///
    /// # Safety
    /// The slice shared must outlive the part, and no other task may touch the part meanwhile.
    pub(super) unsafe fn slice_mut<'a>(self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.1);
        // SAFETY: in bounds; the caller promises the rest.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.end - range.start) }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::super::gemm::pack::lines;
    use super::*;

    #[test]
    fn kernels_are_given_nothing_out_of_bounds() {
        let mut values = [0.0_f32; 10];
        let first = values.as_ptr();
        let shared = Shared::new(&mut values);
        assert_eq!(shared.reach(4, 6).cast_const(), first.wrapping_add(4));
        for (at, len) in [(4, 7), (10, 1), (usize::MAX, 2)] {
            assert!(catch_unwind(|| shared.reach(at, len)).is_err(), "{at} {len}");
        }
        // Two lines of three values, seven apart, end at the tenth.
        assert!(!lines(&[0.0; 10], 7, 2, 3).is_null());
        for (stride, count, len) in [(8, 2, 3), (7, 2, 4), (7, 3, 1), (1, 1, 11)] {
            assert!(
                catch_unwind(|| lines(&[0.0; 10], stride, count, len)).is_err(),
                "{stride} {count} {len}"
            );
        }
    }
}
