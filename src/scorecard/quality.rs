//! Is an arm no worse than the control?

use super::judge::{Arm, RunSummary};
use super::stats::{mean, t_interval};
use super::verdict::{Outcome, Verdict, VerdictKind};

/// What quality is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// A value of the final evaluation, or `train_loss`; lower is better.
    pub metric: String,
    /// How much worse than the control an arm may be, in the metric's unit.
    pub margin: f64,
    /// Confidence of the two-sided interval whose ends decide, in (0, 1).
    pub confidence: f64,
}

impl Quality {
    /// Judges `arm` by the differences to `control` over runs of equal seed: it passes when the whole interval of
    /// the mean difference is at most the margin, fails when the whole interval is above it, and is undecided
    /// otherwise and with fewer than two pairs. An arm with a run that has no value never passes: the runs that
    /// failed may be those that went badly.
    pub(super) fn judge(&self, arm: Arm<'_>, control: Arm<'_>) -> Verdict {
        let value =
            |run: &RunSummary| run.metrics.get(&self.metric).copied().filter(|value| value.is_finite());
        let pairs: Vec<(f64, f64)> = arm
            .runs
            .iter()
            .filter_map(|run| {
                let partner = control.runs.iter().find(|other| other.seed == run.seed)?;
                Some((value(run)?, value(partner)?))
            })
            .collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let differences: Vec<_> = pairs.iter().map(|(a, b)| a - b).collect();
        let interval = t_interval(&differences, self.confidence);
        let lost = arm.runs.iter().filter(|run| value(run).is_none()).count();
        let (outcome, detail) = match interval {
            Some(i) if i.upper <= self.margin && lost > 0 => {
                (Outcome::Undecided, format!("{lost} of {} runs have no result", arm.runs.len()))
            }
            None => (Outcome::Undecided, format!("an interval needs two seeds, there are {}", pairs.len())),
            Some(i) if i.upper <= self.margin => {
                (Outcome::Pass, "no worse than the margin allows".to_owned())
            }
            Some(i) if i.lower > self.margin => (Outcome::Fail, "worse than the margin allows".to_owned()),
            Some(_) => (Outcome::Undecided, "the interval reaches across the margin".to_owned()),
        };
        let mut verdict = Verdict::new(VerdictKind::Quality, outcome, arm.name, &self.metric, detail);
        verdict.control = Some(control.name.to_owned());
        verdict.pairs = pairs.len();
        verdict.arm_mean = mean(&ours);
        verdict.control_mean = mean(&theirs);
        verdict.difference = mean(&differences);
        verdict.interval = interval.map(|i| (i.lower, i.upper));
        verdict.limit = Some(self.margin);
        verdict.confidence = Some(self.confidence);
        verdict
    }
}
