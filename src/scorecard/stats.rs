//! Means, spreads and Student-t intervals, in portable arithmetic.

/// The mean; none of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample standard deviation (n - 1); none of fewer than two.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The median; of an even number the mean of the middle two; none of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// A mean and its two-sided confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// The two-sided Student-t interval of the mean of `values` that holds with probability `confidence`, in (0, 1);
/// none of fewer than two values. Each end alone holds with probability `(1 + confidence) / 2`.
pub fn t_interval(values: &[f64], confidence: f64) -> Option<Interval> {
    let (mean, deviation) = (mean(values)?, standard_deviation(values)?);
    let t = t_quantile(f64::midpoint(1.0, confidence), (values.len() - 1) as f64);
    let half = t * deviation / (values.len() as f64).sqrt();
    Some(Interval { mean, lower: mean - half, upper: mean + half })
}

/// The quantile of Student's t distribution: the t with `P(T <= t) = p`, for p in (0, 1) and `dof` > 0 degrees of
/// freedom.
pub fn t_quantile(p: f64, dof: f64) -> f64 {
    if p < 0.5 {
        return -t_quantile(1.0 - p, dof);
    }
    let tail = 1.0 - p;
    // The upper tail falls from 1/2 at 0; double until it is below, then halve the bracket down to neighbours.
    let mut high = 1.0;
    while t_upper_tail(high, dof) > tail && high < f64::MAX / 2.0 {
        high *= 2.0;
    }
    let mut low = 0.0;
    loop {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            return middle;
        }
        if t_upper_tail(middle, dof) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// `P(T > t)` for t >= 0: half the regularised incomplete beta function at `dof / (dof + t^2)`.
/// Abramowitz and Stegun, 26.7.1.
fn t_upper_tail(t: f64, dof: f64) -> f64 {
    0.5 * incomplete_beta(dof / (dof + t * t), 0.5 * dof, 0.5)
}

/// The regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz's method; Abramowitz and
/// Stegun, 26.5.8).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast below this point; above it, the symmetry takes it there.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let log_front =
        libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * libm::log(x) + b * libm::log1p(-x);
    let away_from_zero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            fraction *= d * c;
        }
        if (fraction - before).abs() <= f64::EPSILON * fraction.abs() {
            break;
        }
    }
    libm::exp(log_front) * fraction / a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64, relative: f64) -> bool {
        (a - b).abs() <= relative * a.abs().max(b.abs())
    }

    /// Published values of the t distribution.
    #[test]
    fn quantiles_from_the_tables() {
        for (p, dof, t) in [
            (0.975, 1.0, 12.706_204_736_174_698),
            (0.975, 2.0, 4.302_652_729_749_464),
            (0.975, 3.0, 3.182_446_305_283_708),
            (0.975, 9.0, 2.262_157_162_798_205),
            (0.975, 30.0, 2.042_272_456_301_238),
            (0.95, 2.0, 2.919_985_580_353_725),
            (0.995, 4.0, 4.604_094_871_349_993),
            (0.975, 1e7, 1.959_964_22),
        ] {
            let found = t_quantile(p, dof);
            assert!(close(found, t, 1e-8), "t({p}, {dof}) = {found}, not {t}");
        }
        assert_eq!(t_quantile(0.5, 4.0), 0.0);
    }

    proptest! {
        /// With 1 and 2 degrees of freedom there are closed forms.
        #[test]
        fn quantiles_with_closed_forms(p in 0.001..0.999_f64) {
            let one = libm::tan(std::f64::consts::PI * (p - 0.5));
            prop_assert!((t_quantile(p, 1.0) - one).abs() <= 1e-9 * (1.0 + one.abs()));
            let two = (2.0 * p - 1.0) * (2.0 / (4.0 * p * (1.0 - p))).sqrt();
            prop_assert!((t_quantile(p, 2.0) - two).abs() <= 1e-9 * (1.0 + two.abs()));
        }

        #[test]
        fn intervals_follow_shift_and_scale(
            values in prop::collection::vec(-10.0..10.0_f64, 2..8), shift in -5.0..5.0_f64, confidence in 0.5..0.99_f64,
        ) {
            let plain = t_interval(&values, confidence).unwrap();
            prop_assert!(plain.lower <= plain.mean && plain.mean <= plain.upper);
            let moved: Vec<_> = values.iter().map(|v| v * 2.0 + shift).collect();
            let moved = t_interval(&moved, confidence).unwrap();
            prop_assert!((moved.lower - (plain.lower * 2.0 + shift)).abs() < 1e-6);
            prop_assert!((moved.upper - (plain.upper * 2.0 + shift)).abs() < 1e-6);
            let wider = t_interval(&values, 0.995).unwrap();
            prop_assert!(wider.lower <= plain.lower && plain.upper <= wider.upper);
        }
    }

    /// The interval of five numbers, worked by hand: mean 3, s = sqrt(2.5), t(0.975, 4) = 2.776445.
    #[test]
    fn an_interval_by_hand() {
        let interval = t_interval(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.95).unwrap();
        assert_eq!(interval.mean, 3.0);
        assert!(close(interval.upper, 3.0 + 2.776_445_105_197_8 * 0.5_f64.sqrt(), 1e-9));
        assert_eq!(t_interval(&[1.0], 0.95), None);
        assert_eq!(t_interval(&[], 0.95), None);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }
}
