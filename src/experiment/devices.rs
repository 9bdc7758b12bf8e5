//! Whether this process can compute on what its runs ask for, before it trains any of them.

use super::{Experiment, HowToRun};
use crate::backend::torch::device::{DeviceError, check};
use crate::error::Result;
use crate::plan::PlannedRun;
use crate::plan::run_config::{BackendChoice, BackendKind};
use crate::precision::Precision;

impl Experiment {
    /// Refuses to begin where a run that is still to be trained asks for a backend, a device, a precision or `threads` that
    /// are not here. Run by run it would be the same words for each of them, and a worker on a machine whose GPU is gone would take
    /// and fail the runs that others could train.
    ///
    /// # Errors
    /// What is missing: class `Run`, as another machine may have it.
    pub(super) fn require_devices(&self, how: &HowToRun<'_>, threads: usize, pending: &[bool]) -> Result<()> {
        let pending = self.plan.runs.iter().zip(pending).filter(|(_, pending)| **pending).map(|(run, _)| run);
        let runs: Vec<&PlannedRun> =
            pending.filter(|run| run.config.backend.kind == BackendKind::Tch).collect();
        // Each choice is tried once: a device takes a while to answer, and thousands of runs may ask for it.
        let mut choices: Vec<&BackendChoice> = Vec::new();
        for run in &runs {
            if !choices.contains(&&run.config.backend) {
                choices.push(&run.config.backend);
            }
        }
        let lacking: Vec<(&BackendChoice, DeviceError)> =
            choices.into_iter().filter_map(|choice| Some((choice, missing(choice, threads)?))).collect();
        for run in runs {
            let Some((_, missing)) = lacking.iter().find(|(choice, _)| **choice == run.config.backend) else {
                continue;
            };
            // Whoever looks at runs as it comes to them does not know yet which have ended.
            if how.rerun || run.key.pending || !self.standing(run)?.has_ended() {
                return Err(missing.clone().into());
            }
        }
        Ok(())
    }
}

/// What a choice of the tch backend's lacks here; none where it can be had.
fn missing(choice: &BackendChoice, threads: usize) -> Option<DeviceError> {
    let device = choice.device.parse();
    device.and_then(|device| check(device, choice.precision == Precision::Bf16, threads)).err()
}
