//! Products of a few rows with a matrix as weights lie in memory, which is read once and never packed.
//!
//! A decoded token reads every weight for a single row: the time is that of reading them. Sixteen rows of weights at a time
//! are turned in registers to sixteen columns, which meet the rows of A as those of a packed panel would: every element is
//! the same chains of fused multiply-adds, block by block of [`KC`], as everywhere else.

use super::kernel::{KC, Store};

/// Weights (outputs, k), row-major, whose product with a few rows is wanted.
pub(super) struct Weights {
    /// The first of them.
    pub(super) start: *const f32,
    /// Outputs.
    pub(super) count: usize,
    /// Values of each, and their distance.
    pub(super) k: usize,
}

/// Rows of A, contiguous over k.
pub(super) struct Few {
    /// The first value.
    pub(super) start: *const f32,
    /// Distance between them.
    pub(super) stride: usize,
    /// At most [`super::MR`].
    pub(super) count: usize,
}

/// Whether this machine has a kernel for it.
pub(super) fn is_there() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::super::simd::level() == super::super::simd::Level::Avx512;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Stores the products of the rows with the weights to C, element (i, j) at `c[i * ldc + j]`.
///
/// # Safety
/// [`is_there`], all those elements are in bounds, `1 <= rows.count <= 12`, and nobody else touches those of C.
pub(super) unsafe fn products(rows: &Few, weights: &Weights, c: *mut f32, ldc: usize, store: Store) {
    #[cfg(test)]
    if super::super::simulated::counts(rows.count * weights.count * weights.k) {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promises.
    unsafe {
        x86::rows(rows, weights, c, ldc, store);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (rows, weights, c, ldc, store);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)]
    use std::arch::x86_64::*;

    use super::{Few, KC, Store, Weights};

    /// Outputs of a group, and values of k that are turned at a time.
    const SIDE: usize = 16;
    /// Of rows no longer than that the next group is asked for while one is read: it fits the first-level cache beside it.
    const SHORT: usize = 768;
    /// Of longer ones, what is so many values further on in the same row.
    const AHEAD: usize = 96;

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn rows(rows: &Few, weights: &Weights, c: *mut f32, ldc: usize, store: Store) {
        // SAFETY: the promises of `products`.
        unsafe {
            match rows.count {
                1 => groups::<1>(rows, weights, c, ldc, store),
                2 => groups::<2>(rows, weights, c, ldc, store),
                3 => groups::<3>(rows, weights, c, ldc, store),
                4 => groups::<4>(rows, weights, c, ldc, store),
                5 => groups::<5>(rows, weights, c, ldc, store),
                6 => groups::<6>(rows, weights, c, ldc, store),
                7 => groups::<7>(rows, weights, c, ldc, store),
                8 => groups::<8>(rows, weights, c, ldc, store),
                9 => groups::<9>(rows, weights, c, ldc, store),
                10 => groups::<10>(rows, weights, c, ldc, store),
                11 => groups::<11>(rows, weights, c, ldc, store),
                _ => groups::<12>(rows, weights, c, ldc, store),
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn groups<const M: usize>(rows: &Few, weights: &Weights, c: *mut f32, ldc: usize, store: Store) {
        let k = weights.k;
        for j in (0..weights.count).step_by(SIDE) {
            let outputs = SIDE.min(weights.count - j);
            let mut store = store;
            for p in (0..k).step_by(KC) {
                // SAFETY: the promises of `products`: the block is inside A, the weights and C.
                unsafe {
                    let (a, w) = (rows.start.add(p), weights.start.add(j * k + p));
                    block::<M>(a, rows.stride, w, k, KC.min(k - p), outputs, c.add(j), ldc, store);
                }
                store = Store::Add;
            }
        }
    }

    /// One block of k of a group of outputs.
    #[target_feature(enable = "avx512f")]
    unsafe fn block<const M: usize>(
        a: *const f32,
        a_stride: usize,
        w: *const f32,
        stride: usize,
        len: usize,
        outputs: usize,
        c: *mut f32,
        ldc: usize,
        store: Store,
    ) {
        let ahead = if stride <= SHORT { SIDE * stride } else { AHEAD };
        let mut sums = [_mm512_setzero_ps(); M];
        let whole = len - len % SIDE;
        // SAFETY: the promises of `products`; the masks keep loads and stores inside.
        unsafe {
            for p in (0..whole).step_by(SIDE) {
                let mut turned = [_mm512_setzero_ps(); SIDE];
                for (i, row) in turned.iter_mut().enumerate().take(outputs) {
                    let at = w.add(i * stride + p);
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead).cast());
                    *row = _mm512_loadu_ps(at);
                }
                turn(&mut turned);
                for (q, column) in turned.iter().enumerate() {
                    for (m, sum) in sums.iter_mut().enumerate() {
                        let x = _mm512_set1_ps(*a.add(m * a_stride + p + q));
                        *sum = _mm512_fmadd_ps(x, *column, *sum);
                    }
                }
            }
            if whole < len {
                let mask = ((1_u32 << (len - whole)) - 1) as u16;
                let mut turned = [_mm512_setzero_ps(); SIDE];
                for (i, row) in turned.iter_mut().enumerate().take(outputs) {
                    *row = _mm512_maskz_loadu_ps(mask, w.wrapping_add(i * stride + whole));
                }
                turn(&mut turned);
                // No more than there are: a product with zero would turn a sum of -0 to 0.
                for (q, column) in turned.iter().enumerate().take(len - whole) {
                    for (m, sum) in sums.iter_mut().enumerate() {
                        let x = _mm512_set1_ps(*a.add(m * a_stride + whole + q));
                        *sum = _mm512_fmadd_ps(x, *column, *sum);
                    }
                }
            }
            let mask = if outputs == SIDE { u16::MAX } else { (1 << outputs) - 1 };
            for (m, mut sum) in sums.into_iter().enumerate() {
                let c = c.wrapping_add(m * ldc);
                if store == Store::Add {
                    sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sum);
                }
                _mm512_mask_storeu_ps(c, mask, sum);
            }
        }
    }

    /// Rows become columns.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn turn(x: &mut [__m512; SIDE]) {
        let mut pairs = [_mm512_setzero_ps(); SIDE];
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
        }
        let low = |a, b| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
        let high = |a, b| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
        // Lane l of quads[4 * i + q] is column 4 * l + q of rows 4 * i to 4 * i + 3.
        let mut quads = [_mm512_setzero_ps(); SIDE];
        for i in 0..4 {
            quads[4 * i] = low(pairs[4 * i], pairs[4 * i + 2]);
            quads[4 * i + 1] = high(pairs[4 * i], pairs[4 * i + 2]);
            quads[4 * i + 2] = low(pairs[4 * i + 1], pairs[4 * i + 3]);
            quads[4 * i + 3] = high(pairs[4 * i + 1], pairs[4 * i + 3]);
        }
        for q in 0..4 {
            let even_low = _mm512_shuffle_f32x4::<0x88>(quads[q], quads[4 + q]);
            let even_high = _mm512_shuffle_f32x4::<0x88>(quads[8 + q], quads[12 + q]);
            let odd_low = _mm512_shuffle_f32x4::<0xdd>(quads[q], quads[4 + q]);
            let odd_high = _mm512_shuffle_f32x4::<0xdd>(quads[8 + q], quads[12 + q]);
            x[q] = _mm512_shuffle_f32x4::<0x88>(even_low, even_high);
            x[4 + q] = _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high);
            x[8 + q] = _mm512_shuffle_f32x4::<0xdd>(even_low, even_high);
            x[12 + q] = _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high);
        }
    }
}
