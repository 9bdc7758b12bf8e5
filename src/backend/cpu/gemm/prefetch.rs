//! Asking for memory before it is needed. Only hints: no address is too wrong, and no value changes.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

/// Floats of a cache line.
const LINE: usize = 16;

/// Brings `len` floats into the first-level cache.
#[inline(always)]
pub(in super::super) fn near(start: *const f32, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..len).step_by(LINE) {
        // SAFETY: a prefetch touches no memory that the program can see, and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, len);
}

/// `rows` pieces of `len` floats, `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Block {
    start: *const f32,
    stride: usize,
    rows: usize,
    len: usize,
}

impl Block {
    pub(in super::super) fn new(start: *const f32, stride: usize, rows: usize, len: usize) -> Self {
        Self { start, stride, rows, len }
    }
}

/// Brings a block into the second-level cache bit by bit, between calls of the micro-kernel.
#[derive(Debug)]
pub(in super::super) struct Ahead {
    block: Block,
    /// Lines asked for in a step.
    share: usize,
    row: usize,
    at: usize,
}

impl Ahead {
    /// All of `block` within `steps` steps.
    pub(in super::super) fn new(block: Option<Block>, steps: usize) -> Self {
        let block = block.unwrap_or(Block::new(std::ptr::null(), 0, 0, 0));
        let share = (block.rows * block.len.div_ceil(LINE)).div_ceil(steps.max(1));
        Self { block, share, row: 0, at: 0 }
    }

    #[inline]
    pub(in super::super) fn step(&mut self) {
        for _ in 0..self.share {
            if self.row == self.block.rows {
                return;
            }
            #[cfg(target_arch = "x86_64")]
            {
                let line = self.block.start.wrapping_add(self.row * self.block.stride + self.at);
                // SAFETY: a prefetch touches no memory that the program can see, and never faults.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
            }
            self.at += LINE;
            if self.at >= self.block.len {
                (self.row, self.at) = (self.row + 1, 0);
            }
        }
    }
}
