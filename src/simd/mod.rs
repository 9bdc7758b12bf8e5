//! Which vector instructions the machine has, and functions compiled for each.
//!
//! Choosing among them never changes a result: every variant performs the same IEEE operations, `mul_add` included,
//! on every element in the same order; only how many elements go at once differs.

mod lanes;

use std::sync::OnceLock;

use crate::error::{Error, Result};

#[cfg(target_arch = "x86_64")]
pub(crate) use lanes::Avx512;
pub(crate) use lanes::{LANES, Lanes, OneByOne, larger, tree_sum};

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

/// What names the kernels that a machine is held down to.
const VARIABLE: &str = "NANORUN_CPU_KERNELS";
/// Its word for all of AVX-512 with the products of bfloat16 pairs.
const PAIRS: &str = "avx512bf16";

/// What this machine has, unless `NANORUN_CPU_KERNELS` holds it down, to test that bits do not change.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    // Whoever starts a command has checked what the variable says; a library's caller may not have.
    *LEVEL.get_or_init(|| detect().min(forced().unwrap_or(Level::Avx512)))
}

/// The name of what this machine computes with.
pub(crate) fn name() -> &'static str {
    match level() {
        Level::Portable => "portable",
        Level::Avx2 => "avx2",
        Level::Avx512 => "avx512",
    }
}

/// Whether this machine has the instruction that multiplies pairs of bfloat16 and may use it: `NANORUN_CPU_KERNELS` names
/// it, or nothing.
pub(crate) fn pair_instruction() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        detect_pairs() && level() == Level::Avx512 && named().is_none_or(|name| name == PAIRS)
    })
}

/// Whether `NANORUN_CPU_KERNELS` asks for that instruction, however fast it is.
#[cfg(target_arch = "x86_64")]
pub(crate) fn pairs_are_asked_for() -> bool {
    named().is_some_and(|name| name == PAIRS)
}

/// What `NANORUN_CPU_KERNELS` says, if anything.
fn named() -> Option<String> {
    let value = std::env::var_os(VARIABLE)?;
    (!value.is_empty()).then(|| value.to_string_lossy().into_owned())
}

/// The kernels that `NANORUN_CPU_KERNELS` allows: `portable`, `avx2`, `avx512`, or all.
///
/// # Errors
/// Another word, or kernels that this machine cannot run; class `Input`.
pub(crate) fn forced() -> Result<Level> {
    let Some(name) = named() else { return Ok(Level::Avx512) };
    let wanted = parse(&name)?;
    if wanted > detect() || name == PAIRS && !detect_pairs() {
        return Err(Error::input(format!("{VARIABLE} asks for kernels that this machine cannot run"))
            .key(VARIABLE)
            .help("leave it out: the best that the machine runs are taken"));
    }
    Ok(wanted)
}

/// Whether this machine runs the kernels of this name, and is not held down to others.
#[cfg(test)]
pub(crate) fn named_is_there(name: &str) -> bool {
    parse(name).is_ok_and(|wanted| wanted <= detect()) && named().is_none()
}

fn parse(value: &str) -> Result<Level> {
    match value {
        "portable" => Ok(Level::Portable),
        "avx2" => Ok(Level::Avx2),
        "avx512" | PAIRS => Ok(Level::Avx512),
        _ => Err(Error::input(format!("{VARIABLE} is `{value}`"))
            .key(VARIABLE)
            .expected("portable, avx2, avx512 or avx512bf16, or nothing for the best that the machine runs")),
    }
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

/// `VDPBF16PS`.
fn detect_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Defines a function whose body is compiled for several instruction sets, and chosen at run time: AVX2 with FMA and
/// the baseline, and with `wide` AVX-512 too, which pays where long rows go through `exp`, and costs elsewhere. A body
/// that is `wide by lanes` is given how a vector goes through such functions ([`Lanes`]).
macro_rules! simd_fn {
    ($(#[$meta:meta])* wide by $lanes:ident, $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($lanes: impl $crate::simd::Lanes, $($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::simd::{Level, level};
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($crate::simd::OneByOne, $($arg),*) }
                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
                fn avx512(lanes: $crate::simd::Avx512, $($arg: $ty),*) $(-> $ret)? { body(lanes, $($arg),*) }
                match level() {
                    // SAFETY: `level` found AVX-512 F, DQ, BW and VL.
                    Level::Avx512 => return unsafe { avx512($crate::simd::Avx512::new(), $($arg),*) },
                    // SAFETY: `level` found AVX2 and FMA.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Portable => {}
                }
            }
            body($crate::simd::OneByOne, $($arg),*)
        }
    };
    ($(#[$meta:meta])* wide $vis:vis fn $($rest:tt)*) => {
        $crate::simd::simd_fn! { @ [$(#[$meta])*] true, $vis fn $($rest)* }
    };
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $crate::simd::simd_fn! { @ [$(#[$meta])*] false, $vis fn $($rest)* }
    };
    (@ [$($meta:tt)*] $wide:literal, $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $($meta)*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::simd::{Level, level};
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

#[cfg(test)]
mod tests;
