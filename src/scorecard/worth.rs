//! What a difference is worth, by how fast the curve it stands at the end of still changes.

use super::judge::RunSummary;
use super::verdict::Worth;
use crate::stats::mean;

impl Worth {
    /// What being better by `gain` is worth to these runs: the steps and tokens that their own curve takes for as much,
    /// at the slope of its last stretch. None where no slope is known, or where it leads away from what is better.
    pub(super) fn of(gain: f64, metric: &str, runs: &[&RunSummary]) -> Option<Self> {
        let slopes: Vec<f64> = runs.iter().filter_map(|run| run.slopes.get(metric).copied()).collect();
        let better = if crate::plan::evaluation::higher_is_better(metric) { 1.0 } else { -1.0 };
        let slope = better * mean(&slopes)?;
        let batches: Vec<f64> =
            runs.iter().filter(|run| run.steps > 0).map(|run| run.tokens as f64 / run.steps as f64).collect();
        let steps = gain / slope;
        (slope > 0.0 && steps.is_finite())
            .then(|| Self { steps, tokens: steps * mean(&batches).unwrap_or_default() })
    }

    /// Its size, in words.
    pub fn said(&self) -> String {
        let steps = self.steps.abs();
        let steps = if steps < 10.0 { format!("{steps:.1}") } else { format!("{steps:.0}") };
        format!("{steps} steps ({} tokens)", quantity(self.tokens.abs()))
    }
}

impl Worth {
    /// `+41 steps`: what it has to spare, with a minus what it lacks.
    pub(super) fn signed(&self) -> String {
        if self.steps.abs() < 0.05 {
            "0 steps".to_owned()
        } else if self.steps.abs() < 10.0 {
            format!("{:+.1} steps", self.steps)
        } else {
            format!("{:+.0} steps", self.steps)
        }
    }
}

/// `110.1M`.
fn quantity(value: f64) -> String {
    for (limit, unit) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= limit {
            return format!("{:.1}{unit}", value / limit);
        }
    }
    format!("{value:.0}")
}
