//! How is an arm's quality to its control's?

use std::collections::BTreeMap;

use super::families::{Tested, adjust};
use super::finding::Finding;
use super::judge::Arm;
use super::pairing::Pairing;
use super::variance::{Spread, Variance, spreads};
use super::verdict::{Outcome, Verdict, VerdictKind};
use crate::plan::looks::Looks;
use crate::stats::{dunnett_p, dunnett_quantile, mean, seeds_for, t_quantile, t_two_sided_p};

/// What quality is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// Metrics, the one that the answer is about first; at least one.
    pub metrics: Vec<Criterion>,
    /// Fields by which measurements may differ and are compared all the same.
    pub across: Vec<String>,
    /// Confidence of the two-sided intervals whose ends decide, in (0, 1): of all arms, metrics and looks of the
    /// experiment together.
    pub confidence: f64,
    /// Where the spread of differences is taken from.
    pub variance: Variance,
    /// Steps that each arm has in common with its control: only arms with as many share a spread.
    pub forks: BTreeMap<String, u64>,
    /// Looks before the end; none where it is judged once.
    pub looks: Option<Looks>,
    /// Whether the p of no difference are wanted: they decide nothing, and those of several arms take a millisecond each.
    pub with_p: bool,
}

/// A metric and what of it is enough.
#[derive(Debug, Clone, PartialEq)]
pub struct Criterion {
    /// A value of the final evaluation, `train_loss` or `core`.
    pub metric: String,
    /// Whether more of it is better; else less is.
    pub higher_is_better: bool,
    /// How much worse than the control an arm may be, in the metric's unit.
    pub margin: f64,
    /// One run's standard deviation, where it is assumed.
    pub sigma: Option<f64>,
}

/// How sure the intervals of one family are: the arms that share a control, by one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Levels {
    /// What the intervals that decide may miss, of all arms of the family together.
    pub(super) family: f64,
    /// What the interval of an arm may miss as if there were no other, nor another metric.
    pub(super) alone: f64,
}

/// Standard errors beyond which an interval has no end.
const BEYOND: f64 = 1e9;

/// An arm beside its control.
pub(super) type Compared<'a> = (Arm<'a>, Arm<'a>);

impl Quality {
    /// By one metric, of which less is better: at 95 % confidence, spreads pooled where arms scatter alike, in one look.
    #[cfg(test)]
    pub fn by(metric: &str, margin: f64) -> Self {
        let criterion = Criterion { metric: metric.to_owned(), higher_is_better: false, margin, sigma: None };
        Self {
            metrics: vec![criterion],
            across: Vec::new(),
            confidence: 0.95,
            variance: Variance::Pooled,
            forks: BTreeMap::new(),
            looks: None,
            with_p: true,
        }
    }

    /// Families among which what may go wrong is shared out: every control by every metric.
    pub(super) fn families(&self, compared: &[Compared<'_>]) -> usize {
        let mut controls: Vec<&str> = compared.iter().map(|(_, control)| control.name).collect();
        controls.sort_unstable();
        controls.dedup();
        (controls.len() * self.metrics.len()).max(1)
    }

    /// What intervals may miss where there is one look.
    pub(super) fn levels(&self, families: usize) -> Levels {
        let alpha = 1.0 - self.confidence;
        Levels { family: alpha / families as f64, alone: alpha }
    }

    /// Judges every arm by every metric, by the differences to its control over runs of equal seed: verdicts metric by
    /// metric, arms in their order. The interval of the mean difference decides (see [`Finding`]); intervals are wide
    /// enough for all arms, metrics and looks together. An arm with a run that has no value never passes: the runs that
    /// failed may be those that went badly. Seeds whose runs are equal bit by bit count once, and differences without any
    /// spread are never a pass. Seeds of which one run was made in another environment class than its partner are left
    /// out and said, unless the manifest gives the two arms different backends.
    pub(super) fn judge(&self, compared: &[Compared<'_>], levels: Levels) -> Vec<Verdict> {
        let mut tested = Vec::new();
        let mut verdicts: Vec<Verdict> = Vec::new();
        for criterion in &self.metrics {
            self.by_metric(criterion, compared, levels, &mut verdicts, &mut tested);
        }
        for (place, p) in adjust(&tested) {
            if let Some(verdict) = verdicts.get_mut(place) {
                verdict.p_adjusted = Some(p);
            }
        }
        verdicts
    }

    fn by_metric(
        &self,
        criterion: &Criterion,
        compared: &[Compared<'_>],
        levels: Levels,
        verdicts: &mut Vec<Verdict>,
        tested: &mut Vec<Tested>,
    ) {
        let variance = criterion.sigma.map_or(self.variance, Variance::Assumed);
        let pairings: Vec<Result<Pairing<'_>, Box<Verdict>>> =
            compared.iter().map(|&(arm, control)| self.pairing(criterion, arm, control)).collect();
        let mut intervals: BTreeMap<&str, Intervals> = BTreeMap::new();
        let mut done: Vec<&str> = Vec::new();
        for pairing in pairings.iter().flatten() {
            let control = pairing.control.name;
            if done.contains(&control) {
                continue;
            }
            done.push(control);
            let of_it = || pairings.iter().flatten().filter(|pairing| pairing.control.name == control);
            // All that are to be judged, whichever of them can be: how many there are is not for the data to say.
            let arms = of_it().count();
            let family: Vec<&Pairing<'_>> =
                of_it().filter(|pairing| pairing.has_interval(variance)).collect();
            let found = self.family(&family, variance, arms, levels);
            intervals.extend(family.iter().map(|pairing| pairing.arm.name).zip(found));
        }
        for pairing in pairings {
            verdicts.push(match pairing {
                Ok(pairing) => {
                    let found = intervals.get(pairing.arm.name);
                    tested.extend(found.and_then(|found| found.p_together).map(|p| Tested {
                        place: verdicts.len(),
                        family: format!("{}\n{}", criterion.metric, pairing.control.name),
                        p,
                    }));
                    self.verdict(criterion, &pairing, found)
                }
                Err(verdict) => *verdict,
            });
        }
    }

    /// The pairs of an arm, or the verdict that it cannot be judged.
    fn pairing<'a>(
        &self,
        criterion: &Criterion,
        arm: Arm<'a>,
        control: Arm<'a>,
    ) -> Result<Pairing<'a>, Box<Verdict>> {
        let not_judged = |why: String| {
            let mut verdict =
                Verdict::new(VerdictKind::Quality, Outcome::NotJudged, arm.name, &criterion.metric, why);
            verdict.control = Some(control.name.to_owned());
            verdict.limit = Some(criterion.margin);
            Box::new(verdict)
        };
        if let Some(departures) = self.departures(&criterion.metric, arm, control) {
            return Err(not_judged(format!(
                "measured differently: {departures}; scorecard.across compares all the same"
            )));
        }
        let pairing = Pairing::of(arm, control, &criterion.metric);
        match pairing.environments.why_none() {
            Some(why) if pairing.pairs.is_empty() => Err(not_judged(why)),
            _ => Ok(pairing),
        }
    }

    /// The intervals of those of the `arms` arms that share a control which have one.
    fn family(
        &self,
        family: &[&Pairing<'_>],
        variance: Variance,
        arms: usize,
        levels: Levels,
    ) -> Vec<Intervals> {
        let spreads = spreads(variance, family, &self.forks);
        let count = u32::try_from(arms).unwrap_or(u32::MAX);
        let together = spreads.iter().all(|spread| spread.pooled == Some(family.len()) || spread.assumed);
        spreads
            .into_iter()
            .zip(family)
            .map(|(spread, pairing)| {
                let quantile = if together {
                    dunnett_quantile(1.0 - levels.family, count, spread.dof)
                } else {
                    t_quantile(1.0 - 0.5 * levels.family / arms.max(1) as f64, spread.dof)
                };
                // An early look of many seeds reaches beyond all measure: it decides nothing.
                let quantile = if quantile < BEYOND { quantile } else { f64::INFINITY };
                let mean = pairing.mean_difference();
                let error = spread.deviation / (pairing.pairs.len() as f64).sqrt();
                let around = |half: f64| (mean - half, mean + half);
                let raw = t_quantile(1.0 - 0.5 * levels.alone, spread.dof);
                let raw = if raw < BEYOND { raw } else { f64::INFINITY };
                let t = mean / error;
                let p = t_two_sided_p(t, spread.dof);
                let p_together = self.with_p.then(|| {
                    if together { dunnett_p(t, count, spread.dof) } else { (p * arms as f64).min(1.0) }
                });
                Intervals {
                    adjusted: around(quantile * error),
                    raw: around(raw * error),
                    p,
                    p_together,
                    arms,
                    spread,
                }
            })
            .collect()
    }

    fn verdict(
        &self,
        criterion: &Criterion,
        pairing: &Pairing<'_>,
        intervals: Option<&Intervals>,
    ) -> Verdict {
        let (arm, control) = (pairing.arm, pairing.control);
        let difference = pairing.mean_difference();
        let sign = if criterion.higher_is_better { -1.0 } else { 1.0 };
        // As harm: what is above 0 is worse, whichever way the metric goes.
        let finding = intervals.map(|found| {
            let (a, b) = (sign * found.adjusted.0, sign * found.adjusted.1);
            Finding::of(a.min(b), a.max(b), criterion.margin)
        });
        let needed = intervals.filter(|_| finding == Some(Finding::Undecided)).and_then(|found| {
            let distance = (criterion.margin - sign * difference).abs();
            seeds_for(distance, found.spread.deviation, self.confidence)
        });
        let lost = pairing.lost;
        let (outcome, finding, detail) = match finding {
            None => {
                let why = if pairing.pairs.len() >= 2 {
                    // Real seeds scatter. Where they do not, whatever made them equal makes the interval worthless.
                    "the differences of all seeds are equal, so they say nothing of their spread".to_owned()
                } else {
                    format!("an interval needs two seeds, there are {}", pairing.pairs.len())
                };
                (Outcome::Undecided, Finding::Undecided, why)
            }
            Some(finding) if finding.passes() && lost > 0 => {
                let why = format!("interim: {lost} of {} runs have no result", arm.runs.len());
                (Outcome::Undecided, Finding::Undecided, why)
            }
            Some(finding) if finding.passes() && !pairing.environments.mixed.is_empty() => {
                (Outcome::Undecided, Finding::Undecided, "seeds are left out".to_owned())
            }
            Some(finding) => {
                let outcome = match finding {
                    Finding::Undecided => Outcome::Undecided,
                    Finding::Worse => Outcome::Fail,
                    _ => Outcome::Pass,
                };
                let more = needed.map(|seeds| format!("; about {seeds} seeds would tell"));
                (outcome, finding, finding.meaning().to_owned() + &more.unwrap_or_default())
            }
        };
        let spread = intervals.map(|found| found.spread.said.as_str()).filter(|said| !said.is_empty());
        let detail = [
            detail,
            pairing.said_repeated(),
            pairing.environments.said(),
            self.said_across(&criterion.metric, arm, control),
            spread.map(|said| format!("; {said}")).unwrap_or_default(),
        ]
        .concat();
        let mut verdict = Verdict::new(VerdictKind::Quality, outcome, arm.name, &criterion.metric, detail);
        let (ours, theirs): (Vec<f64>, Vec<f64>) =
            pairing.pairs.iter().map(|pair| (pair.ours, pair.theirs)).unzip();
        verdict.finding = Some(finding);
        verdict.higher_is_better = criterion.higher_is_better;
        verdict.control = Some(control.name.to_owned());
        verdict.pairs = pairing.pairs.len();
        verdict.seeds = pairing.pairs.iter().map(|pair| pair.seed).collect();
        verdict.arm_mean = mean(&ours);
        verdict.control_mean = mean(&theirs);
        verdict.difference = (!pairing.pairs.is_empty()).then_some(difference);
        verdict.interval = intervals.map(|found| found.adjusted);
        verdict.raw_interval = intervals.map(|found| found.raw);
        verdict.p = intervals.map(|found| found.p);
        verdict.arms_together = intervals.map_or(1, |found| found.arms);
        verdict.deviation = intervals.map(|found| found.spread.deviation);
        verdict.seeds_needed = needed;
        verdict.limit = Some(criterion.margin);
        verdict.confidence = Some(self.confidence);
        verdict
    }

    /// In what an arm is measured otherwise than its control, in words; none where the two are comparable.
    fn departures(&self, metric: &str, arm: Arm<'_>, control: Arm<'_>) -> Option<String> {
        let found = differing(metric, arm, control).filter(|(field, ..)| !self.is_across(field));
        let words: Vec<String> =
            found.map(|(field, ours, theirs)| format!("{field} {ours} against {theirs}")).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// What the manifest has compared across, for the verdict to say.
    fn said_across(&self, metric: &str, arm: Arm<'_>, control: Arm<'_>) -> String {
        let found = differing(metric, arm, control).filter(|(field, ..)| self.is_across(field));
        let words: Vec<String> =
            found.map(|(field, ours, theirs)| format!("{field} {ours} against {theirs}")).collect();
        if words.is_empty() { String::new() } else { format!("; across {}", words.join(", ")) }
    }

    fn is_across(&self, field: &str) -> bool {
        self.across.iter().any(|across| across == field)
    }
}

/// What is known of the mean difference of an arm.
struct Intervals {
    /// Wide enough for all arms, metrics and looks together.
    adjusted: (f64, f64),
    /// For this arm alone.
    raw: (f64, f64),
    /// The two-sided p of no difference, as if there were no other arm.
    p: f64,
    /// The same for all arms of the family together.
    p_together: Option<f64>,
    /// Arms that are judged against the same control.
    arms: usize,
    spread: Spread,
}

/// Fields by which a run of the arm and one of the control are measured differently, each once.
fn differing<'a>(
    metric: &str,
    arm: Arm<'a>,
    control: Arm<'a>,
) -> impl Iterator<Item = (&'static str, &'a str, &'a str)> {
    let mut found: Vec<(&'static str, &str, &str)> = Vec::new();
    for ours in arm.runs.iter().filter_map(|run| run.measured.get(metric)) {
        for theirs in control.runs.iter().filter_map(|run| run.measured.get(metric)) {
            for ((field, ours), (_, theirs)) in ours.iter().zip(theirs) {
                if ours != theirs && found.iter().all(|(known, ..)| known != field) {
                    found.push((*field, ours, theirs));
                }
            }
        }
    }
    found.into_iter()
}
