//! Uniforms into normals, as torch's x86 vector kernel makes them.
//!
//! That kernel (`normal_fill_16_AVX2`, which AVX-512 machines use too) takes logarithm, sine and cosine from Moshier's
//! Cephes polynomials in float32, contracted by its compiler to fused multiply-adds. The same roundings in the same
//! places give the same bits; `mul_add` is one IEEE rounding on every platform.

// Cephes' coefficients, digit for digit.
#![allow(clippy::excessive_precision)]

use std::f64::consts::PI;

use crate::simd::simd_fn;

/// Values that are made together.
pub(super) const BLOCK: usize = 16;
const HALF_BLOCK: usize = BLOCK / 2;

simd_fn! {
    /// Turns blocks of uniforms in [0, 1) into normals of this standard deviation, in pairs: value j with value j + 8.
    pub(super) fn box_muller(blocks: &mut [[f32; BLOCK]], std: f32) {
        for block in blocks {
            let (first, second) = block.split_at_mut(HALF_BLOCK);
            for (a, b) in first.iter_mut().zip(second) {
                let radius = (-2.0 * log(1.0 - *a)).sqrt();
                let (sin, cos) = sin_cos((2.0 * PI) as f32 * *b);
                *a = radius * cos * std;
                *b = radius * sin * std;
            }
        }
    }
}

/// Natural logarithm of a positive normal number. Cephes `logf`.
#[inline(always)]
fn log(x: f32) -> f32 {
    const TAIL: [f32; 8] = [
        -1.1514610310E-1,
        1.1676998740E-1,
        -1.2420140846E-1,
        1.4249322787E-1,
        -1.6668057665E-1,
        2.0000714765E-1,
        -2.4999993993E-1,
        3.3333331174E-1,
    ];
    // ln 2 in two parts.
    const LN_2_LOW: f32 = -2.12194440e-4;
    const LN_2_HIGH: f32 = 0.693359375;
    let bits = x.to_bits();
    // x = mantissa * 2^exponent, the mantissa from sqrt(1/2) up to sqrt(2) after this.
    let mut mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000);
    let mut exponent = ((bits >> 23) as i32 - 126) as f32;
    if mantissa < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1.0;
        mantissa += mantissa;
    }
    let x = mantissa - 1.0;
    let square = x * x;
    let series = TAIL.iter().fold(7.0376836292E-2, |sum: f32, &term| sum.mul_add(x, term));
    let correction = (series * x).mul_add(square, exponent * LN_2_LOW) - square * 0.5;
    exponent.mul_add(LN_2_HIGH, x + correction)
}

/// Sine and cosine of an angle in [0, 2 pi]. Cephes `sinf` and `cosf`.
#[inline(always)]
fn sin_cos(x: f32) -> (f32, f32) {
    // Octants, rounded up to an even number, are taken off in three parts of pi/4.
    let octant = ((x * 1.27323954473516_f32) as i32 + 1) & !1;
    let turns = octant as f32;
    let x = turns.mul_add(-0.78515625, x);
    let x = turns.mul_add(-2.4187564849853515625e-4, x);
    let x = turns.mul_add(-3.77489497744594108e-8, x);

    let square = x * x;
    let cos = 2.443315711809948E-5_f32.mul_add(square, -1.388731625493765E-3);
    let cos = cos.mul_add(square, 4.166664568298827E-2) * square;
    let cos = cos.mul_add(square, -(square * 0.5)) + 1.0;
    let sin = (-1.9515295891E-4_f32).mul_add(square, 8.3321608736E-3);
    let sin = sin.mul_add(square, -1.6666654611E-1) * square;
    let sin = sin.mul_add(x, x);

    match octant & 6 {
        0 => (sin, cos),
        2 => (cos, -sin),
        4 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what is only compared within a bound may be the system's")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Over what uniforms give: logarithms of (0, 1], angles of [0, 2 pi).
        #[test]
        fn functions_are_what_they_are_called(word in 0_u32..1 << 24) {
            let uniform = word as f32 / 16_777_216.0;
            let exact = f64::from(1.0 - uniform).ln();
            prop_assert!((f64::from(log(1.0 - uniform)) - exact).abs() <= 1.5e-7 * exact.abs());

            let angle = (2.0 * PI) as f32 * uniform;
            let (sin, cos) = sin_cos(angle);
            let (exact_sin, exact_cos) = f64::from(angle).sin_cos();
            prop_assert!((f64::from(sin) - exact_sin).abs() <= 1e-7);
            prop_assert!((f64::from(cos) - exact_cos).abs() <= 1e-7);
        }
    }
}
