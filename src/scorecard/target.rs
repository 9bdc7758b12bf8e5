//! Does the mean of an arm meet a number?

use super::judge::{Arm, RunSummary};
use super::sequence::Sequence;
use super::verdict::{LookOf, Outcome, Verdict, VerdictKind, Worth};
use crate::math::decade;
use crate::plan::targets::Target;
use crate::stats::{look_levels, mean, standard_deviation, t_one_sided_p, t_quantile};

/// Holds every arm against a target: one-sided, by a t test over its runs or by a z test where one run's deviation is
/// assumed. Each arm and each target is judged by itself, as the rules of benchmarks have it; an adjusted p stands beside.
/// Where quality is judged at looks, the target's level is shared out over them in the same way.
pub(super) fn judge(target: &Target, arm: Arm<'_>, sequence: Option<&Sequence>) -> Verdict {
    let needed: Vec<&RunSummary> = arm.runs.iter().copied().filter(|run| !run.not_needed).collect();
    let values: Vec<f64> = needed
        .iter()
        .filter_map(|run| run.metrics.get(&target.metric).copied())
        .filter(|value| value.is_finite())
        .collect();
    let verdict = |outcome, detail: String| {
        let mut verdict = Verdict::new(VerdictKind::Target, outcome, arm.name, &target.metric, detail);
        verdict.limit = Some(target.bound);
        verdict.higher_is_better = target.at_least;
        verdict.pairs = values.len();
        verdict
    };
    let Some(middle) = mean(&values) else {
        return verdict(Outcome::Undecided, format!("no run has a {}", target.metric));
    };
    let (deviation, dof) = match target.sigma {
        Some(sigma) => (Some(sigma), f64::INFINITY),
        None => (standard_deviation(&values), values.len().saturating_sub(1) as f64),
    };
    let look = sequence.and_then(|sequence| Some((sequence, sequence.taken.last()?.of)));
    let level = level(target, look);
    // As harm: what is above 0 misses the target.
    let sign = if target.at_least { -1.0 } else { 1.0 };
    let miss = sign * (middle - target.bound);
    let said = format!("{} {}", if target.at_least { "at least" } else { "at most" }, target.bound);
    let test = match target.sigma {
        Some(sigma) => format!("z with an assumed standard deviation of {sigma}"),
        None => "t".to_owned(),
    };
    let rule = target.rule.map(|rule| format!(", {rule}")).unwrap_or_default();
    let mut found = match deviation.filter(|deviation| *deviation > 0.0) {
        None => {
            let why = if values.len() < 2 {
                format!("a t test needs two runs, there is {}", values.len())
            } else {
                "all runs are equal, so they say nothing of their spread".to_owned()
            };
            verdict(Outcome::Undecided, format!("{said}: {why}{rule}"))
        }
        Some(deviation) => {
            let error = deviation / (values.len() as f64).sqrt();
            let p = t_one_sided_p(-miss / error, dof);
            let missing = needed.len() - values.len();
            let (outcome, word) = if missing > 0 {
                (Outcome::Undecided, format!("interim: {missing} of {} runs have no result", needed.len()))
            } else if sequence.is_some_and(|sequence| sequence.open().is_some()) {
                (Outcome::Undecided, "interim: more seeds are to come".to_owned())
            } else if p < level {
                (Outcome::Pass, "met".to_owned())
            } else if p > 1.0 - level {
                (Outcome::Fail, "missed".to_owned())
            } else {
                (Outcome::Undecided, "the runs do not tell".to_owned())
            };
            // What the manifest says stands as it is written; what looks make of it has no last digit.
            let shown = |level: f64| if look.is_some() { digits(level) } else { level.to_string() };
            let side = match outcome {
                Outcome::Pass => format!("p {} < {}", brief(p), shown(level)),
                Outcome::Fail => format!("p {} > {}", brief(p), shown(1.0 - level)),
                _ => format!("p {}, to be below {}", brief(p), shown(level)),
            };
            let mut found = verdict(outcome, format!("{said}: {word}; {side}, {test}{rule}"));
            let half = t_quantile(1.0 - level, dof) * error;
            found.interval = Some((middle - target.bound - half, middle - target.bound + half));
            (found.p, found.deviation) = (Some(p), Some(deviation));
            found.look = look.map(|(_, of)| of);
            found
        }
    };
    found.arm_mean = Some(middle);
    found.difference = Some(middle - target.bound);
    found.confidence = Some(1.0 - level);
    found.worth = Worth::of(-miss, &target.metric, &needed);
    if let Some(worth) = &found.worth {
        let short = if worth.steps < 0.0 { "missing" } else { "to spare" };
        found.detail.extend(["; ", &worth.said(), " ", short, ", by the slope of its own curve"]);
    }
    found
}

/// The one-sided level: of the look taken last, where there are looks.
fn level(target: &Target, look: Option<(&Sequence, LookOf)>) -> f64 {
    let Some((sequence, of)) = look else { return target.p };
    let levels = look_levels(2.0 * target.p, &sequence.looks.information());
    levels.get(of.look - 1).map_or(target.p, |level| 0.5 * level)
}

/// A level in three digits.
fn digits(level: f64) -> String {
    let places = 2_i32.saturating_sub(decade(level)).clamp(0, 12) as usize;
    format!("{level:.places$}").trim_end_matches('0').to_owned()
}

/// A p in two digits.
pub(super) fn brief(p: f64) -> String {
    match p {
        none if none < 1e-15 => "< 1e-15".to_owned(),
        few if few < 1e-3 => format!("{few:.1e}"),
        some => format!("{some:.4}"),
    }
}
