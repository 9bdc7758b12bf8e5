//! Whether arms are given what their control is given, told before they are run.

use super::Experiment;
use crate::plan::PlannedRun;

impl Experiment {
    /// Arms that have other tokens or FLOPs than their control, in words.
    pub fn unmatched(&self) -> Vec<String> {
        let mut told = Vec::new();
        for (index, arm) in self.plan.arms.iter().enumerate() {
            let Some(control) = arm.control.and_then(|control| self.plan.arms.get(control)) else { continue };
            let of = |arm: usize| self.plan.runs.iter().find(move |run| run.arm == arm);
            let Some((ours, theirs)) = of(index).zip(arm.control.and_then(of)) else { continue };
            let ratio = |what: fn(&PlannedRun) -> f64| what(ours) / what(theirs);
            let tokens = ratio(|run| run.sizes.tokens as f64);
            let flops = ratio(|run| run.sizes.flops);
            let is_other = |ratio: &f64| (ratio - 1.0).abs() > 1e-9;
            let each = [("tokens", tokens), ("FLOPs", flops)];
            let words: Vec<String> = each
                .iter()
                .filter(|(_, ratio)| is_other(ratio))
                .map(|(what, ratio)| format!("{ratio:.4} times the {what}"))
                .collect();
            if !words.is_empty() {
                told.push(format!(
                    "`{}` has {} of its control `{}`",
                    arm.label,
                    words.join(" and "),
                    control.label
                ));
            }
        }
        told
    }
}
