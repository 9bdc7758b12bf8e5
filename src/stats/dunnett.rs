//! Dunnett's distribution: the largest of several t that share a control.
//!
//! C. W. Dunnett, "A multiple comparison procedure for comparing several treatments with a control", JASA 50 (1955).
//! With as many seeds in the control as in each arm any two of the differences correlate by 1/2.

use super::memo::Memo;
use super::normal::{normal_cdf, normal_density};
use super::student::{t_quantile, t_two_sided_p};

/// Nodes and weights of Gauss-Legendre's rule of 16 points, the positive half.
const RULE: [(f64, f64); 8] = [
    (0.095_012_509_837_637_44, 0.189_450_610_455_068_5),
    (0.281_603_550_779_258_9, 0.182_603_415_044_923_6),
    (0.458_016_777_657_227_4, 0.169_156_519_395_002_54),
    (0.617_876_244_402_643_7, 0.149_595_988_816_576_73),
    (0.755_404_408_355_003, 0.124_628_971_255_533_87),
    (0.865_631_202_387_831_7, 0.095_158_511_682_492_78),
    (0.944_575_023_073_232_6, 0.062_253_523_938_647_89),
    (0.989_400_934_991_649_9, 0.027_152_459_411_754_095),
];

/// Above so many degrees of freedom the spread counts as known.
const MANY: f64 = 1e4;

/// Places and weights at which a function is summed for its integral over `low .. high`, in so many panels.
pub(super) fn integral_at(low: f64, high: f64, panels: u32) -> impl Iterator<Item = (f64, f64)> {
    let half = (high - low) / (2.0 * f64::from(panels));
    (0..panels).flat_map(move |panel| {
        let middle = low + half * f64::from(2 * panel + 1);
        RULE.into_iter().flat_map(move |(node, weight)| {
            [(middle - half * node, half * weight), (middle + half * node, half * weight)]
        })
    })
}

/// The integral of `f` over `low .. high`, in so many panels.
fn integral(low: f64, high: f64, panels: u32, f: impl Fn(f64) -> f64) -> f64 {
    integral_at(low, high, panels).map(|(at, weight)| weight * f(at)).sum()
}

/// `P(|T_1| <= x, .., |T_k| <= x)` of `k` normals that correlate by 1/2.
fn all_within(x: f64, k: u32) -> f64 {
    let reach = std::f64::consts::SQRT_2 * x;
    // What all share, and the chance of each to stay within, given it. Even in z.
    let given = |z: f64| {
        let within = normal_cdf(z + reach) - normal_cdf(z - reach);
        normal_density(z) * libm::pow(within, f64::from(k))
    };
    2.0 * integral(0.0, 8.5, 4, given)
}

/// `P(max |T_i| <= q)` of `k` t that share a control and a spread with `dof` degrees of freedom.
fn probability(q: f64, k: u32, dof: f64) -> f64 {
    if dof >= MANY {
        return all_within(q, k);
    }
    // The estimated spread over the true one: a chi over the root of its degrees of freedom.
    let log_front = std::f64::consts::LN_2 + 0.5 * dof * libm::log(0.5 * dof) - libm::lgamma(0.5 * dof);
    let density = |s: f64| libm::exp(log_front + (dof - 1.0) * libm::log(s) - 0.5 * dof * s * s);
    let width = 10.0 / dof.sqrt();
    let (low, high) = ((1.0 - width).max(0.0), 1.0 + width);
    // Far out and with few degrees of freedom, all that is beyond q comes of spreads far too small: they take panels of
    // their own.
    let small = (8.0 / q.max(1e-9)).clamp(low, high);
    let beyond = |s: f64| density(s) * (1.0 - all_within(q * s, k));
    let mut sum = integral(low, small, 12, beyond);
    if small < high {
        sum += integral(small, high, 12, beyond);
    }
    1.0 - sum
}

/// `P(max |T_i| > |t|)`: the p of the largest of `k` t that share a control and a spread with `dof` degrees of freedom,
/// for all of them together.
pub fn dunnett_p(t: f64, k: u32, dof: f64) -> f64 {
    static KNOWN: Memo = Memo::new();
    if k <= 1 {
        return t_two_sided_p(t, dof);
    }
    let t = t.abs();
    if t > 1e6 {
        return (f64::from(k) * t_two_sided_p(t, dof)).min(1.0);
    }
    KNOWN.get([t, f64::from(k), dof], || (1.0 - probability(t, k, dof)).clamp(0.0, 1.0))
}

/// The q below which the largest of `k` two-sided t stays with probability `confidence`: k = 1 is Student's own. Several
/// arms against one control, spread with `dof` degrees of freedom; infinite where it is known.
pub fn dunnett_quantile(confidence: f64, k: u32, dof: f64) -> f64 {
    // It takes tens of milliseconds, and a card asks for the same one each time it is written.
    static KNOWN: Memo = Memo::new();
    KNOWN.get([confidence, f64::from(k), dof], || quantile(confidence, k, dof))
}

fn quantile(confidence: f64, k: u32, dof: f64) -> f64 {
    let alone = t_quantile(f64::midpoint(1.0, confidence), dof);
    if k <= 1 {
        return alone;
    }
    // Between no correction and Bonferroni's.
    let apart = 1.0 - (1.0 - confidence) / f64::from(k);
    let (mut low, mut high) = (alone, t_quantile(f64::midpoint(1.0, apart), dof));
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high || high - low < 1e-9 * high {
            break;
        }
        if probability(middle, k, dof) < confidence { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_exact_for_polynomials() {
        assert!((integral(-1.0, 1.0, 1, |_| 1.0) - 2.0).abs() < 1e-14);
        assert!((integral(0.0, 2.0, 1, |x| libm::pow(x, 31.0)) - libm::pow(2.0, 32.0) / 32.0).abs() < 1e-4);
    }

    /// The published table, and what was found by simulation for seeds as blocks.
    #[test]
    fn quantiles_from_the_tables() {
        for (k, dof, expected, within) in [
            (2, f64::INFINITY, 2.212, 0.001),
            (3, f64::INFINITY, 2.349, 0.001),
            (9, f64::INFINITY, 2.686, 0.002),
            (2, 10.0, 2.57, 0.005),
            (4, 20.0, 2.65, 0.006),
            (2, 5.0, 3.03, 0.005),
            (2, 4.0, 3.31, 0.01),
            (3, 6.0, 3.10, 0.01),
            (5, 10.0, 2.99, 0.01),
            (3, 12.0, 2.67, 0.02),
        ] {
            let found = dunnett_quantile(0.95, k, dof);
            assert!((found - expected).abs() <= within, "k {k}, dof {dof}: {found}, not {expected}");
        }
    }

    #[test]
    fn one_arm_is_students() {
        for dof in [1.0, 2.0, 9.0, 30.0] {
            assert_eq!(dunnett_quantile(0.95, 1, dof), t_quantile(0.975, dof));
            // The integral agrees with the closed form, far out too, where looks before the end have their levels.
            for (level, within) in [(0.05, 1e-6), (3.5e-4, 1e-7), (1e-6, 1e-9)] {
                let out = 1.0 - probability(t_quantile(1.0 - 0.5 * level, dof), 1, dof);
                assert!((out - level).abs() < within, "{dof}: {out}, not {level}");
            }
        }
        assert!((dunnett_p(3.10, 3, 6.0) - 0.05).abs() < 0.001);
        assert!((dunnett_p(-2.0, 1, 1e9) - 0.0455).abs() < 1e-4);
        assert!((all_within(1.959_963_984_540_054, 1) - 0.95).abs() < 1e-12);
    }
}
