//! The queue between the data thread and the training step: batches made ahead, bounded in number and in bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::loader_bytes::LoaderBytes;
use super::packing::Batch;
use crate::error::Result;

/// Batches that wait ready at most.
const AHEAD: usize = 8;

/// Bytes after which no further batch is made ahead; the first one always is.
pub(super) const AHEAD_BYTES: u64 = 32 << 20;

/// How often one who waits for a batch asks whether to go on waiting.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Both ends of the queue.
#[derive(Default)]
pub(super) struct Prefetch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Batches that wait, with the bytes of each.
    waiting: VecDeque<(Result<Batch>, u64)>,
    bytes: u64,
    /// Of the largest batch so far.
    largest: u64,
    /// What the maker held when it last put a batch.
    maker: LoaderBytes,
    /// Nobody takes batches any more.
    closed: bool,
    /// Nobody makes batches any more.
    ended: bool,
}

/// The maker's end. Dropping it, a panic included, tells the taker that no batch follows.
pub(super) struct Maker(Arc<Prefetch>);

impl Prefetch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The maker's end of it.
    pub(super) fn maker(self: &Arc<Self>) -> Maker {
        Maker(Arc::clone(self))
    }

    /// Waits for the next batch; none once the maker has ended. While it waits, `meanwhile` is asked now and then.
    ///
    /// # Errors
    /// What `meanwhile` says.
    pub(super) fn take(&self, meanwhile: impl Fn() -> Result<()>) -> Result<Option<Result<Batch>>> {
        let mut state = self.state();
        loop {
            if let Some((batch, bytes)) = state.waiting.pop_front() {
                state.bytes -= bytes;
                self.changed.notify_all();
                return Ok(Some(batch));
            }
            if state.ended {
                return Ok(None);
            }
            let waited = self.changed.wait_timeout(state, ASK_EVERY).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            if waited.1.timed_out() {
                meanwhile()?;
            }
        }
    }

    /// Tells the maker to end.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.waiting.clear();
        state.bytes = 0;
        self.changed.notify_all();
    }

    /// What waits here and what the maker holds.
    pub(super) fn held(&self) -> LoaderBytes {
        let state = self.state();
        LoaderBytes { held: state.bytes, most: AHEAD_BYTES + state.largest } + state.maker
    }
}

impl Maker {
    /// Hands over a batch of so many bytes and waits until there is room for another. `held` is what the maker holds
    /// itself. False where nobody takes batches any more.
    pub(super) fn put(&self, batch: Result<Batch>, bytes: u64, held: LoaderBytes) -> bool {
        let mut state = self.0.state();
        state.maker = held;
        state.largest = state.largest.max(bytes);
        state.bytes += bytes;
        state.waiting.push_back((batch, bytes));
        self.0.changed.notify_all();
        while !state.closed && (state.waiting.len() >= AHEAD || state.bytes >= AHEAD_BYTES) {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.closed
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Position, RankCursor};

    fn batch() -> Batch {
        let (inputs, targets) = (vec![0; 4], vec![0; 4]);
        let (state, cursor_after) = (Position::START, RankCursor::start().into());
        Batch { inputs, targets, rows: 1, len: 4, documents: Vec::new(), state, cursor_after }
    }

    /// Batches that a maker has put before it has to wait, each of so many bytes.
    fn ahead(bytes: u64) -> (usize, LoaderBytes) {
        let queue = Arc::new(Prefetch::default());
        let maker = queue.maker();
        let thread =
            std::thread::spawn(move || while maker.put(Ok(batch()), bytes, LoaderBytes::exactly(5)) {});
        let mut last = usize::MAX;
        loop {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let waiting = queue.state().waiting.len();
            if waiting == last {
                break;
            }
            last = waiting;
        }
        let held = queue.held();
        queue.close();
        thread.join().unwrap();
        (last, held)
    }

    #[test]
    fn batches_are_made_ahead_up_to_a_number_and_up_to_bytes() {
        assert_eq!(ahead(1000), (AHEAD, LoaderBytes { held: 8005, most: AHEAD_BYTES + 1005 }));
        let half = AHEAD_BYTES / 2;
        assert_eq!(ahead(half), (2, LoaderBytes { held: AHEAD_BYTES + 5, most: AHEAD_BYTES + half + 5 }));
        let whole = 3 * AHEAD_BYTES;
        assert_eq!(ahead(whole), (1, LoaderBytes { held: whole + 5, most: AHEAD_BYTES + whole + 5 }));
    }

    #[test]
    fn a_maker_that_is_gone_ends_the_queue_after_what_it_made() {
        let queue = Arc::new(Prefetch::default());
        let maker = queue.maker();
        assert!(maker.put(Ok(batch()), 8, LoaderBytes::default()));
        drop(maker);
        assert!(queue.take(|| Ok(())).unwrap().unwrap().is_ok());
        assert!(queue.take(|| Ok(())).unwrap().is_none());
    }

    #[test]
    fn one_who_waits_can_be_told_to_stop() {
        let queue = Arc::new(Prefetch::default());
        let _maker = queue.maker();
        let error = queue.take(|| Err(crate::error::Error::run("enough"))).unwrap_err();
        assert_eq!(error.what(), "enough");
    }
}
