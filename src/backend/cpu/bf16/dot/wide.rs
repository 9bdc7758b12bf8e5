//! The rows of a tile widened to f32: what multiply-adds read one by one.
//!
//! Taking a pair of a row apart costs two operations for each four multiply-adds with it, on the very ports that those need.
//! Done here once for a whole tile, sixteen pairs at a time, it costs next to nothing.

use std::mem::MaybeUninit;

use super::{CHAIN, MR, Tile};

/// The odd element of a pair, which is a float32 as it stands.
pub(super) const ODD: u32 = 0xffff_0000;

/// Even and odd elements of at most [`MR`] rows of [`CHAIN`] pairs: by rows, and where `RS` is 1 by pairs, as they come.
pub(super) struct Wide([[MaybeUninit<f32>; MR * CHAIN]; 2]);

impl Wide {
    pub(super) fn new() -> Self {
        Self([[MaybeUninit::uninit(); MR * CHAIN]; 2])
    }

    /// Distance of rows.
    pub(super) const fn row<const RS: usize>() -> usize {
        if RS == 1 { 1 } else { CHAIN }
    }

    /// Distance of pairs.
    pub(super) const fn step<const RS: usize>() -> usize {
        if RS == 1 { MR } else { 1 }
    }

    /// Widens `pairs` pairs of `mr` rows, the first of them the tile's pair `first`. Returns where even and odd elements are.
    ///
    /// # Safety
    /// The pairs are the tile's; `mr` and `pairs` are at most [`MR`] and [`CHAIN`].
    #[inline(always)]
    pub(super) unsafe fn fill<const RS: usize>(
        &mut self,
        mr: usize,
        t: &Tile,
        first: usize,
        pairs: usize,
    ) -> [*const f32; 2] {
        let [even, odd] = &mut self.0;
        let a = t.a.wrapping_add(first * t.ks);
        let mut put = |at: usize, from: *const u32| {
            // SAFETY: the caller's promises.
            unsafe {
                let pair = from.read_unaligned();
                even.get_unchecked_mut(at).write(f32::from_bits(pair << 16));
                odd.get_unchecked_mut(at).write(f32::from_bits(pair & ODD));
            }
        };
        // Loops whose steps are one, of both what is read and what is written, go sixteen at a time.
        if RS == 1 {
            for p in 0..pairs {
                (0..mr).for_each(|i| put(p * MR + i, a.wrapping_add(p * t.ks + i)));
            }
        } else if t.ks == 1 {
            for i in 0..mr {
                (0..pairs).for_each(|p| put(i * CHAIN + p, a.wrapping_add(i * t.row_distance::<RS>() + p)));
            }
        } else {
            for i in 0..mr {
                let row = a.wrapping_add(i * t.row_distance::<RS>());
                (0..pairs).for_each(|p| put(i * CHAIN + p, row.wrapping_add(p * t.ks)));
            }
        }
        [even.as_ptr().cast(), odd.as_ptr().cast()]
    }
}
