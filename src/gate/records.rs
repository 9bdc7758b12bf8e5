//! Runs as the gate sees them, from results or from a baseline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::Digest;
use crate::optim::config::StepValues;
use crate::record::{
    AttemptDir, Attempts, ExperimentDir, HostFacts, Looks, OwnStepRow, PlanRecord, RunResult, StepRow,
    read_table,
};

/// A finished run of a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// The cell without its seed.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// The run key.
    pub key: Digest,
    /// The class whose bits these are.
    pub environment_class: String,
    /// The version of the engine's numerics.
    pub numerics_version: u32,
    /// Hash over losses and final parameters.
    pub train_hash: Digest,
    /// Hash over the final evaluation.
    pub eval_hash: Digest,
    /// The settings of that evaluation; baselines do not say.
    pub evaluation: Option<Digest>,
    /// Hash over both.
    pub result_hash: Digest,
    /// Values of the final evaluation.
    pub metrics: BTreeMap<String, f64>,
    /// Where it was made, in words.
    pub made_on: String,
    /// Its steps; empty where they are not known.
    pub steps: Vec<StepRecord>,
}

/// A step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRecord {
    /// Mean loss, before the step's update.
    pub loss: f32,
    /// What the step consumed; none where it is not known.
    pub schedule: Option<StepValues>,
}

/// A cell of a plan and its run, if that is finished.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The cell without its seed.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// The run; none while it is unfinished.
    pub record: Option<RunRecord>,
    /// Whether it is unfinished because a look decided before it was trained.
    pub not_needed: bool,
}

impl RunRecord {
    /// The run of a cell. `schedule` has what every step consumed, or nothing where that is not known.
    pub fn new(arm: &str, seed: u64, result: &RunResult, schedule: &[StepValues]) -> Self {
        let losses = result.step_losses.iter().enumerate();
        let last = result.evals.last();
        Self {
            arm: arm.to_owned(),
            seed,
            key: result.run_key,
            environment_class: result.environment_class.clone(),
            numerics_version: result.numerics_version,
            train_hash: result.train_hash,
            eval_hash: result.eval_hash,
            evaluation: result.evaluation(),
            result_hash: result.result_hash,
            metrics: last.map_or_else(BTreeMap::new, |eval| {
                eval.values.iter().map(|(name, value)| (name.clone(), value.0)).collect()
            }),
            made_on: made_on(&result.host),
            steps: losses
                .map(|(step, loss)| StepRecord { loss: loss.0, schedule: schedule.get(step).copied() })
                .collect(),
        }
    }

    /// The cell in words.
    pub fn name(&self) -> String {
        cell_name(&self.arm, self.seed)
    }
}

impl Candidate {
    /// Makes it a run of another cell, for a comparison with that one.
    pub fn call(&mut self, arm: &str, seed: u64) {
        (self.arm, self.seed) = (arm.to_owned(), seed);
        if let Some(record) = &mut self.record {
            (record.arm, record.seed) = (arm.to_owned(), seed);
        }
    }

    /// The cell in words.
    pub fn name(&self) -> String {
        cell_name(&self.arm, self.seed)
    }
}

impl From<RunRecord> for Candidate {
    fn from(record: RunRecord) -> Self {
        Self { arm: record.arm.clone(), seed: record.seed, record: Some(record), not_needed: false }
    }
}

/// A cell in words.
pub(super) fn cell_name(arm: &str, seed: u64) -> String {
    if arm.is_empty() { format!("seed {seed}") } else { format!("{arm}, seed {seed}") }
}

fn made_on(host: &HostFacts) -> String {
    let accelerator = host.accelerator.as_ref().map_or(String::new(), |name| format!("{name}, "));
    let libtorch = host.libtorch.as_ref().map_or(String::new(), |version| format!(", libtorch {version}"));
    format!(
        "{accelerator}{}, {} {}, {} threads{libtorch}, nanorun {}",
        host.cpu_model, host.os, host.arch, host.threads, host.nanorun
    )
}

/// A results directory as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// The name of its experiment.
    pub experiment: String,
    /// Its cells, in the order of its plan.
    pub candidates: Vec<Candidate>,
    /// What the reader of a comparison should know of them.
    pub notes: Vec<String>,
    /// Results that cannot be read; their cells count as unfinished.
    pub damaged: Vec<String>,
}

/// What the steps of runs consumed, as tables have it: they are made from results, and without them only differences
/// of schedules go unnamed.
struct Schedules<'a> {
    files: &'a Files,
    /// The experiment's table, for runs that have none of their own.
    table: PathBuf,
    of_all: Option<BTreeMap<String, Vec<StepValues>>>,
}

impl Schedules<'_> {
    /// Of the run whose result is that of `attempt`; empty where nothing is known.
    fn of(&mut self, attempt: &AttemptDir, run_key: &Digest) -> Result<Vec<StepValues>> {
        if attempt.steps().exists() {
            let rows: Vec<OwnStepRow> = read_table(self.files, &attempt.steps())?;
            let values = |row: OwnStepRow| StepValues {
                lr_multiplier: row.lr_multiplier,
                muon_momentum: row.muon_momentum,
                muon_weight_decay: row.muon_weight_decay,
            };
            return Ok(rows.into_iter().map(values).collect());
        }
        let of_all = match &mut self.of_all {
            Some(known) => known,
            None => self.of_all.insert(Self::of_all(self.files, &self.table)?),
        };
        Ok(of_all.get(&run_key.to_string()).cloned().unwrap_or_default())
    }

    fn of_all(files: &Files, table: &Path) -> Result<BTreeMap<String, Vec<StepValues>>> {
        let rows: Vec<StepRow> = if table.exists() { read_table(files, table)? } else { Vec::new() };
        let mut found: BTreeMap<String, Vec<StepValues>> = BTreeMap::new();
        for row in rows {
            let values = StepValues {
                lr_multiplier: row.lr_multiplier,
                muon_momentum: row.muon_momentum,
                muon_weight_decay: row.muon_weight_decay,
            };
            let known = found.entry(row.run_key).or_default();
            // Cells with one key are in the table more than once.
            if row.step == known.len() as u64 {
                known.push(values);
            }
        }
        Ok(found)
    }
}

/// Runs that no look needs any more: by the last look that was recorded, where it decides and is over these results.
fn beyond_the_looks(files: &Files, dir: &ExperimentDir, candidates: &[Candidate]) -> Result<Vec<Digest>> {
    let Some(last) = Looks::of(dir).read(files)?.pop().filter(|look| look.decides) else {
        return Ok(Vec::new());
    };
    let here = |key: &Digest| {
        let records = candidates.iter().filter_map(|candidate| candidate.record.as_ref());
        records.into_iter().find(|record| record.key == *key).map(|record| record.result_hash)
    };
    let is_of_these = last.runs.iter().all(|run| here(&run.key) == run.result_hash);
    Ok(if is_of_these { last.not_needed } else { Vec::new() })
}

/// Reads a results directory.
///
/// # Errors
/// No such directory; a plan or table of steps in it that cannot be read, by its file.
pub fn read_results(files: &Files, dir: &ExperimentDir) -> Result<Results> {
    if !dir.path().is_dir() {
        return Err(Error::input("there is no such results directory")
            .file(dir.path())
            .expected("a directory `results/<experiment>` that nanorun wrote"));
    }
    let plan = PlanRecord::read(files, dir)?;
    let mut schedules = Schedules { files, table: dir.file("steps.parquet"), of_all: None };
    let mut candidates = Vec::with_capacity(plan.runs.len());
    let mut unchecked = 0;
    let mut damaged = Vec::new();
    for run in &plan.runs {
        let attempts = Attempts::read(files, &dir.run(&run.key))?;
        let found = attempts.result(&run.key, run.evaluation.as_ref());
        unchecked += usize::from(found.is_some_and(|(_, result)| !result.has_checksum()));
        let record = match found {
            Some((attempt, result)) => {
                Some(RunRecord::new(&run.arm, run.seed, result, &schedules.of(attempt, &run.key)?))
            }
            None => None,
        };
        if let Some(error) = attempts.damage().filter(|_| record.is_none()) {
            damaged.push(format!("{} cannot be read: {}", cell_name(&run.arm, run.seed), Error::from(error)));
        }
        candidates.push(Candidate { arm: run.arm.clone(), seed: run.seed, record, not_needed: false });
    }
    let beyond = beyond_the_looks(files, dir, &candidates)?;
    for (candidate, run) in candidates.iter_mut().zip(&plan.runs) {
        candidate.not_needed = candidate.record.is_none() && beyond.contains(&run.key);
    }
    let mut notes = Vec::new();
    if unchecked > 0 {
        let place = dir.path().display();
        notes.push(format!(
            "{unchecked} of the runs in {place} have no checksum: an older nanorun wrote them"
        ));
    }
    Ok(Results { experiment: plan.name, candidates, notes, damaged })
}
