//! Test values, central differences, comparison.

/// Values in [-1, 1) from a seed, rounded to 7 bits after the leading one: exact in bfloat16.
pub(super) fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let x = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            f32::from_bits(x.to_bits() & 0xffff_0000)
        })
        .collect()
}

/// As float64.
pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Gradient of `f` at `x` by central differences.
pub(super) fn gradient(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const H: f64 = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let original = x[i];
            x[i] = original + H;
            let above = f(&x);
            x[i] = original - H;
            let below = f(&x);
            x[i] = original;
            (above - below) / (2.0 * H)
        })
        .collect()
}

/// Asserts that the largest difference is at most `tolerance` of the largest value wanted.
#[track_caller]
pub(super) fn assert_close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: number of values");
    let largest = want.iter().fold(1e-3_f64, |m, x| m.max(x.abs()));
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let apart = (f64::from(g) - w).abs() / largest;
        assert!(apart <= tolerance, "{what}[{i}]: {g} instead of {w}, {apart:.2e} of the largest apart");
    }
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `x w^T`, x (n, c), w (m, c).
pub(super) fn matmul_t(x: &[f64], w: &[f64], c: usize) -> Vec<f64> {
    x.chunks(c).flat_map(|row| w.chunks(c).map(move |col| dot(row, col))).collect()
}
