//! The natural logarithm.

/// ln x of a positive normal number; -infinity at 0, NaN below, infinity at infinity. Subnormals count as 2^-126.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    let normal = if x < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { x };
    let bits = normal.to_bits() as i32;
    // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
    let offset = bits.wrapping_sub(0x3F35_04F3);
    let e = offset >> 23;
    let m = f32::from_bits(bits.wrapping_sub(e << 23) as u32);
    let e = e as f32;
    let f = m - 1.0;
    let mut p = 7.150_794e-2_f32;
    p = p.mul_add(f, -1.157_275e-1);
    p = p.mul_add(f, 1.166_183_4e-1);
    p = p.mul_add(f, -1.241_086_5e-1);
    p = p.mul_add(f, 1.424_989e-1);
    p = p.mul_add(f, -1.666_848_6e-1);
    p = p.mul_add(f, 2.000_071e-1);
    p = p.mul_add(f, -2.499_998_8e-1);
    p = p.mul_add(f, 3.333_333_3e-1);
    let square = f * f;
    let tail = (p * f).mul_add(square, e * -2.121_944_4e-4);
    let tail = square.mul_add(-0.5, tail) + f;
    let value = e.mul_add(0.693_359_4, tail);
    let value = if x == 0.0 { f32::NEG_INFINITY } else { value };
    let value = if x < 0.0 { f32::NAN } else { value };
    // Infinity and NaN are their own logarithm.
    if x < f32::INFINITY { value } else { x }
}
