//! Rounding to bfloat16.

/// The nearest bfloat16, ties to even, as f32. NaN stays NaN.
#[inline(always)]
pub fn round_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) & 0xFFFF_0000;
    let bits = if x.is_nan() { 0x7FC0_0000 } else { rounded };
    f32::from_bits(bits)
}
