//! Is an arm as fast as the control?

use super::judge::{Arm, RunSummary};
use super::verdict::{Outcome, Verdict, VerdictKind};
use crate::stats::median;

/// What speed is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Speed {
    /// The smallest ratio of tokens per second, arm / control.
    pub min_ratio: f64,
}

impl Speed {
    /// Compares the median tokens per second of runs that were trained whole, alone, and on one kind of machine;
    /// where there are none such, the speed is not judged.
    pub(super) fn judge(&self, arm: Arm<'_>, control: Arm<'_>) -> Verdict {
        let judged = fair(arm).and_then(|ours| Ok((ours, fair(control)?))).and_then(|(ours, theirs)| {
            let mut machines = ours.iter().chain(&theirs).flat_map(|run| &run.machines);
            let first = machines.next();
            match machines.find(|machine| Some(*machine) != first) {
                Some(other) => {
                    Err(format!("trained on `{}` and `{other}`", first.map_or("", String::as_str)))
                }
                None => Ok((rate(&ours), rate(&theirs))),
            }
        });
        let metric = "tokens/s";
        let mut verdict = match judged {
            Err(why) => Verdict::new(VerdictKind::Speed, Outcome::NotJudged, arm.name, metric, why),
            Ok((Some(ours), Some(theirs))) => {
                let ratio = ours / theirs;
                let outcome = if ratio >= self.min_ratio { Outcome::Pass } else { Outcome::Fail };
                let detail = format!("{ours:.0} against {theirs:.0} tokens/s");
                let mut verdict = Verdict::new(VerdictKind::Speed, outcome, arm.name, metric, detail);
                (verdict.arm_mean, verdict.control_mean) = (Some(ours), Some(theirs));
                verdict.difference = Some(ratio);
                verdict
            }
            Ok(_) => {
                let why = "no speed was measured".to_owned();
                Verdict::new(VerdictKind::Speed, Outcome::NotJudged, arm.name, metric, why)
            }
        };
        verdict.control = Some(control.name.to_owned());
        verdict.limit = Some(self.min_ratio);
        verdict
    }
}

/// The runs of an arm whose speed tells something, or why there is none.
fn fair(arm: Arm<'_>) -> Result<Vec<&RunSummary>, String> {
    let fair: Vec<_> =
        arm.runs.iter().copied().filter(|run| run.alone && run.shared_steps == 0 && run.finished()).collect();
    if !fair.is_empty() {
        return Ok(fair);
    }
    Err(match arm.runs {
        [] => format!("`{}` has no run", arm.name),
        runs if runs.iter().all(|run| !run.finished()) => format!("`{}` has no finished run", arm.name),
        runs if runs.iter().any(|run| run.shared_steps > 0) => {
            format!("runs of `{}` share their first steps with others", arm.name)
        }
        _ => format!("runs of `{}` were trained beside others", arm.name),
    })
}

fn rate(runs: &[&RunSummary]) -> Option<f64> {
    let rates: Vec<_> = runs.iter().filter_map(|run| run.tokens_per_second).collect();
    median(&rates).filter(|rate| *rate > 0.0)
}
