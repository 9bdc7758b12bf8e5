//! The kernels that x86-64 has instructions for.

#[allow(clippy::wildcard_imports)]
use std::arch::x86_64::*;

use super::wide::{ODD, Wide};
use super::{CHAIN, HALF, NR, Store, Sums, Tile};

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
        let rs = t.row_distance::<RS>();
        // Four rows are in reach of one pointer: base, index, twice the index, and three times.
        let (mut a, mut b) = ([t.a, t.a.wrapping_add(4 * rs), t.a.wrapping_add(8 * rs)], t.b);
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
            a = a.map(|a| a.wrapping_add(t.ks));
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

/// Not inlined, as it computes by the control word.
#[inline(never)]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn avx512_rows<const RS: usize>(mr: usize, t: &Tile, sums: &mut Sums) {
    // SAFETY: the promises of `micro`.
    unsafe {
        if t.nr > HALF {
            by_rows!(mr, [1 2 3 4 5 6 7 8 9 10 11] 12, avx512[2, RS](t, sums));
        } else {
            by_rows!(mr, [1 2 3 4 5 6 7 8 9 10 11] 12, avx512[1, RS](t, sums));
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512<const M: usize, const W: usize, const RS: usize>(t: &Tile, out: &mut Sums) {
    let mut sums = [[_mm512_setzero_ps(); W]; M];
    let mut wide = Wide::new();
    // SAFETY: the promises of `micro`.
    unsafe {
        let odd = |x| _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(ODD.cast_signed())));
        let even = |x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x));
        for first in (0..t.pairs).step_by(CHAIN) {
            let pairs = CHAIN.min(t.pairs - first);
            let [mut a0, mut a1] = wide.fill::<RS>(M, t, first, pairs);
            let mut b = t.b.add(first * NR);
            for _ in 0..pairs {
                let columns: [__m512i; W] = std::array::from_fn(|w| _mm512_loadu_si512(b.add(16 * w).cast()));
                let (high, low) = (columns.map(odd), columns.map(even));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x1 = _mm512_set1_ps(*a1.add(i * Wide::row::<RS>()));
                    let x0 = _mm512_set1_ps(*a0.add(i * Wide::row::<RS>()));
                    for (sum, (low, high)) in sums.iter_mut().zip(low.into_iter().zip(high)) {
                        *sum = _mm512_fmadd_ps(x0, low, _mm512_fmadd_ps(x1, high, *sum));
                    }
                }
                a0 = a0.wrapping_add(Wide::step::<RS>());
                a1 = a1.wrapping_add(Wide::step::<RS>());
                b = b.wrapping_add(NR); // past the end after the last half panel
            }
        }
        for (row, out) in sums.into_iter().zip(out) {
            for (w, sum) in row.into_iter().enumerate() {
                _mm512_storeu_ps(out.as_mut_ptr().add(16 * w), sum);
            }
        }
    }
}

/// Not inlined, as it computes by the control word.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn avx2_rows<const RS: usize>(mr: usize, t: &Tile, sums: &mut Sums) {
    let mut wide = Wide::new();
    // SAFETY: the promises of `micro`; the parts are inside the tile.
    unsafe {
        for first in (0..t.pairs).step_by(CHAIN) {
            let pairs = CHAIN.min(t.pairs - first);
            let a = wide.fill::<RS>(mr, t, first, pairs);
            // Sixteen registers hold 4 x 16 sums and what they are made of.
            for row in (0..mr).step_by(4) {
                let a = a.map(|a| a.add(row * Wide::row::<RS>()));
                for col in (0..t.nr).step_by(HALF) {
                    let (b, out) = (t.b.add(first * NR + col), &mut sums[row..]);
                    by_rows!(4.min(mr - row), [1 2 3] 4, avx2[RS](a, b, pairs, out, col));
                }
            }
        }
    }
}

/// Goes on with the sums in `out`, from column `col` on.
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const M: usize, const RS: usize>(
    a: [*const f32; 2],
    mut b: *const u32,
    pairs: usize,
    out: &mut [[f32; NR]],
    col: usize,
) {
    let [mut a0, mut a1] = a;
    // SAFETY: the promises of `micro`.
    unsafe {
        let at = |out: &mut [[f32; NR]], i: usize, w: usize| out[i].as_mut_ptr().add(col + 8 * w);
        let mut sums: [[__m256; 2]; M] =
            std::array::from_fn(|i| std::array::from_fn(|w| _mm256_loadu_ps(at(out, i, w))));
        let odd = |x| _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(ODD.cast_signed())));
        let even = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x));
        for _ in 0..pairs {
            let columns: [__m256i; 2] = std::array::from_fn(|w| _mm256_loadu_si256(b.add(8 * w).cast()));
            let (high, low) = (columns.map(odd), columns.map(even));
            for (i, sums) in sums.iter_mut().enumerate() {
                let x1 = _mm256_set1_ps(*a1.add(i * Wide::row::<RS>()));
                let x0 = _mm256_set1_ps(*a0.add(i * Wide::row::<RS>()));
                for (sum, (low, high)) in sums.iter_mut().zip(low.into_iter().zip(high)) {
                    *sum = _mm256_fmadd_ps(x0, low, _mm256_fmadd_ps(x1, high, *sum));
                }
            }
            a0 = a0.wrapping_add(Wide::step::<RS>());
            a1 = a1.wrapping_add(Wide::step::<RS>());
            b = b.wrapping_add(NR); // past the end after the last half panel
        }
        for (i, row) in sums.into_iter().enumerate() {
            for (w, sum) in row.into_iter().enumerate() {
                _mm256_storeu_ps(at(out, i, w), sum);
            }
        }
    }
}
