//! How an experiment went.

use std::sync::Arc;

use crate::error::{Class, Error};
use crate::record::RunResult;
use crate::scorecard::Scorecard;

/// How it went.
pub struct Report {
    /// How each run stands now, in the plan's order, those that the command is not about included.
    pub results: Vec<Option<Arc<RunResult>>>,
    /// Runs that a look made needless, in the plan's order.
    pub not_needed: Vec<bool>,
    /// Runs that failed, diverged or are damaged: label and why.
    pub failures: Vec<(String, Error)>,
    /// What else is to be told of runs.
    pub notes: Vec<String>,
    /// Whether a signal stopped it.
    pub interrupted: bool,
    /// The runs that the command is about, with the verdicts on their arms.
    pub scorecard: Scorecard,
    /// From the start of this process to the end of the first optimizer step in it; none where it took no step.
    pub first_step_seconds: Option<f64>,
}

/// What one process of several did about an experiment.
pub struct Worked {
    /// Runs that it trained to their end.
    pub trained: usize,
    /// Runs that failed, diverged or are damaged, as far as it saw: label and why.
    pub failures: Vec<(String, Error)>,
    /// What else is to be told of runs.
    pub notes: Vec<String>,
    /// Whether a signal stopped it.
    pub interrupted: bool,
    /// Whether every run has ended, so that tables and scorecard tell of all.
    pub complete: bool,
}

impl Worked {
    /// The gravest thing that happened, which decides the exit code. Verdicts are no matter of one worker's.
    pub fn class(&self) -> Option<Class> {
        let failed = self.failures.iter().map(|(_, error)| error.class());
        let interrupted = self.interrupted.then_some(Class::Interrupted);
        failed.chain(interrupted).max_by_key(|class| class.severity())
    }
}

impl Report {
    /// The gravest thing that happened, which decides the exit code.
    pub fn class(&self) -> Option<Class> {
        let failed = self.failures.iter().map(|(_, error)| error.class());
        let interrupted = self.interrupted.then_some(Class::Interrupted);
        failed.chain(interrupted).chain(self.scorecard.failure()).max_by_key(|class| class.severity())
    }
}
