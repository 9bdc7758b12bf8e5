//! The F distribution.

use super::beta::incomplete_beta;
use super::memo::Memo;
use super::root::where_falls_to;

/// The f with `P(F > f) = tail` for a ratio of two variances with so many degrees of freedom each; tail in (0, 1).
/// Abramowitz and Stegun, 26.6.2.
pub fn f_upper_quantile(tail: f64, numerator: f64, denominator: f64) -> f64 {
    static KNOWN: Memo = Memo::new();
    let beyond = |f: f64| {
        incomplete_beta(denominator / (denominator + numerator * f), 0.5 * denominator, 0.5 * numerator)
    };
    KNOWN.get([tail, numerator, denominator], || where_falls_to(tail, beyond))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::t_quantile;

    #[test]
    fn quantiles_from_the_tables() {
        for (tail, numerator, denominator, f) in [
            (0.05, 1.0, 1.0, 161.447_638_797_588),
            (0.05, 5.0, 10.0, 3.325_834_530_413),
            (0.01, 2.0, 2.0, 99.0),
            (0.01, 10.0, 4.0, 14.545_900_801_9),
            (0.005, 2.0, 2.0, 199.0),
        ] {
            let found = f_upper_quantile(tail, numerator, denominator);
            assert!(
                (found - f).abs() <= 1e-8 * f,
                "F({tail}; {numerator}, {denominator}) = {found}, not {f}"
            );
        }
        // With one degree of freedom above it is the square of t.
        let t = t_quantile(0.975, 7.0);
        assert!((f_upper_quantile(0.05, 1.0, 7.0) - t * t).abs() < 1e-9);
    }
}
