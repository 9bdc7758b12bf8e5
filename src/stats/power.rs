//! What an experiment can find out, before or after it is run.

use super::dunnett::dunnett_quantile;
use super::student::t_quantile;

/// The chance with which an effect of the size that [`detectable`] gives is found.
const POWER: f64 = 0.8;

/// Seeds beyond which nobody would go.
const MOST: u32 = 10_000;

/// The smallest true difference that an interval of `confidence` over `seeds` pairs tells from 0 in four of five
/// experiments, where differences scatter by `deviation`: t(confidence) + t(0.8) standard errors. None of one seed.
pub fn detectable(deviation: f64, seeds: u32, confidence: f64) -> Option<f64> {
    let dof = f64::from(seeds.checked_sub(1).filter(|dof| *dof > 0)?);
    let quantiles = t_quantile(f64::midpoint(1.0, confidence), dof) + t_quantile(POWER, dof);
    Some(quantiles * deviation / f64::from(seeds).sqrt())
}

/// The same where `arms` arms are judged together, their spread known with `dof` degrees of freedom, and their intervals
/// may miss with probability `level`.
pub fn detectable_together(deviation: f64, seeds: u32, level: f64, arms: u32, dof: f64) -> f64 {
    let quantiles = dunnett_quantile(1.0 - level, arms, dof) + t_quantile(POWER, dof);
    quantiles * deviation / f64::from(seeds).sqrt()
}

/// The fewest seeds with which the interval around a difference is no wider than `distance` to either side, where
/// differences scatter by `deviation`. None where ten thousand are too few.
pub fn seeds_for(distance: f64, deviation: f64, confidence: f64) -> Option<u32> {
    let half = |seeds: u32| {
        let dof = f64::from(seeds - 1);
        t_quantile(f64::midpoint(1.0, confidence), dof) * deviation / f64::from(seeds).sqrt()
    };
    if distance.is_nan() || distance <= 0.0 || half(MOST) > distance {
        return None;
    }
    let (mut few, mut enough) = (1, MOST);
    while enough - few > 1 {
        let middle = few.midpoint(enough);
        if half(middle) > distance { few = middle } else { enough = middle }
    }
    Some(enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The half widths in standard deviations that the tables give for 2, 3, 5 and 10 seeds, turned round.
    #[test]
    fn seeds_are_those_of_the_tables() {
        for (half, seeds) in [(8.99, 2), (2.49, 3), (1.25, 5), (0.72, 10)] {
            assert_eq!(seeds_for(half, 1.0, 0.95), Some(seeds), "{half}");
        }
        assert_eq!(seeds_for(1e-9, 1.0, 0.95), None);
        assert_eq!(seeds_for(0.0, 1.0, 0.95), None);
        assert_eq!(seeds_for(f64::NAN, 1.0, 0.95), None);
    }

    #[test]
    fn an_effect_is_detectable_beyond_the_interval() {
        assert_eq!(detectable(1.0, 1, 0.95), None);
        let [three, ten] = [3, 10].map(|seeds| detectable(2.0, seeds, 0.95).unwrap());
        assert!((three - 2.0 * (4.302_652_73 + 1.060_660_17) / 3.0_f64.sqrt()).abs() < 1e-6, "{three}");
        assert!(ten < three / 2.0);
    }
}
