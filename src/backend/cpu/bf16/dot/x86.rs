//! The kernels that x86-64 has instructions for.

#[allow(clippy::wildcard_imports)]
use std::arch::x86_64::*;

use std::mem::MaybeUninit;

use super::wide::{ODD, Wide};
use super::{CHAIN, HALF, Left, MR, NR, Store, Sums, Tile, write};
use crate::control_word::flushing;

/// Calls the kernel made for `mr` rows; `$rest` has its other parameters.
macro_rules! by_rows {
    ($mr:expr, [$($m:literal)*] $most:literal, $kernel:ident $rest:tt $arguments:tt) => {
        match $mr {
            $($m => by_rows!(@ $kernel, $m, $rest $arguments),)*
            _ => by_rows!(@ $kernel, $most, $rest $arguments),
        }
    };
    (@ $kernel:ident, $m:literal, [$($rest:tt)*] $arguments:tt) => { $kernel::<$m, $($rest)*> $arguments };
}

#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn instruction_rows<const RS: usize>(mr: usize, t: &Tile) {
    // SAFETY: the promises of `micro`.
    unsafe {
        if t.nr > HALF {
            by_rows!(mr, [1 2 3 4 5 6 7 8 9 10 11] 12, instruction[2, RS](t));
        } else {
            by_rows!(mr, [1 2 3 4 5 6 7 8 9 10 11] 12, instruction[1, RS](t));
        }
    }
}

/// `W` vectors of 16 columns.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn instruction<const M: usize, const W: usize, const RS: usize>(t: &Tile) {
    let mut sums = [[_mm512_setzero_ps(); W]; M];
    // SAFETY: the promises of `micro`; the masks keep stores inside `nr` columns.
    unsafe {
        let (rs, a) = (t.left.row_distance::<RS>(), t.left.a);
        // Four rows are in reach of one pointer: base, index, twice the index, and three times.
        let (mut a, mut b) = ([a, a.wrapping_add(4 * rs), a.wrapping_add(8 * rs)], t.b);
        for _ in 0..t.pairs {
            let columns: [__m512bh; W] =
                std::array::from_fn(|w| std::mem::transmute(_mm512_loadu_si512(b.add(16 * w).cast())));
            for i in 0..M {
                let x = _mm512_set1_epi32(a[i / 4].add(i % 4 * rs).read_unaligned().cast_signed());
                for w in 0..W {
                    sums[i][w] =
                        _mm512_dpbf16_ps(sums[i][w], std::mem::transmute::<__m512i, __m512bh>(x), columns[w]);
                }
            }
            a = a.map(|a| a.wrapping_add(t.left.ks));
            b = b.wrapping_add(NR); // past the end after the last half panel
        }
        let mask = if t.nr == NR { u32::MAX } else { (1 << t.nr) - 1 };
        for (i, row) in sums.into_iter().enumerate() {
            for (w, mut sum) in row.into_iter().enumerate() {
                let (c, mask) = (t.c.wrapping_add(i * t.ldc + 16 * w), (mask >> (16 * w)) as u16);
                if t.store == Store::Add {
                    sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sum);
                }
                _mm512_mask_storeu_ps(c, mask, sum);
            }
        }
    }
}

/// Widens a left side.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn widen_avx512<const RS: usize>(room: &mut Wide, mr: usize, left: &Left, pairs: usize) {
    // SAFETY: the promises of `Left::shared`.
    unsafe { room.fill::<RS>(mr, left, 0, pairs) };
}

/// Widens a left side.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn widen_avx2<const RS: usize>(room: &mut Wide, mr: usize, left: &Left, pairs: usize) {
    // SAFETY: the promises of `Left::shared`.
    unsafe { room.fill::<RS>(mr, left, 0, pairs) };
}

/// Where finished sums go: element (i, j) at `to[i * ld + j]`.
#[derive(Clone, Copy)]
struct Out {
    to: *mut f32,
    ld: usize,
}

/// Kernels rely on the control word, which the additions to C must not see: where sums are added they are kept apart until
/// the word is as it was.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn avx512_rows<const RS: usize>(mr: usize, t: &Tile) {
    // SAFETY: the promises of `micro`; of `sums`, what is read was written.
    unsafe {
        if t.store == Store::Set {
            return flushing(|| avx512_chains::<RS>(mr, t, Out { to: t.c, ld: t.ldc }));
        }
        let mut sums = MaybeUninit::<Sums>::uninit();
        let sums = sums.as_mut_ptr().cast::<f32>();
        flushing(|| avx512_chains::<RS>(mr, t, Out { to: sums, ld: NR }));
        let mask = if t.nr == NR { u32::MAX } else { (1 << t.nr) - 1 };
        for i in 0..mr {
            for w in 0..t.nr.div_ceil(16) {
                let (c, mask) = (t.c.wrapping_add(i * t.ldc + 16 * w), (mask >> (16 * w)) as u16);
                let sum = _mm512_maskz_loadu_ps(mask, sums.add(i * NR + 16 * w));
                _mm512_mask_storeu_ps(c, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sum));
            }
        }
    }
}

/// Not inlined, as it computes by the control word.
#[inline(never)]
#[target_feature(enable = "avx512f")]
unsafe fn avx512_chains<const RS: usize>(mr: usize, t: &Tile, out: Out) {
    // SAFETY: the promises of `micro`, and room for `nr` columns of `mr` rows in `out`.
    unsafe {
        if t.nr > HALF {
            by_rows!(mr, [1 2 3 4 5 6 7 8 9 10 11] 12, avx512[2, RS](t, out));
        } else {
            by_rows!(mr, [1 2 3 4 5 6 7 8 9 10 11] 12, avx512[1, RS](t, out));
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512<const M: usize, const W: usize, const RS: usize>(t: &Tile, out: Out) {
    let mut sums = [[_mm512_setzero_ps(); W]; M];
    let mut wide = Wide::new();
    let (row, step, to_odd) = Wide::distances::<RS>();
    // SAFETY: the promises of `micro`; the masks keep stores inside `nr` columns.
    unsafe {
        let odd = |x| _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(ODD.cast_signed())));
        let even = |x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x));
        for first in (0..t.pairs).step_by(CHAIN) {
            let pairs = CHAIN.min(t.pairs - first);
            let mut a = if let Some(start) = t.left.wide {
                start
            } else {
                wide.fill::<RS>(M, &t.left, first, pairs);
                wide.start()
            };
            let mut b = t.b.add(first * NR);
            for _ in 0..pairs {
                let columns: [__m512i; W] = std::array::from_fn(|w| _mm512_loadu_si512(b.add(16 * w).cast()));
                let (high, low) = (columns.map(odd), columns.map(even));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x1 = _mm512_set1_ps(*a.add(i * row + to_odd));
                    let x0 = _mm512_set1_ps(*a.add(i * row));
                    for (sum, (low, high)) in sums.iter_mut().zip(low.into_iter().zip(high)) {
                        *sum = _mm512_fmadd_ps(x0, low, _mm512_fmadd_ps(x1, high, *sum));
                    }
                }
                a = a.wrapping_add(step);
                b = b.wrapping_add(NR); // past the end after the last half panel
            }
        }
        let mask = if t.nr == NR { u32::MAX } else { (1 << t.nr) - 1 };
        for (i, row) in sums.into_iter().enumerate() {
            for (w, sum) in row.into_iter().enumerate() {
                let to = out.to.wrapping_add(i * out.ld + 16 * w);
                if t.nr == 16 * W {
                    _mm512_storeu_ps(to, sum);
                } else {
                    _mm512_mask_storeu_ps(to, (mask >> (16 * w)) as u16, sum);
                }
            }
        }
    }
}

/// As [`avx512_rows`]; where columns are no whole halves, or nothing is to be summed, sums are kept apart too.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn avx2_rows<const RS: usize>(mr: usize, t: &Tile) {
    // SAFETY: the promises of `micro`; of `sums`, all is there.
    unsafe {
        if t.store == Store::Set && t.nr.is_multiple_of(HALF) && t.pairs > 0 {
            return flushing(|| avx2_chains::<RS>(mr, t, Out { to: t.c, ld: t.ldc }));
        }
        let mut sums: Sums = [[0.0; NR]; MR];
        let out = Out { to: sums.as_mut_ptr().cast(), ld: NR };
        flushing(|| avx2_chains::<RS>(mr, t, out));
        write(mr, t, &sums);
    }
}

/// Not inlined, as it computes by the control word.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_chains<const RS: usize>(mr: usize, t: &Tile, out: Out) {
    let mut wide = Wide::new();
    // SAFETY: the promises of `micro`, and room for whole halves of `mr` rows in `out`; the parts are inside the tile.
    unsafe {
        for first in (0..t.pairs).step_by(CHAIN) {
            let pairs = CHAIN.min(t.pairs - first);
            let a = if let Some(start) = t.left.wide {
                start
            } else {
                wide.fill::<RS>(mr, &t.left, first, pairs);
                wide.start()
            };
            // Sixteen registers hold 4 x 16 sums and what they are made of.
            for row in (0..mr).step_by(4) {
                let a = a.add(row * Wide::distances::<RS>().0);
                for col in (0..t.nr).step_by(HALF) {
                    let b = t.b.add(first * NR + col);
                    let out = Out { to: out.to.add(row * out.ld + col), ..out };
                    by_rows!(4.min(mr - row), [1 2 3] 4, avx2[RS](a, b, pairs, out, first > 0));
                }
            }
        }
    }
}

/// Chains of half a panel, which go on with what is in `out`, or begin.
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const M: usize, const RS: usize>(
    mut a: *const f32,
    mut b: *const u32,
    pairs: usize,
    out: Out,
    goes_on: bool,
) {
    let (row, step, to_odd) = Wide::distances::<RS>();
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    // SAFETY: the promises of `micro`.
    unsafe {
        let at = |i: usize, w: usize| out.to.add(i * out.ld + 8 * w);
        if goes_on {
            sums = std::array::from_fn(|i| std::array::from_fn(|w| _mm256_loadu_ps(at(i, w))));
        }
        let odd = |x| _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(ODD.cast_signed())));
        let even = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x));
        for _ in 0..pairs {
            let columns: [__m256i; 2] = std::array::from_fn(|w| _mm256_loadu_si256(b.add(8 * w).cast()));
            let (high, low) = (columns.map(odd), columns.map(even));
            for (i, sums) in sums.iter_mut().enumerate() {
                let x1 = _mm256_set1_ps(*a.add(i * row + to_odd));
                let x0 = _mm256_set1_ps(*a.add(i * row));
                for (sum, (low, high)) in sums.iter_mut().zip(low.into_iter().zip(high)) {
                    *sum = _mm256_fmadd_ps(x0, low, _mm256_fmadd_ps(x1, high, *sum));
                }
            }
            a = a.wrapping_add(step);
            b = b.wrapping_add(NR); // past the end after the last half panel
        }
        for (i, row) in sums.into_iter().enumerate() {
            for (w, sum) in row.into_iter().enumerate() {
                _mm256_storeu_ps(at(i, w), sum);
            }
        }
    }
}
