//! One run, from wherever it stands to its result on disk.

use std::cell::Cell;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::files::{Files, now, utc_now};
use crate::hash::Digest;
use crate::host::{HostFacts, peak_rss_bytes};
use crate::plan::key::NUMERICS_VERSION;
use crate::record::journal::{Event as JournalEvent, Journal, JournalText};
use crate::record::{RunDir, RunResult, Timings};
use crate::train::checkpoint::{Checkpoint, CheckpointError, CheckpointStore, EvalPoint};
use crate::train::engine::Engine;
use crate::train::observer::{Event, Observer, Origin};
use crate::train::session::{Ending, Finished, Rows, Session, retention};

use super::task::Task;

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// Its result is on disk.
    Finished(Box<RunResult>),
    /// Stopped by a signal after this many steps; a checkpoint is on disk.
    Interrupted {
        /// Steps done.
        step: u64,
    },
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
    /// Its rows.
    pub rows: &'a dyn Rows,
    /// Threads it computes on.
    pub threads: usize,
    /// Runs it may take its first steps from, best first.
    pub donors: &'a [Donor],
    /// Steps whose checkpoint other runs start from.
    pub forks: &'a [u64],
    /// Whether nothing else trains in this process.
    pub alone: bool,
    /// Samples text once it is trained.
    pub samples: &'a dyn Fn(&mut dyn Engine) -> Result<String>,
    /// Whether to stop at the next step boundary.
    pub stop: &'a dyn Fn() -> bool,
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
    files.create_dir_all(dir.path())?;
    write_manifest(files, dir, task)?;
    let journal = Journal::new(files.clone(), dir.journal());
    tell_damaged(&journal, observer)?;
    let hardware = engine.hardware();
    for fallback in &hardware.fallbacks {
        observer.event(&Event::Note(fallback));
    }
    let host = HostFacts {
        libtorch: hardware.library,
        accelerator: hardware.accelerator,
        ..HostFacts::collect(setting.threads)
    };
    let store = CheckpointStore::new(files.clone(), dir.checkpoints());
    let start = find_start(task, setting, &store, &journal, engine, &host, observer)?;
    let unjournalled = Cell::new(false);
    let mut watch = Watch {
        observer,
        journal: &journal,
        timings: Watched::default(),
        lost: None,
        unjournalled: &unjournalled,
    };
    let mut session = Session {
        config: &task.config,
        keys: &task.keys,
        rows: setting.rows,
        store: &store,
        forks: setting.forks,
        observer: &mut watch,
        // A run that cannot be journalled stops: its disk is full or gone.
        stop: &|| (setting.stop)() || unjournalled.get(),
        alone: setting.alone,
    };
    let ending = session.run(engine, start);
    let Watch { timings, lost, .. } = watch;
    if let Some(error) = lost {
        return Err(error);
    }
    match ending {
        Ok(Ending::Finished(finished)) => {
            // For people to look at: a model that cannot be sampled from is trained all the same.
            let samples = (setting.samples)(engine).unwrap_or_else(|error| format!("no samples: {error}\n"));
            files.write(&dir.samples(), samples.as_bytes())?;
            let result = result(task, setting, *finished, &timings, &journal, host, engine.peak_bytes())?;
            result.write(files, &dir.result())?;
            journal.add(JournalEvent::Finished { result_hash: result.result_hash })?;
            // The result is safe: nobody needs to go back.
            store.prune(&retention(&task.config, setting.forks, 1))?;
            Ok(Outcome::Finished(Box::new(result)))
        }
        Ok(Ending::Interrupted { step }) => {
            journal.add(JournalEvent::Interrupted { step })?;
            Ok(Outcome::Interrupted { step })
        }
        Ok(Ending::Diverged { step, loss, last_good }) => {
            let good = last_good.map_or_else(
                || "there is no checkpoint before it".to_owned(),
                |good| format!("the last good checkpoint is {}", store.step_dir(good).display()),
            );
            let error = Error::run(format!("the loss of step {step} is {loss}"))
                .expected("a finite number")
                .help(format!(
                    "{good}; lower the learning rate, or look at the steps before it in steps.parquet"
                ));
            let reason = error.what().to_owned();
            journal.add(JournalEvent::Failed { step, reason, last_checkpoint: last_good })?;
            Ok(Outcome::Failed(error))
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

/// The run's own newest checkpoint that verifies; else the best donor's; else nothing.
fn find_start(
    task: &Task,
    setting: &Setting<'_>,
    store: &CheckpointStore,
    journal: &Journal,
    engine: &dyn Engine,
    host: &HostFacts,
    observer: &mut dyn Observer,
) -> Result<Option<(Checkpoint<'static>, Origin)>> {
    let class = engine.environment_class();
    let accept = |checkpoint: &Checkpoint<'static>| {
        let state = &checkpoint.state;
        let key = usize::try_from(state.step).ok().and_then(|step| task.keys.get(step));
        match key {
            Some(key) if *key == state.run_key => {}
            key => {
                let expected = key.copied().unwrap_or(task.run_key);
                return Err(CheckpointError::OtherRun { step: state.step, expected, found: state.run_key });
            }
        }
        if state.environment_class != class {
            let (found, expected) = (state.environment_class.clone(), class.clone());
            return Err(CheckpointError::OtherEnvironment { step: state.step, expected, found });
        }
        Ok(())
    };
    let own = store.latest_valid_where(accept)?;
    let onward = own.checkpoint.as_ref().map(|checkpoint| checkpoint.state.step);
    for skipped in own.skipped {
        // Damaged checkpoints are passed over; one of another class must not be, its run belongs elsewhere.
        if matches!(skipped.reason, CheckpointError::OtherEnvironment { .. }) {
            return Err(skipped.reason.into());
        }
        let checkpoint = skipped.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let reason = skipped.reason.to_string();
        let onward = onward.map_or_else(|| "from the start".to_owned(), |step| format!("after step {step}"));
        observer.event(&Event::Note(&format!("passing over {checkpoint}, going on {onward}: {reason}")));
        journal.add(JournalEvent::CheckpointSkipped { checkpoint, reason })?;
    }
    if let Some(checkpoint) = own.checkpoint {
        journal.add(JournalEvent::Resumed { step: checkpoint.state.step, host: host.host.clone() })?;
        return Ok(Some((checkpoint, Origin::Checkpoint)));
    }
    for donor in setting.donors {
        let donated = CheckpointStore::new(setting.files.clone(), donor.dir.checkpoints());
        let steps = donated.steps()?;
        for step in steps.into_iter().rev().filter(|&step| step > 0 && step <= donor.steps) {
            // A donor is a convenience: whatever is wrong with its checkpoint, the steps can be trained.
            match donated.load(step).and_then(|checkpoint| accept(&checkpoint).map(|()| checkpoint)) {
                Ok(checkpoint) => {
                    journal.add(JournalEvent::Forked { from: donor.run_key, step })?;
                    return Ok(Some((checkpoint, Origin::Prefix)));
                }
                Err(reason) => {
                    let run = donor.run_key.short();
                    observer.event(&Event::Note(&format!("not sharing step {step} of run {run}: {reason}")));
                }
            }
        }
    }
    journal.add(JournalEvent::Started {
        run_key: task.run_key,
        environment_class: class,
        host: host.host.clone(),
        nanorun: host.nanorun.clone(),
    })?;
    Ok(None)
}

/// The complete configuration, as TOML, so that the directory explains itself.
fn write_manifest(files: &Files, dir: &RunDir, task: &Task) -> Result<()> {
    let text = toml::to_string(&task.config)
        .map_err(|e| Error::internal("the run's configuration cannot be written as TOML").because(e))?;
    let text = format!("# {}: everything that decides this run's numbers, complete.\n{text}", task.label);
    Ok(files.write(&dir.manifest(), text.as_bytes())?)
}

fn result(
    task: &Task,
    setting: &Setting<'_>,
    finished: Finished,
    watched: &Watched,
    journal: &Journal,
    host: HostFacts,
    peak_device_bytes: Option<u64>,
) -> Result<RunResult> {
    let JournalText { entries: history, damaged } = journal.read()?;
    let count =
        |of: fn(&JournalEvent) -> bool| history.iter().filter(|entry| of(&entry.event)).count() as u64;
    let shared = history.iter().rev().find_map(|entry| match entry.event {
        JournalEvent::Forked { step, .. } => Some(step),
        _ => None,
    });
    let resumes = count(|event| matches!(event, JournalEvent::Resumed { .. }));
    let timings = Timings {
        step_seconds: finished.state.step_seconds,
        eval_seconds: watched.eval_seconds,
        checkpoint_seconds: watched.checkpoint_seconds,
        shared_steps: shared.unwrap_or(0),
        resumes,
        // Of a damaged journal it is not known whether other runs' steps are among these.
        alone: setting.alone && damaged.is_empty(),
        peak_rss_bytes: peak_rss_bytes(),
        peak_device_bytes,
        started: history.first().map_or_else(utc_now, |entry| entry.at.clone()),
        finished: utc_now(),
    };
    RunResult::new(
        task.run_key,
        finished.environment_class,
        NUMERICS_VERSION as u32,
        finished.train_hash,
        finished.state.step_losses,
        finished.state.evals,
        timings,
        host,
    )
    .ok_or_else(|| Error::internal("a finished run has no evaluation"))
}

/// Passes events on, journals them and adds up times.
struct Watch<'a> {
    observer: &'a mut dyn Observer,
    journal: &'a Journal,
    timings: Watched,
    /// The first event that could not be journalled.
    lost: Option<Error>,
    /// Whether there is one.
    unjournalled: &'a Cell<bool>,
}

#[derive(Default)]
struct Watched {
    eval_seconds: f64,
    checkpoint_seconds: f64,
    since_step: Option<Instant>,
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
            Event::Saving => self.timings.since_step = Some(now()),
            Event::Saved { step } => {
                let seconds =
                    self.timings.since_step.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
                self.timings.checkpoint_seconds += seconds;
                self.journal(JournalEvent::Checkpoint { step: *step });
            }
            Event::Evaluated(done, point) => {
                self.timings.eval_seconds += done.seconds;
                self.journal(evaluated(point));
            }
            _ => {}
        }
        self.observer.event(event);
    }
}

fn evaluated(point: &EvalPoint) -> JournalEvent {
    let values = point.values.iter().map(|(name, value)| (name.clone(), value.0)).collect();
    JournalEvent::Evaluated { step: point.step, values, eval_hash: point.hash() }
}
