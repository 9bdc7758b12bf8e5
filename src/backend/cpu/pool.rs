//! Memory of tensors: buffers come from a pool and go back to it when dropped.
//!
//! After the first step every size has been seen and no step allocates; [`Pool::allocations`] counts, so tests can
//! tell. Refused memory is an [`OpError::OutOfMemory`], never an abort.
//!
//! What a pool hands out is memory, or no more than a claim to as much: with claims, the memory of a run is counted
//! before there is any, by the very rules it will be handed out by.

use std::alloc::{Layout, alloc_zeroed};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ops::{OpError, OpResult};
use crate::system::LargePages;

/// Floats of a cache line.
const LINE: usize = 16;
/// Bytes of one.
const LINE_BYTES: usize = LINE * size_of::<f32>();

/// A quarter of a cache line: of what is aligned more strictly, Rust writes the zeros itself, and so touches all of it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct Quarter([f32; LINE / 4]);

/// What a pool hands out: as many lines as were asked for.
pub(super) trait Room: Default {
    /// Zeroed lines, or none where they are refused.
    fn zeroed(lines: usize) -> Option<Self>;
    /// How many there are.
    fn lines(&self) -> usize;
}

/// Lines that are only counted.
#[derive(Debug, Default)]
pub(super) struct Claim(usize);

/// The largest claim in lines, 64 TiB: sums of claims stay far below what a `u64` holds.
const LARGEST_CLAIM: usize = 1 << 40;

impl Room for Claim {
    fn zeroed(lines: usize) -> Option<Self> {
        (lines <= LARGEST_CLAIM).then_some(Self(lines))
    }

    fn lines(&self) -> usize {
        self.0
    }
}

/// Whole lines of memory: what is large begins at a page, else there is room to begin at a line.
#[derive(Debug)]
pub(super) enum Memory {
    Small(Vec<Quarter>),
    Large { pages: LargePages, lines: usize },
}

impl Default for Memory {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl Room for Memory {
    /// The system hands it over page by page when it is first touched, so by all threads at once.
    fn zeroed(lines: usize) -> Option<Self> {
        if lines == 0 {
            return Some(Self::default());
        }
        let quarters = lines.checked_mul(4)?.checked_add(3)?;
        let layout = Layout::array::<Quarter>(quarters).ok()?;
        if let Some(pages) = LargePages::zeroed(lines * LINE_BYTES) {
            return Some(Self::Large { pages, lines });
        }
        // SAFETY: not of size zero.
        #[allow(clippy::cast_ptr_alignment)] // The layout is that of quarters.
        let start = unsafe { alloc_zeroed(layout) }.cast::<Quarter>();
        if start.is_null() {
            return None;
        }
        // SAFETY: from the global allocator with the layout of such a slice; zeros are floats.
        let all = unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, quarters)) };
        Some(Self::Small(all.into_vec()))
    }

    fn lines(&self) -> usize {
        match self {
            Self::Small(quarters) => quarters.len() / 4,
            Self::Large { lines, .. } => *lines,
        }
    }
}

impl Memory {
    /// The first line.
    fn start(&self) -> *const f32 {
        match self {
            Self::Small(quarters) => quarters[skipped(quarters)..].as_ptr().cast(),
            Self::Large { pages, .. } => pages.start().as_ptr().cast(),
        }
    }

    /// The same.
    fn start_mut(&mut self) -> *mut f32 {
        match self {
            Self::Small(quarters) => {
                let skipped = skipped(quarters);
                quarters[skipped..].as_mut_ptr().cast()
            }
            Self::Large { pages, .. } => pages.start().as_ptr().cast(),
        }
    }
}

/// Quarters before the first whole line.
fn skipped(quarters: &[Quarter]) -> usize {
    let start = quarters.as_ptr() as usize;
    if quarters.is_empty() { 0 } else { (start.next_multiple_of(LINE_BYTES) - start) / size_of::<Quarter>() }
}

/// A source of buffers.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool<M: Room = Memory>(Arc<Shelves<M>>);

#[derive(Debug, Default)]
struct Shelves<M> {
    /// Returned memory by its length in lines.
    free: Mutex<BTreeMap<usize, Vec<M>>>,
    allocations: AtomicU64,
    bytes: AtomicU64,
    peak: AtomicU64,
}

impl<M: Room> Pool<M> {
    /// A buffer of `len` floats; whatever was in it before is still there.
    pub(super) fn take(&self, op: &'static str, len: usize) -> OpResult<Buffer<M>> {
        Ok(self.buffer(op, len, self.waiting(len))?.0)
    }

    /// A buffer for less than an op: the smallest of those waiting that is large enough, whatever it was made for. As
    /// it comes back before anybody misses it, it adds to the peak only where nothing fits.
    pub(super) fn spare(&self, op: &'static str, len: usize) -> OpResult<Buffer<M>> {
        let lines = len.div_ceil(LINE);
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let reused = free.range_mut(lines..).find_map(|(_, shelf)| shelf.pop());
        drop(free);
        Ok(self.buffer(op, len, reused)?.0)
    }

    /// Returned memory of this length.
    fn waiting(&self, len: usize) -> Option<M> {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.get_mut(&len.div_ceil(LINE)).and_then(Vec::pop)
    }

    /// A buffer of memory that waited or, without, of new memory; and whether it is new.
    fn buffer(&self, op: &'static str, len: usize, reused: Option<M>) -> OpResult<(Buffer<M>, bool)> {
        let fresh = reused.is_none();
        let memory = match reused {
            Some(memory) => memory,
            None => self.allocate(op, len.div_ceil(LINE))?,
        };
        Ok((Buffer { memory, len, shelves: Some(Arc::clone(&self.0)) }, fresh))
    }

    /// How often memory was asked of the system.
    pub(super) fn allocations(&self) -> u64 {
        self.0.allocations.load(Ordering::Relaxed)
    }

    /// Bytes held, in use or waiting.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// The most bytes held so far, in use or waiting.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// Bytes held that are in use.
    pub(super) fn live_bytes(&self) -> u64 {
        let free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting: usize = free.iter().map(|(lines, shelf)| lines * shelf.len()).sum();
        self.bytes().saturating_sub((waiting * LINE_BYTES) as u64)
    }

    /// Gives waiting memory back to the system.
    pub(super) fn trim(&self) {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting: usize = free.iter().map(|(lines, shelf)| lines * shelf.len()).sum();
        free.clear();
        self.0.bytes.fetch_sub((waiting * LINE_BYTES) as u64, Ordering::Relaxed);
    }

    fn allocate(&self, op: &'static str, lines: usize) -> OpResult<M> {
        let bytes = lines.saturating_mul(LINE_BYTES);
        let memory = M::zeroed(lines).ok_or(OpError::OutOfMemory { op, bytes })?;
        self.0.allocations.fetch_add(1, Ordering::Relaxed);
        let held = self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.0.peak.fetch_max(held, Ordering::Relaxed);
        Ok(memory)
    }
}

impl Pool {
    /// A buffer of zeros. What comes from the system is zeros, and first touched by whoever first writes there.
    pub(super) fn zeroed(&self, op: &'static str, len: usize) -> OpResult<Buffer> {
        self.zeroed_by(op, len, |values| values.fill(0.0))
    }

    /// A buffer of zeros, which `fill` writes where the memory was used before.
    pub(super) fn zeroed_by(
        &self,
        op: &'static str,
        len: usize,
        fill: impl FnOnce(&mut [f32]),
    ) -> OpResult<Buffer> {
        let (mut buffer, fresh) = self.buffer(op, len, self.waiting(len))?;
        if !fresh {
            fill(&mut buffer);
        }
        Ok(buffer)
    }
}

/// Floats, aligned to cache lines; back to their pool on drop.
#[derive(Debug)]
pub(super) struct Buffer<M: Room = Memory> {
    memory: M,
    len: usize,
    shelves: Option<Arc<Shelves<M>>>,
}

impl Buffer {
    /// The same memory as integers.
    pub(super) fn as_i32(&self) -> &[i32] {
        // SAFETY: f32 and i32 have one size and alignment, and any bits are a valid i32.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len) }
    }

    /// The same memory as integers.
    pub(super) fn as_i32_mut(&mut self) -> &mut [i32] {
        // SAFETY: as in `as_i32`; any bits are a valid f32 too.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len) }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `memory` holds at least `len` initialised floats from there on: `take` rounded up.
        unsafe { std::slice::from_raw_parts(self.memory.start(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start_mut(), self.len) }
    }
}

impl<M: Room> Drop for Buffer<M> {
    fn drop(&mut self) {
        if let Some(shelves) = self.shelves.take() {
            let memory = std::mem::take(&mut self.memory);
            let mut free = shelves.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.entry(memory.lines()).or_default().push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back() {
        let pool: Pool = Pool::default();
        let first = pool.take("test", 100).unwrap();
        let address = first.as_ptr();
        assert_eq!(address as usize % 64, 0);
        drop(first);
        let second = pool.take("test", 110).unwrap();
        assert_eq!((second.as_ptr(), second.len(), pool.allocations()), (address, 110, 1));
        let third = pool.zeroed_by("test", 112, |_| unreachable!("new memory is zeros")).unwrap();
        assert_eq!((third.iter().sum::<f32>(), pool.allocations(), pool.bytes()), (0.0, 2, 896));
        drop((second, third));
        pool.trim();
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn used_memory_is_zeroed_again() {
        let pool: Pool = Pool::default();
        let mut first = pool.take("test", 100).unwrap();
        let address = first.as_ptr();
        first.fill(7.0);
        drop(first);
        let second = pool.zeroed("test", 100).unwrap();
        assert_eq!((second.as_ptr(), second.iter().sum::<f32>()), (address, 0.0));
    }

    #[test]
    fn every_buffer_begins_at_a_line_and_is_as_long_as_asked() {
        let pool: Pool = Pool::default();
        for len in (1..=300).chain([1 << 20, (1 << 20) + 1]) {
            let mut buffer = pool.zeroed("test", len).unwrap();
            assert_eq!((buffer.as_ptr() as usize % 64, buffer.len()), (0, len));
            assert!(buffer.iter().all(|value| *value == 0.0), "{len}");
            // The next of this length gets this memory.
            buffer.fill(1.0);
        }
        assert!(pool.take("test", 0).unwrap().is_empty());
    }

    #[test]
    fn a_spare_is_the_smallest_that_fits_and_goes_back_where_it_was() {
        let pool: Pool = Pool::default();
        let made = [1000, 200, 500].map(|len| pool.take("test", len).unwrap());
        let middle = made[2].as_ptr();
        drop(made);
        let spare = pool.spare("test", 300).unwrap();
        assert_eq!((spare.as_ptr(), spare.len()), (middle, 300));
        drop(spare);
        assert_eq!(pool.take("test", 500).unwrap().as_ptr(), middle);
        assert_eq!(pool.allocations(), 3);
        assert_eq!(pool.spare("test", 2000).unwrap().len(), 2000);
        assert_eq!(pool.allocations(), 4);
    }

    #[test]
    fn refusal_is_an_error() {
        let error = Pool::<Memory>::default().take("test", usize::MAX / 8).unwrap_err();
        assert!(matches!(error, OpError::OutOfMemory { op: "test", bytes } if bytes > 1 << 60));
    }
}
