//! From summaries of runs to a scorecard.

use std::collections::BTreeMap;

use super::quality::{Compared, Quality};
use super::reproducibility::BaselineOutcome;
use super::speed::Speed;
use super::verdict::{Outcome, Verdict, VerdictKind};
use crate::error::Class;
use crate::hash::Digest;
use crate::record::ScorecardRow;
use crate::stats::{mean, median, standard_deviation};

/// What a scorecard needs to know of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// The cell without its seed.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// What the train split's row groups were permuted by; none where they were read as they lie.
    pub data_seed: Option<u64>,
    /// Values of the final evaluation, and the last step's `train_loss`.
    pub metrics: BTreeMap<String, f64>,
    /// How the quality metric was measured: fields of the definition and what they are, in one order for all runs.
    pub measured: Vec<(&'static str, String)>,
    /// Tokens over wall time of training.
    pub tokens_per_second: Option<f64>,
    /// Whether it trained with no other run beside it.
    pub alone: bool,
    /// Steps that were trained as part of another run.
    pub shared_steps: u64,
    /// CPU or accelerator and number of threads, as one text each, of everything that trained its steps: speeds compare
    /// only where it is one and the same.
    pub machines: Vec<String>,
    /// Backend, device and precision that the manifest asks for.
    pub backend: String,
    /// The environment class whose bits its result has; empty while it is unfinished.
    pub environment_class: String,
    /// The result hash; none while it is unfinished or when it failed.
    pub result_hash: Option<Digest>,
}

impl RunSummary {
    /// Whether it has a result.
    pub fn finished(&self) -> bool {
        self.result_hash.is_some()
    }
}

/// What is judged; a part that is left out is not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Criteria {
    /// What arms are compared with: the control of each, by name. A control has none.
    pub controls: BTreeMap<String, String>,
    /// Quality.
    pub quality: Option<Quality>,
    /// Speed.
    pub speed: Option<Speed>,
    /// Reproducibility; none where the manifest does not ask for it.
    pub baseline: Option<BaselineOutcome>,
}

/// An arm and its runs.
#[derive(Clone, Copy)]
pub(super) struct Arm<'a> {
    pub(super) name: &'a str,
    pub(super) runs: &'a [&'a RunSummary],
}

/// An arm in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmSummary {
    /// Its name.
    pub name: String,
    /// Whether it is a control.
    pub control: bool,
    /// Its finished runs.
    pub finished: usize,
    /// All its runs.
    pub runs: usize,
    /// For each metric that a finished run has, its mean and, over two or more, its standard deviation.
    pub metrics: BTreeMap<String, (f64, Option<f64>)>,
    /// Median tokens per second of the finished runs.
    pub tokens_per_second: Option<f64>,
}

/// The verdicts over an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Scorecard {
    /// The experiment's name.
    pub name: String,
    /// Its question.
    pub question: Option<String>,
    /// Its arms, in the order of the plan.
    pub arms: Vec<ArmSummary>,
    /// Its runs, in the order of the plan.
    pub runs: Vec<RunSummary>,
    /// Its verdicts.
    pub verdicts: Vec<Verdict>,
    /// Runs of earlier plans: listed, not judged.
    pub retired: Vec<RunSummary>,
}

/// Judges the runs of an experiment, given in the order of its plan.
pub fn judge(name: &str, question: Option<&str>, criteria: &Criteria, runs: Vec<RunSummary>) -> Scorecard {
    let mut names: Vec<&str> = Vec::new();
    for run in &runs {
        if !names.contains(&run.arm.as_str()) {
            names.push(&run.arm);
        }
    }
    let by_arm: Vec<(&str, Vec<&RunSummary>)> =
        names.into_iter().map(|name| (name, runs.iter().filter(|run| run.arm == name).collect())).collect();
    let controls = &criteria.controls;
    let is_control = |name: &str| controls.values().any(|control| control == name);
    let arms = by_arm.iter().map(|(name, runs)| summarise(name, runs, is_control(name))).collect();
    let mut verdicts = Vec::new();
    let arm =
        |name: &str| by_arm.iter().find(|(other, _)| *other == name).map(|(name, runs)| Arm { name, runs });
    // Each arm with its control, or why it has none.
    let compared: Vec<(Arm<'_>, Option<Arm<'_>>)> = by_arm
        .iter()
        .filter(|(name, _)| controls.contains_key(*name) || !is_control(name))
        .map(|(name, runs)| (Arm { name, runs }, controls.get(*name).and_then(|control| arm(control))))
        .collect();
    // What is compared is handed on together, for verdicts on several arms know of each other.
    let mut each = |kind, of: &dyn Fn(&[Compared<'_>]) -> Vec<Verdict>| {
        if controls.is_empty() {
            let why = "there is no control arm to compare with".to_owned();
            verdicts.push(Verdict::new(kind, Outcome::NotJudged, "", "", why));
            return;
        }
        let alone = |arm: Arm<'_>| {
            let why = "no arm is its control".to_owned();
            Verdict::new(kind, Outcome::NotJudged, arm.name, "", why)
        };
        let pairs: Vec<Compared<'_>> = compared
            .iter()
            .filter_map(|&(arm, control)| Some((arm, control?)))
            .filter(|&(arm, control)| !one_run(arm, control))
            .collect();
        let mut judged = of(&pairs).into_iter();
        verdicts.extend(compared.iter().filter_map(|&(arm, control)| match control {
            None => Some(alone(arm)),
            Some(control) if one_run(arm, control) => {
                let why = "it is the same run as its control, bit by bit: what differs between them has no effect here";
                let mut verdict = Verdict::new(kind, Outcome::NotJudged, arm.name, "", why.to_owned());
                verdict.control = Some(control.name.to_owned());
                Some(verdict)
            }
            Some(_) => judged.next(),
        }));
    };
    if let Some(quality) = &criteria.quality {
        each(VerdictKind::Quality, &|compared| quality.judge(compared));
    }
    if let Some(speed) = &criteria.speed {
        each(VerdictKind::Speed, &|compared| {
            compared.iter().map(|&(arm, control)| speed.judge(arm, control)).collect()
        });
    }
    verdicts.extend(criteria.baseline.as_ref().map(BaselineOutcome::verdict));
    Scorecard {
        name: name.to_owned(),
        question: question.map(str::to_owned),
        arms,
        runs,
        verdicts,
        retired: Vec::new(),
    }
}

/// Whether every run of an arm equals its control's of the same seed in all its bits: then neither quality nor speed is
/// compared, whatever the clock said.
fn one_run(arm: Arm<'_>, control: Arm<'_>) -> bool {
    let hashes = |run: &&RunSummary| {
        let partner = control.runs.iter().find(|other| other.seed == run.seed)?;
        run.result_hash.zip(partner.result_hash)
    };
    let mut pairs = arm.runs.iter().filter_map(hashes).peekable();
    pairs.peek().is_some() && pairs.all(|(ours, theirs)| ours == theirs)
}

fn summarise(name: &str, runs: &[&RunSummary], control: bool) -> ArmSummary {
    let finished: Vec<_> = runs.iter().filter(|run| run.finished()).collect();
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (metric, &value) in finished.iter().flat_map(|run| &run.metrics) {
        values.entry(metric.clone()).or_default().push(value);
    }
    let rates: Vec<_> = finished.iter().filter_map(|run| run.tokens_per_second).collect();
    ArmSummary {
        name: name.to_owned(),
        control,
        finished: finished.len(),
        runs: runs.len(),
        metrics: values
            .into_iter()
            .filter_map(|(metric, values)| Some((metric, (mean(&values)?, standard_deviation(&values)))))
            .collect(),
        tokens_per_second: median(&rates),
    }
}

impl Scorecard {
    /// The part of it that is about some of its runs: those, their arms and the verdicts on these. What is said of an
    /// arm stays what it is over all of its runs.
    #[must_use]
    pub fn view(&self, picks: &dyn Fn(usize) -> bool) -> Self {
        let each = self.runs.iter().enumerate().filter(|(run, _)| picks(*run));
        let runs: Vec<RunSummary> = each.map(|(_, run)| run.clone()).collect();
        let shows = |arm: &str| arm.is_empty() || runs.iter().any(|run| run.arm == arm);
        Self {
            name: self.name.clone(),
            question: self.question.clone(),
            arms: self.arms.iter().filter(|arm| shows(&arm.name)).cloned().collect(),
            verdicts: self.verdicts.iter().filter(|verdict| shows(&verdict.arm)).cloned().collect(),
            retired: Vec::new(),
            runs,
        }
    }

    /// Says how results are to a baseline, in place of what was said before.
    pub fn judge_reproducibility(&mut self, baseline: &BaselineOutcome) {
        self.verdicts.retain(|verdict| verdict.kind != VerdictKind::Reproducibility);
        self.verdicts.push(baseline.verdict());
    }

    /// The gravest failure among its verdicts; none where none failed.
    pub fn failure(&self) -> Option<Class> {
        self.verdicts
            .iter()
            .filter(|verdict| verdict.outcome == Outcome::Fail)
            .map(|verdict| verdict.failure)
            .max_by_key(|class| class.severity())
    }

    /// The rows of `scorecard.parquet`.
    pub fn rows(&self) -> Vec<ScorecardRow> {
        self.verdicts.iter().map(Verdict::row).collect()
    }
}
