//! Curves over steps: means and bands over seeds, and few enough points to draw.

use std::borrow::Borrow;

/// A curve over steps, with what the seeds span around it where there are several.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Curve {
    /// Steps, rising.
    pub(super) steps: Vec<u64>,
    /// The value at each.
    pub(super) values: Vec<f64>,
    /// The lowest and the highest seed at each; none of one seed.
    pub(super) band: Option<(Vec<f64>, Vec<f64>)>,
}

impl Curve {
    /// A curve without a band.
    pub(super) fn plain(points: impl IntoIterator<Item = (u64, f64)>) -> Self {
        let (steps, values) = points.into_iter().unzip();
        Self { steps, values, band: None }
    }

    /// The mean of several, with a band from the lowest to the highest, over the steps that all of them have. Steps of
    /// each rise.
    pub(super) fn mean<C: Borrow<Self>>(curves: &[C]) -> Self {
        let curves: Vec<&Self> = curves.iter().map(Borrow::borrow).collect();
        let [first, rest @ ..] = curves.as_slice() else { return Self::default() };
        if rest.is_empty() {
            return (*first).clone();
        }
        let mut next = vec![0; curves.len()];
        let mut mean = Self { band: Some(<_>::default()), ..Self::default() };
        for &step in &first.steps {
            let mut values = Vec::with_capacity(curves.len());
            for (curve, next) in curves.iter().zip(&mut next) {
                while curve.steps.get(*next).is_some_and(|&other| other < step) {
                    *next += 1;
                }
                if curve.steps.get(*next) == Some(&step) {
                    values.extend(curve.values.get(*next).copied());
                }
            }
            if values.len() < curves.len() {
                continue;
            }
            mean.steps.push(step);
            mean.values.push(values.iter().sum::<f64>() / values.len() as f64);
            if let Some((low, high)) = &mut mean.band {
                // Not a number where one of them is none: a gap, not a bound.
                let nan = values.iter().any(|value| value.is_nan());
                let pick = |of: fn(f64, f64) -> f64| values.iter().copied().fold(f64::NAN, of);
                low.push(if nan { f64::NAN } else { pick(f64::min) });
                high.push(if nan { f64::NAN } else { pick(f64::max) });
            }
        }
        mean
    }

    /// At most `most` of its points: of every stretch of steps the lowest and the highest, so that no spike is lost.
    /// First and last point stay; the band of a point is that of its stretch.
    pub(super) fn thinned(&self, most: usize) -> Self {
        let len = self.steps.len().min(self.values.len());
        if len <= most.max(4) {
            return self.clone();
        }
        let stretches = (most.max(4) - 2) / 2;
        // Between the first and the last.
        let inner = len - 2;
        let mut kept = Self { band: self.band.as_ref().map(|_| <_>::default()), ..Self::default() };
        let mut keep = |at: usize, from: usize, to: usize| {
            let (Some(&step), Some(&value)) = (self.steps.get(at), self.values.get(at)) else { return };
            kept.steps.push(step);
            kept.values.push(value);
            if let (Some((lows, highs)), Some((low, high))) = (&mut kept.band, &self.band) {
                let over = |bound: &[f64], of: fn(f64, f64) -> f64| {
                    bound.get(from..to).unwrap_or_default().iter().copied().fold(f64::NAN, of)
                };
                lows.push(over(low, f64::min));
                highs.push(over(high, f64::max));
            }
        };
        keep(0, 0, 1);
        for stretch in 0..stretches {
            let from = 1 + inner * stretch / stretches;
            let to = 1 + inner * (stretch + 1) / stretches;
            let values = |at: &usize| self.values.get(*at).copied().unwrap_or(f64::NAN);
            // What is not finite is kept before anything else: it is what one looks for.
            let strange = (from..to).find(|at| !values(at).is_finite());
            let least = (from..to).min_by(|a, b| values(a).total_cmp(&values(b)));
            let most = strange.or_else(|| (from..to).max_by(|a, b| values(a).total_cmp(&values(b))));
            let (Some(least), Some(most)) = (least, most) else { continue };
            for at in [least.min(most), least.max(most)].into_iter().take(1 + usize::from(least != most)) {
                keep(at, from, to);
            }
        }
        keep(len - 1, len - 1, len);
        kept
    }

    /// Without the points that lie on the straight line between their neighbours: schedules are lines with few corners.
    pub(super) fn corners(&self) -> Self {
        let len = self.steps.len().min(self.values.len());
        let mut kept: Vec<usize> = Vec::new();
        for at in 0..len {
            if let (Some(&before), Some(next)) = (kept.last(), (at + 1 < len).then_some(at + 1)) {
                let point = |at: usize| (self.steps[at] as f64, self.values[at]);
                let ((x0, y0), (x1, y1), (x2, y2)) = (point(before), point(at), point(next));
                let between = y0 + (y2 - y0) * (x1 - x0) / (x2 - x0);
                let size = y0.abs().max(y1.abs()).max(y2.abs());
                if (between - y1).abs() <= 1e-9 * size {
                    continue;
                }
            }
            kept.push(at);
        }
        Self::plain(kept.into_iter().map(|at| (self.steps[at], self.values[at])))
    }

    /// The curve's median over every stretch of at most `stretches`, at the stretch's last step; calmer to look at.
    pub(super) fn medians(&self, stretches: usize) -> Self {
        let len = self.steps.len().min(self.values.len());
        let stretches = stretches.clamp(1, len.max(1));
        let mut kept = Self::default();
        for stretch in 0..stretches {
            let (from, to) = (len * stretch / stretches, len * (stretch + 1) / stretches);
            let mut values = self.values.get(from..to).unwrap_or_default().to_vec();
            values.sort_by(f64::total_cmp);
            if let (Some(&median), Some(&step)) =
                (values.get(values.len() / 2), to.checked_sub(1).and_then(|last| self.steps.get(last)))
            {
                kept.steps.push(step);
                kept.values.push(median);
            }
        }
        kept
    }

    /// The lowest and the highest finite value, bands included.
    pub(super) fn extent(&self) -> Option<(f64, f64)> {
        let band = self.band.iter().flat_map(|(low, high)| low.iter().chain(high));
        extent(self.values.iter().chain(band).copied())
    }
}

/// The lowest and the highest finite value.
pub(super) fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|value| value.is_finite()).fold(None, |extent, value| match extent {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn curve(values: &[f64]) -> Curve {
        Curve::plain(values.iter().enumerate().map(|(step, value)| (step as u64, *value)))
    }

    #[test]
    fn means_and_bands_over_the_steps_that_all_have() {
        let mean = Curve::mean(&[curve(&[1.0, 2.0, 3.0]), curve(&[3.0, 2.0])]);
        assert_eq!(mean.steps, [0, 1]);
        assert_eq!(mean.values, [2.0, 2.0]);
        assert_eq!(mean.band, Some((vec![1.0, 2.0], vec![3.0, 2.0])));
        let sparse = Curve::plain([(0, 1.0), (50, 3.0), (100, 5.0)]);
        let other = Curve::plain([(0, 1.0), (25, 9.0), (50, 1.0), (100, 1.0)]);
        assert_eq!(Curve::mean(&[sparse, other]).values, [1.0, 2.0, 3.0]);
        assert_eq!(Curve::mean(&[curve(&[1.0])]).band, None);
        assert!(Curve::mean::<Curve>(&[]).steps.is_empty());
    }

    #[test]
    fn a_gap_stays_a_gap() {
        let mean = Curve::mean(&[curve(&[1.0, f64::NAN]), curve(&[2.0, 2.0])]);
        let (low, high) = mean.band.unwrap();
        assert!(mean.values[1].is_nan() && low[1].is_nan() && high[1].is_nan());
        let mut values = vec![1.0; 10_000];
        values[777] = f64::NAN;
        assert!(curve(&values).thinned(100).values.iter().any(|value| value.is_nan()));
    }

    proptest! {
        #[test]
        fn thinning_keeps_ends_extremes_and_order(
            values in prop::collection::vec(-10.0..10.0_f64, 1..3000), most in 4..400_usize,
        ) {
            let whole = curve(&values);
            let thin = whole.thinned(most);
            prop_assert!(thin.steps.len() <= most || values.len() <= most);
            prop_assert_eq!(thin.extent(), whole.extent());
            prop_assert_eq!((thin.steps.first(), thin.steps.last()), (whole.steps.first(), whole.steps.last()));
            prop_assert!(thin.steps.windows(2).all(|pair| pair[0] < pair[1]));
            for (step, value) in thin.steps.iter().zip(&thin.values) {
                prop_assert_eq!(values[*step as usize], *value);
            }
        }
    }

    #[test]
    fn schedules_keep_their_corners() {
        let schedule: Vec<f64> = (0..=1000_u32)
            .map(|step| {
                if step < 100 {
                    f64::from(step) / 100.0
                } else {
                    1.0 - f64::from(step.max(500) - 500) / 500.0
                }
            })
            .collect();
        let corners = curve(&schedule).corners();
        assert_eq!(corners.steps, [0, 100, 500, 1000]);
        assert_eq!(curve(&[0.0, 1.0, 0.0]).corners().steps, [0, 1, 2]);
    }

    #[test]
    fn medians_are_not_moved_by_a_pause() {
        let mut seconds = vec![0.5; 100];
        seconds[42] = 60.0;
        let calm = curve(&seconds).medians(10);
        assert_eq!(calm.steps.len(), 10);
        assert!(calm.values.iter().all(|value| *value == 0.5));
        assert_eq!(calm.steps.last(), Some(&99));
    }
}
