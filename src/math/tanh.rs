//! Hyperbolic tangent and the logistic function.

use super::exp;

/// tanh x.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    by_exp(x, exp(2.0 * x.abs()))
}

/// tanh x, given e^(2 |x|).
#[inline(always)]
pub(crate) fn by_exp(x: f32, exp: f32) -> f32 {
    let u = x * x;
    let mut p = 2.272_705e-3_f32;
    p = p.mul_add(u, -8.326_402e-3);
    p = p.mul_add(u, 2.176_363_4e-2);
    p = p.mul_add(u, -5.395_862_5e-2);
    p = p.mul_add(u, 1.333_33e-1);
    p = p.mul_add(u, -3.333_333_3e-1);
    let near = (p * u).mul_add(x, x);
    let far = (1.0 - 2.0 / (exp + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}
