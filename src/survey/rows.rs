//! Every run of some results: those of the plans, then those that the plans no longer have.
//!
//! Ended runs are taken from an experiment's `runs.parquet`, so that a thousand of them are listed at once; what the table
//! does not know yet, or no longer rightly, is read from the run's own directory.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::experiment::{Recorded, RunEnd, run_row};
use crate::files::Files;
use crate::hash::Digest;
use crate::lease::worked_by;
use crate::model::specs::specs;
use crate::plan::run_config::RunConfig;
use crate::record::{
    Attempts, Event, ExperimentDir, Journal, PlanRecord, PlannedRun, RunDir, RunRow, read_table,
};
use crate::toml_text;
use crate::train::checkpoint::CheckpointStore;

/// A run of some experiment.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Which experiment, by its place among those that were asked for.
    pub experiment: usize,
    /// Its row, with the status that it has now.
    pub row: RunRow,
    /// What the matrix sets in its cell; empty where no plan has it.
    pub cell: BTreeMap<String, toml::Value>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// The plans of the experiments, in their order.
    pub experiments: Vec<(ExperimentDir, PlanRecord)>,
    /// Their runs.
    pub runs: Vec<Listed>,
    /// What could not be read of them.
    pub damaged: Vec<Error>,
}

impl Survey {
    /// Of these experiments.
    pub fn of(files: &Files, experiments: &[ExperimentDir]) -> Self {
        let mut survey = Self::default();
        for dir in experiments {
            match PlanRecord::read(files, dir) {
                Ok(plan) => survey.add(files, dir, plan),
                Err(error) => survey.damaged.push(error.into()),
            }
        }
        survey
    }

    fn add(&mut self, files: &Files, dir: &ExperimentDir, plan: PlanRecord) {
        let experiment = self.experiments.len();
        let path = dir.file("runs.parquet");
        let mut rows: BTreeMap<String, RunRow> = BTreeMap::new();
        if path.is_file() {
            match read_table::<RunRow>(files, &path) {
                // Of cells that are one run, the first.
                Ok(found) => {
                    for row in found {
                        rows.entry(row.run_key.clone()).or_insert(row);
                    }
                }
                Err(error) => self.damaged.push(error.into()),
            }
        }
        let mut planned = BTreeSet::new();
        for run in &plan.runs {
            let key = run.key.to_string();
            planned.insert(run.key.short());
            let known = rows.get(&key).filter(|row| stands(dir, run, row));
            let row = match known {
                // Several cells may be one run, each with its own name.
                Some(row) => RunRow { arm: run.arm.clone(), ..row.clone() },
                None => self.read(files, dir, &plan.name, run, rows.get(&key)),
            };
            self.runs.push(Listed { experiment, row, cell: run.cell.clone() });
        }
        for row in
            rows.into_values().filter(|row| !planned.contains(row.run_key.get(..12).unwrap_or_default()))
        {
            self.runs.push(Listed { experiment, row: retired(row), cell: BTreeMap::new() });
        }
        self.experiments.push((dir.clone(), plan));
    }

    /// A run by its own directory.
    fn read(
        &mut self,
        files: &Files,
        dir: &ExperimentDir,
        experiment: &str,
        run: &PlannedRun,
        known: Option<&RunRow>,
    ) -> RunRow {
        let place = dir.run(&run.key);
        let config = match run_config(files, &place) {
            Ok(config) => config,
            Err(error) => {
                self.damaged.push(error);
                None
            }
        };
        let end = end_of(files, &place, &run.key, run.evaluation.as_ref());
        let Some(config) = config else {
            let (status, reason, steps_done) = match end {
                RunEnd::Open(status, reason, done) => (status, reason, done),
                // Its settings are gone, and with them what could be told of it.
                _ => ("damaged", Some("the manifest in its directory cannot be read".to_owned()), 0),
            };
            return RunRow {
                experiment: experiment.to_owned(),
                arm: run.arm.clone(),
                seed: run.seed,
                run_key: run.key.to_string(),
                status: status.to_owned(),
                reason,
                steps: run.steps,
                steps_done,
                ..RunRow::default()
            };
        };
        let epochs = run.data.map(|data| (data.train.epochs, data.validation.epochs));
        run_row(&Recorded {
            experiment,
            arm: &run.arm,
            config: &config,
            epochs: [epochs.map(|both| both.0), epochs.map(|both| both.1)],
            run_key: run.key.to_string(),
            parameters: specs(&config.model).iter().map(|spec| spec.numel() as u64).sum(),
            flops_per_token: known.map_or(0.0, |row| row.flops_per_token),
            end: &end,
            retired: false,
        })
    }
}

/// Whether what the table says of a run still is so: of what has ended, as long as its end is on disk.
fn stands(dir: &ExperimentDir, run: &PlannedRun, row: &RunRow) -> bool {
    let first = dir.run(&run.key).attempt(1);
    match row.status.as_str() {
        "finished" if first.result().is_file() => true,
        // Nobody trained it: its directory says nothing.
        "not needed" => !first.path().exists(),
        "diverged" if first.divergence().is_file() => !dir.run(&run.key).attempt(2).path().exists(),
        _ => false,
    }
}

/// A run of the table that the plan does not have.
fn retired(row: RunRow) -> RunRow {
    if row.status == "retired" {
        return row;
    }
    let reason = Some(format!("{}; the manifest no longer has it", row.status));
    RunRow { status: "retired".to_owned(), reason, ..row }
}

/// Everything that decides a run, from its directory; none where it was never begun.
///
/// # Errors
/// A manifest of a run that is damaged; class `Input`.
pub(super) fn run_config(files: &Files, run: &RunDir) -> Result<Option<RunConfig>, Error> {
    let path = run.manifest();
    let Some(bytes) = files.read_if_there(&path)? else { return Ok(None) };
    let config = toml_text::from_slice(&bytes).map_err(|error| {
        Error::input("the manifest of a run is damaged").file(path).because(error.to_string())
    })?;
    Ok(Some(config))
}

/// Where a run has come to, by its attempts and, while it has not ended, by its journal.
pub fn end_of(files: &Files, run: &RunDir, key: &Digest, evaluation: Option<&Digest>) -> RunEnd {
    let attempts = match Attempts::read(files, run) {
        Ok(attempts) => attempts,
        Err(error) => return RunEnd::Open("damaged", Some(error.to_string()), 0),
    };
    if let Some((_, result)) = attempts.result(key, evaluation) {
        return RunEnd::Finished(std::sync::Arc::new(result.clone()));
    }
    let last = attempts.all.last();
    let is_open = last.is_some_and(|last| matches!(last.result, Ok(None)) && last.divergence.is_none());
    if !is_open {
        if let Some(found) = attempts.all.iter().find_map(|one| one.divergence.clone()) {
            return RunEnd::Diverged(Box::new(found));
        }
        if let Some(error) = attempts.all.iter().find_map(|one| one.result.as_ref().err()) {
            return RunEnd::Open("damaged", Some(error.to_string()), 0);
        }
    }
    let Some(last) = last else { return RunEnd::Open("planned", None, 0) };
    let journal = Journal::new(files.clone(), last.dir.journal()).read().unwrap_or_default();
    let kept = CheckpointStore::new(files.clone(), last.dir.checkpoints()).steps().unwrap_or_default();
    let mut step = kept.last().copied().unwrap_or(0);
    let (mut status, mut reason) = ("planned", None);
    for entry in &journal.entries {
        (status, reason) = match &entry.event {
            Event::Interrupted { step: at } => {
                step = step.max(*at);
                ("interrupted", None)
            }
            Event::Failed { step: at, reason, .. } => {
                step = step.max(*at);
                ("failed", reason.lines().next().map(str::to_owned))
            }
            Event::SetAside { reason } => ("planned", Some(reason.clone())),
            Event::Evaluated { step: at, .. } | Event::Checkpoint { step: at, .. } => {
                step = step.max(*at);
                (status, reason)
            }
            Event::Started { .. } | Event::Forked { .. } | Event::TakenUp { .. } | Event::Resumed { .. } => {
                ("running", None)
            }
            _ => (status, reason),
        };
    }
    if status == "running" && worked_by(&run.lease()).is_none() {
        status = "interrupted";
        reason = Some("it was killed: nobody wrote down how it ended".to_owned());
    }
    RunEnd::Open(status, reason, step)
}
