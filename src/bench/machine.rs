//! What this machine can do at most: loops of nothing but its widest instructions, and copying.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::sync::Barrier;

use crate::files::now;
use crate::simd::{Level, level, pair_instruction};

/// Independent sums of a loop: as many as hide the latency of an instruction, and no more than the compiler surely keeps in
/// registers. Of 16 to 24 it has some in memory, and the loop takes twice as long.
const SUMS: usize = 12;
/// Rounds of a loop; some milliseconds.
const ROUNDS: usize = 1_000_000;
/// Measurements of which the fastest counts.
const REPEATS: usize = 5;

/// Bytes that are copied: more than the caches near a core hold.
const COPIED: usize = 128 << 20;

/// Of all threads at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// FLOP/s of fused multiply-adds in f32, where wide instructions are known.
    pub fma: Option<f64>,
    /// FLOP/s of products of bfloat16 pairs, where there is an instruction for them.
    pub pairs: Option<f64>,
    /// Bytes a second that are read and written in copying; none where there was no memory for it.
    pub copied: Option<f64>,
}

impl Machine {
    /// Measures on so many threads, in some tenths of a second.
    pub fn measured(threads: usize) -> Self {
        let rate = |of| rate(threads, of);
        Self { fma: fused().map(rate), pairs: paired().map(rate), copied: copied(threads) }
    }
}

/// Memory nobody has written to; none where there is not so much.
fn memory() -> Option<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(COPIED).ok()?;
    Some(memory)
}

/// Bytes a second of copying [`COPIED`] bytes, each of them read and written.
fn copied(threads: usize) -> Option<f64> {
    let (mut source, mut target) = (memory()?, memory()?);
    let each = COPIED.div_ceil(threads.max(1));
    let parts = source.spare_capacity_mut()[..COPIED].chunks_mut(each);
    let parts: Vec<_> = parts.zip(target.spare_capacity_mut()[..COPIED].chunks_mut(each)).collect();
    let together = Barrier::new(parts.len());
    let copying = |(source, target): (&mut [MaybeUninit<u8>], &mut [MaybeUninit<u8>])| {
        // Each thread's memory is near it: it is the first to write there.
        source.fill(MaybeUninit::new(1));
        target.fill(MaybeUninit::new(0));
        std::array::from_fn(|_| {
            together.wait();
            let started = now();
            target.copy_from_slice(black_box(&*source));
            black_box(&mut *target);
            started.elapsed().as_secs_f64()
        })
    };
    let copying = &copying;
    let times: Vec<[f64; REPEATS]> = std::thread::scope(|scope| {
        let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || copying(part))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    // A round takes what its last thread takes.
    let round = |i: usize| times.iter().map(|of| of[i]).fold(0.0, f64::max);
    let best = (0..REPEATS).map(round).fold(f64::INFINITY, f64::min);
    Some(2.0 * COPIED as f64 / best).filter(|rate| rate.is_finite())
}

/// A loop, and the FLOPs of one of its instructions.
type Loop = (fn(usize) -> f32, f64);

fn rate(threads: usize, (run, flops): Loop) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let started = now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| black_box(run(black_box(ROUNDS))));
            }
        });
        best = best.min(started.elapsed().as_secs_f64());
    }
    flops * (SUMS * ROUNDS * threads) as f64 / best
}

#[cfg(target_arch = "x86_64")]
fn fused() -> Option<Loop> {
    match level() {
        // SAFETY: `level` found the instructions.
        Level::Avx512 => Some((|rounds| unsafe { x86::fused_512(rounds) }, 32.0)),
        // SAFETY: as above.
        Level::Avx2 => Some((|rounds| unsafe { x86::fused_256(rounds) }, 16.0)),
        Level::Portable => None,
    }
}

#[cfg(target_arch = "x86_64")]
fn paired() -> Option<Loop> {
    // SAFETY: `pair_instruction` found it.
    pair_instruction().then_some((|rounds| unsafe { x86::paired(rounds) }, 64.0))
}

#[cfg(not(target_arch = "x86_64"))]
fn fused() -> Option<Loop> {
    let _ = (level() == Level::Portable, pair_instruction());
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn paired() -> Option<Loop> {
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)]
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::SUMS;

    #[target_feature(enable = "avx512f")]
    pub(super) fn fused_512(rounds: usize) -> f32 {
        let (x, y) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(x, y, *sum);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fused_256(rounds: usize) -> f32 {
        let (x, y) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(x, y, *sum);
            }
        }
        sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn paired(rounds: usize) -> f32 {
        // SAFETY: any bits are pairs of bfloat16.
        let factor = |x: u32| unsafe {
            std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(black_box(x).cast_signed()))
        };
        let (x, y) = (factor(0x3f00_3f00), factor(0x3e80_3e80));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, y);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }
}
