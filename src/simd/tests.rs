//! By whole vectors as one by one.

use super::lanes::tree_max;
use super::{LANES, tree_sum};
use crate::math::{exp, tanh};

simd_fn! {
    wide by lanes, fn functions_by_lanes(exps: &mut [f32], tanhs: &mut [f32]) {
        for x in exps.as_chunks_mut::<LANES>().0 {
            *x = lanes.exp(*x);
        }
        for x in tanhs.as_chunks_mut::<LANES>().0 {
            *x = lanes.tanh(*x);
        }
    }
}

simd_fn! {
    fn functions_one_by_one(exps: &mut [f32], tanhs: &mut [f32]) {
        for x in exps {
            *x = exp(*x);
        }
        for x in tanhs {
            *x = tanh(*x);
        }
    }
}

/// Bit patterns `step` apart give the same bits by whole vectors as one by one.
fn assert_lanes_are_the_functions(step: usize) {
    const BLOCK: usize = 4096;
    let bits: Vec<f32> = vec![0.0; BLOCK];
    let (mut exps, mut tanhs, mut by_exp, mut by_tanh) =
        (bits.clone(), bits.clone(), bits.clone(), bits.clone());
    for start in (0..=u32::MAX as usize).step_by(step * BLOCK) {
        for (i, x) in exps.iter_mut().enumerate() {
            *x = f32::from_bits((start + i * step) as u32);
        }
        for copy in [&mut tanhs, &mut by_exp, &mut by_tanh] {
            copy.copy_from_slice(&exps);
        }
        functions_by_lanes(&mut by_exp, &mut by_tanh);
        functions_one_by_one(&mut exps, &mut tanhs);
        for (i, x) in exps.iter().enumerate() {
            let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
            let of = f32::from_bits((start + i * step) as u32);
            assert!(same(*x, by_exp[i]), "exp({of:e}): {x:e}, by lanes {:e}", by_exp[i]);
            assert!(same(tanhs[i], by_tanh[i]), "tanh({of:e}): {:e}, by lanes {:e}", tanhs[i], by_tanh[i]);
        }
    }
}

#[test]
fn whole_vectors_have_the_bits_of_the_functions() {
    assert_lanes_are_the_functions(61);
}

#[test]
#[ignore = "half a minute: every bit pattern there is"]
fn whole_vectors_have_the_bits_of_the_functions_everywhere() {
    assert_lanes_are_the_functions(1);
}

simd_fn! {
    wide by lanes, fn trees(rows: &[[f32; LANES]; LANES]) -> ([f32; LANES], [f32; LANES]) {
        (lanes.tree_sums(rows), lanes.tree_maxima(rows))
    }
}

#[test]
fn trees_of_sixteen_rows_are_those_of_each() {
    let mut random = crate::rng::SplitMix64::new(5);
    for round in 0..1000 {
        let mut rows = [[0.0_f32; LANES]; LANES];
        for x in rows.as_flattened_mut() {
            let bits = random.next_u64();
            *x = f32::from_bits((bits as u32 & 0x807f_ffff) | ((bits >> 40) as u32 % 40 + 110) << 23);
            match (bits >> 56) % 64 {
                0 if round % 2 == 1 => *x = f32::NEG_INFINITY,
                1 => *x = -0.0,
                2 => *x = 0.0,
                3 if round % 5 == 1 => *x = f32::NAN,
                _ => {}
            }
        }
        let (sums, maxima) = trees(&rows);
        for (i, row) in rows.iter().enumerate() {
            let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
            assert!(same(sums[i], tree_sum(*row)), "row {i}: {row:?}");
            assert!(same(maxima[i], tree_max(*row)), "row {i}: {row:?}");
        }
    }
}
