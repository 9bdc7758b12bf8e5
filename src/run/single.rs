//! One run, from wherever it stands to its result on disk.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::files::{ExactF64, FileError, Files, now, utc_now};
use crate::hash::Digest;
use crate::history::History;
use crate::host::{HostFacts, peak_rss_bytes};
use crate::plan::key::numerics_version;
use crate::record::journal::{Event as JournalEvent, Journal};
use crate::record::{AttemptDir, Conditions, Divergence, RunDir, RunResult, Timings};
use crate::stop::is_stop;
use crate::train::cadence::is_scheduled;
use crate::train::checkpoint::{Checkpoint, CheckpointError, CheckpointStore, EvalPoint, TrainState};
use crate::train::engine::Engine;
use crate::train::observer::{Event, Observer, Origin};
use crate::train::rows::Rows;
use crate::train::session::{CoreMeter, Ending, Finished, Session};

use super::admission::Admission;
use super::state::{self, Start};
use super::task::Task;

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// Its result is on disk.
    Finished(Arc<RunResult>),
    /// Stopped by a signal after this many steps; a checkpoint is on disk.
    Interrupted {
        /// Steps done.
        step: u64,
    },
    /// A loss or an evaluation was not finite; that is on disk.
    Diverged(AttemptDir, Box<Divergence>),
    /// It cannot go on.
    Failed(Error),
}

/// Where a run may take its first steps from: the checkpoints of another run of the experiment.
#[derive(Debug, Clone)]
pub struct Donor {
    /// The other run's key.
    pub run_key: Digest,
    /// Its directory.
    pub dir: RunDir,
    /// The most steps the two share.
    pub steps: u64,
}

/// What a run is trained with.
pub struct Setting<'a> {
    /// Writes files.
    pub files: &'a Files,
    /// The run's directory.
    pub dir: &'a RunDir,
    /// The attempt to train.
    pub start: &'a Start,
    /// Whether it is a further attempt that somebody asked for: it takes nothing from earlier ones, and is begun anew
    /// where it cannot be carried on here.
    pub rerun: bool,
    /// Its rows.
    pub rows: &'a dyn Rows,
    /// Threads it computes on.
    pub threads: usize,
    /// Runs it may take its first steps from, best first.
    pub donors: &'a [Donor],
    /// Steps whose checkpoint other runs start from.
    pub forks: &'a [u64],
    /// The generation of the lease under which it is trained.
    pub generation: u64,
    /// Whether nothing else trains in this process, nor in another one of this host.
    pub alone: bool,
    /// Measures the CORE metric, where the configuration asks for it.
    pub core: Option<&'a dyn CoreMeter>,
    /// Samples text once it is trained.
    pub samples: &'a dyn Fn(&mut dyn Engine) -> Result<String>,
    /// Whether to stop; see [`Session::stop`].
    pub stop: &'a dyn Fn() -> bool,
    /// The time, for saving by it.
    pub clock: &'a dyn Fn() -> Instant,
}

/// Trains a run to its end and writes its result. Everything about it is journalled.
///
/// # Errors
/// What keeps a run from starting or going on; its checkpoints stay.
pub fn train(
    task: &Task,
    setting: &Setting<'_>,
    engine: &mut dyn Engine,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let Setting { files, dir, .. } = *setting;
    let hardware = engine.hardware();
    for fallback in &hardware.fallbacks {
        observer.event(&Event::Note(fallback));
    }
    let host = HostFacts {
        libtorch: hardware.library,
        accelerator: hardware.accelerator,
        ..HostFacts::collect(setting.threads)
    };
    let mut place = Place::open(task, setting, &setting.start.attempt, observer)?;
    let start = match place.find_start(task, setting, engine, &host, observer) {
        Err(elsewhere) if setting.rerun && elsewhere.is_other_environment() => {
            let reason = Error::from(elsewhere).what().to_owned();
            let next = state::set_aside(files, dir, &place.attempt, &reason)?;
            observer.event(&Event::Note(&format!("another attempt is begun: {reason}")));
            place = Place::open(task, setting, &next, observer)?;
            place.find_start(task, setting, engine, &host, observer)
        }
        found => found,
    };
    let start = start.map_err(Error::from)?;
    let Place { attempt, journal, store } = place;
    let unjournalled = Cell::new(false);
    let mut watch =
        Watch { observer, journal: &journal, since_save: None, lost: None, unjournalled: &unjournalled };
    let mut session = Session {
        config: &task.config,
        keys: task.links.cursor(&task.config),
        rows: setting.rows,
        store: &store,
        forks: setting.forks,
        observer: &mut watch,
        // A run that cannot be journalled stops: its disk is full or gone.
        stop: &|| (setting.stop)() || unjournalled.get(),
        alone: setting.alone,
        clock: setting.clock,
        core: setting.core,
    };
    let ending = session.run(engine, start);
    if let Some(error) = watch.lost {
        return Err(error);
    }
    match ending {
        Ok(Ending::Finished(finished)) => {
            let step = finished.state.step;
            let samples = match (setting.samples)(engine) {
                Ok(samples) => samples,
                Err(error) if is_stop(&error) => {
                    // Nothing of it is left to train; the rest is made from the last checkpoint.
                    journal.add(JournalEvent::Interrupted { step })?;
                    return Ok(Outcome::Interrupted { step });
                }
                // For people to look at: a model that cannot be sampled from is trained all the same.
                Err(error) => format!("no samples: {error}\n"),
            };
            files.write(&attempt.samples(), samples.as_bytes())?;
            let Finished { mut state, train_hash, environment_class } = *finished;
            let core = std::mem::take(&mut state.core);
            let timings = timings(setting, &attempt, &state, engine.peak_bytes())?;
            let result = RunResult::new(
                task.run_key,
                environment_class,
                numerics_version(task.config.backend.kind, task.config.backend.precision),
                train_hash,
                state.step_losses,
                state.evals,
                timings,
                host,
            );
            let mut result = result.ok_or_else(|| Error::internal("a finished run has no evaluation"))?;
            result.core = core;
            state::finish(files, &attempt, &task.config, &result)?;
            // The result is safe: nobody needs to go back.
            state::settle(&store, &task.config, setting.forks)?;
            Ok(Outcome::Finished(Arc::new(result)))
        }
        Ok(Ending::Interrupted { step }) => {
            journal.add(JournalEvent::Interrupted { step })?;
            Ok(Outcome::Interrupted { step })
        }
        Ok(Ending::Diverged { state, metric, value, last_good }) => {
            let divergence = Divergence {
                format: Divergence::FORMAT,
                run_key: task.run_key,
                environment_class: engine.environment_class(),
                numerics_version: numerics_version(task.config.backend.kind, task.config.backend.precision),
                step: state.step,
                metric: metric.to_owned(),
                value: ExactF64(value),
                last_checkpoint: last_good,
                timings: timings(setting, &attempt, &state, engine.peak_bytes())?,
                step_losses: state.step_losses,
                evals: state.evals,
                host,
            };
            state::diverge(files, &attempt, &task.config, &divergence)?;
            Ok(Outcome::Diverged(attempt, Box::new(divergence)))
        }
        Err(error) => {
            let last_checkpoint = store.steps().ok().and_then(|mut steps| steps.pop());
            let step = last_checkpoint.unwrap_or(0);
            // The first error is the one to tell; a journal that cannot be written either adds nothing.
            let _ = journal.add(JournalEvent::Failed { step, reason: error.to_string(), last_checkpoint });
            Err(error)
        }
    }
}

/// Says which lines of the journal are damaged.
fn tell_damaged(journal: &Journal, observer: &mut dyn Observer) -> Result<()> {
    let damaged = journal.read()?.damaged;
    if !damaged.is_empty() {
        let lines: Vec<_> = damaged.iter().map(usize::to_string).collect();
        let what = format!("journal.jsonl is damaged, no event stands on line {}", lines.join(", "));
        observer.event(&Event::Note(&format!("{what}: the result stays the same, its speed is not judged")));
    }
    Ok(())
}

/// An attempt, open for training.
struct Place {
    attempt: AttemptDir,
    journal: Journal,
    store: CheckpointStore,
}

impl Place {
    fn open(
        task: &Task,
        setting: &Setting<'_>,
        attempt: &AttemptDir,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let Setting { files, dir, .. } = *setting;
        state::begin(files, dir, attempt)?;
        write_manifest(files, dir, task)?;
        let journal = Journal::new(files.clone(), attempt.journal());
        tell_damaged(&journal, observer)?;
        let store = CheckpointStore::new(files.clone(), attempt.checkpoints());
        Ok(Self { attempt: attempt.clone(), journal, store })
    }

    /// The attempt's own newest checkpoint that verifies; else that of the attempt it takes up; else the best donor's;
    /// else nothing.
    fn find_start(
        &self,
        task: &Task,
        setting: &Setting<'_>,
        engine: &dyn Engine,
        host: &HostFacts,
        observer: &mut dyn Observer,
    ) -> std::result::Result<Option<(Checkpoint<'static>, Origin)>, NoStart> {
        let Self { journal, store, .. } = self;
        let class = engine.environment_class();
        let admission = Admission { task, environment_class: &class };
        let conditions = Some(Conditions {
            environment_class: class.clone(),
            machine: host.accelerator.as_ref().unwrap_or(&host.cpu_model).clone(),
            threads: host.threads,
            alone: setting.alone,
            generation: Some(setting.generation),
        });
        let stores = std::iter::once((None, store.clone())).chain(setting.start.from.iter().map(|from| {
            let store = CheckpointStore::new(setting.files.clone(), from.checkpoints());
            (Some(from.number()), store)
        }));
        for (attempt, store) in stores {
            let found = store.latest_valid_where(|checkpoint| admission.to_go_on(checkpoint))?;
            let onward = found.checkpoint.as_ref().map(|checkpoint| checkpoint.state.step);
            for skipped in found.skipped {
                // Damaged checkpoints are passed over; one of another class must not be, its run belongs elsewhere.
                if matches!(skipped.reason, CheckpointError::OtherEnvironment { .. }) {
                    return Err(skipped.reason.into());
                }
                let checkpoint = skipped.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let reason = skipped.reason.to_string();
                let onward =
                    onward.map_or_else(|| "from the start".to_owned(), |step| format!("after step {step}"));
                observer
                    .event(&Event::Note(&format!("passing over {checkpoint}, going on {onward}: {reason}")));
                journal.add(JournalEvent::CheckpointSkipped { checkpoint, reason })?;
            }
            let Some(checkpoint) = found.checkpoint else { continue };
            let (step, host) = (checkpoint.state.step, host.host.clone());
            return match attempt {
                None => {
                    journal.add(JournalEvent::Resumed { step, host, conditions })?;
                    Ok(Some((checkpoint, Origin::Checkpoint)))
                }
                Some(attempt) => {
                    journal.add(JournalEvent::TakenUp { attempt, step, host, conditions })?;
                    Ok(Some((checkpoint, Origin::Attempt)))
                }
            };
        }
        for donor in setting.donors {
            let mut attempts = donor.dir.attempts()?;
            if setting.rerun {
                // The one that is trained anew as well: what was there before proves nothing again.
                attempts = attempts.pop().into_iter().collect();
            }
            for attempt in attempts {
                let donated = CheckpointStore::new(setting.files.clone(), attempt.checkpoints());
                let steps = donated.steps()?;
                // Where two runs part must not depend on how fast the donor was: what it saved by time is passed over.
                let fits =
                    |step| step == donor.steps || (step < donor.steps && is_scheduled(&task.config, step));
                for step in steps.into_iter().rev().filter(|&step| step > 0 && fits(step)) {
                    // A donor is a convenience: whatever is wrong with its checkpoint, the steps can be trained.
                    let admitted = |checkpoint| admission.to_fork(&checkpoint).map(|()| checkpoint);
                    match donated.load(step).and_then(admitted) {
                        Ok(checkpoint) => {
                            let (from, host) = (donor.run_key, Some(host.host.clone()));
                            journal.add(JournalEvent::Forked { from, step, host, conditions })?;
                            return Ok(Some((checkpoint, Origin::Prefix)));
                        }
                        Err(reason) => {
                            let run = donor.run_key.short();
                            let note = format!("not sharing step {step} of run {run}: {reason}");
                            observer.event(&Event::Note(&note));
                        }
                    }
                }
            }
        }
        journal.add(JournalEvent::Started {
            run_key: task.run_key,
            environment_class: class,
            host: host.host.clone(),
            nanorun: host.nanorun.clone(),
            conditions,
        })?;
        Ok(None)
    }
}

/// Why there is no place to start from.
#[derive(Debug, thiserror::Error)]
enum NoStart {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl NoStart {
    fn is_other_environment(&self) -> bool {
        matches!(self, Self::Checkpoint(CheckpointError::OtherEnvironment { .. }))
    }
}

impl From<NoStart> for Error {
    fn from(error: NoStart) -> Self {
        match error {
            NoStart::Checkpoint(error) => error.into(),
            NoStart::File(error) => error.into(),
        }
    }
}

/// The complete configuration, as TOML, so that the directory explains itself.
pub(super) fn write_manifest(files: &Files, dir: &RunDir, task: &Task) -> Result<()> {
    let text = toml::to_string(&task.config)
        .map_err(|e| Error::internal("the run's configuration cannot be written as TOML").because(e))?;
    let text = format!("# {}: everything that decides this run's numbers, complete.\n{text}", task.label);
    Ok(files.write(&dir.manifest(), text.as_bytes())?)
}

/// What the lives of an attempt say of how its steps were made.
fn timings(
    setting: &Setting<'_>,
    attempt: &AttemptDir,
    state: &TrainState,
    peak_device_bytes: Option<u64>,
) -> Result<Timings> {
    let history = History::read(setting.files, setting.dir, attempt)?.until(state.step);
    Ok(Timings {
        step_seconds: state.step_seconds.clone(),
        eval_seconds: history.eval_seconds(),
        checkpoint_seconds: history.checkpoint_seconds(),
        shared_steps: history.shared_steps(),
        resumes: history.resumes(),
        alone: history.alone(),
        machines: history.machines(),
        peak_rss_bytes: peak_rss_bytes(),
        peak_device_bytes,
        generation: Some(setting.generation),
        started: history.begun.unwrap_or_else(utc_now),
        finished: utc_now(),
    })
}

/// Passes events on, journals them and adds up times.
struct Watch<'a> {
    observer: &'a mut dyn Observer,
    journal: &'a Journal,
    /// When the checkpoint that is being written was begun.
    since_save: Option<Instant>,
    /// The first event that could not be journalled.
    lost: Option<Error>,
    /// Whether there is one.
    unjournalled: &'a Cell<bool>,
}

impl Watch<'_> {
    fn journal(&mut self, event: JournalEvent) {
        if let Err(error) = self.journal.add(event) {
            self.lost.get_or_insert_with(|| error.into());
            self.unjournalled.set(true);
        }
    }
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Saving => self.since_save = Some(now()),
            Event::Saved { step } => {
                let seconds = self.since_save.take().map(|since| since.elapsed().as_secs_f64());
                self.journal(JournalEvent::Checkpoint { step: *step, seconds });
            }
            Event::Evaluated(done, point) => self.journal(evaluated(point, done.seconds)),
            Event::Measured { point, seconds } => self.journal(evaluated(point, *seconds)),
            _ => {}
        }
        self.observer.event(event);
    }
}

fn evaluated(point: &EvalPoint, seconds: f64) -> JournalEvent {
    let values = point.values.iter().map(|(name, value)| (name.clone(), value.0)).collect();
    JournalEvent::Evaluated { step: point.step, values, eval_hash: point.hash(), seconds: Some(seconds) }
}
