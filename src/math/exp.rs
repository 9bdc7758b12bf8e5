//! The exponential.

/// 1.5 * 2^23: adding it leaves a number's nearest integer in the low bits.
pub(crate) const MAGIC: f32 = 12_582_912.0;
const MAGIC_BITS: i32 = 0x4B40_0000;

/// e^x. 0 below -104, infinity above 88.72, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Comparisons this way round let NaN through.
    let is_zero = x <= -104.0;
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = (shifted.to_bits() as i32).wrapping_sub(MAGIC_BITS);
    let n_f32 = shifted - MAGIC;
    // ln 2 in two parts; r is in [-ln2/2, ln2/2].
    let r = n_f32.mul_add(-std::f32::consts::LN_2, x);
    let r = n_f32.mul_add(1.904_654_3e-9, r);
    let mut p = 1.393_373_3e-3_f32;
    p = p.mul_add(r, 8.363_235e-3);
    p = p.mul_add(r, 4.166_646_4e-2);
    p = p.mul_add(r, 1.666_657_7e-1);
    p = p.mul_add(r, 0.5);
    let p = (p * r).mul_add(r, r) + 1.0;
    // The products below would give the same 0, but one that is too small for a float takes a processor a hundred cycles,
    // and attention has many such, of keys that are not seen.
    let p = if is_zero { 0.0 } else { p };
    // 2^n in two factors, so that neither overflows and denormals come out right.
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}
