//! The bootstrap: how much a value owes to which units happened to be drawn.

use super::summary::standard_deviation;
use crate::rng::SplitMix64;

/// Units below which a bootstrap tells too little.
const FEWEST: usize = 10;

/// Resamplings: they know a standard deviation to 2.2 %.
const DRAWS: usize = 1000;

/// Where the stream of random numbers begins: the same for all, so that the same units give the same bits.
const SEED: u64 = 20_261_129;

/// The standard deviation that `sum of values / sum of weights` has between samples of as many units as these are, each with
/// its value and weight: over resamplings of the units with replacement, in each of which a unit brings both. The values
/// may be differences between two things measured on the same units, which makes it the paired bootstrap. None of fewer than
/// 10 units, of lists of two lengths, or without weight.
///
/// Resampled sums scatter by `(n - 1) / n` of what samples do; that is made up for. B. Efron and R. J. Tibshirani, "An
/// introduction to the bootstrap" (1993), chapters 6 and 14.
pub fn resampled_deviation(values: &[f64], weights: &[f64]) -> Option<f64> {
    let count = values.len();
    if count < FEWEST || weights.len() != count {
        return None;
    }
    let units: Vec<(f64, f64)> = values.iter().copied().zip(weights.iter().copied()).collect();
    let mut rng = SplitMix64::new(SEED);
    // Two places of 32 bits from each number; with so few units none is favoured by more than one in a million.
    let place = |bits: u64| (((bits & 0xffff_ffff) * count as u64) >> 32) as usize;
    let mut ratios = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let (mut value, mut weight) = (0.0, 0.0);
        let mut add = |at: usize| {
            if let Some(unit) = units.get(at) {
                value += unit.0;
                weight += unit.1;
            }
        };
        for _ in 0..count / 2 {
            let bits = rng.next_u64();
            add(place(bits));
            add(place(bits >> 32));
        }
        if !count.is_multiple_of(2) {
            add(place(rng.next_u64()));
        }
        ratios.push(value / weight);
    }
    let deviation = standard_deviation(&ratios)? * (count as f64 / (count as f64 - 1.0)).sqrt();
    deviation.is_finite().then_some(deviation)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Means of 0, 1, 2, .., whose spread has a closed form.
    #[test]
    fn the_deviation_of_a_mean_is_the_units_own_over_the_root_of_their_number() {
        for count in [20_usize, 21, 500, 2048] {
            let values: Vec<f64> = (0..count).map(|at| at as f64).collect();
            let found = resampled_deviation(&values, &vec![1.0; count]).unwrap();
            let expected = standard_deviation(&values).unwrap() / (count as f64).sqrt();
            assert!((found / expected - 1.0).abs() < 0.08, "{count}: {found} against {expected}");
        }
    }

    /// With values that are a multiple of the weights the ratio never moves, whichever units are drawn.
    #[test]
    fn what_goes_with_the_weights_does_not_scatter() {
        let weights: Vec<f64> = (1..100).map(f64::from).collect();
        let values: Vec<f64> = weights.iter().map(|weight| 3.5 * weight).collect();
        assert!(resampled_deviation(&values, &weights).unwrap() < 1e-12);
    }

    #[test]
    fn too_little_tells_nothing() {
        assert_eq!(resampled_deviation(&[1.0; 9], &[1.0; 9]), None);
        assert_eq!(resampled_deviation(&[1.0; 30], &[1.0; 29]), None);
        assert_eq!(resampled_deviation(&[1.0; 30], &[0.0; 30]), None);
        assert_eq!(resampled_deviation(&[f64::INFINITY; 30], &[1.0; 30]), None);
    }

    proptest! {
        /// A larger unit of measurement, another zero, a heavier unit: the deviation goes along.
        #[test]
        fn the_deviation_is_in_the_units_of_the_values(
            units in prop::collection::vec((-5.0..5.0_f64, 1.0..9.0_f64), 20..200),
            scale in 0.1..10.0_f64,
            shift in -3.0..3.0_f64,
        ) {
            let (values, weights): (Vec<f64>, Vec<f64>) = units.into_iter().unzip();
            let of = |values: Vec<f64>| resampled_deviation(&values, &weights).unwrap();
            let found = of(values.clone());
            prop_assert_eq!(found, of(values.clone()));
            let scaled = of(values.iter().map(|value| scale * value).collect());
            prop_assert!((scaled - scale * found).abs() <= 1e-9 * scaled.max(1e-6));
            let shifted = of(values.iter().zip(&weights).map(|(value, weight)| value + shift * weight).collect());
            prop_assert!((shifted - found).abs() <= 1e-8);
        }
    }
}
