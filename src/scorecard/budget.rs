//! Whether an arm and its control were given the same: tokens, FLOPs, time; and what the difference is where they are.

use super::judge::Arm;
use super::verdict::{Matched, Verdict};
use crate::stats::{mean, median};

/// Ratios nearer to 1 than this are none.
const SAME: f64 = 1e-9;

impl Matched {
    /// Of an arm beside its control, as planned; `speed` is the ratio of tokens a second where it may be judged.
    pub(super) fn of(arm: Arm<'_>, control: Arm<'_>, verdict: &Verdict, speed: Option<f64>) -> Self {
        let of = |arm: Arm<'_>, what: &dyn Fn(&super::judge::RunSummary) -> f64| {
            median(&arm.runs.iter().map(|run| what(run)).collect::<Vec<_>>()).unwrap_or_default()
        };
        let ratio = |what: &dyn Fn(&super::judge::RunSummary) -> f64| {
            let (ours, theirs) = (of(arm, what), of(control, what));
            if ours == theirs { 1.0 } else { ours / theirs }
        };
        let tokens = ratio(&|run| run.tokens as f64);
        let flops = ratio(&|run| run.flops);
        let trained = of(arm, &|run| run.tokens as f64);
        // How much the metric changes with one more token, at the end of the arm's own curve.
        let slopes =
            arm.runs.iter().filter(|run| run.steps > 0 && run.tokens > 0).filter_map(|run| {
                Some(run.slopes.get(&verdict.metric)? * run.steps as f64 / run.tokens as f64)
            });
        let slope = mean(&slopes.collect::<Vec<_>>());
        // Had the arm trained on so many times its tokens.
        let with = |times: f64| {
            let difference = verdict.difference?;
            if (times - 1.0).abs() <= SAME {
                return Some(difference);
            }
            Some(difference + slope? * (times - 1.0) * trained).filter(|value| value.is_finite())
        };
        Self {
            tokens,
            flops,
            per_token: with(1.0 / tokens),
            // In the control's time: as many times its tokens as it is as fast.
            per_second: speed.and_then(|speed| with(speed / tokens)),
        }
    }

    /// In what the two were not given the same, in words; nothing where they were.
    pub(super) fn said(&self) -> Option<String> {
        let is_other = |ratio: f64| ratio.is_finite() && (ratio - 1.0).abs() > SAME;
        let times = |ratio: f64| {
            if (ratio - 1.0).abs() < 0.01 { format!("{ratio:.5}") } else { format!("{ratio:.2}") }
        };
        match (is_other(self.tokens), is_other(self.flops)) {
            (false, false) => None,
            (true, false) => {
                Some(format!("not at one budget: {} times the control's tokens", times(self.tokens)))
            }
            (false, true) => {
                Some(format!("at as many tokens, and {} times the control's FLOPs", times(self.flops)))
            }
            (true, true) => Some(format!(
                "not at one budget: {} times the control's tokens, {} times its FLOPs",
                times(self.tokens),
                times(self.flops)
            )),
        }
    }
}
