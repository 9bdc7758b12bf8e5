//! What results on disk say about the speed of this experiment.

use crate::host::cpu_model;
use crate::plan::time::{Speed, evaluation_flops};
use crate::record::{RunResult, Timings};
use crate::run::state::{Standing, Status};

use super::{Experiment, tokens_per_second};

/// Results of earlier starts.
pub struct ResultsOnDisk;

impl ResultsOnDisk {
    /// The speed of the run that finished last on a machine like this one; none where none has.
    pub fn speed(experiment: &Experiment, standings: &[Option<Standing>]) -> Option<Speed> {
        let here = cpu_model();
        let like_here =
            |result: &RunResult| result.host.accelerator.is_some() || result.host.cpu_model == here;
        let finished =
            experiment.plan.runs.iter().zip(standings).filter_map(|(run, standing)| {
                match standing.as_ref().map(|standing| &standing.status) {
                    Some(Status::Finished(result)) if like_here(result) => Some((run, result)),
                    _ => None,
                }
            });
        let (run, result) = finished.max_by(|(_, a), (_, b)| a.timings.finished.cmp(&b.timings.finished))?;
        let tokens_per_second = tokens_per_second(&run.config, result)?;
        let source = format!("recorded on {}, {}", result.host.host, result.timings.finished);
        let mut speed = Speed::of_training(tokens_per_second * run.sizes.flops_per_token as f64, source);
        // Of a run that took steps over or was stopped, seconds and evaluations may not belong together.
        let Timings { eval_seconds, shared_steps, resumes, .. } = result.timings;
        if eval_seconds > 0.0 && shared_steps == 0 && resumes == 0 {
            speed.eval_flops_per_second = result.evals.len() as f64 * evaluation_flops(run) / eval_seconds;
        }
        Some(speed)
    }
}
