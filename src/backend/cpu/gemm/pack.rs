//! Packing of operands into the order in which the micro-kernel reads them, and the transposes that takes.

use super::kernel::{MR, NR, ROW_STRIDE};
use super::prefetch;

/// How many rows ahead memory is asked for: rows are far apart, and the hardware does not follow.
const AHEAD: usize = 8;

/// Where `count` lines of `len` values begin, `stride` apart, asserted to be inside `data`: what kernels that read by
/// pointers are given.
#[inline]
pub(crate) fn lines(data: &[f32], stride: usize, count: usize, len: usize) -> *const f32 {
    let end = count.checked_sub(1).map_or(0, |last| last * stride + len);
    assert!(end <= data.len(), "a kernel would read out of bounds");
    data.as_ptr()
}

/// Packs rows of A that are contiguous over k: row i at `i * ROW_STRIDE`.
///
/// # Safety
/// `a[i * stride + p]` is readable for i below `rows` and p below `k`, and `dst` has room for `rows * ROW_STRIDE`.
pub(crate) unsafe fn rows(dst: &mut [f32], a: *const f32, stride: usize, rows: usize, k: usize) {
    for i in 0..rows {
        // SAFETY: the caller's promise.
        let source = unsafe { std::slice::from_raw_parts(a.add(i * stride), k) };
        dst[i * ROW_STRIDE..][..k].copy_from_slice(source);
    }
}

/// Floats from one group of 12 rows to the next as [`columns`] packs them: a cache line more than they are. One row of
/// values is written to all groups, and with 256 values a row they would all begin at one set of the first-level cache.
pub(crate) const fn group_len(k: usize) -> usize {
    MR * k + 16
}

/// Packs a block of A that is contiguous over rows: element (i, p) at `a[p * stride + i]`. Groups of 12 rows become
/// panels [`group_len`] apart, element (i, p) of each at `p * 12 + i`.
///
/// # Safety
/// `a[p * stride + i]` is readable for i below `rows` and p below `k`; `dst` has room for as many groups as `rows` fill or
/// begin.
pub(crate) unsafe fn columns(dst: &mut [f32], a: *const f32, stride: usize, rows: usize, k: usize) {
    let full = rows / MR;
    for p in 0..k {
        prefetch::near(a.wrapping_add((p + AHEAD) * stride), rows);
        // SAFETY: the caller's promise.
        let source = unsafe { std::slice::from_raw_parts(a.add(p * stride), rows) };
        let (groups, rest) = source.as_chunks::<MR>();
        for (g, group) in groups.iter().enumerate() {
            dst[g * group_len(k) + p * MR..][..MR].copy_from_slice(group);
        }
        if !rest.is_empty() {
            dst[full * group_len(k) + p * MR..][..rest.len()].copy_from_slice(rest);
        }
    }
}

/// Packs B, contiguous over columns (element (p, j) at `b[p * stride + j]`), into panels of 32 columns, each `k` x 32;
/// missing columns are zero.
///
/// # Safety
/// `b[p * stride + j]` is readable for p below `k` and j below `cols`; `dst` has room for `cols` rounded up to 32,
/// times `k`.
pub(crate) unsafe fn panels(dst: &mut [f32], b: *const f32, stride: usize, cols: usize, k: usize) {
    for p in 0..k {
        prefetch::near(b.wrapping_add((p + AHEAD) * stride), cols);
        // SAFETY: the caller's promise.
        let source = unsafe { std::slice::from_raw_parts(b.add(p * stride), cols) };
        let (full, rest) = source.as_chunks::<NR>();
        for (g, group) in full.iter().enumerate() {
            dst[(g * k + p) * NR..][..NR].copy_from_slice(group);
        }
        if !rest.is_empty() {
            let last = &mut dst[(full.len() * k + p) * NR..][..NR];
            last[..rest.len()].copy_from_slice(rest);
            last[rest.len()..].fill(0.0);
        }
    }
}

/// Packs B, contiguous over k (element (p, j) at `b[j * stride + p]`), as [`panels`] does.
///
/// # Safety
/// `b[j * stride + p]` is readable for p below `k` and j below `cols`; `dst` has room for `cols` rounded up to 32,
/// times `k`.
pub(crate) unsafe fn panels_transposed(dst: &mut [f32], b: *const f32, stride: usize, cols: usize, k: usize) {
    let mut j = 0;
    while j < cols {
        let panel = &mut dst[j * k..][..NR * k];
        // SAFETY: the caller's promise.
        unsafe { transpose_panel(panel, b.add(j * stride), stride, (cols - j).min(NR), k) };
        j += NR;
    }
}

unsafe fn transpose_panel(panel: &mut [f32], b: *const f32, stride: usize, cols: usize, k: usize) {
    let whole = k - k % 8;
    for j in (0..NR).step_by(8) {
        let present = cols.saturating_sub(j).min(8);
        if present == 8 {
            // SAFETY: columns j .. j + 8 are present, rows in bounds.
            unsafe { transpose_strip(panel, j, b.add(j * stride), stride, whole) };
        }
        let first = if present == 8 { whole } else { 0 };
        for p in first..k {
            for i in 0..8 {
                // SAFETY: column j + i is present.
                panel[p * NR + j + i] =
                    if i < present { unsafe { *b.add((j + i) * stride + p) } } else { 0.0 };
            }
        }
    }
}

/// `dst[c * dst_stride + r] = src[r * src_stride + c]` for r below `rows` and c below `cols`; fast where both are 8. Neither
/// need be aligned: pairs of bfloat16 are turned as floats.
///
/// # Safety
/// Those elements are in bounds, those of `dst` are nobody else's, and no element is both.
pub(crate) unsafe fn transpose(
    dst: *mut f32,
    dst_stride: usize,
    src: *const f32,
    src_stride: usize,
    rows: usize,
    cols: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if rows == 8 && cols == 8 && super::super::simd::level() >= super::super::simd::Level::Avx2 {
        // SAFETY: the caller's promise; `level` found AVX2.
        return unsafe { x86::transpose_8x8(dst, dst_stride, src, src_stride) };
    }
    for r in 0..rows {
        for c in 0..cols {
            // SAFETY: the caller's promise.
            unsafe {
                dst.add(c * dst_stride + r).write_unaligned(src.add(r * src_stride + c).read_unaligned());
            }
        }
    }
}

/// Eight columns, `k` a multiple of 8.
unsafe fn transpose_strip(panel: &mut [f32], j: usize, b: *const f32, stride: usize, k: usize) {
    #[cfg(target_arch = "x86_64")]
    if super::super::simd::level() >= super::super::simd::Level::Avx2 {
        assert!(k == 0 || (k - 1) * NR + j + 8 <= panel.len());
        for p in (0..k).step_by(8) {
            // SAFETY: `level` found AVX2; eight rows of eight from `b`, and the assertion covers the panel.
            unsafe { x86::transpose_8x8(panel.as_mut_ptr().add(p * NR + j), NR, b.add(p), stride) };
        }
        return;
    }
    for p in 0..k {
        for i in 0..8 {
            // SAFETY: the caller's promise.
            panel[p * NR + j + i] = unsafe { *b.add(i * stride + p) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)]
    use std::arch::x86_64::*;

    /// `dst[r * dst_stride + c] = src[c * src_stride + r]` for r, c below 8.
    ///
    /// # Safety
    /// Those elements are in bounds and the machine has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn transpose_8x8(dst: *mut f32, dst_stride: usize, src: *const f32, src_stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let r: [__m256; 8] = std::array::from_fn(|i| _mm256_loadu_ps(src.add(i * src_stride)));
            let pairs = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (t0, t1) = pairs(r[0], r[1]);
            let (t2, t3) = pairs(r[2], r[3]);
            let (t4, t5) = pairs(r[4], r[5]);
            let (t6, t7) = pairs(r[6], r[7]);
            let quads = |a, b| (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xEE>(a, b));
            let (q0, q1) = quads(t0, t2);
            let (q2, q3) = quads(t1, t3);
            let (q4, q5) = quads(t4, t6);
            let (q6, q7) = quads(t5, t7);
            let halves = |a, b| (_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
            for (i, (a, b)) in [(q0, q4), (q1, q5), (q2, q6), (q3, q7)].into_iter().enumerate() {
                let (low, high) = halves(a, b);
                _mm256_storeu_ps(dst.add(i * dst_stride), low);
                _mm256_storeu_ps(dst.add((i + 4) * dst_stride), high);
            }
        }
    }
}
