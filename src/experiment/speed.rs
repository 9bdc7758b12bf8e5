//! What results on disk say about the speed of this experiment.

use crate::plan::render::Speed;
use crate::run::state::{Standing, Status};

use super::{Experiment, tokens_per_second};

/// Results of earlier starts.
pub struct ResultsOnDisk;

impl ResultsOnDisk {
    /// The speed of the run that finished last; none where none has.
    pub fn newest(experiment: &Experiment, standings: &[Option<Standing>]) -> Option<Speed> {
        let finished =
            experiment.plan.runs.iter().zip(standings).filter_map(|(run, standing)| {
                match standing.as_ref().map(|standing| &standing.status) {
                    Some(Status::Finished(result)) => Some((run, result)),
                    _ => None,
                }
            });
        let (run, result) = finished.max_by(|(_, a), (_, b)| a.timings.finished.cmp(&b.timings.finished))?;
        let tokens_per_second = tokens_per_second(&run.config, result)?;
        Some(Speed {
            flops_per_second: tokens_per_second * run.sizes.flops_per_token as f64,
            source: format!("recorded on {}, {}", result.host.host, result.timings.finished),
        })
    }
}
