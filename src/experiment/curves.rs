//! The curves of a run, as far as they are on disk: of one that goes on, up to its newest checkpoint.

use std::collections::BTreeMap;

use super::ends::RunEnd;
use crate::files::{ExactF32, Files};
use crate::record::{AttemptDir, Attempts, Event, Journal};
use crate::train::checkpoint::{CheckpointStore, EvalPoint, TrainState};

/// Losses and evaluations of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    /// Mean loss of every step, nats a token.
    pub losses: Vec<f32>,
    /// Wall seconds of every step.
    pub seconds: Vec<f64>,
    /// Evaluations: steps done before, and values by metric.
    pub evaluations: Vec<(u64, BTreeMap<String, f64>)>,
}

impl Curves {
    /// Of a run that has come to `end`, by the attempt that says so.
    pub(crate) fn of(files: &Files, end: &RunEnd, attempt: Option<&AttemptDir>) -> Self {
        match end {
            RunEnd::Finished(result) => {
                let mut evals = result.evals.clone();
                evals.extend(result.core.iter().cloned());
                Self::from_parts(&result.step_losses, &result.timings.step_seconds, &evals)
            }
            RunEnd::Diverged(end) => {
                Self::from_parts(&end.step_losses, &end.timings.step_seconds, &end.evals)
            }
            RunEnd::Open(..) => attempt.map_or_else(Self::default, |attempt| Self::under_way(files, attempt)),
        }
    }

    /// Of a run by its first attempt that has ended.
    pub(crate) fn ended(attempts: &Attempts) -> Self {
        if let Some((_, result)) = attempts.finished().next() {
            let mut evals = result.evals.clone();
            evals.extend(result.core.iter().cloned());
            return Self::from_parts(&result.step_losses, &result.timings.step_seconds, &evals);
        }
        let diverged = attempts.all.iter().find_map(|attempt| attempt.divergence.as_ref());
        diverged.map_or_else(Self::default, |end| {
            Self::from_parts(&end.step_losses, &end.timings.step_seconds, &end.evals)
        })
    }

    /// Of an attempt that has no end: the losses of its newest checkpoint, and the evaluations of its journal.
    pub(crate) fn under_way(files: &Files, attempt: &AttemptDir) -> Self {
        let store = CheckpointStore::new(files.clone(), attempt.checkpoints());
        // One that is replaced at this very moment is passed over.
        let steps = store.steps().unwrap_or_default();
        let state = steps.iter().rev().find_map(|step| TrainState::read(files, &store.step_dir(*step)).ok());
        let mut curves = state.map_or_else(Self::default, |state| {
            Self::from_parts(&state.step_losses, &state.step_seconds, &[])
        });
        let journal = Journal::new(files.clone(), attempt.journal()).read().unwrap_or_default();
        for entry in journal.entries {
            if let Event::Evaluated { step, values, .. } = entry.event {
                // What a resumed run evaluates again replaces what it had.
                curves.evaluations.retain(|(known, old)| *known < step || *old != values && *known != step);
                curves.evaluations.push((step, values));
            }
        }
        curves
    }

    fn from_parts(losses: &[ExactF32], seconds: &[f64], evals: &[EvalPoint]) -> Self {
        let mut by_step: BTreeMap<u64, BTreeMap<String, f64>> = BTreeMap::new();
        for eval in evals {
            let values = eval.values.iter().map(|(name, value)| (name.clone(), value.0));
            by_step.entry(eval.step).or_default().extend(values);
        }
        Self {
            losses: losses.iter().map(|loss| loss.0).collect(),
            seconds: seconds.to_vec(),
            evaluations: by_step.into_iter().collect(),
        }
    }

    /// The metrics that were evaluated, `val_bpb` first.
    pub fn metrics(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.evaluations.iter().flat_map(|(_, values)| values.keys()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names.sort_by_key(|name| (name != "val_bpb", name.clone()));
        names
    }

    /// The values of a metric with their steps.
    pub fn of_metric(&self, metric: &str) -> Vec<(u64, f64)> {
        let value = |(step, values): &(u64, BTreeMap<String, f64>)| Some((*step, *values.get(metric)?));
        self.evaluations.iter().filter_map(value).collect()
    }

    /// The losses as numbers.
    pub fn losses(&self) -> Vec<f64> {
        self.losses.iter().map(|loss| f64::from(*loss)).collect()
    }
}
