//! Which checkpoints a run may begin from.

use super::task::Task;
use crate::train::checkpoint::{Checkpoint, CheckpointError};

/// What a checkpoint must be for one run in one environment class.
#[derive(Clone, Copy)]
pub(super) struct Admission<'a> {
    /// The run.
    pub(super) task: &'a Task,
    /// The class that it computes in.
    pub(super) environment_class: &'a str,
}

impl Admission<'_> {
    /// Of this run or of one with the same steps so far, in this class. Weights alone are good for evaluating what is
    /// trained, so they are admitted at the last step and nowhere else.
    pub(super) fn to_go_on(self, checkpoint: &Checkpoint<'static>) -> Result<(), CheckpointError> {
        let step = checkpoint.state.step;
        if checkpoint.weights_alone && step < self.task.steps() {
            return Err(CheckpointError::WeightsAlone { step });
        }
        let key = self.task.links.cursor(&self.task.config).link(step);
        checkpoint.check_run(&key.unwrap_or(self.task.run_key), self.environment_class)
    }

    /// The same of another run's, whose steps are taken over: it has to be whole whatever its step.
    pub(super) fn to_fork(self, checkpoint: &Checkpoint<'static>) -> Result<(), CheckpointError> {
        if checkpoint.weights_alone {
            return Err(CheckpointError::WeightsAlone { step: checkpoint.state.step });
        }
        self.to_go_on(checkpoint)
    }
}
