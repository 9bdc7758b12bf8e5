//! Errors against f64, and the edges.

use super::*;

/// Distance of `value` from `exact` in units in the last place of `exact` as f32.
fn ulps(value: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    let unit = f64::from(f32::from_bits(rounded.abs().to_bits() + 1)) - f64::from(rounded.abs());
    (f64::from(value) - exact).abs() / unit
}

/// Largest error over an even grid.
fn max_ulps(low: f32, high: f32, f: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
    let steps = 400_000;
    (0..=steps)
        .map(|i| low + (high - low) * (i as f32 / steps as f32))
        .map(|x| ulps(f(x), exact(f64::from(x))))
        .fold(0.0, f64::max)
}

#[test]
fn exp_error() {
    let error = max_ulps(-87.0, 88.7, exp, libm::exp).max(max_ulps(-1.0, 1.0, exp, libm::exp));
    assert!(error < 1.1, "{error}");
}

#[test]
fn exp_edges() {
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    assert_eq!(exp(f32::INFINITY), f32::INFINITY);
    assert_eq!(exp(-200.0), 0.0);
    assert!(exp(-95.0) > 0.0 && exp(-95.0) < f32::MIN_POSITIVE);
    assert!(exp(f32::NAN).is_nan());
}

#[test]
fn tanh_error() {
    let error = max_ulps(-12.0, 12.0, tanh, libm::tanh).max(max_ulps(-0.7, 0.7, tanh, libm::tanh));
    assert!(error < 2.0, "{error}");
    assert_eq!(tanh(0.0).to_bits(), 0);
    assert_eq!((tanh(90.0), tanh(-90.0)), (1.0, -1.0));
    assert!(tanh(f32::NAN).is_nan());
}

#[test]
fn sigmoid_error() {
    let error = max_ulps(-87.0, 87.0, sigmoid, |x| 1.0 / (1.0 + libm::exp(-x)));
    assert!(error < 2.5, "{error}");
    assert_eq!(sigmoid(0.0), 0.5);
}

#[test]
fn log_error() {
    let near = max_ulps(0.4, 2.5, log, libm::log);
    let far = max_ulps(1e-30, 1e-3, log, libm::log).max(max_ulps(1.0, 1e30, log, libm::log));
    assert!(near.max(far) < 1.5, "{near} {far}");
    assert_eq!(log(1.0), 0.0);
    assert_eq!(log(0.0), f32::NEG_INFINITY);
    assert!(log(-1.0).is_nan() && log(f32::NAN).is_nan());
    assert_eq!(log(f32::INFINITY), f32::INFINITY);
}

#[test]
fn table_functions() {
    for i in 0..20_000 {
        let x = i as f32 * 0.37 - 1000.0;
        assert!(ulps(sin(x), libm::sin(f64::from(x))) <= 0.5001);
        assert!(ulps(cos(x), libm::cos(f64::from(x))) <= 0.5001);
    }
    assert_eq!(pow(10000.0, 0.5), 100.0);
}

#[test]
fn bf16_rounds_to_even() {
    assert_eq!(round_bf16(1.0), 1.0);
    assert_eq!(round_bf16(0.95), 0.94921875);
    assert_eq!(round_bf16(0.02), 0.020_019_531);
    assert_eq!(round_bf16(1.0 + 1.0 / 256.0), 1.0);
    assert_eq!(round_bf16(1.0 + 3.0 / 256.0), 1.015625);
    assert_eq!(round_bf16(f32::INFINITY), f32::INFINITY);
    assert_eq!(round_bf16(f32::MAX), f32::INFINITY);
    assert!(round_bf16(f32::NAN).is_nan());
}

#[test]
fn decades_are_exact_at_powers_of_ten() {
    for exponent in -307..=308 {
        let power: f64 = format!("1e{exponent}").parse().unwrap();
        assert_eq!((decade(power), decade(1.5 * power.min(1e307))), (exponent, exponent.min(307)));
    }
    assert_eq!([0.0, f64::INFINITY, f64::NAN].map(decade), [i32::MIN, i32::MAX, 0]);
}
