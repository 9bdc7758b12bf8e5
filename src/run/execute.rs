//! The runs of an experiment, some at the same time, each from the best start it can have.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::control_word;
use crate::error::{Error, Result};
use crate::files::{Files, LockHolder, now};
use crate::hash::Digest;
use crate::host::{ProcessId, another_trains};
use crate::lease::{Lease, THREAD};
use crate::plan::prefix::PrefixForest;
use crate::plan::run_config::RunConfig;
use crate::record::{Attempts, ExperimentDir};
use crate::stop::{StopFlag, is_stop};
use crate::train::checkpoint::CheckpointStore;
use crate::train::engine::Engine;
use crate::train::observer::{Event, Observer};
use crate::train::rows::Rows;
use crate::train::session::CoreMeter;

use super::board::{Board, Next};
pub use super::board::{Gate, Part};
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

/// What came of asking for a run.
pub enum Taken {
    /// It is this process's to train, until the lease goes.
    Start(Start, Lease),
    /// It has ended meanwhile, by another process.
    Ended(Outcome),
    /// Another process has it.
    Theirs {
        /// Who, where that is known.
        holder: Option<Box<LockHolder>>,
        /// Whether it was heard of since this process looks.
        heard: bool,
    },
}

/// How a task ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// Whether this process trained it.
    pub here: bool,
}

/// How others of the same experiment are worked beside.
pub struct Beside<'a> {
    /// Asks for a run; only those whose [`Part`] is to be taken are asked for.
    pub take: &'a (dyn Fn(usize) -> Result<Taken> + Sync + 'a),
    /// How a run has ended that others train; none while it has not.
    pub look: &'a (dyn Fn(usize) -> Result<Option<Outcome>> + Sync + 'a),
    /// Whether a run that others train has a checkpoint of this step.
    pub has_step: &'a (dyn Fn(usize, u64) -> bool + Sync + 'a),
    /// Whether nobody works on a run, as far as can be told.
    pub is_nobodys: &'a (dyn Fn(usize) -> bool + Sync + 'a),
    /// Whether to wait for what others train.
    pub stay: bool,
    /// Whether others are at work already: then this process begins at a place of its own, or hundreds that start together
    /// would all ask for the same runs.
    pub in_company: bool,
    /// How long a run that nobody works on is left to those whose part it is, before whoever waits for it takes it.
    pub patience: Duration,
    /// The longest between two looks at what others have.
    pub cap: Duration,
}

/// How an experiment is carried out. Nothing here changes a result.
pub struct Executor<'a> {
    /// Writes files.
    pub files: Files,
    /// The experiment's directory, in which this process is registered.
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
    /// How others of the same experiment are worked beside.
    pub beside: Beside<'a>,
    /// Shows progress.
    pub display: &'a Display,
    /// Asks to stop.
    pub stop: &'a StopFlag,
}

impl Executor<'_> {
    /// Trains the tasks that are to be taken, as far as no other process does. `ended` is told of each as it ends, one
    /// at a time, of those that others ended too.
    ///
    /// Returns how each of them ended, in the order of `tasks`; none for those that had ended before, and for those that
    /// a stop, a closed gate or another process kept from this one.
    pub fn run(
        &self,
        tasks: &[Task],
        parts: &[Part],
        ended: &(dyn Fn(usize, &Outcome) -> Result<()> + Sync),
    ) -> Result<Vec<Option<Ended>>> {
        let starts = self.donors(tasks);
        let own = self.beside.in_company.then(spread);
        let floor = Shared {
            board: Mutex::new(Board::new(parts, &starts, self.beside.stay, self.beside.cap, own)),
            changed: Condvar::new(),
            ends: Mutex::new(tasks.iter().map(|_| None).collect()),
            failed: Mutex::new(None),
            starts: &starts,
            ended,
        };
        let worker = || {
            while let Some(next) = self.next(&floor) {
                match next {
                    Next::Take(index) => self.take(tasks, &floor, index),
                    Next::Look(index) => {
                        // What cannot be read just now is looked at again.
                        if let Ok(Some(outcome)) = (self.beside.look)(index) {
                            floor.tell(self.stop, index, Ended { outcome, here: false });
                        }
                    }
                    Next::AskDonor { task, donor, steps } => {
                        if (self.beside.has_step)(donor, steps) {
                            let mut board = lock(&floor.board);
                            board.reaches(donor, steps);
                            board.is_due(task);
                            floor.changed.notify_all();
                        } else if (self.beside.is_nobodys)(donor) {
                            lock(&floor.board).is_nobodys(donor, now(), self.beside.patience);
                        } else {
                            lock(&floor.board).is_somebodys(donor);
                        }
                    }
                    Next::Wait(_) | Next::Over => return,
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.jobs.max(1) {
                scope.spawn(worker);
            }
            worker();
        });
        if let Some(error) = floor.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let ends = floor.ends.into_inner().unwrap_or_else(PoisonError::into_inner);
        let done = |index: usize| match (&ends[index], parts[index]) {
            (Some(Ended { outcome, .. }), _) => matches!(outcome, Outcome::Finished(_)),
            (None, Part::None) => true,
            (None, _) => (self.gate)(index) == Gate::Never,
        };
        if !self.others_wait && (0..tasks.len()).all(done) {
            self.let_go_of_forks(tasks, floor.starts)?;
        }
        Ok(ends)
    }

    /// Waits until there is something to do. -> what; none once there is nothing left
    fn next(&self, floor: &Shared<'_>) -> Option<Next> {
        let mut board = lock(&floor.board);
        loop {
            if self.stop.is_raised() {
                return None;
            }
            let next = board.next(self.gate, now());
            match next {
                Next::Over => return None,
                Next::Wait(None) => {
                    board = floor.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
                }
                Next::Wait(Some(pause)) => {
                    // Nobody wakes this thread where a signal asks to stop.
                    let pause = pause.clamp(Duration::from_millis(1), STOP_LOOK);
                    let waited = floor.changed.wait_timeout(board, pause);
                    (board, _) = waited.unwrap_or_else(PoisonError::into_inner);
                }
                Next::Take(_) => return Some(next),
                Next::Look(index) | Next::AskDonor { task: index, .. } => {
                    // Of several threads one looks.
                    board.later(index, now());
                    return Some(next);
                }
            }
        }
    }

    /// Asks for a task and trains it if it is free.
    fn take(&self, tasks: &[Task], floor: &Shared<'_>, index: usize) {
        let known = {
            let mut board = lock(&floor.board);
            let known = board.known(index);
            board.take(index);
            known
        };
        let ended = match (self.beside.take)(index) {
            Ok(Taken::Theirs { holder, heard }) => {
                let is_news = lock(&floor.board).is_theirs(index, known, heard, now(), spread());
                if is_news {
                    let label = &tasks[index].label;
                    self.display.line(&format!("{label}: {}", trained_by(holder.as_deref())));
                }
                floor.changed.notify_all();
                return;
            }
            Ok(Taken::Ended(outcome)) => {
                // Of what had ended before anybody looked there is nothing to tell.
                if self.beside.stay || known.is_theirs() {
                    let label = &tasks[index].label;
                    self.display.line(&format!("{label}: by another process {}", said(&outcome)));
                }
                Ended { outcome, here: false }
            }
            Ok(Taken::Start(start, lease)) => {
                if let Some(from) = lease.taken_from() {
                    let label = &tasks[index].label;
                    let gone = format!("process {} on {}, of which nothing was heard", from.pid, from.host);
                    self.display.line(&format!("{label}: taken over from {gone}"));
                }
                let reached = |step| {
                    lock(&floor.board).reaches(index, step);
                    floor.changed.notify_all();
                };
                Ended { outcome: self.one(tasks, floor.starts, &start, &lease, index, &reached), here: true }
            }
            Err(error) if is_stop(&error) => Ended { outcome: Outcome::Interrupted { step: 0 }, here: true },
            Err(error) => Ended { outcome: Outcome::Failed(error), here: true },
        };
        floor.tell(self.stop, index, ended);
        // Whoever was told may have opened the gate to others.
        lock(&floor.board).is_told();
        floor.changed.notify_all();
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

    fn one(
        &self,
        tasks: &[Task],
        starts: &[Option<(usize, u64)>],
        start: &Start,
        lease: &Lease,
        index: usize,
        reached: &dyn Fn(u64),
    ) -> Outcome {
        control_word::set();
        let task = &tasks[index];
        let mut watch = Reached { progress: self.display.run(&task.label, task.steps()), reached };
        // A defect in one run must not take the others with it.
        let run = || self.train(tasks, starts, start, lease, index, &mut watch);
        let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(defect(panic.as_ref())));
        let outcome = outcome.unwrap_or_else(|error| {
            // Before the first step of this process or after the last one; what is on disk is what was there.
            if is_stop(&error) {
                Outcome::Interrupted { step: self.on_disk(start) }
            } else {
                Outcome::Failed(error)
            }
        });
        watch.progress.finish(&said(&outcome));
        if lease.is_lost() {
            let note = "another process took it over meanwhile, because nothing was heard of this one: both results stay";
            self.display.line(&format!("{}: {note}", task.label));
        }
        outcome
    }

    /// The step of an attempt's newest checkpoint.
    fn on_disk(&self, start: &Start) -> u64 {
        let store = CheckpointStore::new(self.files.clone(), start.attempt.checkpoints());
        store.steps().unwrap_or_default().pop().unwrap_or(0)
    }

    fn train(
        &self,
        tasks: &[Task],
        starts: &[Option<(usize, u64)>],
        start: &Start,
        lease: &Lease,
        index: usize,
        watch: &mut dyn Observer,
    ) -> Result<Outcome> {
        let task = &tasks[index];
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
            generation: lease.generation(),
            alone: self.jobs <= 1 && !another_trains(THREAD),
            core: core.as_deref(),
            samples: &|engine| (self.samples)(&task.config, engine),
            stop: &|| self.stop.is_raised(),
            clock: &now,
        };
        train(task, &setting, engine.as_mut(), watch)
    }
}

/// How often a thread that waits sees whether it is asked to stop.
const STOP_LOOK: Duration = Duration::from_millis(200);

/// What the threads of a process share while they work.
struct Shared<'a> {
    board: Mutex<Board<'a>>,
    changed: Condvar,
    ends: Mutex<Vec<Option<Ended>>>,
    /// The first error in telling of an end.
    failed: Mutex<Option<Error>>,
    /// For each task the run it takes steps over from, and how many.
    starts: &'a [Option<(usize, u64)>],
    ended: &'a (dyn Fn(usize, &Outcome) -> Result<()> + Sync),
}

impl Shared<'_> {
    /// Tells of an end, one at a time.
    fn tell(&self, stop: &StopFlag, index: usize, end: Ended) {
        lock(&self.board).ends(index);
        self.changed.notify_all();
        let mut ends = lock(&self.ends);
        if let Err(error) = (self.ended)(index, &end.outcome) {
            lock(&self.failed).get_or_insert(error);
            stop.raise();
        }
        ends[index] = Some(end);
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

/// Where this process begins to look for runs once it meets others: each somewhere else, in pods too, where every process
/// has the same small id.
fn spread() -> usize {
    let own = ProcessId::own();
    let digest = Digest::of(format!("{} {} {} {}", own.host, own.boot, own.pid, own.began).as_bytes());
    digest.as_bytes().iter().take(4).fold(0, |sum, byte| sum * 256 + usize::from(*byte))
}

/// How a task ended, in words.
fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Finished(result) => format!("done, result {}", result.result_hash.short()),
        Outcome::Interrupted { step } => format!("stopped after step {step}; carries on from there"),
        Outcome::Diverged(_, divergence) => format!("diverged: {}", divergence.what()),
        Outcome::Failed(error) => format!("failed: {}", error.what()),
    }
}

fn trained_by(holder: Option<&LockHolder>) -> String {
    match holder {
        Some(holder) => {
            format!("trained by process {} on {} since {}", holder.pid, holder.host, holder.since)
        }
        None => "trained by another process".to_owned(),
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
