//! Whether this process can compute on what its runs ask for, before it trains any of them.

use super::{Experiment, HowToRun};
use crate::backend::torch::device::{DeviceError, check};
use crate::error::Result;
use crate::plan::run_config::{BackendChoice, BackendKind};
use crate::precision::Precision;

impl Experiment {
    /// Refuses to begin where a run that is still to be trained asks for a backend, a device or a precision that is not
    /// here. Run by run it would be the same words for each of them, and a worker on a machine whose GPU is gone would take
    /// and fail the runs that others could train.
    ///
    /// # Errors
    /// What is missing: class `Run`, as another machine may have it.
    pub(super) fn require_devices(&self, how: &HowToRun<'_>, pending: &[bool]) -> Result<()> {
        let mut asked: Vec<(&BackendChoice, Option<DeviceError>)> = Vec::new();
        for (run, _) in self.plan.runs.iter().zip(pending).filter(|(_, pending)| **pending) {
            let choice = &run.config.backend;
            if choice.kind != BackendKind::Tch {
                continue;
            }
            let known = asked.iter().find(|(other, _)| *other == choice).map(|(_, missing)| missing.clone());
            let missing = if let Some(missing) = known {
                missing
            } else {
                let missing = missing(choice);
                asked.push((choice, missing.clone()));
                missing
            };
            let Some(missing) = missing else { continue };
            // Whoever looks at runs as it comes to them does not know yet which have ended.
            if how.rerun || run.key.pending || !self.standing(run)?.has_ended() {
                return Err(missing.into());
            }
        }
        Ok(())
    }
}

/// What a choice of the tch backend's lacks here; none where it can be had.
fn missing(choice: &BackendChoice) -> Option<DeviceError> {
    let device = choice.device.parse();
    device.and_then(|device| check(device, choice.precision == Precision::Bf16)).err()
}
