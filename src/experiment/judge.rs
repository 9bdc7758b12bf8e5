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
use crate::scorecard::{BaselineOutcome, Criteria, Quality, RunSummary, Scorecard, Speed, Variance, judge};
use crate::text::word;

use super::Experiment;

/// Judges the runs by the manifest's criteria.
pub(super) fn scorecard(files: &Files, experiment: &Experiment, runs: Vec<RunSummary>) -> Result<Scorecard> {
    let Experiment { manifest, plan, dir, .. } = experiment;
    let settings = &manifest.head.scorecard;
    let controls: BTreeMap<String, String> = plan
        .arms
        .iter()
        .filter_map(|arm| Some((arm.label.clone(), plan.arms.get(arm.control?)?.label.clone())))
        .collect();
    let baseline = match &settings.reproducibility.baseline {
        Some(path) => match Baseline::read(files, Path::new(path))? {
            Some(_) => Some(compare(files, dir, Path::new(path))?.baseline_outcome()),
            None => Some(BaselineOutcome::NoBaseline),
        },
        None => None,
    };
    // Without a control nobody asked for a comparison.
    let compares = !controls.is_empty();
    let criteria = Criteria {
        quality: compares.then(|| quality(experiment)),
        speed: compares.then_some(Speed { min_ratio: settings.speed.min_ratio }),
        controls,
        baseline,
    };
    Ok(judge(&plan.name, plan.question.as_deref(), &criteria, runs))
}

/// What an experiment's manifest judges quality by.
pub(super) fn quality(experiment: &Experiment) -> Quality {
    let settings = &experiment.manifest.head.scorecard;
    let metric = metric(experiment);
    Quality {
        higher_is_better: higher_is_better(&metric),
        metric,
        margin: settings.quality.margin,
        across: settings.across.as_slice().to_vec(),
        confidence: settings.quality.confidence,
        variance: match (settings.quality.sigma.value(), settings.quality.variance) {
            (Some(sigma), _) => Variance::Assumed(sigma),
            (None, QualityVariance::Pooled) => Variance::Pooled,
            (None, QualityVariance::Pair) => Variance::Pair,
        },
        forks: forks(&experiment.plan),
    }
}

/// Steps that each arm has in common with its control: of all seeds the fewest.
fn forks(plan: &Plan) -> BTreeMap<String, u64> {
    let mut forks = BTreeMap::new();
    for (index, arm) in plan.arms.iter().enumerate() {
        let Some(control) = arm.control else { continue };
        let of = |arm: usize| plan.runs.iter().enumerate().filter(move |(_, run)| run.arm == arm);
        let together = of(index).filter_map(|(ours, run)| {
            let (theirs, _) = of(control).find(|(_, other)| other.config.seed == run.config.seed)?;
            Some(plan.prefixes.together(ours, theirs))
        });
        forks.extend(together.min().map(|steps| (arm.label.clone(), steps)));
    }
    forks
}

/// The name of the metric that quality is judged by.
pub(super) fn metric(experiment: &Experiment) -> String {
    word(&experiment.manifest.head.scorecard.quality.metric)
}

impl Experiment {
    /// Arms whose quality will not be judged, because they are measured otherwise than their control: in words.
    ///
    /// # Errors
    /// None that anybody has met: of a metric without a name.
    pub fn not_comparable(&self) -> Result<Vec<String>> {
        let metric = metric(self);
        let across = self.manifest.head.scorecard.across.as_slice();
        let of = |arm: usize| {
            let runs = self.plan.runs.iter().filter(move |run| run.arm == arm);
            runs.map(|run| Evaluation::of(&run.config))
        };
        let mut told = Vec::new();
        for (index, arm) in self.plan.arms.iter().enumerate() {
            let Some(control) = arm.control else { continue };
            let mut departures: Vec<Departure> = Vec::new();
            for ours in of(index) {
                for theirs in of(control) {
                    for departure in ours.departures(&theirs, &metric) {
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
