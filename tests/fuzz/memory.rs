//! An allocator that remembers the largest request and refuses impossible ones.
//!
//! A reader that reserves memory by a length in the file asks for far more than the file could fill; such a request
//! shows here even where the system would grant it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A request beyond this, or that makes more than this in all, is refused, which aborts.
const REFUSED: usize = 2 << 30;

static LARGEST: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST_HELD: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, watched.
pub(crate) struct Watched;

fn grants(size: usize) -> bool {
    LARGEST.fetch_max(size, Ordering::Relaxed);
    let held = HELD.fetch_add(size, Ordering::Relaxed) + size;
    MOST_HELD.fetch_max(held, Ordering::Relaxed);
    let granted = size <= REFUSED && held <= REFUSED;
    if !granted {
        HELD.fetch_sub(size, Ordering::Relaxed);
    }
    granted
}

// SAFETY: every request is passed on to the system's allocator unchanged, or refused with null as the trait allows.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if grants(layout.size()) { unsafe { System.alloc(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if grants(layout.size()) { unsafe { System.alloc_zeroed(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !grants(size) {
            return std::ptr::null_mut();
        }
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Memory that was asked for, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// In one request.
    pub(crate) at_once: usize,
    /// Held at the same time, beyond what was held at the beginning.
    pub(crate) in_all: usize,
}

/// Starts to watch; [`since`] gives what was asked for from here on.
pub(crate) fn start() -> usize {
    LARGEST.store(0, Ordering::Relaxed);
    let held = HELD.load(Ordering::Relaxed);
    MOST_HELD.store(held, Ordering::Relaxed);
    held
}

/// What was asked for since [`start`], which answered `held`.
pub(crate) fn since(held: usize) -> Asked {
    let in_all = MOST_HELD.load(Ordering::Relaxed).saturating_sub(held);
    Asked { at_once: LARGEST.load(Ordering::Relaxed), in_all }
}
