//! The normal distribution.

use super::root::where_falls_to;

/// `P(Z <= x)`.
pub(super) fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// The z with `P(Z > z) = tail`, for a tail of at most a half.
pub(super) fn normal_upper_quantile(tail: f64) -> f64 {
    where_falls_to(tail, |z| normal_cdf(-z))
}

/// The density at x.
pub(super) fn normal_density(x: f64) -> f64 {
    libm::exp(-0.5 * x * x) / (2.0 * std::f64::consts::PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_from_the_tables() {
        for (p, x) in [(0.5, 0.0), (0.8, 0.841_621_233_572_914), (0.975, 1.959_963_984_540_054)] {
            assert!((normal_cdf(x) - p).abs() < 1e-14, "{p}");
            assert!((normal_cdf(-x) - (1.0 - p)).abs() < 1e-14, "{p}");
        }
        assert!((normal_upper_quantile(0.025) - 1.959_963_984_540_054).abs() < 1e-12);
        // The density is what the probability grows by.
        let slope = (normal_cdf(0.7 + 1e-5) - normal_cdf(0.7 - 1e-5)) / 2e-5;
        assert!((normal_density(0.7) - slope).abs() < 1e-9);
    }
}
