//! Packing of operands into pairs, in the order in which the micro-kernel reads them.
//!
//! A pair is two values that are neighbours along k, the first in the low half. Where k is odd, the last pair's second
//! value is +0. Values in f32 (weights) are rounded on the way.

use super::super::gemm::pack::{group_len, transpose};
use super::super::gemm::prefetch::{Block, near as prefetch_near};
use super::super::simd::simd_fn;
use super::convert::{narrow, near};
use super::dot::{MR, NR};

/// Distance in pairs between the rows of a block packed row by row; not a multiple of 4096 bytes, so that rows do not
/// compete for the same sets of the first-level cache.
pub(super) const ROW_STRIDE: usize = super::dot::CHAIN + 16;
/// How many rows ahead memory is asked for: rows are far apart, and the hardware does not follow.
const AHEAD: usize = 8;

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

    /// `lines` of `len` values, `stride` apart, to be asked for.
    pub(super) fn block(self, stride: usize, lines: usize, len: usize) -> Block {
        match self {
            // Two of them are as long as a float.
            Self::Half(start) => Block::new(start.cast(), stride.div_ceil(2), lines, len.div_ceil(2)),
            Self::Single(start) => Block::new(start, stride, lines, len),
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

/// A value of a factor as it lies in memory.
trait Value: Copy + Default {
    /// Its bfloat16.
    fn half(self) -> u16;
}

impl Value for u16 {
    #[inline(always)]
    fn half(self) -> u16 {
        self
    }
}

impl Value for f32 {
    #[inline(always)]
    fn half(self) -> u16 {
        near(self)
    }
}

/// The pairs of two lines' values, of the second what `keep` has.
#[inline(always)]
fn pair<T: Value, const L: usize>(low: &[T; L], high: &[T; L], keep: u32) -> [u32; L] {
    let mut pairs = [0; L];
    for j in 0..L {
        pairs[j] = (u32::from(low[j].half()) | u32::from(high[j].half()) << 16) & keep;
    }
    pairs
}

/// Puts lines beside each other that are neighbours along k: of `k` lines of `len` values, `stride` apart, pair (j, p) goes
/// to `p * W + j` of group j / W, where groups are `apart` pairs from one another. The last group's missing pairs are zero.
///
/// `L` pairs are written at a time, a vector's; what that is more than `W` is written again with the next p, and after the
/// last there is room for it.
#[inline(always)]
fn weave<const W: usize, const L: usize, T: Value>(
    to: &mut [u32],
    values: &[T],
    stride: usize,
    len: usize,
    k: usize,
    apart: usize,
) {
    for p in 0..k.div_ceil(2) {
        // Without a second line the first one's values are beside zeros.
        let alone = 2 * p + 1 == k;
        let low = &values[2 * p * stride..][..len];
        let high = if alone { low } else { &values[(2 * p + 1) * stride..][..len] };
        let keep = if alone { 0xFFFF } else { u32::MAX };
        for line in [2 * p + AHEAD, 2 * p + 1 + AHEAD] {
            let start = values.as_ptr().wrapping_add(line.min(k - 1) * stride);
            prefetch_near(start.cast(), (len * size_of::<T>()).div_ceil(4));
        }
        let (mut at, mut j) = (p * W, 0);
        while let (Some(low), Some(high)) = (low[j..].first_chunk(), high[j..].first_chunk()) {
            to[at..at + L].copy_from_slice(&pair::<T, L>(low, high, keep));
            (at, j) = (at + apart, j + W);
        }
        while j < len {
            let count = W.min(len - j);
            let mut lines = [[T::default(); W]; 2];
            lines[0][..count].copy_from_slice(&low[j..j + count]);
            lines[1][..count].copy_from_slice(&high[j..j + count]);
            to[at..at + W].copy_from_slice(&pair(&lines[0], &lines[1], keep));
            (at, j) = (at + apart, j + W);
        }
    }
}

simd_fn! {
    wide fn columns_of_halves(to: &mut [u32], values: &[u16], stride: usize, len: usize, k: usize) {
        weave::<MR, 16, u16>(to, values, stride, len, k, group_len(k.div_ceil(2)));
    }
}

simd_fn! {
    wide fn columns_of_singles(to: &mut [u32], values: &[f32], stride: usize, len: usize, k: usize) {
        weave::<MR, 16, f32>(to, values, stride, len, k, group_len(k.div_ceil(2)));
    }
}

simd_fn! {
    wide fn panels_of_halves(to: &mut [u32], values: &[u16], stride: usize, len: usize, k: usize) {
        weave::<NR, NR, u16>(to, values, stride, len, k, NR * k.div_ceil(2));
    }
}

simd_fn! {
    wide fn panels_of_singles(to: &mut [u32], values: &[f32], stride: usize, len: usize, k: usize) {
        weave::<NR, NR, f32>(to, values, stride, len, k, NR * k.div_ceil(2));
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
    let Some(len) = k.checked_sub(1).map(|last| last * stride + rows) else { return };
    // SAFETY: the caller's promise; what is between lines is of the same matrix.
    unsafe {
        match a {
            From::Half(a) => columns_of_halves(dst, std::slice::from_raw_parts(a, len), stride, rows, k),
            From::Single(a) => columns_of_singles(dst, std::slice::from_raw_parts(a, len), stride, rows, k),
        }
    }
}

/// Packs B, contiguous over columns, into panels of 32 columns, each `k / 2` rounded up x 32; missing columns are zero.
///
/// # Safety
/// `k` lines of `cols` values, `stride` apart, are readable; `dst` has room for `cols` rounded up to 32, times `k / 2`
/// rounded up.
pub(super) unsafe fn panels(dst: &mut [u32], b: From, stride: usize, cols: usize, k: usize) {
    /// Columns at a time: of more, whole blocks of k would have as many lines for one set of the first-level cache.
    const STRIP: usize = 6 * NR;
    let Some(last) = k.checked_sub(1).map(|last| last * stride) else { return };
    for j in (0..cols).step_by(STRIP) {
        let (dst, cols) = (&mut dst[j * k.div_ceil(2)..], STRIP.min(cols - j));
        // SAFETY: the caller's promise; what is between lines is of the same matrix.
        unsafe {
            match b.add(j) {
                From::Half(b) => {
                    panels_of_halves(dst, std::slice::from_raw_parts(b, last + cols), stride, cols, k);
                }
                From::Single(b) => {
                    panels_of_singles(dst, std::slice::from_raw_parts(b, last + cols), stride, cols, k);
                }
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
    let pairs = k.div_ceil(2);
    for j in (0..cols).step_by(8) {
        let present = (cols - j).min(8);
        let strip = &mut dst[j / NR * NR * pairs..][..NR * pairs][j % NR..];
        let mut turned = 0;
        let len = (present - 1) * stride + k;
        // SAFETY: the caller's promise; what is between lines is of the same matrix.
        unsafe {
            match b.add(j * stride) {
                From::Half(lines) => {
                    if present == 8 && stride.is_multiple_of(2) {
                        // As whole pairs they are turned from where they lie.
                        turned = k / 16 * 8;
                        for p in (0..turned).step_by(8) {
                            let to = &mut strip[p * NR..][..7 * NR + 8];
                            let from = lines.wrapping_add(2 * p).cast();
                            transpose(to.as_mut_ptr().cast(), NR, from, stride / 2, 8, 8);
                        }
                    }
                    turn_halves(strip, std::slice::from_raw_parts(lines, len), stride, present, k, turned);
                }
                From::Single(lines) => {
                    turn_singles(strip, std::slice::from_raw_parts(lines, len), stride, present, k, turned);
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

simd_fn! {
    wide fn turn_halves(strip: &mut [u32], lines: &[u16], stride: usize, count: usize, k: usize, first: usize) {
        turn(strip, lines, stride, count, k, first);
    }
}

simd_fn! {
    wide fn turn_singles(strip: &mut [u32], lines: &[f32], stride: usize, count: usize, k: usize, first: usize) {
        turn(strip, lines, stride, count, k, first);
    }
}

/// Turns `count` lines, up to eight, of `k` values, `stride` apart, into eight columns of a panel, from pair `first` on:
/// values that are not aligned as pairs are, or have to be rounded. Those of missing lines are zero.
#[inline(always)]
fn turn<T: Value>(strip: &mut [u32], lines: &[T], stride: usize, count: usize, k: usize, first: usize) {
    /// Pairs of a line that are turned at a time.
    const BLOCK: usize = 32;
    let mut block = [[0_u32; BLOCK]; 8];
    for p in (first..k.div_ceil(2)).step_by(BLOCK) {
        let len = (k - 2 * p).min(2 * BLOCK);
        for (i, line) in block.iter_mut().enumerate() {
            if i == count {
                break;
            }
            let line = halves(line);
            for (to, value) in line.iter_mut().zip(&lines[i * stride + 2 * p..][..len]) {
                *to = value.half();
            }
            line[len..len.next_multiple_of(2)].fill(0);
        }
        for q in (0..len.div_ceil(2)).step_by(8) {
            let pairs = 8.min(len.div_ceil(2) - q);
            let to = &mut strip[(p + q) * NR..][..(pairs - 1) * NR + 8];
            let from = block.as_ptr().cast::<f32>().wrapping_add(q);
            // SAFETY: eight lines of `pairs` pairs, and as many rows of eight in the panel. Transposing moves bits.
            unsafe { transpose(to.as_mut_ptr().cast(), NR, from, BLOCK, 8, pairs) };
        }
    }
}

/// The values of pairs.
pub(super) fn halves(pairs: &mut [u32]) -> &mut [u16] {
    // SAFETY: two u16 are as large as a u32, are aligned less strictly, and any bits are valid for either.
    unsafe { std::slice::from_raw_parts_mut(pairs.as_mut_ptr().cast(), 2 * pairs.len()) }
}
