//! The half of a symmetric product that is not computed.

use std::ops::Range;

use super::super::super::gemm::pack::transpose;
use super::super::super::workers::Shared;

/// Copies what is above the diagonal of an n x n matrix in these rows and columns to below it. Whoever has just written it
/// does so, who has it near.
///
/// # Safety
/// Nobody else touches these values and those below the diagonal meanwhile.
pub(super) unsafe fn mirror(matrix: Shared<u16>, n: usize, rows: &Range<usize>, cols: &Range<usize>) {
    for right in cols.clone().step_by(8) {
        let cols = right..cols.end.min(right + 8);
        for top in (rows.start..rows.end.min(cols.end)).step_by(16) {
            let rows = top..rows.end.min(top + 16);
            if rows.end <= right && rows.len() == 16 && cols.len() == 8 && n.is_multiple_of(2) {
                let from = matrix.reach(top * n + right, 15 * n + 8);
                let to = matrix.reach(right * n + top, 7 * n + 16);
                // SAFETY: the caller's promise; the block is on one side of the diagonal.
                unsafe { turn(to, n, from, n) };
                continue;
            }
            for i in rows {
                for j in cols.start.max(i + 1)..cols.end {
                    // SAFETY: the caller's promise.
                    unsafe { *matrix.reach(j * n + i, 1) = *matrix.reach(i * n + j, 1) };
                }
            }
        }
    }
}

/// Turns sixteen lines of eight values, `stride` apart, into eight lines of sixteen.
///
/// # Safety
/// They are readable, `to` is writable so and nobody else's, and no value is in both. `to_stride` is even.
unsafe fn turn(to: *mut u16, to_stride: usize, from: *const u16, stride: usize) {
    debug_assert!(to_stride.is_multiple_of(2));
    let mut pairs = [[0_u32; 8]; 8];
    for (i, pairs) in pairs.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { pair(from.add(2 * i * stride), from.add((2 * i + 1) * stride), pairs) };
    }
    // SAFETY: the caller's promise: eight lines of eight pairs.
    unsafe { transpose(to.cast(), to_stride / 2, pairs.as_ptr().cast(), 8, 8, 8) };
}

/// The pairs of two lines of eight values.
///
/// # Safety
/// They are readable.
#[cfg(target_arch = "x86_64")]
unsafe fn pair(low: *const u16, high: *const u16, pairs: &mut [u32; 8]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_storeu_si128, _mm_unpackhi_epi16, _mm_unpacklo_epi16};
    // SAFETY: the caller's promise; every x86-64 has these instructions.
    unsafe {
        let (low, high) = (_mm_loadu_si128(low.cast()), _mm_loadu_si128(high.cast()));
        let to = pairs.as_mut_ptr();
        _mm_storeu_si128(to.cast(), _mm_unpacklo_epi16(low, high));
        _mm_storeu_si128(to.add(4).cast(), _mm_unpackhi_epi16(low, high));
    }
}

/// The pairs of two lines of eight values.
///
/// # Safety
/// They are readable.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn pair(low: *const u16, high: *const u16, pairs: &mut [u32; 8]) {
    for (j, pair) in pairs.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *pair = unsafe { u32::from(*low.add(j)) | u32::from(*high.add(j)) << 16 };
    }
}
