//! An experiment's verdicts: what its manifest asks, over the results there are.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files::Files;
use crate::gate::{Baseline, Comparison, read_results};
use crate::record::ExperimentDir;
use crate::scorecard::{BaselineOutcome, Criteria, Quality, RunSummary, Scorecard, Speed, judge};

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
        Some(path) => Some(baseline(files, dir, Path::new(path))?),
        None => None,
    };
    let metric = serde_json::to_value(settings.quality.metric)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .ok_or_else(|| Error::internal("the quality metric has no name"))?;
    // Without a control nobody asked for a comparison.
    let compares = !controls.is_empty();
    let criteria = Criteria {
        quality: compares.then_some(Quality {
            metric,
            margin: settings.quality.margin,
            confidence: settings.quality.confidence,
        }),
        speed: compares.then_some(Speed { min_ratio: settings.speed.min_ratio }),
        controls,
        baseline,
    };
    Ok(judge(&plan.name, plan.question.as_deref(), &criteria, runs))
}

fn baseline(files: &Files, dir: &ExperimentDir, path: &Path) -> Result<BaselineOutcome> {
    let Some(baseline) = Baseline::read(files, path)? else { return Ok(BaselineOutcome::NoBaseline) };
    let results = read_results(files, dir)?;
    Ok(baseline.compare(&results.experiment, &results.candidates, path).baseline_outcome())
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
