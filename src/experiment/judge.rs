//! An experiment's verdicts: what its manifest asks, over the results there are.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Result;
use crate::files::Files;
use crate::gate::{Baseline, Comparison, read_results};
use crate::manifest::settings::QualityVariance;
use crate::plan::Plan;
use crate::plan::evaluation::{Departure, Evaluation, higher_is_better};
use crate::record::ExperimentDir;
use crate::scorecard::{
    BaselineOutcome, Criteria, Criterion, Quality, RunSummary, Scorecard, Sequence, Speed, Variance, judge,
    sequence_of,
};
use crate::text::word;

use super::Experiment;

/// Judges the runs by the manifest's criteria.
pub(super) fn scorecard(files: &Files, experiment: &Experiment, runs: Vec<RunSummary>) -> Result<Scorecard> {
    let Experiment { manifest, plan, dir, .. } = experiment;
    let baseline = match &manifest.head.scorecard.reproducibility.baseline {
        Some(path) => match Baseline::read(files, Path::new(path))? {
            Some(_) => Some(compare(files, dir, Path::new(path))?.baseline_outcome()),
            None => Some(BaselineOutcome::NoBaseline),
        },
        None => None,
    };
    let criteria = Criteria { baseline, ..criteria(experiment) };
    Ok(judge(&plan.name, plan.question.as_deref(), &criteria, runs))
}

/// Where the looks at these runs have come to.
pub(super) fn sequence(experiment: &Experiment, runs: &[RunSummary]) -> Option<Sequence> {
    sequence_of(&criteria(experiment), runs)
}

/// By what arms are compared with their controls.
fn criteria(experiment: &Experiment) -> Criteria {
    let Experiment { manifest, plan, .. } = experiment;
    let settings = &manifest.head.scorecard;
    let controls: BTreeMap<String, String> = plan
        .arms
        .iter()
        .filter_map(|arm| Some((arm.label.clone(), plan.arms.get(arm.control?)?.label.clone())))
        .collect();
    // Without a control nobody asked for a comparison.
    let compares = !controls.is_empty();
    Criteria {
        quality: compares.then(|| quality(experiment)),
        speed: compares.then_some(Speed { min_ratio: settings.speed.min_ratio }),
        targets: plan.targets.clone(),
        controls,
        baseline: None,
    }
}

/// What an experiment's manifest judges quality by.
pub(super) fn quality(experiment: &Experiment) -> Quality {
    let Experiment { manifest, plan, .. } = experiment;
    let settings = &manifest.head.scorecard;
    let metric = word(&settings.quality.metric);
    let first = Criterion {
        higher_is_better: higher_is_better(&metric),
        metric,
        margin: settings.quality.margin,
        sigma: settings.quality.sigma.value(),
    };
    let also = settings.quality.also.iter().map(|also| {
        let metric = word(&also.metric);
        let higher_is_better = higher_is_better(&metric);
        Criterion { metric, higher_is_better, margin: also.margin, sigma: also.sigma }
    });
    Quality {
        metrics: std::iter::once(first).chain(also).collect(),
        across: settings.across.as_slice().to_vec(),
        confidence: settings.quality.confidence,
        variance: match settings.quality.variance {
            // With looks, nothing of how arms are judged is for the data to choose.
            QualityVariance::Pooled if plan.looks.is_some() => Variance::PooledAsPlanned,
            QualityVariance::Pooled => Variance::Pooled,
            QualityVariance::Pair => Variance::Pair,
        },
        forks: forks(plan),
        looks: plan.looks.clone(),
        with_p: true,
    }
}

/// Steps that each arm has in common with its control: of all seeds the fewest.
fn forks(plan: &Plan) -> BTreeMap<String, u64> {
    let mut forks = BTreeMap::new();
    for (index, arm) in plan.arms.iter().enumerate() {
        let Some(control) = arm.control else { continue };
        let of = |arm: usize| plan.runs.iter().enumerate().filter(move |(_, run)| run.arm == arm);
        let mut by_seed: BTreeMap<u64, usize> = BTreeMap::new();
        for (theirs, run) in of(control) {
            by_seed.entry(run.config.seed).or_insert(theirs);
        }
        let together = of(index)
            .filter_map(|(ours, run)| Some(plan.prefixes.together(ours, *by_seed.get(&run.config.seed)?)));
        forks.extend(together.min().map(|steps| (arm.label.clone(), steps)));
    }
    forks
}

/// The name of the metric that quality is judged by.
pub(super) fn metric(experiment: &Experiment) -> String {
    word(&experiment.manifest.head.scorecard.quality.metric)
}

/// The names of all metrics that something is judged by, that of the answer first.
pub(super) fn metrics(experiment: &Experiment) -> Vec<String> {
    let also = &experiment.manifest.head.scorecard.quality.also;
    let all = std::iter::once(metric(experiment))
        .chain(also.iter().map(|also| word(&also.metric)))
        .chain(experiment.plan.targets.iter().map(|target| target.metric.clone()));
    let mut metrics = Vec::new();
    for metric in all {
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    metrics
}

impl Experiment {
    /// Arms whose quality will not be judged, because they are measured otherwise than their control: in words.
    ///
    /// # Errors
    /// None that anybody has met: of a metric without a name.
    pub fn not_comparable(&self) -> Result<Vec<String>> {
        let metric = metric(self);
        let across = self.manifest.head.scorecard.across.as_slice();
        // Of thousands of seeds most are evaluated alike: each way once.
        let of = |arm: usize| {
            let mut known: Vec<Evaluation> = Vec::new();
            for run in self.plan.runs.iter().filter(move |run| run.arm == arm) {
                let evaluation = Evaluation::of(&run.config);
                if !known.contains(&evaluation) {
                    known.push(evaluation);
                }
            }
            known
        };
        let mut told = Vec::new();
        for (index, arm) in self.plan.arms.iter().enumerate() {
            let Some(control) = arm.control else { continue };
            let mut departures: Vec<Departure> = Vec::new();
            let controls = of(control);
            for ours in of(index) {
                for theirs in &controls {
                    for departure in ours.departures(theirs, &metric) {
                        let known = departures.iter().any(|known| known.field == departure.field);
                        if !known && !across.iter().any(|field| field == departure.field) {
                            departures.push(departure);
                        }
                    }
                }
            }
            if !departures.is_empty() {
                let words = departures
                    .iter()
                    .map(|Departure { field, ours, theirs }| format!("{field} {ours} against {theirs}"));
                told.push(format!(
                    "quality of `{}` will not be judged, it is measured otherwise than its control: {}",
                    arm.label,
                    words.collect::<Vec<_>>().join(", ")
                ));
            }
        }
        Ok(told)
    }
}

/// The runs that the command is about against a baseline.
pub(super) fn baseline(experiment: &Experiment, path: &Path) -> Result<BaselineOutcome> {
    match Baseline::read(&experiment.files, path)? {
        Some(_) => Ok(experiment.compare(path)?.baseline_outcome()),
        None => Ok(BaselineOutcome::NoBaseline),
    }
}

/// Results on disk against a baseline.
///
/// # Errors
/// A baseline that is not there or cannot be read.
pub(super) fn compare(files: &Files, dir: &ExperimentDir, path: &Path) -> Result<Comparison> {
    let baseline = Baseline::require(files, path)?;
    let results = read_results(files, dir)?;
    Ok(baseline.compare(&results.experiment, &results.candidates, path))
}
