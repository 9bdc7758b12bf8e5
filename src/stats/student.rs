//! Student's t distribution, in portable arithmetic.

use super::beta::incomplete_beta;
use super::memo::Memo;
use super::normal::{normal_cdf, normal_upper_quantile};
use super::root::where_falls_to;

/// Degrees of freedom above which it is the normal distribution: the difference is in the eighth digit, and the beta
/// function of so large numbers has no more than that left.
const MANY: f64 = 1e7;

/// The quantile of Student's t distribution: the t with `P(T <= t) = p`, for p in (0, 1) and `dof` > 0 degrees of
/// freedom; infinite where the spread is known.
pub fn t_quantile(p: f64, dof: f64) -> f64 {
    static KNOWN: Memo = Memo::new();
    if p < 0.5 {
        return -t_quantile(1.0 - p, dof);
    }
    if dof > MANY {
        return normal_upper_quantile(1.0 - p);
    }
    KNOWN.get([p, dof, 0.0], || where_falls_to(1.0 - p, |t| t_upper_tail(t, dof)))
}

/// `P(|T| > |t|)`, the two-sided p of a t with `dof` > 0 degrees of freedom; infinite where the spread is known.
pub fn t_two_sided_p(t: f64, dof: f64) -> f64 {
    match dof {
        _ if t.is_nan() => f64::NAN,
        many if many > MANY => 2.0 * normal_cdf(-t.abs()),
        few => 2.0 * t_upper_tail(t.abs(), few),
    }
}

/// `P(T > t)`, the one-sided p of a t.
pub fn t_one_sided_p(t: f64, dof: f64) -> f64 {
    let beyond = 0.5 * t_two_sided_p(t, dof);
    if t >= 0.0 { beyond } else { 1.0 - beyond }
}

/// `P(T > t)` for t >= 0: half the regularised incomplete beta function at `dof / (dof + t^2)`.
/// Abramowitz and Stegun, 26.7.1.
fn t_upper_tail(t: f64, dof: f64) -> f64 {
    0.5 * incomplete_beta(dof / (dof + t * t), 0.5 * dof, 0.5)
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
        assert!(close(t_two_sided_p(-2.262_157_162_798_205, 9.0), 0.05, 1e-9));
        assert!(close(t_one_sided_p(2.919_985_580_353_725, 2.0), 0.05, 1e-9));
        assert!(close(t_one_sided_p(-2.919_985_580_353_725, 2.0), 0.95, 1e-9));
        assert!(close(t_two_sided_p(1.959_963_984_540_054, f64::INFINITY), 0.05, 1e-12));
        assert!(close(t_quantile(0.975, f64::INFINITY), 1.959_963_984_540_054, 1e-12));
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
    }
}
