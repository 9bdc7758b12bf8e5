//! Axes: where a value lies, which ticks are round, and how numbers are written.

use crate::math::decade;

/// A linear map from values to places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    /// Values at the two ends; not equal.
    domain: (f64, f64),
    /// Places of the two ends.
    range: (f64, f64),
}

impl Scale {
    /// One that takes `domain` to `range`. A domain without extent, or none that is finite, gets one around its value.
    pub(super) fn new(domain: (f64, f64), range: (f64, f64)) -> Self {
        let (low, high) = domain;
        let domain = match (low.is_finite() && high.is_finite(), high > low) {
            (true, true) => (low, high),
            (true, false) => {
                let around = if low == 0.0 { 1.0 } else { low.abs() * 0.05 };
                (low - around, low + around)
            }
            (false, _) => (0.0, 1.0),
        };
        Self { domain, range }
    }

    /// The same with ends that are ticks.
    pub(super) fn nice(domain: (f64, f64), range: (f64, f64), count: usize) -> Self {
        let plain = Self::new(domain, range);
        let step = plain.step(count);
        let (low, high) = plain.domain;
        Self { domain: ((low / step).floor() * step, (high / step).ceil() * step), range }
    }

    /// The place of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let ((low, high), (from, to)) = (self.domain, self.range);
        from + (value - low) / (high - low) * (to - from)
    }

    /// The place of a value, at the near end where it lies beyond.
    pub(super) fn within(&self, value: f64) -> f64 {
        let (low, high) = self.domain;
        self.at(value.clamp(low, high))
    }

    /// The distance of about `count` ticks: 1, 2 or 5 times a power of ten.
    pub(super) fn step(&self, count: usize) -> f64 {
        let (low, high) = self.domain;
        let rough = (high - low) / count.max(1) as f64;
        let power = 10_f64.powi(decade(rough));
        let factor = match rough / power {
            few if few < 1.5 => 1.0,
            few if few < 3.5 => 2.0,
            few if few < 7.5 => 5.0,
            _ => 10.0,
        };
        factor * power
    }

    /// About `count` round values within it, from the lowest on, and how they are written.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let (low, high) = self.domain;
        // Ends that are ticks but for rounding are ticks.
        let ends = |step: f64| ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        // One tick alone tells no distance: where so few fit, they lie closer.
        let steps = (0..4).map(|finer| self.step(count << finer));
        let step =
            steps.clone().find(|&step| ends(step).1 > ends(step).0).unwrap_or_else(|| self.step(count));
        let (first, last) = ends(step);
        (first..=last).take(64).map(|n| n as f64 * step).map(|value| (value, tick(value, step))).collect()
    }
}

/// A tick's label: as many digits as tell it from its neighbours.
fn tick(value: f64, step: f64) -> String {
    if value.abs() < step * 1e-6 {
        return "0".to_owned();
    }
    let units = [
        (1e24_f64, "Y"),
        (1e21, "Z"),
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ];
    // Four digits are read as they are.
    if let Some((size, unit)) = units.into_iter().find(|(size, _)| value.abs() >= size.max(1e4)) {
        return format!("{}{unit}", fixed(value / size, decimals(step / size)));
    }
    fixed(value, decimals(step))
}

/// Digits behind the point that show a difference of `step`.
pub(super) fn decimals(step: f64) -> usize {
    if step > 0.0 { decade(step * 1.000_001).saturating_neg().clamp(0, 12) as usize } else { 0 }
}

/// With that many digits behind the point, and a minus as wide as a plus.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    minus(&format!("{value:.decimals$}"))
}

/// The same with its sign, also where that is a plus.
pub(super) fn signed(value: f64, decimals: usize) -> String {
    minus(&format!("{value:+.decimals$}"))
}

fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
}

/// A count in groups of three digits, with narrow spaces between them.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A large number in three digits and the unit's prefix, such as `3.15 M`.
pub(super) fn short(value: f64) -> String {
    let prefixes = [(1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    for (size, prefix) in prefixes {
        if value.abs() >= size {
            let value = value / size;
            return format!(
                "{}\u{202f}{prefix}",
                fixed(value, if value < 10.0 { 2 } else { usize::from(value < 100.0) })
            );
        }
    }
    fixed(value, if value.fract() == 0.0 { 0 } else { 2 })
}

/// Rounded to that many significant digits.
pub(super) fn rounded(value: f64, digits: usize) -> f64 {
    let precision = digits.saturating_sub(1);
    format!("{value:.precision$e}").parse().unwrap_or(value)
}

/// Hours, minutes and seconds.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        few if few < 10.0 => format!("{few:.1}\u{202f}s"),
        few if few < 120.0 => format!("{few:.0}\u{202f}s"),
        some if some < 7200.0 => format!("{:.0}\u{202f}min", some / 60.0),
        many if many < 172_800.0 => format!("{:.1}\u{202f}h", many / 3600.0),
        many => format!("{:.1}\u{202f}days", many / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(low: f64, high: f64) -> String {
        let ticks = Scale::new((low, high), (0.0, 1.0)).ticks(5);
        ticks.into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(0.0, 1.0), "0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(labels(-0.013, 0.004), "−0.012 −0.010 −0.008 −0.006 −0.004 −0.002 0 0.002 0.004");
        assert_eq!(labels(2.5, 11.2), "4 6 8 10");
        assert_eq!(labels(0.0, 140.0), "0 20 40 60 80 100 120 140");
        assert_eq!(labels(0.0, 5000.0), "0 1000 2000 3000 4000 5000");
        assert_eq!(labels(0.0, 286_720.0), "0 50k 100k 150k 200k 250k");
        assert_eq!(labels(0.0, 3.1e15), "0 500T 1.0P 1.5P 2.0P 2.5P 3.0P");
    }

    #[test]
    fn what_has_no_extent_has_an_axis_all_the_same() {
        for (low, high) in [(0.0, 0.0), (2.5, 2.5), (f64::NAN, 1.0), (f64::INFINITY, f64::NEG_INFINITY)] {
            let scale = Scale::new((low, high), (0.0, 100.0));
            assert!(scale.domain.0 < scale.domain.1);
            assert!(scale.ticks(5).len() >= 3, "{low} {high}");
            assert!(scale.at(0.5).is_finite());
        }
    }

    proptest! {
        #[test]
        fn ticks_lie_within_and_differ(low in -1e6..1e6_f64, extent in 1e-6..1e6_f64, count in 2..9_usize) {
            let scale = Scale::nice((low, low + extent), (10.0, 410.0), count);
            let ticks = scale.ticks(count);
            prop_assert!((2..=2 * count + 3).contains(&ticks.len()), "{ticks:?}");
            for (value, _) in &ticks {
                prop_assert!((9.9..410.1).contains(&scale.at(*value)));
            }
            prop_assert!(ticks.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1), "{ticks:?}");
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(12), "12");
        assert_eq!(short(3_145_728.0), "3.15\u{202f}M");
        assert_eq!(short(28_672.0), "28.7\u{202f}k");
        assert_eq!(short(512.0), "512");
        assert_eq!(signed(-0.0678, 3), "−0.068");
        assert_eq!(rounded(5.605_932_2, 5), 5.6059);
        assert_eq!(duration(95.0), "95\u{202f}s");
        assert_eq!(decimals(0.05), 2);
        assert_eq!(decimals(20.0), 0);
    }
}
