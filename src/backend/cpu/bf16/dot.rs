//! The micro-kernel: a tile of at most 12 x 32 sums of products of bfloat16 pairs, accumulated in registers.
//!
//! Every element is one chain over pairs from +0, in ascending order: `c <- fma(x0, y0, fma(x1, y1, c))`, the odd element
//! first, rounding to nearest even. Operands and the results of both multiply-adds that are subnormal count as zero of
//! their sign, where a result is subnormal if it would be with an unbounded exponent (tininess after rounding). That is
//! what `VDPBF16PS` computes; the other kernels compute it with two multiply-adds. Of NaN only that it is NaN is promised.

use std::sync::OnceLock;

use crate::simd::{Level, level, pair_instruction};

pub(super) use super::super::gemm::{HALF, MR, NR};

/// Pairs of a chain: a numerics constant.
pub(super) const CHAIN: usize = super::super::gemm::KC / 2;

/// What becomes of a finished tile. Partial sums are added without flushing anything.
pub(super) use super::super::gemm::Store;

/// Which kernel is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// `VDPBF16PS`.
    #[cfg(target_arch = "x86_64")]
    Instruction,
}

/// The best kernel here whose results are those of the definition.
pub(super) fn kernel() -> Kernel {
    static KERNEL: OnceLock<Kernel> = OnceLock::new();
    *KERNEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        return match level() {
            Level::Avx512 if pair_instruction() && agree(Kernel::Instruction, Kernel::Avx512) => {
                Kernel::Instruction
            }
            Level::Avx512 => Kernel::Avx512,
            Level::Avx2 => Kernel::Avx2,
            Level::Portable => Kernel::Portable,
        };
        #[cfg(not(target_arch = "x86_64"))]
        Kernel::Portable
    })
}

/// Whether the machine has the instruction, and it departs from the definition: another kernel is taken then.
pub(super) fn instruction_departs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return pair_instruction() && kernel() != Kernel::Instruction;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Values at which implementations could differ: zeros, the ends of the subnormal and the normal numbers, one and its
/// neighbours, infinities, NaN.
const TELLING: [u16; 16] = [
    0, 0x8000, 1, 0x007f, 0x8040, 0x0080, 0x8081, 0x0100, 0x1f80, 0x2001, 0x3f80, 0xbf81, 0x5f7f, 0x7f7f,
    0xff80, 0x7fc0,
];

/// Whether two kernels give equal bits on what tells kernels apart: some microseconds where both use the machine's own
/// multiply-adds.
pub(super) fn agree(one: Kernel, other: Kernel) -> bool {
    /// Of a chain: the first makes what the second begins with.
    const PAIRS: usize = 2;
    let pair = |low: usize, high: usize| u32::from(TELLING[low % 16]) | u32::from(TELLING[high % 16]) << 16;
    (0..32).all(|round| {
        let a: [u32; MR * PAIRS] = std::array::from_fn(|i| pair(i + round, i / 3 + 5 * round));
        let b: [u32; NR * PAIRS] = std::array::from_fn(|i| pair(i + 7 * round, i / 16 + 3 * round + i));
        let mut c = [[0.0_f32; NR * MR]; 2];
        for (c, kernel) in c.iter_mut().zip([one, other]) {
            let tile = Tile {
                nr: NR,
                pairs: PAIRS,
                a: a.as_ptr(),
                rs: PAIRS,
                ks: 1,
                b: b.as_ptr(),
                c: c.as_mut_ptr(),
                ldc: NR,
                store: Store::Set,
            };
            // SAFETY: all in bounds; the caller has seen that the machine has the kernel.
            unsafe { run::<ANY>(kernel, MR, &tile) };
        }
        c[0].iter().zip(&c[1]).all(|(x, y)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan())
    })
}

/// As a kernel's `RS`: the distance is [`Tile::rs`], no constant.
pub(super) const ANY: usize = 0;

/// The arguments of [`micro`]: `nr` columns, chains of `pairs` pairs; A's pair (i, p) at `a[i * rs + p * ks]`, B's pair
/// (p, j) at `b[p * 32 + j]`, readable for all j below 16, or 32 where `nr` exceeds 16; C's element (i, j) at
/// `c[i * ldc + j]`. A need not be aligned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub(super) nr: usize,
    pub(super) pairs: usize,
    pub(super) a: *const u32,
    pub(super) rs: usize,
    pub(super) ks: usize,
    pub(super) b: *const u32,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    pub(super) store: Store,
}

impl Tile {
    #[inline(always)]
    fn row_distance<const RS: usize>(&self) -> usize {
        if RS == ANY { self.rs } else { RS }
    }
}

/// Computes a tile of `mr` rows.
///
/// # Safety
/// All elements are in bounds, `1 <= mr <= 12`, `1 <= nr <= 32`, and nobody else touches those of C.
#[inline]
pub(super) unsafe fn micro<const RS: usize>(mr: usize, tile: &Tile) {
    #[cfg(test)]
    if super::super::simulated::counts(2 * mr * tile.nr * tile.pairs) {
        return;
    }
    // SAFETY: the caller's promises; `kernel` found the instructions.
    unsafe { run::<RS>(kernel(), mr, tile) }
}

/// # Safety
/// As [`micro`]; the machine has the kernel.
#[inline]
unsafe fn run<const RS: usize>(kernel: Kernel, mr: usize, tile: &Tile) {
    // SAFETY: the caller's promises.
    unsafe {
        match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Instruction => x86::instruction_rows::<RS>(mr, tile),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => exactly(mr, tile, x86::avx512_rows::<RS>),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => exactly(mr, tile, x86::avx2_rows::<RS>),
            Kernel::Portable => portable::<RS>(mr, tile),
        }
    }
}

/// A tile's sums before they are stored.
type Sums = [[f32; NR]; MR];

/// The sums by a kernel that relies on the control word, which the additions to C must not see.
#[cfg(target_arch = "x86_64")]
unsafe fn exactly(mr: usize, tile: &Tile, rows: unsafe fn(usize, &Tile, &mut Sums)) {
    let mut sums = [[0.0; NR]; MR];
    // SAFETY: the caller's promises.
    unsafe {
        crate::control_word::flushing(|| rows(mr, tile, &mut sums));
        write(mr, tile, &sums);
    }
}

/// Stores sums to C.
unsafe fn write(mr: usize, t: &Tile, sums: &Sums) {
    for (i, row) in sums.iter().enumerate().take(mr) {
        // SAFETY: the promises of `micro`.
        let c = unsafe { std::slice::from_raw_parts_mut(t.c.add(i * t.ldc), t.nr) };
        match t.store {
            Store::Set => c.copy_from_slice(&row[..t.nr]),
            Store::Add => c.iter_mut().zip(row).for_each(|(c, x)| *c += x),
        }
    }
}

/// The definition, without special instructions.
unsafe fn portable<const RS: usize>(mr: usize, t: &Tile) {
    let mut sums = [[0.0_f32; NR]; MR];
    // SAFETY: the promises of `micro`.
    unsafe {
        for p in 0..t.pairs {
            for (i, row) in sums.iter_mut().enumerate().take(mr) {
                let x = t.a.add(i * t.row_distance::<RS>() + p * t.ks).read_unaligned();
                for (j, sum) in row.iter_mut().enumerate().take(t.nr) {
                    *sum = pair(*sum, x, *t.b.add(p * NR + j));
                }
            }
        }
        write(mr, t, &sums);
    }
}

/// `fma(x0, y0, fma(x1, y1, c))`, of which nothing is subnormal.
fn pair(c: f32, x: u32, y: u32) -> f32 {
    let (low, high) = (|pair: u32| operand(pair << 16), |pair: u32| operand(pair & 0xffff_0000));
    fused(low(x), low(y), fused(high(x), high(y), c))
}

/// A number by its bits, zero if subnormal.
fn operand(bits: u32) -> f32 {
    f32::from_bits(if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits })
}

/// `x y + c`, zero if subnormal. No operand is.
fn fused(x: f32, y: f32, c: f32) -> f32 {
    let result = x.mul_add(y, c);
    let size = result.abs();
    // The smallest normal number may be a smaller one rounded up, as subnormal numbers lie twice as far apart as numbers
    // of their size would with a wider exponent. Then the operands are so small that scaling them is exact.
    let scale = f32::from_bits((127 + 50) << 23);
    let tiny = size < f32::MIN_POSITIVE
        || size == f32::MIN_POSITIVE && (x * scale).mul_add(y, c * scale).abs() < f32::MIN_POSITIVE * scale;
    if tiny { f32::from_bits(result.to_bits() & 0x8000_0000) } else { result }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)]
    use std::arch::x86_64::*;

    use super::{HALF, NR, Store, Sums, Tile};

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
                        sums[i][w] = _mm512_dpbf16_ps(
                            sums[i][w],
                            std::mem::transmute::<__m512i, __m512bh>(x),
                            columns[w],
                        );
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
        // SAFETY: the promises of `micro`.
        unsafe {
            let rs = t.row_distance::<RS>();
            let (mut a, mut b) = ([t.a, t.a.wrapping_add(4 * rs), t.a.wrapping_add(8 * rs)], t.b);
            let odd = |x| {
                _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(0xffff_0000_u32.cast_signed())))
            };
            let even = |x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x));
            for _ in 0..t.pairs {
                let columns: [__m512i; W] = std::array::from_fn(|w| _mm512_loadu_si512(b.add(16 * w).cast()));
                let (high, low) = (columns.map(odd), columns.map(even));
                for i in 0..M {
                    let x = _mm512_set1_epi32(a[i / 4].add(i % 4 * rs).read_unaligned().cast_signed());
                    let (x1, x0) = (odd(x), even(x));
                    for w in 0..W {
                        sums[i][w] = _mm512_fmadd_ps(x0, low[w], _mm512_fmadd_ps(x1, high[w], sums[i][w]));
                    }
                }
                a = a.map(|a| a.wrapping_add(t.ks));
                b = b.wrapping_add(NR); // past the end after the last half panel
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
        // Sixteen registers hold 4 x 16 sums and what they are made of.
        for row in (0..mr).step_by(4) {
            for col in (0..t.nr).step_by(HALF) {
                let rows = 4.min(mr - row);
                // SAFETY: the promises of `micro`; the part is inside the tile.
                unsafe {
                    let part = Tile { a: t.a.add(row * t.row_distance::<RS>()), b: t.b.add(col), ..*t };
                    let out = &mut sums[row..];
                    by_rows!(rows, [1 2 3] 4, avx2[RS](&part, out, col));
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const M: usize, const RS: usize>(t: &Tile, out: &mut [[f32; NR]], col: usize) {
        let mut sums = [[_mm256_setzero_ps(); 2]; M];
        // SAFETY: the promises of `micro`.
        unsafe {
            let rs = t.row_distance::<RS>();
            let (mut a, mut b) = (t.a, t.b);
            let odd = |x| {
                _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xffff_0000_u32.cast_signed())))
            };
            let even = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x));
            for _ in 0..t.pairs {
                let columns: [__m256i; 2] = std::array::from_fn(|w| _mm256_loadu_si256(b.add(8 * w).cast()));
                let (high, low) = (columns.map(odd), columns.map(even));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_epi32(a.add(i * rs).read_unaligned().cast_signed());
                    let (x1, x0) = (odd(x), even(x));
                    for (sum, (low, high)) in sums.iter_mut().zip(low.into_iter().zip(high)) {
                        *sum = _mm256_fmadd_ps(x0, low, _mm256_fmadd_ps(x1, high, *sum));
                    }
                }
                a = a.wrapping_add(t.ks);
                b = b.wrapping_add(NR); // past the end after the last half panel
            }
            for (row, out) in sums.into_iter().zip(out) {
                for (w, sum) in row.into_iter().enumerate() {
                    _mm256_storeu_ps(out.as_mut_ptr().add(col + 8 * w), sum);
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
