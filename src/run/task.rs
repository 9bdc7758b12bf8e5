//! One run of an experiment as the executor sees it.

use crate::hash::Digest;
use crate::plan::PlannedRun;
use crate::plan::key::Links;
use crate::plan::run_config::RunConfig;

/// A run to carry out. Cells with equal run keys are one task.
#[derive(Debug, Clone)]
pub struct Task {
    /// What people call it: its cell.
    pub label: String,
    /// Everything that decides its numbers.
    pub config: RunConfig,
    /// What is kept of the chain of its keys.
    pub links: Links,
    /// The run key, which names its directory.
    pub run_key: Digest,
}

impl Task {
    /// The task of a planned run, whose keys the plan has computed.
    pub fn new(label: String, run: &PlannedRun) -> Self {
        Self { label, config: run.config.clone(), links: run.links.clone(), run_key: run.key.run }
    }

    /// N.
    pub fn steps(&self) -> u64 {
        self.config.schedule.num_iterations
    }

    /// Whether two that train alike would be evaluated at the same steps on the same tokens: only then does either go on
    /// as it would have from the other's checkpoint.
    pub fn evaluates_like(&self, other: &Self) -> bool {
        evaluate_alike(&self.config, &other.config)
    }
}

/// The same of their configurations.
pub fn evaluate_alike(a: &RunConfig, b: &RunConfig) -> bool {
    let (a, b) = (&a.eval, &b.eval);
    a.every == b.every && a.tokens == b.tokens && a.core == b.core
}
