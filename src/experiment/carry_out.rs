//! An experiment carried out: what is not finished is trained, tables are written along the way and at the end.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ends::Ends;
use super::pace::Pace;
use super::{Experiment, HowToRun, Report, tables};
use crate::error::{Class, Error, Result};
use crate::files::{DirLock, FileError, LockError, LockHolder};
use crate::host::host_name;
use crate::ledger;
use crate::plan::PlannedRun;
use crate::plan::run_config::RunConfig;
use crate::record::{self, LAYOUT, PlanRecord};
use crate::run::engine::check_initial_weights;
use crate::run::execute::{Executor, Gate};
use crate::run::reuse::places;
use crate::run::sample;
use crate::run::single::Outcome;
use crate::run::state::{Standing, Start, Status, restore_table};
use crate::run::task::Task;
use crate::train::engine::Engine;
use crate::train::evaluation::eval_settings;

impl Experiment {
    /// Trains what is not finished, writing tables as runs end and the scorecard at the end.
    ///
    /// # Errors
    /// What keeps the experiment from being carried out at all. A run that fails is in the report.
    pub fn run(&self, how: &HowToRun<'_>) -> Result<Report> {
        self.require_data()?;
        // Before anything is written.
        places(how.reuse)?;
        self.selected_runs().try_for_each(|run| check_initial_weights(&run.config))?;
        let task = |run: &PlannedRun| Task::new(self.label(run), run);
        let tasks: Vec<_> = self.plan.runs.iter().map(task).collect();
        let _lock = self.begin(how)?;
        let retired = self.retired();
        let mut ends = Ends::default();
        self.take_over(how, &tasks, &mut ends)?;
        let mut starts: Vec<Option<Start>> = Vec::new();
        let mut begun = Vec::new();
        // Whether runs that the command is not about are still to be trained, and may want to fork from these.
        let mut others_wait = false;
        let mut taken = BTreeSet::new();
        for (index, run) in self.plan.runs.iter().enumerate() {
            if !self.is_selected(index) {
                let standing = if run.key.pending { None } else { Some(self.standing(run)?) };
                let finished = |standing: &Standing| matches!(standing.status, Status::Finished(_));
                others_wait |= !standing.as_ref().is_some_and(finished);
                match standing {
                    Some(standing) => ends.push_pending(&tasks[index].label, standing),
                    None => ends.push(&tasks[index].label, None),
                }
                starts.push(None);
                begun.push(false);
                continue;
            }
            let standing = self.standing(run)?;
            if let (Status::Finished(result), Some(attempt)) = (&standing.status, &standing.attempt) {
                let dir = self.dir.run(&run.key.run);
                restore_table(&self.files, &dir, attempt, &run.config, result).map_err(as_a_run)?;
            }
            begun.push(!how.rerun && matches!(standing.status, Status::Begun { .. }));
            // Cells with one run key are one run.
            let first = taken.insert(run.key.run);
            let start = standing.next(how.rerun).filter(|_| first);
            if start.is_some() && !standing.has_ended() || how.rerun {
                // What becomes of it is told once it ends.
                ends.push_pending(&tasks[index].label, standing);
            } else {
                ends.push(&tasks[index].label, Some(standing));
            }
            starts.push(start);
        }
        let sequence = self.sequence(&ends.runs);
        if let Some(sequence) = &sequence {
            ends.note(self.said_other_looks(sequence)?);
            self.record_looks(&ends.runs, sequence).map_err(as_a_run)?;
            for (start, run) in starts.iter_mut().zip(&self.plan.runs) {
                start.take_if(|_| sequence.is_beyond(run.config.seed) && !self.past_looks);
            }
        }
        let pace = Pace::new(sequence.filter(|_| !self.past_looks));
        let pending: Vec<bool> = starts.iter().map(Option::is_some).collect();
        let jobs = if self.shares_a_device() {
            1
        } else {
            how.jobs.unwrap_or_else(|| self.jobs(how.threads, &pending, how.share).count)
        };
        if starts.iter().any(Option::is_some) {
            self.plan.warnings.iter().for_each(|warning| how.display.line(&format!("warning: {warning}")));
        }
        for warning in self.require_room((jobs, how.threads / jobs.max(1)), &pending, &begun)? {
            how.display.line(&format!("warning: {warning}"));
        }
        let rows = |config: &_| self.library.rows(config);
        let core = |config: &_| self.library.core(config, jobs <= 1);
        let samples = |config: &RunConfig, engine: &mut dyn Engine| {
            sample::at_the_end(engine, self.library.open(&config.data)?.tokenizer(), config)
        };
        let gate = |index: usize| self.plan.runs.get(index).map_or(Gate::Open, |run| pace.gate(run));
        let executor = Executor {
            files: self.files.clone(),
            dir: self.dir.clone(),
            threads: how.threads,
            jobs,
            share: how.share,
            rerun: how.rerun,
            others_wait,
            engine: how.engine,
            rows: &rows,
            core: &core,
            samples: &samples,
            gate: &gate,
            display: how.display,
            stop: how.stop,
        };
        let cadence = TableCadence { told: runs_without(&starts), since: 0 };
        let runs = Mutex::new((std::mem::take(&mut ends.runs), cadence));
        let outcomes = executor.run(&tasks, &starts, &|index, outcome| {
            let (runs, cadence) = &mut *lock(&runs);
            for (other, task) in tasks.iter().enumerate() {
                if task.run_key == tasks[index].run_key {
                    runs[other].take(outcome);
                }
            }
            self.take_looks(runs, &pace).map_err(as_a_run)?;
            if cadence.is_due() { self.write_tables(runs, &retired).map_err(as_a_run) } else { Ok(()) }
        })?;
        (ends.runs, _) = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Stopped before some of them were taken, or in the middle of one.
        let untaken = |(index, (start, outcome)): (usize, (&Option<Start>, &Option<Outcome>))| {
            start.is_some() && outcome.is_none() && gate(index) != Gate::Never
        };
        let mut left = starts.iter().zip(&outcomes).enumerate().filter(|one| untaken(*one));
        let left: Vec<usize> = left.by_ref().map(|(index, _)| index).collect();
        let mut interrupted = how.stop.is_raised() && !left.is_empty();
        if !interrupted && let Some(waiting) = pace.said_waiting(&left) {
            ends.note([waiting]);
        }
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let label = &tasks[index].label;
            match outcome {
                Some(Outcome::Failed(error)) => ends.fail(label, as_a_run(error)),
                Some(Outcome::Diverged(attempt, divergence)) => ends.diverged(label, &attempt, &divergence),
                Some(Outcome::Interrupted { .. }) => interrupted = true,
                // Compared with every other attempt's, whichever process made them.
                Some(Outcome::Finished(_)) => {
                    let run = &self.plan.runs[index];
                    let dir = self.dir.run(&run.key.run);
                    // A lone attempt has nothing to be compared with.
                    if dir.attempts()?.len() > 1 || !dir.put_aside().is_empty() {
                        ends.compare(label, &self.standing(run)?);
                    }
                }
                None => {}
            }
        }
        let sequence = self.sequence(&ends.runs);
        self.mark_not_needed(&mut ends.runs, sequence.as_ref());
        self.write_tables(&ends.runs, &retired).map_err(as_a_run)?;
        let scorecard = self.judge(&ends.runs, &retired)?;
        tables::write_scorecard(&self.files, &self.dir, &scorecard).map_err(as_a_run)?;
        self.write_page(&ends.runs, &retired, &scorecard);
        ledger::update(&self.files, &self.dir);
        Ok(ends.report(interrupted, self.view(&scorecard)?, how.display.first_step_seconds()))
    }

    /// Makes the directory, locks it, removes what a crash left, and writes the plan.
    fn begin(&self, how: &HowToRun<'_>) -> Result<DirLock> {
        self.files.create_dir_all(self.dir.path()).map_err(|error| self.not_writable(error))?;
        let holder = LockHolder::this_process(&host_name());
        let mut told = false;
        let lock = DirLock::acquire_waiting(self.dir.path(), &holder, Duration::from_millis(500), |held| {
            if !std::mem::replace(&mut told, true) {
                how.display.line(&format!("waiting: {held}"));
            }
            !how.stop.is_raised()
        });
        let lock = match lock {
            Err(LockError::Held { .. }) if how.stop.is_raised() => {
                return Err(Error::new(Class::Interrupted, "stopped while waiting for another nanorun"));
            }
            lock => lock?,
        };
        PlanRecord::check_layout(&self.files, &self.dir)?;
        self.require_own_directory()?;
        lock.recover(&self.files, self.dir.path())?;
        if let Some(note) = lock.note() {
            self.files.note(note);
        }
        // First: a plan without its manifest says less than a manifest without its plan.
        self.files.write(&self.dir.manifest(), self.manifest.text.as_bytes())?;
        let mut controls: Vec<usize> = self.plan.arms.iter().filter_map(|arm| arm.control).collect();
        controls.dedup();
        // Where every arm has a control of its own, no single one is the experiment's.
        let control = Some(controls).filter(|controls| controls.len() == 1).and_then(|mut one| one.pop());
        // Those that the command is not about need no data: of what they are without, nobody knows what they will be.
        let known = self.plan.runs.iter().filter(|run| !run.key.pending);
        let runs = known.map(|run| record::PlannedRun {
            arm: self.arm(run).to_owned(),
            seed: run.config.seed,
            key: run.key.run,
            steps: run.sizes.steps,
            evaluation: Some(eval_settings(&run.config)),
            vocab_size: Some(run.config.model.vocab_size() as u64),
            content: run.config.data.content,
            data: run.data,
            cell: run.cell.clone(),
        });
        let directory = std::env::current_dir().ok();
        let record = PlanRecord {
            layout: LAYOUT,
            name: self.plan.name.clone(),
            question: self.plan.question.clone(),
            hypothesis: self.manifest.head.hypothesis.clone(),
            manifest: self.manifest.file.display().to_string(),
            directory: directory.map(|directory| directory.display().to_string()),
            profile: self.manifest.profile.clone(),
            sets: self.manifest.sets.clone(),
            env: self.manifest.env.clone(),
            only: self.manifest.only.clone(),
            varied: self.manifest.variation.departures(),
            no_share: !how.share,
            nanorun: env!("CARGO_PKG_VERSION").to_owned(),
            control: control.and_then(|arm| Some(self.plan.arms.get(arm)?.label.clone())),
            runs: runs.collect(),
        };
        record.write(&self.files, &self.dir)?;
        let display = how.display.clone();
        self.files.notes_to(move |note| display.line(&format!("note: {note}")));
        Ok(lock)
    }

    /// The error of a results directory that cannot be made.
    fn not_writable(&self, cause: FileError) -> Error {
        // A disk that is full or fails is no matter of the place alone.
        if !matches!(
            cause.kind(),
            ErrorKind::NotFound
                | ErrorKind::PermissionDenied
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::NotADirectory
                | ErrorKind::AlreadyExists
                | ErrorKind::Other
        ) {
            return cause.into();
        }
        let why = match cause.kind() {
            // Of the directory itself: file systems such as /proc take none.
            ErrorKind::NotFound => "nothing can be made there".to_owned(),
            _ => cause.to_string(),
        };
        Error::input(format!("the results directory cannot be made: {why}"))
            .file(self.dir.path())
            .expected("a directory that can be written")
            .help("choose another place with --results DIR")
    }
}

/// Bad data found while training stops a run, not the experiment; and a directory that goes meanwhile is no bad input.
fn as_a_run(error: Error) -> Error {
    match error.class() {
        Class::Input => error.of_class(Class::Run),
        _ => error,
    }
}

/// When the experiment's tables are written anew while runs are trained: after each run of a few, of many whenever
/// those that ended since are a quarter of those in them. So all that is written over and over stays five times the
/// tables at most, however many runs there are; what is not in them yet is in the runs' own tables and results.
struct TableCadence {
    /// Runs that the tables tell of.
    told: usize,
    /// Runs that ended since.
    since: usize,
}

impl TableCadence {
    /// Asked as a run ends.
    fn is_due(&mut self) -> bool {
        self.since += 1;
        let due = self.since * 4 >= self.told;
        if due {
            self.told += std::mem::take(&mut self.since);
        }
        due
    }
}

/// Runs that are not to be trained.
fn runs_without(starts: &[Option<Start>]) -> usize {
    starts.iter().filter(|start| start.is_none()).count()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::TableCadence;

    #[test]
    fn tables_of_many_runs_are_written_now_and_then() {
        let due = |told: usize, runs: usize| {
            let mut cadence = TableCadence { told, since: 0 };
            (1..=runs).filter(|_| cadence.is_due()).collect::<Vec<_>>()
        };
        assert_eq!(due(0, 12), [1, 2, 3, 4, 5, 7, 9, 12]);
        assert_eq!(due(100, 60), [25, 57]);
        // Rows written in all, in runs: no more than five tables.
        let written: usize = due(0, 10_000).iter().sum();
        assert!(written <= 5 * 10_000, "{written}");
    }
}
