//! Which vector instructions the machine has, and functions compiled for each.
//!
//! Choosing among them never changes a result: every variant performs the same IEEE operations, `mul_add` included,
//! on every element in the same order; only how many elements go at once differs.

use std::sync::OnceLock;

/// Vector instructions, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Whatever the compiler's baseline has; exact fused multiply-adds in software where need be.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, DQ, BW and VL.
    Avx512,
}

/// What this machine has. `CPU_SIMD_LEVEL` = `portable` or `avx2` holds it down, to test that bits do not change.
pub(super) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let cap = match std::env::var("CPU_SIMD_LEVEL").as_deref() {
            Ok("portable") => Level::Portable,
            Ok("avx2") => Level::Avx2,
            _ => Level::Avx512,
        };
        detect().min(cap)
    })
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl");
    match avx2 {
        true if avx512 => Level::Avx512,
        true => Level::Avx2,
        false => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}

/// Defines a function whose body is compiled for several instruction sets, and chosen at run time: AVX2 with FMA and the
/// baseline, and with `wide` AVX-512 too, which pays where long rows go through `exp`, and costs elsewhere.
macro_rules! simd_fn {
    ($(#[$meta:meta])* wide $vis:vis fn $($rest:tt)*) => {
        $crate::backend::cpu::simd::simd_fn! { @ [$(#[$meta])*] true, $vis fn $($rest)* }
    };
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $crate::backend::cpu::simd::simd_fn! { @ [$(#[$meta])*] false, $vis fn $($rest)* }
    };
    (@ [$($meta:tt)*] $wide:literal, $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $($meta)*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::backend::cpu::simd::{Level, level};
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match level() {
                    // SAFETY: `level` found AVX-512 F, DQ, BW and VL.
                    Level::Avx512 if $wide => return unsafe { avx512($($arg),*) },
                    // SAFETY: `level` found AVX2 and FMA.
                    Level::Avx512 | Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Portable => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use simd_fn;

/// Lanes of the fixed-shape reductions.
pub(super) const LANES: usize = 16;

/// The sum of the lanes, as a balanced tree.
#[inline(always)]
pub(super) fn tree_sum(lanes: [f32; LANES]) -> f32 {
    let mut v = lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            v[i] += v[i + half];
        }
    }
    v[0]
}

/// Sum of `x[i] * y[i]`: element i goes to lane i mod 16, lanes are summed as a tree.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (x_main, x_rest) = x.as_chunks::<LANES>();
    let (y_main, y_rest) = y.as_chunks::<LANES>();
    for (a, b) in x_main.iter().zip(y_main) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane = a.mul_add(*b, *lane);
    }
    tree_sum(lanes)
}
