//! Functions that only tables and numbers in text use: the f64 result of the `libm` crate, rounded once.

/// sin x.
pub fn sin(x: f32) -> f32 {
    libm::sin(f64::from(x)) as f32
}

/// cos x.
pub fn cos(x: f32) -> f32 {
    libm::cos(f64::from(x)) as f32
}

/// x^y.
pub fn pow(x: f32, y: f32) -> f32 {
    libm::pow(f64::from(x), f64::from(y)) as f32
}

/// The exponent of the greatest power of ten that is at most a positive number, or the next where the number is within a
/// few units in the last place of it. `i32::MIN` of 0, `i32::MAX` of infinity, 0 of what has no logarithm.
pub fn decade(value: f64) -> i32 {
    libm::log10(value).floor() as i32
}
