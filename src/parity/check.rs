//! One kind of number: its largest deviation, and whether that is within tolerance.

use serde::Serialize;

use super::tolerance::Tolerance;

/// The outcome for one kind of number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// Where it deviates most in proportion to its tolerance.
    pub place: String,
    /// The deviation there; infinite (null in JSON) if either side was not a finite number.
    pub deviation: f64,
    /// The tolerance there.
    pub tolerance: f64,
    /// Why the tolerance is what it is.
    pub reason: String,
    /// Whether no place deviates by more than its tolerance.
    pub passed: bool,
}

/// Collects deviations, keeping the worst.
#[derive(Debug)]
pub(super) struct Worst {
    name: String,
    kept: Option<(String, f64, Tolerance)>,
}

impl Worst {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), kept: None }
    }

    /// A deviation at `place`. NaN counts as infinite.
    pub(super) fn see(&mut self, place: impl FnOnce() -> String, deviation: f64, tolerance: Tolerance) {
        let deviation = if deviation.is_nan() { f64::INFINITY } else { deviation };
        let worse = self.kept.as_ref().is_none_or(|&(_, kept, kept_tolerance)| {
            excess(deviation, tolerance.limit) > excess(kept, kept_tolerance.limit)
        });
        if worse {
            self.kept = Some((place(), deviation, tolerance));
        }
    }

    /// Pairs of values, as the absolute differences of `found` from `expected`. Another length is infinitely off.
    pub(super) fn see_values(
        &mut self,
        place: impl Fn(usize) -> String,
        found: &[f32],
        expected: &[f32],
        tolerance: Tolerance,
    ) {
        if found.len() != expected.len() {
            let lengths = || format!("{} values, expected {}", found.len(), expected.len());
            self.see(lengths, f64::INFINITY, tolerance);
        }
        for (index, (&a, &b)) in found.iter().zip(expected).enumerate() {
            self.see(|| place(index), (f64::from(a) - f64::from(b)).abs(), tolerance);
        }
    }

    /// The check. Nothing seen is nothing compared, and no pass.
    pub(super) fn finish(self) -> Check {
        let nothing = Tolerance { limit: 0.0, reason: "nothing was compared" };
        let (place, deviation, tolerance) =
            self.kept.unwrap_or_else(|| (String::new(), f64::INFINITY, nothing));
        Check {
            name: self.name,
            place,
            deviation,
            tolerance: tolerance.limit,
            reason: tolerance.reason.to_owned(),
            passed: deviation <= tolerance.limit,
        }
    }
}

/// A deviation in proportion to its tolerance; among deviations that a tolerance of zero forbids, the larger is worse.
fn excess(deviation: f64, limit: f64) -> f64 {
    if deviation == 0.0 { 0.0 } else { deviation / limit.max(f64::MIN_POSITIVE.sqrt()) }
}

/// `|found - expected| / |expected|` in the Frobenius norm; the numerator alone where `expected` is zero, infinity
/// where lengths differ.
pub(super) fn relative_frobenius(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let (mut difference, mut norm) = (0.0_f64, 0.0_f64);
    for (&a, &b) in found.iter().zip(expected) {
        difference += (f64::from(a) - f64::from(b)).powi(2);
        norm += f64::from(b).powi(2);
    }
    if norm == 0.0 { difference.sqrt() } else { (difference / norm).sqrt() }
}

/// Distance of two floats in units in the last place.
pub(super) fn ulps(a: f32, b: f32) -> u64 {
    let key = |x: f32| {
        let magnitude = i64::from(x.to_bits() & 0x7fff_ffff);
        if x.is_sign_negative() { -magnitude } else { magnitude }
    };
    key(a).abs_diff(key(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Tolerance = Tolerance { limit: 0.5, reason: "r" };
    const ZERO: Tolerance = Tolerance { limit: 0.0, reason: "z" };

    #[test]
    fn the_worst_is_the_one_furthest_beyond_its_own_tolerance() {
        let mut worst = Worst::new("c");
        worst.see(|| "a".into(), 0.4, HALF);
        worst.see(|| "b".into(), 0.3, Tolerance { limit: 0.1, ..HALF });
        worst.see(|| "c".into(), 0.0, ZERO);
        let check = worst.finish();
        assert_eq!((check.place.as_str(), check.deviation, check.tolerance), ("b", 0.3, 0.1));
        assert!(!check.passed);
    }

    #[test]
    fn equality_passes_a_zero_tolerance_and_nothing_else_does() {
        for (deviation, passed) in [(0.0, true), (1.0, false), (f64::NAN, false)] {
            let mut worst = Worst::new("c");
            worst.see(String::new, deviation, ZERO);
            assert_eq!(worst.finish().passed, passed);
        }
    }

    #[test]
    fn nan_other_lengths_and_nothing_fail() {
        assert!(!Worst::new("c").finish().passed);
        for found in [&[f32::NAN][..], &[1.0, 1.0]] {
            let mut worst = Worst::new("c");
            worst.see_values(|i| i.to_string(), found, &[1.0], HALF);
            assert!(!worst.finish().passed);
        }
    }

    #[test]
    fn relative_frobenius_of_known_vectors() {
        assert_eq!(relative_frobenius(&[3.0, 5.0], &[3.0, 4.0]), 0.2);
        assert_eq!(relative_frobenius(&[2.0], &[0.0]), 2.0);
        assert_eq!(relative_frobenius(&[2.0], &[]), f64::INFINITY);
    }

    #[test]
    fn ulps_cross_zero() {
        assert_eq!(ulps(0.0, -0.0), 0);
        assert_eq!(ulps(f32::from_bits(1), -f32::from_bits(2)), 3);
        assert_eq!(ulps(1.0, 1.0 + f32::EPSILON), 1);
    }
}
