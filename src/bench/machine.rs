//! What this machine's arithmetic can do at most: loops of nothing but its widest instructions.

use std::hint::black_box;

use crate::files::now;
use crate::simd::{Level, level, pair_instruction};

/// Independent sums of a loop: as many as hide the latency of an instruction, and no more than the compiler surely keeps in
/// registers. Of 16 to 24 it has some in memory, and the loop takes twice as long.
const SUMS: usize = 12;
/// Rounds of a loop; some milliseconds.
const ROUNDS: usize = 1_000_000;
/// Measurements of which the fastest counts.
const REPEATS: usize = 5;

/// FLOP/s of all threads at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Of fused multiply-adds in f32.
    pub fma: f64,
    /// Of products of bfloat16 pairs, where there is an instruction for them.
    pub pairs: Option<f64>,
}

impl Machine {
    /// Measures on so many threads, a few hundredths of a second; none where no wide instructions are known.
    pub fn measured(threads: usize) -> Option<Self> {
        let fma = rate(threads, fused()?);
        let pairs = paired().map(|of| rate(threads, of));
        Some(Self { fma, pairs })
    }
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
