//! Where a run stands before anything is done about it.

use std::fmt;

use crate::error::Result;
use crate::files::Files;
use crate::hash::Digest;
use crate::plan::run_config::RunConfig;
use crate::record::{RunDir, RunResult};
use crate::train::checkpoint::CheckpointStore;
use crate::train::session::eval_settings;

/// Where a run stands, and so why it will or will not be trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// Finished; its result is on disk and whole.
    Finished(Box<RunResult>),
    /// Begun; its newest checkpoint is of this step.
    Begun {
        /// Steps done.
        step: u64,
    },
    /// Nothing of it is on disk.
    Fresh,
}

impl Status {
    /// Reads where a run stands.
    ///
    /// # Errors
    /// A result that is damaged or contradicts itself.
    pub fn read(files: &Files, dir: &RunDir, config: &RunConfig, run_key: &Digest) -> Result<Self> {
        if let Some(result) = RunResult::read(files, &dir.result())? {
            // Directories show 12 of 64 digits; the rest must agree as well. Evaluation settings are not in the key.
            let settings = eval_settings(config);
            let same_evaluation = result.evals.last().is_some_and(|eval| eval.settings == settings);
            if result.run_key == *run_key && same_evaluation {
                return Ok(Self::Finished(Box::new(result)));
            }
        }
        let store = CheckpointStore::new(files.clone(), dir.checkpoints());
        Ok(store.steps()?.pop().map_or(Self::Fresh, |step| Self::Begun { step }))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished(result) => write!(f, "done, {}", result.timings.finished),
            Self::Begun { step } => write!(f, "carries on after step {step}"),
            Self::Fresh => f.write_str("not begun"),
        }
    }
}
