//! What a run has come to, and what may happen to it next. Whoever begins, carries on, ends or gives up an attempt at
//! a run does it through here.
//!
//! ```text
//!           begin            finish
//!   Fresh ---------> Begun ----------> Finished
//!                     | |    diverge
//!                     | +------------> Diverged
//!                     | set_aside
//!                     +--------------> set aside: the next attempt stands for the run
//! ```
//!
//! The states are those of an attempt; the run's is read off its attempts: the lowest finished one speaks for it, else
//! the last one. `--rerun` begins another attempt beside those that ended and takes nothing from them, so whenever it
//! is stopped, what was finished before still is. An end is one file that appears by a rename, so an attempt has ended
//! or not at every moment.

use std::collections::BTreeSet;
use std::fmt;

use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::Digest;
use crate::optim::config::StepValues;
use crate::plan::run_config::{CheckpointEnd, RunConfig};
use crate::record::{
    AttemptDir, Attempts, Divergence, Event, Journal, OwnStepRow, RunDir, RunResult, write_table,
};
use crate::train::cadence::retention;
use crate::train::checkpoint::CheckpointStore;
use crate::train::evaluation::eval_settings;

/// Where a run stands, and so why it will or will not be trained.
#[derive(Debug)]
pub enum Status {
    /// Nothing of it is on disk.
    Fresh,
    /// Begun; its newest checkpoint is of this step.
    Begun {
        /// Steps done.
        step: u64,
    },
    /// Finished; its result is on disk and whole.
    Finished(Box<RunResult>),
    /// Its numbers were no longer finite; it is not trained again until asked.
    Diverged(Box<Divergence>),
    /// It has a result that cannot be read, and none besides.
    Damaged(Error),
}

/// A run with its attempts.
#[derive(Debug)]
pub struct Standing {
    /// Where it stands.
    pub status: Status,
    /// The attempt that says so; the one that a start carries on, where it does; none of a fresh run.
    pub attempt: Option<AttemptDir>,
    /// What else people should know: results that cannot be read beside one that can, where one was taken over from.
    pub notes: Vec<String>,
    /// Two results that cannot both be right, the earlier first.
    pub contradiction: Option<Box<(RunResult, RunResult)>>,
    run: RunDir,
    last: Option<Last>,
    /// A finished attempt of this key that was evaluated otherwise.
    otherwise: Option<AttemptDir>,
    /// The number of the last attempt; 0 where there is none.
    highest: u32,
}

/// The last attempt, where it has no end.
#[derive(Debug, Clone)]
struct Last {
    dir: AttemptDir,
    set_aside: bool,
    /// The attempt whose weights it began with.
    taken_up: Option<u32>,
}

/// An attempt that is to be trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The attempt.
    pub attempt: AttemptDir,
    /// An attempt whose last checkpoint it takes up while it has none of its own: a finished one, to evaluate it
    /// otherwise, or one of somebody of whom nothing is heard.
    pub from: Option<AttemptDir>,
}

impl Standing {
    /// Reads where a run stands.
    ///
    /// # Errors
    /// Directories or journals that cannot be read. A damaged result is a [`Status`].
    pub fn read(files: &Files, run: &RunDir, config: &RunConfig, run_key: &Digest) -> Result<Self> {
        let attempts = Attempts::read(files, run)?;
        let evaluation = eval_settings(config);
        let ended = |attempt: &&crate::record::Attempt| {
            attempt.divergence.is_some() || !matches!(attempt.result, Ok(None))
        };
        let mut standing = Self {
            status: Status::Fresh,
            attempt: None,
            notes: Vec::new(),
            contradiction: attempts.contradiction().map(|(a, b)| Box::new((a.clone(), b.clone()))),
            run: run.clone(),
            last: None,
            otherwise: None,
            highest: attempts.last(),
        };
        if let Some(last) = attempts.all.last().filter(|last| !ended(last)) {
            standing.last = Some(Last::read(files, &last.dir)?);
        }
        if let Some((dir, result)) = attempts.result(run_key, Some(&evaluation)) {
            standing.status = Status::Finished(Box::new(result.clone()));
            standing.attempt = Some(dir.clone());
            standing.notes =
                result.taken_over_from.iter().map(|from| format!("taken over from {from}")).collect();
            standing.notes.extend(attempts.all.into_iter().filter_map(|a| Some(a.result.err()?.to_string())));
            return Ok(standing);
        }
        for (dir, result) in attempts.finished() {
            let store = CheckpointStore::new(files.clone(), dir.checkpoints());
            // Its weights must be there: what is gone is trained again.
            let there = store.steps()?.last() == Some(&config.schedule.num_iterations);
            if result.run_key == *run_key && there {
                standing.otherwise = Some(dir.clone());
                break;
            }
        }
        if let Some(start) = standing.carry_on() {
            let steps = |dir: &AttemptDir| CheckpointStore::new(files.clone(), dir.checkpoints()).steps();
            let own = steps(&start.attempt)?.pop();
            let taken = start.from.as_ref().map(steps).transpose()?.and_then(|mut steps| steps.pop());
            standing.status = own.or(taken).map_or(Status::Fresh, |step| Status::Begun { step });
            standing.attempt = Some(start.attempt);
            return Ok(standing);
        }
        let diverged = attempts.all.iter().find_map(|attempt| {
            let divergence = attempt.divergence.as_ref().filter(|found| found.run_key == *run_key)?;
            Some((attempt.dir.clone(), divergence.clone()))
        });
        if let Some((dir, divergence)) = diverged {
            standing.status = Status::Diverged(Box::new(divergence));
            standing.attempt = Some(dir);
        } else if let Some(damage) = attempts.damage() {
            standing.status = Status::Damaged(damage.into());
        }
        Ok(standing)
    }

    /// The attempt that the next start trains; none where there is nothing to do. With `rerun` there always is.
    pub fn next(&self, rerun: bool) -> Option<Start> {
        match (&self.status, rerun) {
            (Status::Finished(_) | Status::Diverged(_) | Status::Damaged(_), false) => None,
            (Status::Fresh | Status::Begun { .. }, false) => {
                Some(self.carry_on().unwrap_or_else(|| self.anew()))
            }
            // A rerun that was stopped goes on; one that takes up what another attempt trained is no rerun.
            (_, true) => {
                let own = self.last.as_ref().filter(|last| !last.set_aside && last.taken_up.is_none());
                Some(own.map_or_else(|| self.anew(), |last| Start { attempt: last.dir.clone(), from: None }))
            }
        }
    }

    /// The same, where others may come back and write into the attempts `occupied`: what they have is taken up in
    /// another one beside.
    pub fn next_beside(&self, rerun: bool, occupied: &BTreeSet<u32>) -> Option<Start> {
        let start = self.next(rerun)?;
        if !occupied.contains(&start.attempt.number()) {
            return Some(start);
        }
        let last = occupied.iter().copied().max().unwrap_or(0).max(self.highest);
        let from = if rerun { None } else { start.from.or(Some(start.attempt)) };
        Some(Start { attempt: self.run.attempt(last + 1), from })
    }

    /// Whether it is over, one way or another, unless somebody asks for another attempt.
    pub fn has_ended(&self) -> bool {
        !matches!(self.status, Status::Fresh | Status::Begun { .. })
    }

    /// What goes on without anybody asking for it: the last attempt where it has no end, or a finished one evaluated
    /// otherwise.
    fn carry_on(&self) -> Option<Start> {
        let last = self.last.as_ref().filter(|last| !last.set_aside);
        if let Some(finished) = &self.otherwise {
            // Its weights are there: whatever else was begun, evaluating them is all there is to do.
            let attempt = last.filter(|last| last.taken_up.is_some()).map(|last| last.dir.clone());
            let attempt = attempt.unwrap_or_else(|| self.anew().attempt);
            return Some(Start { attempt, from: Some(finished.clone()) });
        }
        // What it began with is still there, should it have nothing of its own yet.
        let from = |last: &Last| last.taken_up.map(|number| self.run.attempt(number));
        last.map(|last| Start { attempt: last.dir.clone(), from: from(last) })
    }

    /// The run's directory, and the attempt beside those that are there.
    pub(super) fn further(&self) -> (&RunDir, AttemptDir) {
        (&self.run, self.anew().attempt)
    }

    /// Another attempt, that has nothing of the others.
    fn anew(&self) -> Start {
        Start { attempt: self.run.attempt(self.highest + 1), from: None }
    }
}

impl Last {
    fn read(files: &Files, dir: &AttemptDir) -> Result<Self> {
        let entries = Journal::new(files.clone(), dir.journal()).read()?.entries;
        let set_aside = entries.iter().any(|entry| matches!(entry.event, Event::SetAside { .. }));
        let taken_up = entries.iter().find_map(|entry| match entry.event {
            Event::TakenUp { attempt, .. } => Some(attempt),
            _ => None,
        });
        Ok(Self { dir: dir.clone(), set_aside, taken_up })
    }
}

/// Makes an attempt's directory: it is begun, though nothing of it is trained yet.
pub(super) fn begin(files: &Files, run: &RunDir, attempt: &AttemptDir) -> Result<()> {
    Ok(run.make(files, attempt)?)
}

/// Gives up an attempt that cannot be carried on here. Everything of it stays; the one after it stands for the run.
pub(super) fn set_aside(
    files: &Files,
    run: &RunDir,
    attempt: &AttemptDir,
    reason: &str,
) -> Result<AttemptDir> {
    Journal::new(files.clone(), attempt.journal()).add(Event::SetAside { reason: reason.to_owned() })?;
    Ok(run.attempt(attempt.number() + 1))
}

/// Ends an attempt with its result.
pub(super) fn finish(
    files: &Files,
    attempt: &AttemptDir,
    config: &RunConfig,
    result: &RunResult,
) -> Result<()> {
    write_result(files, attempt, config, result)?;
    Ok(Journal::new(files.clone(), attempt.journal())
        .add(Event::Finished { result_hash: result.result_hash })?)
}

/// Writes an attempt's table, then its result: it is finished.
pub(super) fn write_result(
    files: &Files,
    attempt: &AttemptDir,
    config: &RunConfig,
    result: &RunResult,
) -> Result<()> {
    write_steps(files, attempt, config, &result.step_losses, &result.timings.step_seconds)?;
    Ok(result.write(files, &attempt.result())?)
}

/// Lets go of what nothing needs of a finished attempt's checkpoints; other runs may still take steps over at `forks`.
pub(super) fn settle(store: &CheckpointStore, config: &RunConfig, forks: &[u64]) -> Result<()> {
    store.prune(&retention(config, forks, 1))?;
    match config.checkpoint.at_end {
        CheckpointEnd::All => {}
        CheckpointEnd::Weights => store.keep_weights(forks)?,
        CheckpointEnd::None => store.remove_all(forks)?,
    }
    Ok(())
}

/// Ends an attempt whose numbers were no longer finite.
pub(super) fn diverge(
    files: &Files,
    attempt: &AttemptDir,
    config: &RunConfig,
    divergence: &Divergence,
) -> Result<()> {
    write_steps(files, attempt, config, &divergence.step_losses, &divergence.timings.step_seconds)?;
    divergence.write(files, &attempt.divergence())?;
    let Divergence { step, last_checkpoint, .. } = *divergence;
    let event = Event::Diverged { step, reason: divergence.what(), last_checkpoint };
    Ok(Journal::new(files.clone(), attempt.journal()).add(event)?)
}

/// Writes the own table of a finished attempt again where it is gone: it is made from the result. Attempts of layout 1
/// have none; what is theirs stays as it is.
///
/// # Errors
/// A table that cannot be written.
pub fn restore_table(
    files: &Files,
    run: &RunDir,
    attempt: &AttemptDir,
    config: &RunConfig,
    result: &RunResult,
) -> Result<()> {
    if attempt.path() == run.path() || attempt.steps().exists() {
        return Ok(());
    }
    write_steps(files, attempt, config, &result.step_losses, &result.timings.step_seconds)
}

/// The attempt's own table.
fn write_steps(
    files: &Files,
    attempt: &AttemptDir,
    config: &RunConfig,
    losses: &[crate::files::ExactF32],
    seconds: &[f64],
) -> Result<()> {
    let batch = config.batch.total_batch_size as u64;
    let seconds = seconds.iter().copied().chain(std::iter::repeat(0.0));
    let rows: Vec<OwnStepRow> = (0..)
        .zip(losses.iter().zip(seconds))
        .map(|(step, (loss, seconds))| {
            let StepValues { lr_multiplier, muon_momentum, muon_weight_decay } =
                config.schedule.step_values(step);
            let tokens = (step + 1) * batch;
            OwnStepRow {
                step,
                loss: loss.0,
                lr_multiplier,
                muon_momentum,
                muon_weight_decay,
                tokens,
                seconds,
            }
        })
        .collect();
    Ok(write_table(files, &attempt.steps(), &rows)?)
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished(result) => write!(f, "done, {}", result.timings.finished),
            Self::Begun { step } => write!(f, "carries on after step {step}"),
            Self::Fresh => f.write_str("not begun"),
            Self::Diverged(divergence) => write!(f, "diverged: {}", divergence.what()),
            Self::Damaged(error) => f.write_str(error.what()),
        }
    }
}

/// What is said of a run that diverged, whenever somebody asks for it.
pub fn divergence_error(attempt: &AttemptDir, divergence: &Divergence) -> Error {
    let good = divergence.last_checkpoint.map_or_else(
        || "there is no checkpoint before it".to_owned(),
        |good| {
            let store = CheckpointStore::new(Files::new(), attempt.checkpoints());
            format!("the last good checkpoint is {}", store.step_dir(good).display())
        },
    );
    Error::run(divergence.what()).expected("a finite number").help(format!(
        "{good}; look at the steps before it in {}, then lower the learning rate; the run stays as it is until --rerun",
        attempt.steps().display()
    ))
}
