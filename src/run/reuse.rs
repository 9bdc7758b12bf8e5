//! Finished runs of other results, taken over instead of being trained again.
//!
//! A run is known by its key, so the same run of another experiment is this one. It is taken over where it is finished,
//! under the same definition of an evaluation and in the environment class of this machine, and where its records
//! verify: never in part. What was taken over says so in its result and its journal.

use std::path::{Path, PathBuf};

use super::engine::environment_class;
use super::single::write_manifest;
use super::state::{self, Standing};
use super::task::Task;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::Digest;
use crate::host::host_name;
use crate::plan::run_config::{CheckpointEnd, RunConfig};
use crate::record::journal::{Event, Journal};
use crate::record::{
    AttemptDir, Attempts, ExperimentDir, KeptDocuments, PlanRecord, RunResult, write_documents,
};
use crate::train::checkpoint::{CheckpointError, CheckpointStore};
use crate::train::evaluation::eval_settings;

/// A finished run of other results.
#[derive(Debug)]
pub struct Elsewhere {
    /// The attempt that is finished.
    pub attempt: AttemptDir,
    /// Its result.
    pub result: RunResult,
}

/// What looking for a run in other results came to.
#[derive(Debug, Default)]
pub struct Looked {
    /// Where it is finished; the first place of several.
    pub found: Option<Elsewhere>,
    /// Why results that are there were not taken, a sentence each.
    pub notes: Vec<String>,
}

/// The experiments of directories of which each is one, or holds several.
///
/// # Errors
/// A directory that is not there, cannot be read, or holds no results; class `Input`.
pub fn places(dirs: &[PathBuf]) -> Result<Vec<ExperimentDir>> {
    let mut places = Vec::new();
    for dir in dirs {
        let none = |what: &str| {
            Error::input(format!("{what} to take runs over from"))
                .file(dir)
                .key("--reuse")
                .expected("a directory that nanorun keeps results in, such as results or results/quickstart")
        };
        let is_one = |dir: &Path| dir.join("plan.toml").is_file();
        if is_one(dir) {
            places.push(ExperimentDir::at(dir));
            continue;
        }
        let entries = std::fs::read_dir(dir).map_err(|error| none("there are no results").because(error))?;
        let mut inner: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        inner.retain(|dir| is_one(dir));
        if inner.is_empty() {
            return Err(none("no experiment is there"));
        }
        inner.sort();
        places.extend(inner.into_iter().map(ExperimentDir::at));
    }
    Ok(places)
}

/// Looks for a run in other results than `own`. `threads` are those that it would be trained on.
pub fn find(
    files: &Files,
    places: &[ExperimentDir],
    own: &ExperimentDir,
    config: &RunConfig,
    run_key: &Digest,
    threads: usize,
) -> Looked {
    let mut looked = Looked::default();
    let here = own.path().canonicalize().ok();
    for place in places {
        if here.is_some() && place.path().canonicalize().ok() == here {
            continue;
        }
        let run = place.run(run_key);
        if !run.path().is_dir() {
            continue;
        }
        let mut refuse = |why: &str| {
            looked.notes.push(format!("{} is not taken over: {why}", run.path().display()));
        };
        if let Err(error) = PlanRecord::check_layout(files, place) {
            refuse(&error.to_string());
            continue;
        }
        let attempts = match Attempts::read(files, &run) {
            Ok(attempts) => attempts,
            Err(error) => {
                refuse(&error.to_string());
                continue;
            }
        };
        let Some((attempt, result)) = attempts.result(run_key, Some(&eval_settings(config))) else {
            if let Some(damage) = attempts.damage() {
                refuse(&damage.to_string());
            }
            continue;
        };
        match fits(config, result, threads) {
            Err(why) => refuse(&why),
            Ok(()) => match &looked.found {
                Some(first) if first.result.contradicts(result) => {
                    let first = first.attempt.path().display().to_string();
                    refuse(&format!(
                        "it contradicts {first}, so neither is: this is a defect, please report it"
                    ));
                    looked.found = None;
                    return looked;
                }
                Some(_) => {}
                None => {
                    looked.found = Some(Elsewhere { attempt: attempt.clone(), result: result.clone() });
                }
            },
        }
    }
    looked
}

/// Whether a result is what this machine would come to.
fn fits(config: &RunConfig, result: &RunResult, threads: usize) -> std::result::Result<(), String> {
    let steps = config.schedule.num_iterations;
    if result.step_losses.len() as u64 != steps || result.evals.last().is_none_or(|last| last.step != steps) {
        return Err(format!("it has {} of {steps} steps", result.step_losses.len()));
    }
    let here = environment_class(&config.backend, threads).map_err(|error| error.what().to_owned())?;
    if result.environment_class != here {
        return Err(format!("its environment class is {}, this one's is {here}", result.environment_class));
    }
    Ok(())
}

/// Makes a finished run of other results an attempt of this one. Its result comes last: stopped before, the attempt is
/// one that was begun.
///
/// Returns what could not be brought along.
///
/// # Errors
/// File failures here.
pub fn take_over(
    files: &Files,
    standing: &Standing,
    task: &Task,
    elsewhere: &Elsewhere,
) -> Result<Vec<String>> {
    let Elsewhere { attempt: from, result } = elsewhere;
    let (run, attempt) = standing.further();
    state::begin(files, run, &attempt)?;
    write_manifest(files, run, task)?;
    let mut notes = Vec::new();
    if task.config.checkpoint.at_end != CheckpointEnd::None
        && let Err(error) = bring_weights(files, task, from, &attempt, &result.environment_class)
    {
        match error {
            CheckpointError::File(error) => return Err(error.into()),
            error => notes.push(format!("its weights are not taken over: {error}")),
        }
    }
    let whole = std::path::absolute(from.path()).unwrap_or_else(|_| from.path().to_owned());
    let whole = whole.display().to_string();
    match KeptDocuments::read(files, from) {
        KeptDocuments::Kept(documents) => write_documents(files, &attempt, &documents)?,
        KeptDocuments::Absent => {}
        KeptDocuments::Damaged(why) => {
            notes.push(format!("its losses by document are not taken over: {why}"));
        }
    }
    if let Ok(Some(samples)) = files.read_if_there(&from.samples()) {
        files.write(&attempt.samples(), &samples)?;
    }
    if let Ok(Some(journal)) = files.read_if_there(&from.journal()) {
        files.write(&attempt.journal(), &journal)?;
    }
    let event = Event::TakenOver { from: whole.clone(), host: host_name() };
    Journal::new(files.clone(), attempt.journal()).add(event)?;
    let result = RunResult { taken_over_from: Some(whole), ..result.clone() };
    state::write_result(files, &attempt, &task.config, &result)?;
    Ok(notes)
}

/// Copies the last checkpoint, verified, as far as a finished run keeps it.
fn bring_weights(
    files: &Files,
    task: &Task,
    from: &AttemptDir,
    to: &AttemptDir,
    class: &str,
) -> std::result::Result<(), CheckpointError> {
    let theirs = CheckpointStore::new(files.clone(), from.checkpoints());
    if theirs.steps()?.last() != Some(&task.steps()) {
        return Ok(());
    }
    let checkpoint = theirs.load(task.steps())?;
    checkpoint.check_run(&task.links.last(), class)?;
    let ours = CheckpointStore::new(files.clone(), to.checkpoints());
    ours.copy_from(&theirs, task.steps())?;
    if checkpoint.weights_alone || task.config.checkpoint.at_end == CheckpointEnd::Weights {
        ours.keep_weights(&[])?;
    }
    Ok(())
}
