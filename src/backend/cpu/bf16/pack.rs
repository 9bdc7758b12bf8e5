//! Packing of operands into pairs, in the order in which the micro-kernel reads them.
//!
//! A pair is two values that are neighbours along k, the first in the low half. Where k is odd, the last pair's second
//! value is +0. Values in f32 (weights) are rounded on the way.

use super::super::gemm::pack::{group_len, transpose};
use super::super::gemm::prefetch::near as prefetch_near;
use super::super::simd::simd_fn;
use super::convert::{narrow, near};
use super::dot::{MR, NR};

/// Distance in pairs between the rows of a block packed row by row; not a multiple of 4096 bytes, so that rows do not
/// compete for the same sets of the first-level cache.
pub(super) const ROW_STRIDE: usize = super::dot::CHAIN + 16;
/// How many rows ahead memory is asked for: rows are far apart, and the hardware does not follow.
const AHEAD: usize = 8;
/// Values of a row that are combined at a time.
const STRIP: usize = 512;

/// Where values are read from: they are there for `stride`, `lines` and `len` of each function.
#[derive(Debug, Clone, Copy)]
pub(super) enum From {
    Half(*const u16),
    Single(*const f32),
}

impl From {
    pub(super) fn add(self, count: usize) -> Self {
        match self {
            Self::Half(start) => Self::Half(start.wrapping_add(count)),
            Self::Single(start) => Self::Single(start.wrapping_add(count)),
        }
    }

    /// Writes `len` values to `to`.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn read(self, len: usize, to: &mut [u16]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Half(start) => to[..len].copy_from_slice(std::slice::from_raw_parts(start, len)),
                Self::Single(start) => narrow(std::slice::from_raw_parts(start, len), &mut to[..len]),
            }
        }
    }

    #[inline]
    fn ask(self, len: usize) {
        match self {
            Self::Half(start) => prefetch_near(start.cast(), len.div_ceil(2)),
            Self::Single(start) => prefetch_near(start, len),
        }
    }
}

simd_fn! {
    /// Pairs of two rows.
    wide fn combine(low: &[u16], high: &[u16], to: &mut [u32]) {
        for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
            *to = u32::from(*low) | u32::from(*high) << 16;
        }
    }
}

simd_fn! {
    /// Pairs of two rows that are rounded.
    wide pub(super) fn combine_rounded(low: &[f32], high: &[f32], to: &mut [u32]) {
        for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
            *to = u32::from(near(*low)) | u32::from(near(*high)) << 16;
        }
    }
}

simd_fn! {
    /// Pairs of a row that is rounded and zeros.
    wide pub(super) fn round_low(low: &[f32], to: &mut [u32]) {
        for (to, low) in to.iter_mut().zip(low) {
            *to = u32::from(near(*low));
        }
    }
}

/// The pairs of `len` values and those `stride` further on, or of zeros.
///
/// # Safety
/// They are readable.
unsafe fn pairs_across(from: From, stride: Option<usize>, len: usize, to: &mut [u32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match (from, stride) {
            (From::Half(start), Some(stride)) => {
                let rows = [start, start.add(stride)].map(|row| std::slice::from_raw_parts(row, len));
                combine(rows[0], rows[1], to);
            }
            (From::Single(start), Some(stride)) => {
                let rows = [start, start.add(stride)].map(|row| std::slice::from_raw_parts(row, len));
                combine_rounded(rows[0], rows[1], to);
            }
            (From::Half(start), None) => {
                let row = std::slice::from_raw_parts(start, len);
                to.iter_mut().zip(row).for_each(|(to, low)| *to = u32::from(*low));
            }
            (From::Single(start), None) => {
                round_low(std::slice::from_raw_parts(start, len), to);
            }
        }
    }
}

/// Packs rows of A that are contiguous over k: row i at `i * ROW_STRIDE`, every value through `map`.
///
/// # Safety
/// `rows` lines of `k` values, `stride` apart, are readable; `dst` has room for `rows * ROW_STRIDE`.
pub(super) unsafe fn rows(
    dst: &mut [u32],
    a: From,
    stride: usize,
    rows: usize,
    k: usize,
    map: Option<fn(&mut [u16])>,
) {
    for i in 0..rows {
        let row = &mut dst[i * ROW_STRIDE..][..k.div_ceil(2)];
        let values = halves(row);
        // SAFETY: the caller's promise.
        unsafe { a.add(i * stride).read(k, values) };
        if let Some(map) = map {
            map(&mut values[..k]);
        }
        values[k..].fill(0);
    }
}

/// Packs a block of A that is contiguous over rows. Groups of 12 rows become panels, [`group_len`] of their pairs apart,
/// pair (i, p) of each at `p * 12 + i`.
///
/// # Safety
/// `k` lines of `rows` values, `stride` apart, are readable; `dst` has room for as many groups as `rows` fill or begin.
pub(super) unsafe fn columns(dst: &mut [u32], a: From, stride: usize, rows: usize, k: usize) {
    let pairs = k.div_ceil(2);
    let mut strip = [0; STRIP];
    for p in 0..pairs {
        let other = (2 * p + 1 < k).then_some(stride);
        for row in 0..2 {
            a.add((2 * p + row + AHEAD).min(k - 1) * stride).ask(rows);
        }
        // Whole groups of 12.
        for start in (0..rows).step_by(STRIP / MR * MR) {
            let len = (rows - start).min(STRIP / MR * MR);
            // SAFETY: the caller's promise.
            unsafe { pairs_across(a.add(2 * p * stride + start), other, len, &mut strip[..len]) };
            for (g, group) in strip[..len].chunks(MR).enumerate() {
                let to = (start / MR + g) * group_len(pairs) + p * MR;
                dst[to..to + group.len()].copy_from_slice(group);
            }
        }
    }
}

/// Packs B, contiguous over columns, into panels of 32 columns, each `k / 2` rounded up x 32; missing columns are zero.
///
/// # Safety
/// `k` lines of `cols` values, `stride` apart, are readable; `dst` has room for `cols` rounded up to 32, times `k / 2`
/// rounded up.
pub(super) unsafe fn panels(dst: &mut [u32], b: From, stride: usize, cols: usize, k: usize) {
    let pairs = k.div_ceil(2);
    let mut strip = [0; STRIP];
    for p in 0..pairs {
        let other = (2 * p + 1 < k).then_some(stride);
        for row in 0..2 {
            b.add((2 * p + row + AHEAD).min(k - 1) * stride).ask(cols);
        }
        for start in (0..cols).step_by(STRIP) {
            let len = (cols - start).min(STRIP);
            // SAFETY: the caller's promise.
            unsafe { pairs_across(b.add(2 * p * stride + start), other, len, &mut strip[..len]) };
            strip[len..].fill(0);
            for (g, group) in strip[..len.next_multiple_of(NR)].as_chunks::<NR>().0.iter().enumerate() {
                dst[((start / NR + g) * pairs + p) * NR..][..NR].copy_from_slice(group);
            }
        }
    }
}

/// Packs B, contiguous over k, as [`panels`] does.
///
/// # Safety
/// `cols` lines of `k` values, `stride` apart, are readable; `dst` has room for `cols` rounded up to 32, times `k / 2`
/// rounded up.
pub(super) unsafe fn panels_transposed(dst: &mut [u32], b: From, stride: usize, cols: usize, k: usize) {
    /// Pairs of a line that are turned at a time.
    const BLOCK: usize = 32;
    let pairs = k.div_ceil(2);
    // Eight lines as pairs, then turned: values need not be aligned as pairs are, and may have to be rounded.
    let mut lines = [[0_u32; BLOCK]; 8];
    for j in (0..cols).step_by(8) {
        let present = (cols - j).min(8);
        if present < 8 {
            lines = [[0; BLOCK]; 8];
        }
        let panel = &mut dst[j / NR * NR * pairs..][..NR * pairs];
        for p in (0..pairs).step_by(BLOCK) {
            let len = (k - 2 * p).min(2 * BLOCK);
            for (i, line) in lines.iter_mut().enumerate().take(present) {
                let line = halves(line);
                // SAFETY: the caller's promise.
                unsafe { b.add((j + i) * stride + 2 * p).read(len, line) };
                line[len..len.next_multiple_of(2)].fill(0);
            }
            for q in (0..len.div_ceil(2)).step_by(8) {
                let count = 8.min(len.div_ceil(2) - q);
                let to = &mut panel[(p + q) * NR + j % NR..];
                assert!((count - 1) * NR + 8 <= to.len());
                // SAFETY: eight lines of `count` pairs, and as many rows of eight in the panel. Transposing moves bits.
                unsafe {
                    transpose(
                        to.as_mut_ptr().cast(),
                        NR,
                        lines.as_ptr().cast::<f32>().wrapping_add(q),
                        BLOCK,
                        8,
                        count,
                    );
                }
            }
        }
    }
    // The last panel's missing columns.
    let end = cols.next_multiple_of(8);
    if !end.is_multiple_of(NR) {
        for row in dst[end / NR * NR * pairs..][..NR * pairs].as_chunks_mut::<NR>().0 {
            row[end % NR..].fill(0);
        }
    }
}

/// The values of pairs.
pub(super) fn halves(pairs: &mut [u32]) -> &mut [u16] {
    // SAFETY: two u16 are as large as a u32, are aligned less strictly, and any bits are valid for either.
    unsafe { std::slice::from_raw_parts_mut(pairs.as_mut_ptr().cast(), 2 * pairs.len()) }
}
