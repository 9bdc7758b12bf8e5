//! Looking at an experiment before its end: what each look may spend of what may go wrong.
//!
//! O'Brien and Fleming's boundaries in the form of K. K. G. Lan and D. L. DeMets, "Discrete sequential boundaries for
//! clinical trials", Biometrika 70 (1983): early looks spend next to nothing, the last one nearly everything. The levels
//! of looks come from the joint normal distribution of their statistics, by the recursive integration of P. Armitage,
//! C. K. McPherson and B. C. Rowe, "Repeated significance tests on accumulating data", JRSS A 132 (1969).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::dunnett::integral_at;
use super::normal::{normal_cdf, normal_density, normal_upper_quantile};
use super::root::where_falls_to;

/// Panels of the integration over what a trial may have come to, of 16 points each.
const PANELS: u32 = 12;

/// Standard deviations beyond which nothing is integrated.
const FAR: f64 = 8.5;

/// What of `alpha` is spent, two-sided, once the share `information` in (0, 1] of all seeds is there.
fn obrien_fleming_spent(alpha: f64, information: f64) -> f64 {
    if information >= 1.0 {
        return alpha;
    }
    2.0 * normal_cdf(-normal_upper_quantile(0.5 * alpha) / information.sqrt())
}

/// The nominal two-sided level of each look at a trial, so that all of them together err with probability `alpha`:
/// `information` is the share of seeds at each, rising to at most 1. Exact for normal statistics of independent seeds; the
/// same levels are good for t statistics to within what early looks spend, which is little.
pub fn look_levels(alpha: f64, information: &[f64]) -> Vec<f64> {
    // It takes milliseconds, and whoever judges asks for the same ones at every look.
    static KNOWN: Mutex<BTreeMap<Vec<u64>, Vec<f64>>> = Mutex::new(BTreeMap::new());
    let key: Vec<u64> = std::iter::once(alpha).chain(information.iter().copied()).map(f64::to_bits).collect();
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(levels) = known().get(&key) {
        return levels.clone();
    }
    let spent: Vec<f64> = information.iter().map(|&share| obrien_fleming_spent(alpha, share)).collect();
    let levels = levels_that_spend(&spent, information);
    known().insert(key, levels.clone());
    levels
}

/// The levels of looks that have spent so much by each of them.
fn levels_that_spend(spent: &[f64], information: &[f64]) -> Vec<f64> {
    let mut levels = Vec::with_capacity(information.len());
    // The trial so far as Brownian motion at time t: places, and the density there of trials that go on, by weight.
    let mut going_on: Vec<(f64, f64)> = vec![(0.0, 1.0)];
    let (mut before, mut already) = (0.0, 0.0);
    for (&now, &due) in information.iter().zip(spent) {
        let step = (now - before).sqrt();
        let crosses = |z: f64| {
            let bound = z * now.sqrt();
            let each = going_on.iter().map(|(at, weight)| {
                weight * (normal_cdf((at - bound) / step) + normal_cdf((-bound - at) / step))
            });
            each.sum::<f64>()
        };
        let z = where_falls_to((due - already).max(0.0), crosses);
        levels.push(2.0 * normal_cdf(-z));
        let reach = z.min(FAR) * now.sqrt();
        let density = |place: f64| {
            let each =
                going_on.iter().map(|(at, weight)| weight * normal_density((place - at) / step) / step);
            each.sum::<f64>()
        };
        going_on =
            integral_at(-reach, reach, PANELS).map(|(at, weight)| (at, weight * density(at))).collect();
        (before, already) = (now, due);
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(levels: Vec<f64>) -> Vec<f64> {
        levels.into_iter().map(|level| normal_upper_quantile(0.5 * level)).collect()
    }

    /// Boundaries as they are tabulated, where each side spends its half by itself: D. L. DeMets and K. K. G. Lan, "Interim
    /// analysis: the alpha spending function approach", Statistics in Medicine 13 (1994), and the R package ldbounds.
    #[test]
    fn boundaries_from_the_tables() {
        for (information, expected) in [
            (&[0.2, 0.4, 0.6, 0.8, 1.0][..], &[4.877, 3.357, 2.680, 2.290, 2.031][..]),
            (&[0.5, 1.0], &[2.963, 1.969]),
            (&[1.0 / 3.0, 2.0 / 3.0, 1.0], &[3.710, 2.511, 1.993]),
            (&[1.0], &[1.960]),
        ] {
            let spent: Vec<f64> =
                information.iter().map(|&share| 2.0 * obrien_fleming_spent(0.025, share)).collect();
            let found = bounds(levels_that_spend(&spent, information));
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 0.002, "{information:?}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn an_early_look_spends_next_to_nothing() {
        let levels = look_levels(0.05, &[0.3, 0.6, 1.0]);
        assert!((levels[0] - 0.000_35).abs() < 1e-5, "{levels:?}");
        assert!(levels[0] < levels[1] && levels[1] < levels[2] && levels[2] < 0.05, "{levels:?}");
        // Of many seeds, a look after three has no level that could be told from 0.
        let levels = look_levels(0.05, &[0.003, 1.0]);
        assert!(levels[0] < 1e-200 && (levels[1] - 0.05).abs() < 1e-6, "{levels:?}");
        // A look at every seed of a hundred.
        let all: Vec<f64> = (2..=100).map(|seeds| f64::from(seeds) / 100.0).collect();
        let levels = look_levels(0.05, &all);
        assert!(levels.windows(2).all(|pair| pair[0] <= pair[1]), "{levels:?}");
        assert!(levels[98] > 0.02 && levels[98] < 0.03, "{}", levels[98]);
    }

    /// What all looks together err by is what was to be spent: by simulation of the trial itself.
    #[test]
    fn all_looks_together_spend_alpha() {
        let information = [0.3, 0.6, 1.0];
        let bounds = bounds(look_levels(0.2, &information));
        let mut rng = crate::rng::SplitMix64::new(3);
        let mut normal = || {
            let (u, v) = (1.0 - rng.next_f64(), rng.next_f64());
            (-2.0 * libm::log(u)).sqrt() * libm::cos(2.0 * std::f64::consts::PI * v)
        };
        let draws = 100_000;
        let mut crossed = 0;
        for _ in 0..draws {
            let (mut at, mut before, mut out) = (0.0, 0.0, false);
            for (bound, now) in bounds.iter().zip(information) {
                at += (now - before).sqrt() * normal();
                out |= at.abs() > bound * now.sqrt();
                before = now;
            }
            crossed += u32::from(out);
        }
        let share = f64::from(crossed) / f64::from(draws);
        assert!((share - 0.2).abs() < 4.0 * (0.2 * 0.8 / f64::from(draws)).sqrt(), "{share}");
    }
}
