//! How the runs of an experiment ended, as reports and tables have it.

use std::sync::Arc;

use super::report::{Report, Worked};
use crate::error::{Class, Error};
use crate::record::{AttemptDir, Divergence, RunResult};
use crate::run::single::Outcome;
use crate::run::state::{Standing, Status, divergence_error};
use crate::scorecard::Scorecard;

/// Where one run has come to.
#[derive(Debug, Clone)]
pub enum RunEnd {
    /// Its result.
    Finished(Arc<RunResult>),
    /// How it diverged.
    Diverged(Box<Divergence>),
    /// It has no end: `failed`, `damaged`, `interrupted` or `planned`, why, and steps done.
    Open(&'static str, Option<String>, u64),
}

impl RunEnd {
    /// Its result, if it is finished.
    pub fn result(&self) -> Option<&RunResult> {
        match self {
            Self::Finished(result) => Some(result),
            _ => None,
        }
    }

    /// What a start made of it. A result that stands stays: a further attempt does not speak for the run.
    pub(super) fn take(&mut self, outcome: &Outcome) {
        if matches!(self, Self::Finished(_)) {
            return;
        }
        *self = match outcome {
            Outcome::Finished(result) => Self::Finished(Arc::clone(result)),
            Outcome::Diverged(_, divergence) => Self::Diverged(divergence.clone()),
            Outcome::Interrupted { step } => Self::Open("interrupted", None, *step),
            Outcome::Failed(error) => Self::Open("failed", Some(error.what().to_owned()), 0),
        };
    }
}

/// Of all runs, in the order of the plan.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) runs: Vec<RunEnd>,
    failures: Vec<(String, Error)>,
    notes: Vec<String>,
}

impl Ends {
    /// Where a run stands that nothing is done about; what is wrong with it is told.
    pub(super) fn push(&mut self, label: &str, standing: Option<Standing>) {
        let Some(standing) = standing else { return self.runs.push(RunEnd::Open("planned", None, 0)) };
        self.compare(label, &standing);
        if let (Status::Diverged(divergence), Some(attempt)) = (&standing.status, &standing.attempt) {
            self.diverged(label, attempt, divergence);
        }
        let damaged = self.push_end(standing);
        self.failures.extend(damaged.map(|error| (label.to_owned(), error)));
    }

    /// Where a run stands that is going to be trained.
    pub(super) fn push_pending(&mut self, label: &str, standing: Standing) {
        self.compare(label, &standing);
        self.push_end(standing);
    }

    fn push_end(&mut self, standing: Standing) -> Option<Error> {
        let (end, damaged) = match standing.status {
            Status::Finished(result) => (RunEnd::Finished(Arc::from(result)), None),
            Status::Diverged(divergence) => (RunEnd::Diverged(divergence), None),
            Status::Begun { step } => (RunEnd::Open("planned", None, step), None),
            Status::Fresh => (RunEnd::Open("planned", None, 0), None),
            Status::Damaged(error) => {
                (RunEnd::Open("damaged", Some(error.what().to_owned()), 0), Some(error))
            }
        };
        self.runs.push(end);
        damaged
    }

    pub(super) fn note(&mut self, notes: impl IntoIterator<Item = String>) {
        for note in notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    pub(super) fn fail(&mut self, label: &str, error: Error) {
        self.failures.push((label.to_owned(), error));
    }

    pub(super) fn diverged(&mut self, label: &str, attempt: &AttemptDir, divergence: &Divergence) {
        self.fail(label, divergence_error(attempt, divergence));
    }

    /// Tells of results that cannot both be right, once a run, and of those that cannot be read beside one that can.
    pub(super) fn compare(&mut self, label: &str, standing: &Standing) {
        self.note(standing.notes.iter().map(|note| format!("{label}: {note}")));
        let told = |(other, error): &(String, Error)| other == label && error.class() == Class::HashMismatch;
        if let Some(two) = &standing.contradiction
            && !self.failures.iter().any(told)
        {
            self.fail(label, contradiction(&two.0, &two.1));
        }
    }

    /// What a worker tells.
    pub(super) fn worked(self, trained: usize, interrupted: bool, complete: bool) -> Worked {
        Worked { trained, failures: self.failures, notes: self.notes, interrupted, complete }
    }

    pub(super) fn report(
        self,
        interrupted: bool,
        scorecard: Scorecard,
        first_step_seconds: Option<f64>,
    ) -> Report {
        let result = |end| match end {
            RunEnd::Finished(result) => Some(result),
            _ => None,
        };
        let not_needed = self.runs.iter().map(|end| matches!(end, RunEnd::Open("not needed", ..))).collect();
        let results = self.runs.into_iter().map(result).collect();
        let (failures, notes) = (self.failures, self.notes);
        Report { results, not_needed, failures, notes, interrupted, scorecard, first_step_seconds }
    }
}

/// One run, one class, two results: the promise is broken, and neither result is the right one.
fn contradiction(old: &RunResult, new: &RunResult) -> Error {
    let place = |result: &RunResult| {
        let host = &result.host;
        format!(
            "{} on {} ({}), nanorun {}",
            result.result_hash.short(),
            host.host,
            host.cpu_model,
            host.nanorun
        )
    };
    Error::new(Class::HashMismatch, format!("run {} has two results in one class", old.run_key.short()))
        .expected(format!("{} as before: {}; now {}", old.environment_class, place(old), place(new)))
        .help("this is a defect: please report it with both result files, which are kept side by side")
}
