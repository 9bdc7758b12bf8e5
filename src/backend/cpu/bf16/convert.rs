//! Between f32 and bfloat16.
//!
//! One rule: to the nearest, ties to even, subnormal numbers as they are, every NaN to the same one. It is that of
//! [`crate::math::round_bf16`], and not that of `VCVTNEPS2BF16`, which flushes.

use super::super::simd::simd_fn;

/// The f32 of a bfloat16, exactly.
#[inline(always)]
pub(super) fn wide(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// The nearest bfloat16.
#[inline(always)]
pub(super) fn near(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16) as u16;
    if x.is_nan() { 0x7FC0 } else { rounded }
}

simd_fn! {
    wide pub(super) fn widen(from: &[u16], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = wide(*from);
        }
    }
}

simd_fn! {
    wide pub(super) fn narrow(from: &[f32], to: &mut [u16]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = near(*from);
        }
    }
}

simd_fn! {
    /// `to = near(to + from)`
    wide pub(super) fn narrow_sum(from: &[f32], to: &mut [u16]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = near(wide(*to) + from);
        }
    }
}

simd_fn! {
    /// `max(x, 0)^2`
    wide pub(super) fn relu_squared(x: &mut [u16]) {
        for x in x {
            let value = relu(wide(*x));
            *x = near(value * value);
        }
    }
}

simd_fn! {
    /// `dx = near(near(da) 2 max(x, 0))`
    wide pub(super) fn relu_squared_backward(da: &[f32], x: &[u16], dx: &mut [u16]) {
        for ((dx, da), x) in dx.iter_mut().zip(da).zip(x) {
            *dx = near(wide(near(*da)) * (2.0 * relu(wide(*x))));
        }
    }
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    // This way round lets NaN through.
    if x < 0.0 { 0.0 } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::round_bf16;

    #[test]
    fn the_rule_is_that_of_round_bf16() {
        for bits in
            (0..=u32::MAX).step_by(4099).chain([0x7fff_ffff, 1, 0x0000_8000, 0x0000_8001, 0x7f7f_8000])
        {
            let x = f32::from_bits(bits);
            assert_eq!(wide(near(x)).to_bits(), round_bf16(x).to_bits(), "{bits:#x}");
        }
        for bits in 0..=u16::MAX {
            let x = wide(bits);
            assert!(x.is_nan() || near(x) == bits, "what is a bfloat16 stays: {bits:#x}");
        }
    }
}
