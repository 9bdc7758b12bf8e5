//! What differs between runs and those they should equal.

use serde::{Deserialize, Serialize};

use super::records::{Candidate, RunRecord, StepRecord};
use crate::error::Class;
use crate::scorecard::BaselineOutcome;

/// How far values may lie apart between environment classes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Of the final evaluation's values, absolute. Two identical runs of upstream differ by 0.0007 bpb.
    pub metrics: f64,
    /// Of any step's mean loss, absolute, nats a token.
    pub losses: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { metrics: 0.002, losses: 0.02 }
    }
}

/// Results against their reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The experiment.
    pub experiment: String,
    /// What the reference is called in reports: a baseline's path, another results directory.
    pub reference: String,
    /// Every cell of either, in the order of the results, then those that only the reference has.
    pub runs: Vec<RunComparison>,
    /// What else the reader should know.
    pub notes: Vec<String>,
}

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub struct RunComparison {
    /// The cell without its seed.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// How it came out.
    pub outcome: RunOutcome,
}

/// How a cell came out.
#[derive(Debug, Clone, PartialEq)]
pub enum RunOutcome {
    /// The result hashes are equal.
    Equal,
    /// They differ.
    Differs(Box<Difference>),
    /// The reference is of another environment class; every value is within tolerance.
    Within(Box<Difference>),
    /// The reference is of another environment class; some value is not within tolerance.
    Outside(Box<Difference>),
    /// The results have it unfinished.
    Unfinished,
    /// Neither has it: a look decided before it was trained.
    NotNeeded,
    /// The results do not have it.
    Missing,
    /// The reference does not have it.
    New,
}

/// In what two runs of a cell differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The run of the results.
    pub found: RunRecord,
    /// The run of the reference.
    pub expected: RunRecord,
    /// The first step at which anything differs, and what; the fields in the order in which a step uses them.
    pub first: Option<(usize, Vec<FieldDifference>)>,
    /// The first step whose loss differs.
    pub first_loss: Option<(usize, FieldDifference)>,
    /// The largest deviation of any step's loss.
    pub largest_loss: Option<(usize, FieldDifference)>,
    /// Values of the final evaluation that differ.
    pub metrics: Vec<FieldDifference>,
    /// Whether it is a defect of nanorun: one key, one class, one version, two results.
    pub defect: bool,
    /// What else differs, in words.
    pub notes: Vec<String>,
}

/// A value that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldDifference {
    /// Its name.
    pub field: String,
    /// It in the results, in the shortest decimals that have its bits.
    pub found: String,
    /// It in the reference.
    pub expected: String,
    /// Found - expected.
    pub by: f64,
}

impl FieldDifference {
    fn f64(field: &str, found: f64, expected: f64) -> Option<Self> {
        let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
        (!same).then(|| Self {
            field: field.to_owned(),
            found: found.to_string(),
            expected: expected.to_string(),
            by: found - expected,
        })
    }

    fn loss(found: f32, expected: f32) -> Option<Self> {
        (found.to_bits() != expected.to_bits()).then(|| Self {
            field: "loss".to_owned(),
            found: found.to_string(),
            expected: expected.to_string(),
            by: f64::from(found) - f64::from(expected),
        })
    }
}

/// Compares the cells of `results` with the runs of a reference, matched by arm and seed.
pub fn compare(
    experiment: &str,
    results: &[Candidate],
    reference: &str,
    expected: &[RunRecord],
    tolerance: Tolerance,
) -> Comparison {
    let mut runs: Vec<_> = results
        .iter()
        .map(|candidate| {
            let partner = expected.iter().find(|run| run.arm == candidate.arm && run.seed == candidate.seed);
            let outcome = match (&candidate.record, partner) {
                (None, None) if candidate.not_needed => RunOutcome::NotNeeded,
                (None, _) => RunOutcome::Unfinished,
                (Some(_), None) => RunOutcome::New,
                (Some(found), Some(expected)) => compare_runs(found, expected, tolerance),
            };
            RunComparison { arm: candidate.arm.clone(), seed: candidate.seed, outcome }
        })
        .collect();
    for run in expected {
        if !results.iter().any(|candidate| candidate.arm == run.arm && candidate.seed == run.seed) {
            runs.push(RunComparison { arm: run.arm.clone(), seed: run.seed, outcome: RunOutcome::Missing });
        }
    }
    let mut notes = Vec::new();
    if runs.is_empty() {
        notes.push("there is nothing to compare".to_owned());
    }
    Comparison { experiment: experiment.to_owned(), reference: reference.to_owned(), runs, notes }
}

fn compare_runs(found: &RunRecord, expected: &RunRecord, tolerance: Tolerance) -> RunOutcome {
    if found.result_hash == expected.result_hash {
        return RunOutcome::Equal;
    }
    let difference = Box::new(difference(found, expected));
    // Values of two definitions lie in no tolerance of each other.
    if found.environment_class == expected.environment_class || measured_differently(found, expected) {
        return RunOutcome::Differs(difference);
    }
    // NaN is in no tolerance.
    let within = |by: f64, limit: f64| by.abs() <= limit;
    let same_metrics = found.metrics.keys().eq(expected.metrics.keys());
    let same_steps = expected.steps.is_empty() || found.steps.len() == expected.steps.len();
    let metrics = difference.metrics.iter().all(|field| within(field.by, tolerance.metrics));
    let losses = difference.largest_loss.iter().all(|(_, field)| within(field.by, tolerance.losses));
    if same_metrics && same_steps && metrics && losses {
        RunOutcome::Within(difference)
    } else {
        RunOutcome::Outside(difference)
    }
}

/// Whether the two are known to be evaluated by two definitions.
fn measured_differently(found: &RunRecord, expected: &RunRecord) -> bool {
    found.evaluation.zip(expected.evaluation).is_some_and(|(ours, theirs)| ours != theirs)
}

fn difference(found: &RunRecord, expected: &RunRecord) -> Difference {
    let mut first = None;
    let mut first_loss = None;
    let mut largest_loss: Option<(usize, FieldDifference)> = None;
    for (step, (ours, theirs)) in found.steps.iter().zip(&expected.steps).enumerate() {
        let fields = step_differences(ours, theirs);
        if first.is_none() && !fields.is_empty() {
            first = Some((step, fields));
        }
        let Some(loss) = FieldDifference::loss(ours.loss, theirs.loss) else { continue };
        first_loss.get_or_insert_with(|| (step, loss.clone()));
        // A NaN is larger than everything.
        let size = |by: f64| if by.is_nan() { f64::INFINITY } else { by.abs() };
        if largest_loss.as_ref().is_none_or(|(_, largest)| size(loss.by) > size(largest.by)) {
            largest_loss = Some((step, loss));
        }
    }
    let comparable = !measured_differently(found, expected);
    let metrics: Vec<_> = found
        .metrics
        .iter()
        .filter(|_| comparable)
        .filter_map(|(name, &value)| FieldDifference::f64(name, value, *expected.metrics.get(name)?))
        .collect();
    let same_version = found.numerics_version == expected.numerics_version;
    let same_class = found.environment_class == expected.environment_class;
    let mut notes = Vec::new();
    if !same_class {
        let (ours, theirs) = (&found.environment_class, &expected.environment_class);
        notes.push(format!("environment class `{ours}`, expected `{theirs}`: compared by tolerance"));
    }
    if !comparable {
        notes.push(
            "evaluated by another definition: the values of the evaluations are not compared".to_owned(),
        );
    }
    if !same_version {
        let (ours, theirs) = (found.numerics_version, expected.numerics_version);
        notes.push(format!("numerics version {ours}, expected {theirs}: other bits are to be expected"));
    }
    if found.key != expected.key {
        let (ours, theirs) = (found.key.short(), expected.key.short());
        notes.push(format!("run key {ours}, expected {theirs}: another configuration or other data"));
    }
    if expected.steps.is_empty() {
        notes.push(
            "the reference has no losses of single steps, so the first step cannot be named".to_owned(),
        );
    } else if found.steps.len() != expected.steps.len() {
        let (ours, theirs) = (found.steps.len(), expected.steps.len());
        let equal = if first.is_none() { "; those that both have are equal" } else { "" };
        notes.push(format!("{ours} steps, expected {theirs}{equal}"));
    } else if first.is_none() && found.train_hash != expected.train_hash {
        notes.push("every step's loss is equal; the final parameters differ".to_owned());
    }
    for name in found.metrics.keys().filter(|name| !expected.metrics.contains_key(*name)) {
        notes.push(format!("the reference has no `{name}`"));
    }
    for name in expected.metrics.keys().filter(|name| !found.metrics.contains_key(*name)) {
        notes.push(format!("the results have no `{name}`"));
    }
    let same_values = comparable && metrics.is_empty() && found.metrics.keys().eq(expected.metrics.keys());
    if found.train_hash == expected.train_hash && found.eval_hash != expected.eval_hash && same_values {
        notes.push("training and values are equal; the settings of the evaluation differ".to_owned());
    }
    Difference {
        found: found.clone(),
        expected: expected.clone(),
        first,
        first_loss,
        largest_loss,
        metrics,
        defect: same_class
            && same_version
            && found.key == expected.key
            && (comparable || found.train_hash != expected.train_hash),
        notes,
    }
}

/// The fields of a step that differ, in the order in which it uses them.
fn step_differences(found: &StepRecord, expected: &StepRecord) -> Vec<FieldDifference> {
    let mut fields: Vec<_> = FieldDifference::loss(found.loss, expected.loss).into_iter().collect();
    if let (Some(ours), Some(theirs)) = (&found.schedule, &expected.schedule) {
        fields.extend(
            [
                ("lr_multiplier", ours.lr_multiplier, theirs.lr_multiplier),
                ("muon_momentum", ours.muon_momentum, theirs.muon_momentum),
                ("muon_weight_decay", ours.muon_weight_decay, theirs.muon_weight_decay),
            ]
            .into_iter()
            .filter_map(|(name, ours, theirs)| FieldDifference::f64(name, ours, theirs)),
        );
    }
    fields
}

impl RunOutcome {
    /// Whether the cell is as it should be.
    pub fn passed(&self) -> bool {
        matches!(self, Self::Equal | Self::Within(_) | Self::NotNeeded)
    }
}

impl Comparison {
    /// Whether every cell is as it should be, and there is one.
    pub fn passed(&self) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(|run| run.outcome.passed())
    }

    /// How many cells are as they should be.
    pub fn passing(&self) -> usize {
        self.runs.iter().filter(|run| run.outcome.passed()).count()
    }

    /// The class of failure; none when it passed. A defect is no class of its own: its report says it.
    pub fn failure(&self) -> Option<Class> {
        let class = |run: &RunComparison| match run.outcome {
            RunOutcome::Equal | RunOutcome::Within(_) | RunOutcome::NotNeeded => None,
            RunOutcome::Outside(_) => Some(Class::Verdict),
            RunOutcome::Unfinished => Some(Class::Run),
            RunOutcome::Differs(_) | RunOutcome::Missing | RunOutcome::New => Some(Class::HashMismatch),
        };
        if self.runs.is_empty() {
            return Some(Class::HashMismatch);
        }
        self.runs.iter().filter_map(class).max_by_key(|class| class.severity())
    }

    /// The comparison in brief, as the scorecard shows it.
    pub fn baseline_outcome(&self) -> BaselineOutcome {
        let worst = self.runs.iter().find(|run| !run.outcome.passed());
        let across =
            |run: &&RunComparison| matches!(run.outcome, RunOutcome::Within(_) | RunOutcome::Outside(_));
        match (worst, self.runs.iter().find(across)) {
            (Some(run), _) if !matches!(run.outcome, RunOutcome::Outside(_)) => {
                BaselineOutcome::Differs { detail: run.in_brief() }
            }
            (_, Some(run)) => {
                let run = worst.unwrap_or(run);
                BaselineOutcome::OtherClass { within: worst.is_none(), detail: run.in_brief() }
            }
            _ if self.runs.is_empty() => BaselineOutcome::Differs { detail: "no run to compare".to_owned() },
            _ => {
                let equal = self.runs.iter().filter(|run| run.outcome == RunOutcome::Equal);
                BaselineOutcome::Equal { runs: equal.count() }
            }
        }
    }
}
