//! From summaries of runs to a scorecard.

use std::collections::BTreeMap;

use super::quality::{Compared, Quality};
use super::reproducibility::BaselineOutcome;
use super::scaling::Scaling;
use super::sequence::{self, Sequence};
use super::speed::Speed;
use super::target;
use super::verdict::{Matched, Outcome, Verdict, VerdictKind, Worth};
use crate::error::Class;
use crate::hash::Digest;
use crate::plan::targets::Target;
use crate::record::ScorecardRow;
use crate::stats::{holm, mean, median, standard_deviation};

/// What a scorecard needs to know of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunSummary {
    /// The cell without its seed.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// What the train split's row groups were permuted by; none where they were read as they lie.
    pub data_seed: Option<u64>,
    /// Values of the final evaluation, and the last step's `train_loss`.
    pub metrics: BTreeMap<String, f64>,
    /// How each metric that is judged was measured: fields of the definition and what they are, in one order for all
    /// runs.
    pub measured: BTreeMap<String, Vec<(&'static str, String)>>,
    /// Whether it is over: it has a result, or diverged.
    pub ended: bool,
    /// Whether it is not trained because a look decided before it; it has no result then.
    pub not_needed: bool,
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Tokens of the whole run.
    pub tokens: u64,
    /// FLOPs of the whole run, by upstream's formula.
    pub flops: f64,
    /// By how much each metric still changes with a step, at the end of the run.
    pub slopes: BTreeMap<String, f64>,
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
    /// Numbers that arms are held against.
    pub targets: Vec<Target>,
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
    /// All its runs, but those that a look made needless.
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
    /// The scaling fit; none where none is asked for.
    pub scaling: Option<Scaling>,
    /// The looks at its seeds; none where quality is judged once.
    pub sequence: Option<Sequence>,
    /// Runs of earlier plans: listed, not judged.
    pub retired: Vec<RunSummary>,
}

/// Judges the runs of an experiment, given in the order of its plan.
pub fn judge(
    name: &str,
    question: Option<&str>,
    criteria: &Criteria,
    mut runs: Vec<RunSummary>,
) -> Scorecard {
    let sequence = sequence_of(criteria, &runs);
    if let Some(sequence) = &sequence {
        for run in runs.iter_mut().filter(|run| !run.ended) {
            run.not_needed = sequence.is_beyond(run.seed);
        }
    }
    let by_arm = by_arm(&runs);
    let controls = &criteria.controls;
    let is_control = |name: &str| controls.values().any(|control| control == name);
    let arms = by_arm.iter().map(|(name, runs)| summarise(name, runs, is_control(name))).collect();
    let mut verdicts = Vec::new();
    // Each arm with its control, or why it has none.
    let compared = compared(criteria, &by_arm);
    // What is compared is handed on together, for verdicts on several arms know of each other.
    let mut each = |kind, metric: &str, of: &dyn Fn(&[Compared<'_>]) -> Vec<Verdict>| {
        if controls.is_empty() {
            let why = "there is no control arm to compare with".to_owned();
            verdicts.push(Verdict::new(kind, Outcome::NotJudged, "", "", why));
            return;
        }
        let alone = |arm: Arm<'_>| {
            let why = "no arm is its control".to_owned();
            Verdict::new(kind, Outcome::NotJudged, arm.name, metric, why)
        };
        let mut judged = of(&judged_pairs(&compared)).into_iter();
        verdicts.extend(compared.iter().filter_map(|&(arm, control)| match control {
            None => Some(alone(arm)),
            Some(control) if one_run(arm, control) => {
                let why = "it is the same run as its control, bit by bit: what differs between them has no effect here";
                let mut verdict = Verdict::new(kind, Outcome::NotJudged, arm.name, metric, why.to_owned());
                verdict.control = Some(control.name.to_owned());
                Some(verdict)
            }
            Some(_) => judged.next(),
        }));
    };
    if let Some(quality) = &criteria.quality {
        let pairs = judged_pairs(&compared);
        let judged = match &quality.looks {
            Some(looks) => sequence::judge(quality, looks, &pairs, &runs).0,
            None => quality.judge(&pairs, quality.levels(quality.families(&pairs))),
        };
        for (at, criterion) in quality.metrics.iter().enumerate() {
            // With one metric, an arm that cannot be judged has none.
            let metric = if quality.metrics.len() == 1 { "" } else { &criterion.metric };
            each(VerdictKind::Quality, metric, &|pairs| {
                judged.iter().skip(at * pairs.len()).take(pairs.len()).cloned().collect()
            });
        }
    }
    if let Some(speed) = &criteria.speed {
        each(VerdictKind::Speed, "", &|compared| {
            compared.iter().map(|&(arm, control)| speed.judge(arm, control)).collect()
        });
    }
    let speeds: Vec<(String, f64)> = verdicts
        .iter()
        .filter(|verdict| verdict.kind == VerdictKind::Speed)
        .filter_map(|verdict| Some((verdict.arm.clone(), verdict.difference?)))
        .collect();
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.kind == VerdictKind::Quality) {
        let pair = compared.iter().find(|(arm, _)| arm.name == verdict.arm);
        let Some(&(arm, Some(control))) = pair else { continue };
        if verdict.difference.is_none() {
            continue;
        }
        let speed = speeds.iter().find(|(arm, _)| *arm == verdict.arm).map(|(_, ratio)| *ratio);
        let matched = Matched::of(arm, control, verdict, speed);
        verdict.detail.extend(matched.said().map(|said| format!("; {said}")));
        let gain = verdict.difference.map(|d| if verdict.higher_is_better { d } else { -d });
        verdict.worth = gain.and_then(|gain| Worth::of(gain, &verdict.metric, arm.runs));
        verdict.matched = Some(matched);
    }
    verdicts.extend(targets(criteria, &by_arm, sequence.as_ref()));
    verdicts.extend(criteria.baseline.as_ref().map(BaselineOutcome::verdict));
    Scorecard {
        name: name.to_owned(),
        question: question.map(str::to_owned),
        arms,
        runs,
        verdicts,
        scaling: None,
        sequence,
        retired: Vec::new(),
    }
}

/// Every arm against every target.
fn targets(
    criteria: &Criteria,
    by_arm: &[(&str, Vec<&RunSummary>)],
    sequence: Option<&Sequence>,
) -> Vec<Verdict> {
    let each = criteria.targets.iter().flat_map(|target| {
        by_arm.iter().map(move |(name, runs)| target::judge(target, Arm { name, runs }, sequence))
    });
    let mut verdicts: Vec<Verdict> = each.collect();
    let tested: Vec<(usize, f64)> =
        verdicts.iter().enumerate().filter_map(|(at, verdict)| Some((at, verdict.p?))).collect();
    let adjusted = holm(&tested.iter().map(|(_, p)| *p).collect::<Vec<_>>());
    for ((at, _), p) in tested.into_iter().zip(adjusted) {
        verdicts[at].p_adjusted = Some(p);
    }
    verdicts
}

/// Where the looks at these runs have come to; none where quality is judged once.
pub fn sequence_of(criteria: &Criteria, runs: &[RunSummary]) -> Option<Sequence> {
    let quality = criteria.quality.as_ref()?;
    let looks = quality.looks.as_ref()?;
    let by_arm = by_arm(runs);
    let compared = compared(criteria, &by_arm);
    Some(sequence::judge(quality, looks, &judged_pairs(&compared), runs).1)
}

/// The runs of each arm, arms in the order of their first runs.
fn by_arm(runs: &[RunSummary]) -> Vec<(&str, Vec<&RunSummary>)> {
    let mut arms: Vec<(&str, Vec<&RunSummary>)> = Vec::new();
    for run in runs {
        match arms.iter_mut().find(|(name, _)| *name == run.arm) {
            Some((_, runs)) => runs.push(run),
            None => arms.push((&run.arm, vec![run])),
        }
    }
    arms
}

/// The arms that are to be compared, each with its control, if it has one.
fn compared<'a>(
    criteria: &Criteria,
    by_arm: &'a [(&'a str, Vec<&'a RunSummary>)],
) -> Vec<(Arm<'a>, Option<Arm<'a>>)> {
    let controls = &criteria.controls;
    let is_control = |name: &str| controls.values().any(|control| control == name);
    let arm =
        |name: &str| by_arm.iter().find(|(other, _)| *other == name).map(|(name, runs)| Arm { name, runs });
    by_arm
        .iter()
        .filter(|(name, _)| controls.contains_key(*name) || !is_control(name))
        .map(|(name, runs)| (Arm { name, runs }, controls.get(*name).and_then(|control| arm(control))))
        .collect()
}

/// Those that can be judged.
fn judged_pairs<'a>(compared: &[(Arm<'a>, Option<Arm<'a>>)]) -> Vec<Compared<'a>> {
    compared
        .iter()
        .filter_map(|&(arm, control)| Some((arm, control?)))
        .filter(|&(arm, control)| !one_run(arm, control))
        .collect()
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
        runs: runs.iter().filter(|run| !run.not_needed).count(),
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
            scaling: self.scaling.clone(),
            sequence: self.sequence.clone(),
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
        let looks = self.sequence.iter().flat_map(|sequence| &sequence.taken);
        let at_looks = looks
            .flat_map(|look| &look.verdicts)
            .map(|verdict| ScorecardRow { verdict: "look".to_owned(), ..verdict.row() });
        self.verdicts.iter().map(Verdict::row).chain(at_looks).collect()
    }
}
