//! Reductions of a fixed shape, which vector instructions of any width compute with the same bits.

pub use crate::simd::Level;
pub(crate) use crate::simd::{level, simd_fn};

/// Lanes of the fixed-shape reductions.
pub(super) const LANES: usize = 16;

/// The sum of the lanes, as a balanced tree.
#[inline(always)]
pub(super) fn tree_sum(lanes: [f32; LANES]) -> f32 {
    let mut v = lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            v[i] += v[i + half];
        }
    }
    v[0]
}

/// Sum of `x[i] * y[i]`: element i goes to lane i mod 16, lanes are summed as a tree.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (x_main, x_rest) = x.as_chunks::<LANES>();
    let (y_main, y_rest) = y.as_chunks::<LANES>();
    for (a, b) in x_main.iter().zip(y_main) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane = a.mul_add(*b, *lane);
    }
    tree_sum(lanes)
}
