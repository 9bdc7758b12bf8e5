//! How is an arm's quality to its control's?

use std::collections::BTreeMap;

use super::finding::Finding;
use super::judge::Arm;
use super::pairing::Pairing;
use super::variance::{Spread, Variance, spreads};
use super::verdict::{Outcome, Verdict, VerdictKind};
use crate::stats::{dunnett_quantile, mean, seeds_for, t_quantile};

/// What quality is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// A value of the final evaluation, `train_loss` or `core`.
    pub metric: String,
    /// Whether more of it is better; else less is.
    pub higher_is_better: bool,
    /// How much worse than the control an arm may be, in the metric's unit.
    pub margin: f64,
    /// Fields by which measurements may differ and are compared all the same.
    pub across: Vec<String>,
    /// Confidence of the two-sided intervals whose ends decide, in (0, 1): of all arms of the experiment together.
    pub confidence: f64,
    /// Where the spread of differences is taken from.
    pub variance: Variance,
    /// Steps that each arm has in common with its control: only arms with as many share a spread.
    pub forks: BTreeMap<String, u64>,
}

/// An arm beside its control.
pub(super) type Compared<'a> = (Arm<'a>, Arm<'a>);

impl Quality {
    /// Judges every arm by the differences to its control over runs of equal seed. The interval of the mean difference
    /// decides (see [`Finding`]); intervals are wide enough for all arms together. An arm with a run that has no value
    /// never passes: the runs that failed may be those that went badly. Seeds whose runs are equal bit by bit count
    /// once, and differences without any spread are never a pass. Seeds of which one run was made in another environment
    /// class than its partner are left out and said, unless the manifest gives the two arms different backends.
    pub(super) fn judge(&self, compared: &[Compared<'_>]) -> Vec<Verdict> {
        let pairings: Vec<Result<Pairing<'_>, Box<Verdict>>> =
            compared.iter().map(|&(arm, control)| self.pairing(arm, control)).collect();
        let mut controls: Vec<&str> = Vec::new();
        for pairing in pairings.iter().flatten().filter(|pairing| pairing.has_interval(self.variance)) {
            if !controls.contains(&pairing.control.name) {
                controls.push(pairing.control.name);
            }
        }
        let mut intervals: BTreeMap<&str, Intervals> = BTreeMap::new();
        for control in &controls {
            let family: Vec<&Pairing<'_>> = pairings
                .iter()
                .flatten()
                .filter(|pairing| pairing.control.name == *control && pairing.has_interval(self.variance))
                .collect();
            let found = self.family(&family, controls.len());
            intervals.extend(family.iter().map(|pairing| pairing.arm.name).zip(found));
        }
        pairings
            .into_iter()
            .map(|pairing| match pairing {
                Ok(pairing) => self.verdict(&pairing, intervals.get(pairing.arm.name)),
                Err(verdict) => *verdict,
            })
            .collect()
    }

    /// The pairs of an arm, or the verdict that it cannot be judged.
    fn pairing<'a>(&self, arm: Arm<'a>, control: Arm<'a>) -> Result<Pairing<'a>, Box<Verdict>> {
        let not_judged = |why: String| {
            let mut verdict =
                Verdict::new(VerdictKind::Quality, Outcome::NotJudged, arm.name, &self.metric, why);
            verdict.control = Some(control.name.to_owned());
            verdict.limit = Some(self.margin);
            Box::new(verdict)
        };
        if let Some(departures) = self.departures(arm, control) {
            return Err(not_judged(format!(
                "measured differently: {departures}; scorecard.across compares all the same"
            )));
        }
        let pairing = Pairing::of(arm, control, &self.metric);
        match pairing.environments.why_none() {
            Some(why) if pairing.pairs.is_empty() => Err(not_judged(why)),
            _ => Ok(pairing),
        }
    }

    /// The intervals of the arms that share a control, one of so many controls.
    fn family(&self, family: &[&Pairing<'_>], controls: usize) -> Vec<Intervals> {
        let spreads = spreads(self.variance, family, &self.forks);
        let arms = family.len();
        // What may go wrong is shared out evenly among controls, whose arms have nothing in common.
        let confidence = 1.0 - (1.0 - self.confidence) / controls.max(1) as f64;
        let together = spreads.iter().all(|spread| spread.pooled == Some(arms) || spread.assumed);
        spreads
            .into_iter()
            .zip(family)
            .map(|(spread, pairing)| {
                let quantile = if together {
                    dunnett_quantile(confidence, u32::try_from(arms).unwrap_or(u32::MAX), spread.dof)
                } else {
                    let alone = 1.0 - (1.0 - confidence) / arms as f64;
                    t_quantile(f64::midpoint(1.0, alone), spread.dof)
                };
                let error = spread.deviation / (pairing.pairs.len() as f64).sqrt();
                let around = |half: f64| {
                    let mean = pairing.mean_difference();
                    (mean - half, mean + half)
                };
                let raw = t_quantile(f64::midpoint(1.0, self.confidence), spread.dof);
                Intervals { adjusted: around(quantile * error), raw: around(raw * error), arms, spread }
            })
            .collect()
    }

    fn verdict(&self, pairing: &Pairing<'_>, intervals: Option<&Intervals>) -> Verdict {
        let (arm, control) = (pairing.arm, pairing.control);
        let difference = pairing.mean_difference();
        let sign = if self.higher_is_better { -1.0 } else { 1.0 };
        // As harm: what is above 0 is worse, whichever way the metric goes.
        let finding = intervals.map(|found| {
            let (a, b) = (sign * found.adjusted.0, sign * found.adjusted.1);
            Finding::of(a.min(b), a.max(b), self.margin)
        });
        let needed = intervals.filter(|_| finding == Some(Finding::Undecided)).and_then(|found| {
            let distance = (self.margin - sign * difference).abs();
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
            self.said_across(arm, control),
            spread.map(|said| format!("; {said}")).unwrap_or_default(),
        ]
        .concat();
        let mut verdict = Verdict::new(VerdictKind::Quality, outcome, arm.name, &self.metric, detail);
        let (ours, theirs): (Vec<f64>, Vec<f64>) =
            pairing.pairs.iter().map(|pair| (pair.ours, pair.theirs)).unzip();
        verdict.finding = Some(finding);
        verdict.higher_is_better = self.higher_is_better;
        verdict.control = Some(control.name.to_owned());
        verdict.pairs = pairing.pairs.len();
        verdict.arm_mean = mean(&ours);
        verdict.control_mean = mean(&theirs);
        verdict.difference = (!pairing.pairs.is_empty()).then_some(difference);
        verdict.interval = intervals.map(|found| found.adjusted);
        verdict.raw_interval = intervals.map(|found| found.raw);
        verdict.arms_together = intervals.map_or(1, |found| found.arms);
        verdict.deviation = intervals.map(|found| found.spread.deviation);
        verdict.seeds_needed = needed;
        verdict.limit = Some(self.margin);
        verdict.confidence = Some(self.confidence);
        verdict
    }

    /// In what an arm is measured otherwise than its control, in words; none where the two are comparable.
    fn departures(&self, arm: Arm<'_>, control: Arm<'_>) -> Option<String> {
        let found = differing(arm, control).filter(|(field, ..)| !self.is_across(field));
        let words: Vec<String> =
            found.map(|(field, ours, theirs)| format!("{field} {ours} against {theirs}")).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// What the manifest has compared across, for the verdict to say.
    fn said_across(&self, arm: Arm<'_>, control: Arm<'_>) -> String {
        let found = differing(arm, control).filter(|(field, ..)| self.is_across(field));
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
    /// Wide enough for all arms together.
    adjusted: (f64, f64),
    /// For this arm alone.
    raw: (f64, f64),
    /// Arms that are judged against the same control.
    arms: usize,
    spread: Spread,
}

/// Fields by which a run of the arm and one of the control are measured differently, each once.
fn differing<'a>(arm: Arm<'a>, control: Arm<'a>) -> impl Iterator<Item = (&'static str, &'a str, &'a str)> {
    let mut found: Vec<(&'static str, &str, &str)> = Vec::new();
    for ours in arm.runs {
        for theirs in control.runs {
            for ((field, ours), (_, theirs)) in ours.measured.iter().zip(&theirs.measured) {
                if ours != theirs && found.iter().all(|(known, ..)| known != field) {
                    found.push((*field, ours, theirs));
                }
            }
        }
    }
    found.into_iter()
}
