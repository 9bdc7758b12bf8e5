//! The micro-kernel: a tile of at most 12 x 32 products, accumulated in registers.
//!
//! Every element of the tile is one chain of fused multiply-adds over k, from zero, in ascending order, whatever the
//! instruction set, tile shape or operand layout. That is what makes results equal everywhere.

use super::super::simd::{Level, level};

/// Rows of a tile.
pub(crate) const MR: usize = 12;
/// Columns of a tile, and width of a panel of packed B.
pub(crate) const NR: usize = 32;
/// Columns of half a panel: a tile of no more costs half as much.
pub(crate) const HALF: usize = NR / 2;
/// Longest k of a call: a numerics constant, products over more are added up block by block.
pub(crate) const KC: usize = 256;
/// Distance between the rows of a block of A packed row by row. Not a multiple of 4096 bytes, so that rows do not
/// compete for the same sets of the first-level cache.
pub(crate) const ROW_STRIDE: usize = KC + 16;

/// What becomes of a finished tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// `c = tile`
    Set,
    /// `c = c + tile`
    Add,
}

/// Where a micro-kernel's rows of A are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    /// Element (0, 0).
    pub(crate) a: *const f32,
    /// The distance that the kernel knows as [`ANY`].
    pub(crate) stride: usize,
}

impl Rows {
    /// Rows of a kernel that knows both distances.
    pub(crate) fn at(a: *const f32) -> Self {
        Self { a, stride: 0 }
    }
}

/// As a kernel's `RS` or `KS`: that distance is [`Rows::stride`], no constant.
pub(crate) const ANY: usize = 0;

/// Where a micro-kernel's columns of B are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    /// Element (0, 0).
    pub(crate) b: *const f32,
    /// Distance between rows.
    pub(crate) stride: usize,
}

impl Panel {
    /// A packed one: its rows follow each other.
    pub(crate) fn packed(b: *const f32) -> Self {
        Self { b, stride: NR }
    }
}

/// `mr` x `nr` products of A (element (i, p) at `a[i * RS + p * KS]`) and a panel of B (element (p, j) at
/// `b[p * stride + j]`, readable for all j below 16, or 32 where `nr` exceeds 16), stored to C (element (i, j) at
/// `c[i * ldc + j]`).
///
/// # Safety
/// All those elements are in bounds, `1 <= mr <= 12`, `1 <= nr <= 32`, and nobody else touches those of C.
#[inline]
pub(crate) unsafe fn micro<const RS: usize, const KS: usize>(
    mr: usize,
    nr: usize,
    k: usize,
    a: Rows,
    panel: Panel,
    c: *mut f32,
    ldc: usize,
    store: Store,
) {
    #[cfg(test)]
    if super::super::simulated::counts(mr * nr * k) {
        return;
    }
    let tile = Tile { nr, k, a: a.a, stride: a.stride, panel, c, ldc, store };
    // SAFETY: the caller's promises; `level` found the instructions.
    unsafe {
        match level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::avx512_rows::<RS, KS>(mr, &tile),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::avx2_rows::<RS, KS>(mr, &tile),
            _ => portable::<RS, KS>(mr, &tile),
        }
    }
}

/// The arguments of [`micro`].
struct Tile {
    nr: usize,
    k: usize,
    a: *const f32,
    stride: usize,
    panel: Panel,
    c: *mut f32,
    ldc: usize,
    store: Store,
}

impl Tile {
    /// A distance between elements of A: a constant where the kernel knows it.
    #[inline(always)]
    fn distance<const D: usize>(&self) -> usize {
        if D == ANY { self.stride } else { D }
    }
}

/// The definition, without special instructions.
unsafe fn portable<const RS: usize, const KS: usize>(mr: usize, t: &Tile) {
    // SAFETY: the promises of `micro`.
    unsafe {
        if t.nr > HALF {
            portable_columns::<NR, RS, KS>(mr, t);
        } else {
            portable_columns::<HALF, RS, KS>(mr, t);
        }
    }
}

/// `W` columns, a number that the compiler knows.
unsafe fn portable_columns<const W: usize, const RS: usize, const KS: usize>(mr: usize, t: &Tile) {
    let mut acc = [[0.0_f32; W]; MR];
    // SAFETY: the promises of `micro`.
    unsafe {
        for p in 0..t.k {
            let b = &*t.panel.b.add(p * t.panel.stride).cast::<[f32; W]>();
            for (i, row) in acc.iter_mut().enumerate().take(mr) {
                let a = *t.a.add(i * t.distance::<RS>() + p * t.distance::<KS>());
                for (sum, b) in row.iter_mut().zip(b) {
                    *sum = a.mul_add(*b, *sum);
                }
            }
        }
        for (i, row) in acc.iter().enumerate().take(mr) {
            write_row(row, t.c.add(i * t.ldc), t.nr, t.store);
        }
    }
}

#[inline(always)]
unsafe fn write_row(row: &[f32], c: *mut f32, nr: usize, store: Store) {
    // SAFETY: the promises of `micro`.
    let c = unsafe { std::slice::from_raw_parts_mut(c, nr) };
    match store {
        Store::Set => c.copy_from_slice(&row[..nr]),
        Store::Add => c.iter_mut().zip(row).for_each(|(c, x)| *c += x),
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)]
    use std::arch::x86_64::*;

    use super::{ANY, HALF, Panel, Store, Tile, write_row};

    /// A distance of which the compiler knows nothing more. Where it sees that all rows begin at multiples of one unknown
    /// distance from one pointer, it finds each by adding to the one before, within the loop: additions that take the
    /// turns of multiply-adds, a tenth of the speed.
    macro_rules! unknown {
        ($distance:expr) => {{
            let mut distance = $distance;
            std::arch::asm!("/* {0} */", inlateout(reg) distance, options(pure, nomem, nostack, preserves_flags));
            distance
        }};
    }

    /// Calls the kernel made for `mr` rows; `$rest` has its other parameters.
    macro_rules! by_rows {
        ($mr:expr, [$($m:literal)*] $most:literal, $kernel:ident $rest:tt, $tile:expr) => {
            match $mr {
                $($m => by_rows!(@ $kernel, $m, $rest, $tile),)*
                _ => by_rows!(@ $kernel, $most, $rest, $tile),
            }
        };
        (@ $kernel:ident, $m:literal, [$($rest:tt)*], $tile:expr) => { $kernel::<$m, $($rest)*>($tile) };
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512_rows<const RS: usize, const KS: usize>(mr: usize, t: &Tile) {
        // SAFETY: the promises of `micro`.
        unsafe {
            if t.nr > HALF {
                by_rows!(mr, [1 2 3 4 5 6 7 8 9 10 11] 12, avx512[2, RS, KS], t);
            } else {
                by_rows!(mr, [1 2 3 4 5 6 7 8 9 10 11] 12, avx512[1, RS, KS], t);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2_rows<const RS: usize, const KS: usize>(mr: usize, t: &Tile) {
        // Sixteen registers hold 6 x 16 products: the tile is done in quarters.
        let mut done = 0;
        while done < mr {
            let rows = (mr - done).min(6);
            let mut col = 0;
            while col < t.nr {
                // SAFETY: the promises of `micro`; the quarter is inside the tile.
                unsafe {
                    let quarter = Tile {
                        nr: (t.nr - col).min(16),
                        a: t.a.add(done * t.distance::<RS>()),
                        panel: Panel { b: t.panel.b.add(col), ..t.panel },
                        c: t.c.add(done * t.ldc + col),
                        ..*t
                    };
                    by_rows!(rows, [1 2 3 4 5] 6, avx2[RS, KS], &quarter);
                }
                col += 16;
            }
            done += rows;
        }
    }

    /// `W` vectors of 16 columns.
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512<const M: usize, const W: usize, const RS: usize, const KS: usize>(t: &Tile) {
        let mut sums = [[_mm512_setzero_ps(); W]; M];
        // SAFETY: the promises of `micro`; the masks keep stores inside `nr` columns.
        unsafe {
            let (rs, ks) = (t.distance::<RS>(), t.distance::<KS>());
            // Four rows are in reach of one pointer: base, index, twice the index, and three times.
            let [third, fourth, eighth] =
                [3, 4, 8].map(|rows| if RS == ANY { unknown!(rows * rs) } else { rows * rs });
            let (mut a, mut b) = ([t.a, t.a.wrapping_add(fourth), t.a.wrapping_add(eighth)], t.panel.b);
            let offsets = [0, rs, 2 * rs, third];
            for _ in 0..t.k {
                let columns: [__m512; W] = std::array::from_fn(|w| _mm512_loadu_ps(b.add(16 * w)));
                for i in 0..M {
                    let x = _mm512_set1_ps(*a[i / 4].add(offsets[i % 4]));
                    for w in 0..W {
                        sums[i][w] = _mm512_fmadd_ps(x, columns[w], sums[i][w]);
                    }
                }
                a = a.map(|a| a.wrapping_add(ks));
                b = b.wrapping_add(t.panel.stride); // past the end after the last half panel
            }
            if t.nr == 16 * W {
                for (i, row) in sums.into_iter().enumerate() {
                    for (w, mut sum) in row.into_iter().enumerate() {
                        let c = t.c.add(i * t.ldc + 16 * w);
                        if t.store == Store::Add {
                            sum = _mm512_add_ps(_mm512_loadu_ps(c), sum);
                        }
                        _mm512_storeu_ps(c, sum);
                    }
                }
            } else {
                let mask = (1_u32 << t.nr) - 1;
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
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const M: usize, const RS: usize, const KS: usize>(t: &Tile) {
        let mut lo = [_mm256_setzero_ps(); M];
        let mut hi = [_mm256_setzero_ps(); M];
        // SAFETY: the promises of `micro`.
        unsafe {
            let (rs, ks) = (t.distance::<RS>(), t.distance::<KS>());
            let third = if RS == ANY { unknown!(3 * rs) } else { 3 * rs };
            let (mut a, mut b) = ([t.a, t.a.wrapping_add(third)], t.panel.b);
            for _ in 0..t.k {
                let b0 = _mm256_loadu_ps(b);
                let b1 = _mm256_loadu_ps(b.add(8));
                for i in 0..M {
                    let x = _mm256_broadcast_ss(&*a[i / 3].add(i % 3 * rs));
                    lo[i] = _mm256_fmadd_ps(x, b0, lo[i]);
                    hi[i] = _mm256_fmadd_ps(x, b1, hi[i]);
                }
                a = a.map(|a| a.wrapping_add(ks));
                b = b.wrapping_add(t.panel.stride); // past the end after the last half panel
            }
            for i in 0..M {
                let c = t.c.add(i * t.ldc);
                if t.nr == 16 {
                    if t.store == Store::Add {
                        lo[i] = _mm256_add_ps(_mm256_loadu_ps(c), lo[i]);
                        hi[i] = _mm256_add_ps(_mm256_loadu_ps(c.add(8)), hi[i]);
                    }
                    _mm256_storeu_ps(c, lo[i]);
                    _mm256_storeu_ps(c.add(8), hi[i]);
                } else {
                    let mut row = [0.0_f32; 16];
                    _mm256_storeu_ps(row.as_mut_ptr(), lo[i]);
                    _mm256_storeu_ps(row.as_mut_ptr().add(8), hi[i]);
                    write_row(&row, c, t.nr, t.store);
                }
            }
        }
    }
}
