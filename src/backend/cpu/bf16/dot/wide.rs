//! The rows of a tile widened to f32: what multiply-adds read one by one.
//!
//! Taking a pair of a row apart costs two operations for each four multiply-adds with it, on the very ports that those need.
//! Done here once for a whole tile, sixteen pairs at a time, it costs little; done once for all tiles that share the rows,
//! next to nothing.

use std::mem::MaybeUninit;

use super::{CHAIN, Left, MR};

/// The odd element of a pair, which is a float32 as it stands.
pub(super) const ODD: u32 = 0xffff_0000;

/// Distance of rows: even elements, odd elements, and something more, so that rows do not compete for the same sets of the
/// first-level cache.
const STRIDE: usize = 2 * CHAIN + 16;
/// Values of [`MR`] rows of [`CHAIN`] pairs.
pub(in super::super) const LEN: usize = MR * STRIDE;

const _: () = assert!(2 * MR * CHAIN <= LEN);

/// Even and odd elements of at most [`MR`] rows of [`CHAIN`] pairs: by rows, and where `RS` is 1 by pairs, as they come.
#[repr(transparent)]
pub(in super::super) struct Wide([MaybeUninit<f32>; LEN]);

impl Wide {
    #[cfg(any(test, target_arch = "x86_64"))]
    pub(super) const fn new() -> Self {
        Self([MaybeUninit::uninit(); LEN])
    }

    /// As many as there is room for in scratch memory.
    pub(in super::super) fn in_scratch(scratch: &mut [f32]) -> &mut [Self] {
        let rooms = scratch.as_chunks_mut::<LEN>().0;
        // SAFETY: the same size and alignment; only numbers are ever written.
        unsafe { std::slice::from_raw_parts_mut(rooms.as_mut_ptr().cast(), rooms.len()) }
    }

    /// Distances of rows, of pairs, and of odd elements from even ones.
    pub(super) const fn distances<const RS: usize>() -> (usize, usize, usize) {
        if RS == 1 { (1, 2 * MR, MR) } else { (STRIDE, 1, CHAIN) }
    }

    /// The even element of the first row's first pair.
    pub(super) fn start(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }

    /// Widens `pairs` pairs of `mr` rows, from the pair `first` on.
    ///
    /// # Safety
    /// The pairs are there; `mr` and `pairs` are at most [`MR`] and [`CHAIN`].
    #[inline(always)]
    pub(super) unsafe fn fill<const RS: usize>(
        &mut self,
        mr: usize,
        left: &Left,
        first: usize,
        pairs: usize,
    ) {
        debug_assert!(mr <= MR && pairs <= CHAIN);
        let (row, step, odd) = Self::distances::<RS>();
        let a = left.a.wrapping_add(first * left.ks);
        let mut put = |i: usize, p: usize, from: *const u32| {
            let at = i * row + p * step;
            // SAFETY: the caller's promises.
            unsafe {
                let pair = from.read_unaligned();
                self.0.get_unchecked_mut(at).write(f32::from_bits(pair << 16));
                self.0.get_unchecked_mut(at + odd).write(f32::from_bits(pair & ODD));
            }
        };
        // Loops whose steps are one, of both what is read and what is written, go sixteen at a time.
        if RS == 1 {
            for p in 0..pairs {
                (0..mr).for_each(|i| put(i, p, a.wrapping_add(p * left.ks + i)));
            }
        } else if left.ks == 1 {
            for i in 0..mr {
                let row = a.wrapping_add(i * left.row_distance::<RS>());
                (0..pairs).for_each(|p| put(i, p, row.wrapping_add(p)));
            }
        } else {
            for i in 0..mr {
                let row = a.wrapping_add(i * left.row_distance::<RS>());
                (0..pairs).for_each(|p| put(i, p, row.wrapping_add(p * left.ks)));
            }
        }
    }
}
