//! The runs of an experiment, some at the same time, each from the best start it can have.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::control_word;
use crate::error::{Error, Result};
use crate::files::{Files, now};
use crate::plan::prefix::PrefixForest;
use crate::plan::run_config::RunConfig;
use crate::record::{Attempts, ExperimentDir};
use crate::stop::{StopFlag, is_stop};
use crate::train::checkpoint::CheckpointStore;
use crate::train::engine::Engine;
use crate::train::observer::{Event, Observer};
use crate::train::rows::Rows;
use crate::train::session::CoreMeter;

use super::progress::{Display, RunProgress};
use super::single::{Donor, Outcome, Setting, train};
use super::state::{self, Start};
use super::task::Task;

/// Opens the rows of a run; each call has readers of its own.
pub type OpenRows<'a> = dyn Fn(&RunConfig) -> Result<Box<dyn Rows>> + Sync + 'a;

/// Opens what measures the CORE metric of a run; none for one that it is not measured of.
pub type OpenCore<'a> = dyn Fn(&RunConfig) -> Result<Option<Box<dyn CoreMeter>>> + Sync + 'a;

/// Makes the engine of a run for so many threads: [`super::engine::engine`], save where the runner itself is measured.
pub type MakeEngine<'a> = dyn Fn(&RunConfig, usize) -> Result<Box<dyn Engine>> + Sync + 'a;

/// Whether a run may be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Others have to end before.
    Waits,
    /// Not in this start, nor later: nobody needs it.
    Never,
}

/// How an experiment is carried out. Nothing here changes a result.
pub struct Executor<'a> {
    /// Writes files.
    pub files: Files,
    /// The experiment's directory, whose lock is held.
    pub dir: ExperimentDir,
    /// Threads in all.
    pub threads: usize,
    /// Runs at the same time.
    pub jobs: usize,
    /// Whether runs take over steps they share.
    pub share: bool,
    /// Whether these are further attempts that somebody asked for.
    pub rerun: bool,
    /// Whether runs that are not to be trained now are not finished either: what they may fork from stays.
    pub others_wait: bool,
    /// Makes engines.
    pub engine: &'a MakeEngine<'a>,
    /// Opens data.
    pub rows: &'a OpenRows<'a>,
    /// Opens what measures a run's CORE metric; none for one of which it is not measured.
    pub core: &'a OpenCore<'a>,
    /// Samples text from a trained run.
    pub samples: &'a (dyn Fn(&RunConfig, &mut dyn Engine) -> Result<String> + Sync + 'a),
    /// Which runs may be taken; asked again whenever a run has ended.
    pub gate: &'a (dyn Fn(usize) -> Gate + Sync + 'a),
    /// Shows progress.
    pub display: &'a Display,
    /// Asks to stop.
    pub stop: &'a StopFlag,
}

/// What the workers tell each other.
struct Board {
    /// Tasks nobody has taken.
    waiting: Vec<bool>,
    /// Newest checkpoint of each task that is being trained.
    reached: Vec<u64>,
    /// Tasks that ended, however they ended.
    ended: Vec<bool>,
    /// Tasks that are being trained, or whose end is being told.
    running: usize,
}

impl Executor<'_> {
    /// Trains the tasks that have an attempt to start. `ended` is told of each as it ends, one at a time.
    ///
    /// Returns how each pending task ended, in the order of `tasks`; none for the others and for those that a
    /// stop kept from starting.
    pub fn run(
        &self,
        tasks: &[Task],
        attempts: &[Option<Start>],
        ended: &(dyn Fn(usize, &Outcome) -> Result<()> + Sync),
    ) -> Result<Vec<Option<Outcome>>> {
        let board = Mutex::new(Board {
            waiting: attempts.iter().map(Option::is_some).collect(),
            reached: vec![0; tasks.len()],
            ended: attempts.iter().map(Option::is_none).collect(),
            running: 0,
        });
        let changed = Condvar::new();
        let outcomes: Mutex<Vec<Option<Outcome>>> = Mutex::new(tasks.iter().map(|_| None).collect());
        let failed = Mutex::new(None);
        let starts = self.donors(tasks);
        let worker = || {
            while let Some(index) = self.next(tasks, &starts, &board, &changed) {
                let reached = |step| {
                    lock(&board).reached[index] = step;
                    changed.notify_all();
                };
                let outcome = self.one(tasks, &starts, attempts, index, &reached);
                lock(&board).ended[index] = true;
                changed.notify_all();
                {
                    let mut outcomes = lock(&outcomes);
                    if let Err(error) = ended(index, &outcome) {
                        lock(&failed).get_or_insert(error);
                        self.stop.raise();
                    }
                    outcomes[index] = Some(outcome);
                }
                // Whoever was told may have opened the gate to others.
                lock(&board).running -= 1;
                changed.notify_all();
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.jobs.max(1) {
                scope.spawn(worker);
            }
            worker();
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let done = |index: usize| match &outcomes[index] {
            Some(outcome) => matches!(outcome, Outcome::Finished(_)),
            None => attempts[index].is_none() || (self.gate)(index) == Gate::Never,
        };
        if !self.others_wait && (0..tasks.len()).all(done) {
            self.let_go_of_forks(tasks, &starts)?;
        }
        Ok(outcomes)
    }

    /// Removes the checkpoints that stayed for runs to fork from. Only once every run is finished: whoever has one to
    /// train again goes back to them.
    fn let_go_of_forks(&self, tasks: &[Task], starts: &[Option<(usize, u64)>]) -> Result<()> {
        let donors: BTreeSet<usize> = starts.iter().flatten().map(|(donor, _)| *donor).collect();
        for donor in donors {
            let task = &tasks[donor];
            let attempts = Attempts::read(&self.files, &self.dir.run(&task.run_key))?;
            for (attempt, _) in attempts.finished() {
                let store = CheckpointStore::new(self.files.clone(), attempt.checkpoints());
                state::settle(&store, &task.config, &[])?;
            }
        }
        Ok(())
    }

    /// For each task the earlier one that shares most steps with it, and how many.
    fn donors(&self, tasks: &[Task]) -> Vec<Option<(usize, u64)>> {
        if !self.share {
            return vec![None; tasks.len()];
        }
        let configs: Vec<&RunConfig> = tasks.iter().map(|task| &task.config).collect();
        PrefixForest::of(&configs).donors(|a, b| tasks[a].evaluates_like(&tasks[b]))
    }

    /// Takes the first task that can start: its gate is open, and its donor has come far enough or has ended.
    fn next(
        &self,
        tasks: &[Task],
        starts: &[Option<(usize, u64)>],
        board: &Mutex<Board>,
        changed: &Condvar,
    ) -> Option<usize> {
        let mut board = lock(board);
        loop {
            if self.stop.is_raised() {
                return None;
            }
            let ready = |&index: &usize| {
                board.waiting[index]
                    && (self.gate)(index) == Gate::Open
                    && starts[index]
                        .is_none_or(|(donor, steps)| board.ended[donor] || board.reached[donor] >= steps)
            };
            if let Some(index) = (0..tasks.len()).find(ready) {
                board.waiting[index] = false;
                board.running += 1;
                return Some(index);
            }
            let may_come = |&index: &usize| board.waiting[index] && (self.gate)(index) != Gate::Never;
            // Of what nobody trains any more, nobody waits for the end.
            if board.running == 0 || !(0..tasks.len()).any(|index| may_come(&index)) {
                return None;
            }
            board = changed.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn one(
        &self,
        tasks: &[Task],
        starts: &[Option<(usize, u64)>],
        attempts: &[Option<Start>],
        index: usize,
        reached: &dyn Fn(u64),
    ) -> Outcome {
        control_word::set();
        let task = &tasks[index];
        let mut watch = Reached { progress: self.display.run(&task.label, task.steps()), reached };
        // A defect in one run must not take the others with it.
        let run = || self.train(tasks, starts, attempts, index, &mut watch);
        let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(defect(panic.as_ref())));
        let outcome = outcome.unwrap_or_else(|error| {
            // Before the first step of this process or after the last one; what is on disk is what was there.
            if is_stop(&error) {
                Outcome::Interrupted { step: self.on_disk(attempts[index].as_ref()) }
            } else {
                Outcome::Failed(error)
            }
        });
        watch.progress.finish(&match &outcome {
            Outcome::Finished(result) => format!("done, result {}", result.result_hash.short()),
            Outcome::Interrupted { step } => format!("stopped after step {step}; carries on from there"),
            Outcome::Diverged(_, divergence) => format!("diverged: {}", divergence.what()),
            Outcome::Failed(error) => format!("failed: {}", error.what()),
        });
        outcome
    }

    /// The step of an attempt's newest checkpoint.
    fn on_disk(&self, start: Option<&Start>) -> u64 {
        let steps = start.map(|start| {
            CheckpointStore::new(self.files.clone(), start.attempt.checkpoints()).steps().unwrap_or_default()
        });
        steps.and_then(|mut steps| steps.pop()).unwrap_or(0)
    }

    fn train(
        &self,
        tasks: &[Task],
        starts: &[Option<(usize, u64)>],
        attempts: &[Option<Start>],
        index: usize,
        watch: &mut dyn Observer,
    ) -> Result<Outcome> {
        let task = &tasks[index];
        let Some(start) = &attempts[index] else {
            return Err(Error::internal("a run was taken that has nothing to start"));
        };
        let threads = (self.threads / self.jobs.max(1)).max(1);
        let rows = (self.rows)(&task.config)?;
        let core = (self.core)(&task.config)?;
        let mut engine = (self.engine)(&task.config, threads)?;
        engine.stop_on(self.stop);
        let donors: Vec<_> = starts[index]
            .map(|(donor, steps)| Donor {
                run_key: tasks[donor].run_key,
                dir: self.dir.run(&tasks[donor].run_key),
                steps,
            })
            .into_iter()
            .collect();
        let forks: Vec<_> =
            starts.iter().flatten().filter(|(donor, _)| *donor == index).map(|(_, steps)| *steps).collect();
        let setting = Setting {
            files: &self.files,
            dir: &self.dir.run(&task.run_key),
            start,
            rerun: self.rerun,
            rows: rows.as_ref(),
            threads,
            donors: &donors,
            forks: &forks,
            alone: self.jobs <= 1,
            core: core.as_deref(),
            samples: &|engine| (self.samples)(&task.config, engine),
            stop: &|| self.stop.is_raised(),
            clock: &now,
        };
        train(task, &setting, engine.as_mut(), watch)
    }
}

/// Shows progress and tells the other workers how far a run has come.
struct Reached<'a> {
    progress: RunProgress,
    reached: &'a dyn Fn(u64),
}

impl Observer for Reached<'_> {
    fn event(&mut self, event: &Event<'_>) {
        self.progress.event(event);
        if let Event::Saved { step } = event {
            (self.reached)(*step);
        }
    }
}

fn defect(panic: &(dyn std::any::Any + Send)) -> Error {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Error::internal(format!("a defect in nanorun: {words}")).help("please report it with the manifest")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
