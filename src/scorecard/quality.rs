//! Is an arm no worse than the control?

use super::judge::{Arm, RunSummary};
use super::stats::{mean, t_interval};
use super::verdict::{Outcome, Verdict, VerdictKind};

/// What quality is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// A value of the final evaluation, `train_loss` or `core`.
    pub metric: String,
    /// Whether more of it is better; else less.
    pub higher_is_better: bool,
    /// How much worse than the control an arm may be, in the metric's unit.
    pub margin: f64,
    /// Fields by which measurements may differ and are compared all the same.
    pub across: Vec<String>,
    /// Confidence of the two-sided interval whose ends decide, in (0, 1).
    pub confidence: f64,
}

impl Quality {
    /// Judges `arm` by the differences to `control` over runs of equal seed: it passes when the whole interval of
    /// the mean difference is at most the margin (of a metric of which more is better, of the control to the arm), fails
    /// when the whole interval is above it, and is undecided
    /// otherwise and with fewer than two pairs. An arm with a run that has no value never passes: the runs that
    /// failed may be those that went badly. Seeds whose runs are equal bit by bit count once, and differences without
    /// any spread are never a pass. Seeds of which one run was made in another environment class than its partner are
    /// left out and said, unless the manifest gives the two arms different backends.
    pub(super) fn judge(&self, arm: Arm<'_>, control: Arm<'_>) -> Verdict {
        let value =
            |run: &RunSummary| run.metrics.get(&self.metric).copied().filter(|value| value.is_finite());
        if let Some(departures) = self.departures(arm, control) {
            let why = format!("measured differently: {departures}; scorecard.across compares all the same");
            let mut verdict =
                Verdict::new(VerdictKind::Quality, Outcome::NotJudged, arm.name, &self.metric, why);
            verdict.control = Some(control.name.to_owned());
            verdict.limit = Some(self.margin);
            return verdict;
        }
        let mut pairs: Vec<(f64, f64)> = Vec::new();
        let mut counted = Vec::new();
        let mut repeated = Vec::new();
        let mut environments = Environments::default();
        for run in arm.runs {
            let Some(partner) = control.runs.iter().find(|other| other.seed == run.seed) else { continue };
            let Some(pair) = value(run).zip(value(partner)) else { continue };
            if !environments.are_one(run, partner) {
                continue;
            }
            // Seeds that led to the same bits are one run: counting it twice would halve the interval for nothing.
            let bits = (run.result_hash, partner.result_hash);
            if counted.contains(&bits) {
                repeated.push(run.seed);
            } else {
                counted.push(bits);
                pairs.push(pair);
            }
        }
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let differences: Vec<_> = pairs.iter().map(|(a, b)| a - b).collect();
        // How much worse the arm is, whatever the metric's direction.
        let worse: Vec<_> = differences
            .iter()
            .map(|difference| if self.higher_is_better { -difference } else { *difference })
            .collect();
        let interval = t_interval(&worse, self.confidence);
        // What is left of a spread of 0 after subtracting and averaging.
        let rounding = 1e-12 * ours.iter().chain(&theirs).fold(0.0_f64, |most, value| most.max(value.abs()));
        let lost = arm.runs.iter().filter(|run| value(run).is_none()).count();
        if let (true, Some(why)) = (pairs.is_empty(), environments.why_none()) {
            let mut verdict =
                Verdict::new(VerdictKind::Quality, Outcome::NotJudged, arm.name, &self.metric, why);
            verdict.control = Some(control.name.to_owned());
            verdict.limit = Some(self.margin);
            return verdict;
        }
        let across = self.said_across(arm, control);
        let (outcome, detail) = match interval {
            // Real seeds scatter. Where they do not, whatever made them equal makes the interval worthless.
            Some(i) if i.upper - i.lower <= rounding => (
                Outcome::Undecided,
                "the differences of all seeds are equal, so they say nothing of their spread".to_owned(),
            ),
            Some(i) if i.upper <= self.margin && lost > 0 => {
                (Outcome::Undecided, format!("{lost} of {} runs have no result", arm.runs.len()))
            }
            Some(i) if i.upper <= self.margin && !environments.mixed.is_empty() => {
                (Outcome::Undecided, "seeds are left out".to_owned())
            }
            None => (Outcome::Undecided, format!("an interval needs two seeds, there are {}", pairs.len())),
            Some(i) if i.upper <= self.margin => {
                (Outcome::Pass, "no worse than the margin allows".to_owned())
            }
            Some(i) if i.lower > self.margin => (Outcome::Fail, "worse than the margin allows".to_owned()),
            Some(_) => (Outcome::Undecided, "the interval reaches across the margin".to_owned()),
        };
        let detail = match repeated.as_slice() {
            [] => detail,
            [seed] => {
                format!("{detail}; seed {seed} repeats another one's run bit by bit and counts with it")
            }
            seeds => format!(
                "{detail}; {} seeds repeat another one's run bit by bit and count with it",
                seeds.len()
            ),
        };
        let detail = detail + &environments.said() + &across;
        let mut verdict = Verdict::new(VerdictKind::Quality, outcome, arm.name, &self.metric, detail);
        verdict.control = Some(control.name.to_owned());
        verdict.pairs = pairs.len();
        verdict.arm_mean = mean(&ours);
        verdict.control_mean = mean(&theirs);
        verdict.difference = mean(&differences);
        verdict.interval =
            interval.map(|i| if self.higher_is_better { (-i.upper, -i.lower) } else { (i.lower, i.upper) });
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

/// The environment classes that pairs of runs were made in. Within one class equal runs are equal bit by bit; between
/// two, a difference is also one of machines, which no margin speaks of.
#[derive(Default)]
struct Environments {
    /// Seeds whose two runs were made in different classes, with those.
    mixed: Vec<(u64, String, String)>,
    /// Classes of the pairs that are compared, each once.
    compared: Vec<String>,
    /// Backends that the manifest compares, where it gives the arms different ones.
    backends: Option<(String, String)>,
}

impl Environments {
    /// Whether two runs are compared: in one class, or in two because the manifest asks for two backends.
    fn are_one(&mut self, run: &RunSummary, partner: &RunSummary) -> bool {
        let (ours, theirs) = (&run.environment_class, &partner.environment_class);
        if run.backend != partner.backend {
            self.backends = Some((run.backend.clone(), partner.backend.clone()));
        } else if ours != theirs {
            self.mixed.push((run.seed, ours.clone(), theirs.clone()));
            return false;
        }
        if !self.compared.contains(ours) {
            self.compared.push(ours.clone());
        }
        true
    }

    /// Why nothing is compared; none where that has another reason.
    fn why_none(&self) -> Option<String> {
        let (_, ours, theirs) = self.mixed.first()?;
        Some(format!(
            "every seed was trained in two environment classes, {ours} and {theirs}: train all of it in one, into \
             other results (--results DIR)"
        ))
    }

    fn said(&self) -> String {
        let mixed = self.mixed.first().map(|(seed, ours, theirs)| {
            let more = match self.mixed.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("; seed {seed}{more} left out, trained in two environment classes, {ours} and {theirs}")
        });
        let strata = match self.compared.len() {
            0 | 1 => None,
            classes => Some(format!("; seeds of {classes} environment classes, each within one")),
        };
        let across = self.backends.as_ref();
        let across = across.map(|(ours, theirs)| format!("; across run.backend, {ours} against {theirs}"));
        [mixed, strata, across].into_iter().flatten().collect()
    }
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
