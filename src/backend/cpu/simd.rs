//! Reductions of a fixed shape, which vector instructions of any width compute with the same bits.

pub use crate::simd::Level;
pub(crate) use crate::simd::{LANES, Lanes, larger, level, simd_fn, tree_sum};

/// Lane i has the largest of the elements i mod 16 of the whole groups of 16.
#[inline(always)]
pub(super) fn lane_maxima(row: &[f32]) -> [f32; LANES] {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for group in row.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            lanes[i] = larger(group[i], lanes[i]);
        }
    }
    lanes
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
