//! The micro-kernel: a tile of at most 12 x 32 sums of products of bfloat16 pairs, accumulated in registers.
//!
//! Every element is one chain over pairs from +0, in ascending order: `c <- fma(x0, y0, fma(x1, y1, c))`, the odd element
//! first, rounding to nearest even. Operands and the results of both multiply-adds that are subnormal count as zero of
//! their sign, where a result is subnormal if it would be with an unbounded exponent (tininess after rounding). That is
//! what `VDPBF16PS` computes; the other kernels compute it with two multiply-adds. Of NaN only that it is NaN is promised.

use std::sync::OnceLock;

use crate::simd::{Level, level, pair_instruction, pairs_are_asked_for};

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

impl Kernel {
    /// Whether it multiplies single values, which the left side's pairs are taken apart into.
    fn widens(self) -> bool {
        match self {
            Self::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::Avx512 => true,
            #[cfg(target_arch = "x86_64")]
            Self::Instruction => false,
        }
    }
}

/// The fastest kernel here whose results are those of the definition.
pub(super) fn kernel() -> Kernel {
    static KERNEL: OnceLock<Kernel> = OnceLock::new();
    *KERNEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        return match level() {
            Level::Avx512 if pair_instruction() && agree(Kernel::Instruction, Kernel::Avx512) => {
                // Some processors do half as many pairs at a time as multiply-adds, which gains nothing.
                if pairs_are_asked_for() || seconds(Kernel::Instruction) <= 1.1 * seconds(Kernel::Avx512) {
                    Kernel::Instruction
                } else {
                    Kernel::Avx512
                }
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
    return pair_instruction() && !agree(Kernel::Instruction, Kernel::Avx512);
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
                left: Left::rows(a.as_ptr(), PAIRS),
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

/// What a kernel takes for a tile, in the best of some trials of microseconds: others may have the processor in between.
#[cfg(target_arch = "x86_64")]
fn seconds(kernel: Kernel) -> f64 {
    const TRIALS: usize = 20;
    let one = 0x3f80_3f80_u32;
    let (a, b, mut c) = ([one; MR * CHAIN], vec![one; NR * CHAIN], [0.0_f32; NR * MR]);
    let (mut left, mut room) = (Left::rows(a.as_ptr(), CHAIN), Wide::new());
    if kernel.widens() {
        // Most tiles share their rows with others.
        // SAFETY: all in bounds; the caller has seen that the machine has the kernel.
        left = unsafe { left.widened::<ANY>(kernel, MR, CHAIN, &mut room) };
    }
    let tile =
        Tile { nr: NR, pairs: CHAIN, left, b: b.as_ptr(), c: c.as_mut_ptr(), ldc: NR, store: Store::Set };
    let trial = |_| {
        let began = crate::files::now();
        for _ in 0..4 {
            // SAFETY: all in bounds; the caller has seen that the machine has the kernel.
            unsafe { run::<ANY>(kernel, MR, std::hint::black_box(&tile)) };
        }
        began.elapsed().as_secs_f64()
    };
    (0..TRIALS).map(trial).fold(f64::INFINITY, f64::min)
}

/// As a kernel's `RS`: the distance is the left side's own, no constant.
pub(super) const ANY: usize = 0;

/// The left side of tiles: pair (i, p) at `a[i * rs + p * ks]`, where A need not be aligned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    a: *const u32,
    rs: usize,
    ks: usize,
    /// The same pairs widened, where several tiles share them and the kernel wants that.
    #[cfg_attr(not(any(test, target_arch = "x86_64")), expect(dead_code))]
    wide: Option<*const f32>,
}

impl Left {
    /// Pairs whose rows are `rs` apart, and `ks` the pairs of a row.
    pub(super) fn new(a: *const u32, rs: usize, ks: usize) -> Self {
        Self { a, rs, ks, wide: None }
    }

    /// Rows of pairs that are neighbours.
    pub(super) fn rows(a: *const u32, rs: usize) -> Self {
        Self::new(a, rs, 1)
    }

    /// The same for several tiles of at most `mr` rows and of `pairs` pairs, which the kernel need not widen for each.
    ///
    /// # Safety
    /// The pairs are there; `mr` and `pairs` are at most [`MR`] and [`CHAIN`]. Tiles are computed with the same `RS`, as
    /// many pairs and no more rows, and `room` is left alone until then.
    pub(super) unsafe fn shared<const RS: usize>(self, mr: usize, pairs: usize, room: &mut Wide) -> Self {
        let kernel = kernel();
        // SAFETY: the caller's promises.
        unsafe { if kernel.widens() { self.widened::<RS>(kernel, mr, pairs, room) } else { self } }
    }

    /// # Safety
    /// As [`Self::shared`]; the machine has the kernel.
    unsafe fn widened<const RS: usize>(
        self,
        kernel: Kernel,
        mr: usize,
        pairs: usize,
        room: &mut Wide,
    ) -> Self {
        // SAFETY: the caller's promises.
        unsafe {
            match kernel {
                #[cfg(target_arch = "x86_64")]
                // `VDPBF16PS` reads pairs: only tests widen for it.
                Kernel::Avx512 | Kernel::Instruction => x86::widen_avx512::<RS>(room, mr, &self, pairs),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2 => x86::widen_avx2::<RS>(room, mr, &self, pairs),
                Kernel::Portable => room.fill::<RS>(mr, &self, 0, pairs),
            }
        }
        self.found_in(room)
    }

    /// The same once [`Self::shared`] has widened it in `room`.
    ///
    /// # Safety
    /// It has, and [`Self::shared`]'s promises are kept.
    pub(super) unsafe fn shared_in(self, room: &Wide) -> Self {
        if kernel().widens() { self.found_in(room) } else { self }
    }

    fn found_in(self, room: &Wide) -> Self {
        Self { wide: Some(room.start()), ..self }
    }

    #[inline(always)]
    fn row_distance<const RS: usize>(&self) -> usize {
        if RS == ANY { self.rs } else { RS }
    }
}

/// The arguments of [`micro`]: `nr` columns, chains of `pairs` pairs; B's pair (p, j) at `b[p * 32 + j]`, readable for all
/// j below 16, or 32 where `nr` exceeds 16; C's element (i, j) at `c[i * ldc + j]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub(super) nr: usize,
    pub(super) pairs: usize,
    pub(super) left: Left,
    pub(super) b: *const u32,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    pub(super) store: Store,
}

/// Computes a tile of `mr` rows.
///
/// # Safety
/// All elements are in bounds, `1 <= mr <= 12`, `1 <= nr <= 32`, and nobody else touches those of C; of a left side that is
/// shared, the promises of [`Left::shared`] hold.
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
            Kernel::Avx512 => x86::avx512_rows::<RS>(mr, tile),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => x86::avx2_rows::<RS>(mr, tile),
            Kernel::Portable => portable::<RS>(mr, tile),
        }
    }
}

/// A tile's sums before they are stored.
type Sums = [[f32; NR]; MR];

/// Stores sums to C.
///
/// # Safety
/// As [`micro`].
#[inline(always)]
unsafe fn write(mr: usize, t: &Tile, sums: &Sums) {
    for (i, row) in sums.iter().enumerate().take(mr) {
        // SAFETY: the caller's promise.
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
                let x = t.left.a.add(i * t.left.row_distance::<RS>() + p * t.left.ks).read_unaligned();
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

mod wide;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use wide::{LEN as WIDE_LEN, Wide};

#[cfg(test)]
pub(super) mod tests;
