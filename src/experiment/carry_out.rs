//! An experiment carried out: what is not finished is trained, tables are written along the way and at the end.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ends::{Ends, RunEnd};
use super::pace::Pace;
use super::post::Post;
use super::report::Worked;
use super::retired::Retired;
use super::{Experiment, HowToRun, Report, tables};
use crate::error::{Class, Error, Result};
use crate::files::FileError;
use crate::lease::{MISSED, at_work};
use crate::ledger;
use crate::plan::PlannedRun;
use crate::plan::run_config::RunConfig;
use crate::run::engine::check_initial_weights;
use crate::run::execute::{Beside, Ended, Executor, Gate, Part};
use crate::run::reuse::places;
use crate::run::sample;
use crate::run::single::Outcome;
use crate::run::state::{Standing, Status};
use crate::run::task::Task;
use crate::scorecard::Scorecard;
use crate::train::engine::Engine;

/// The longest between two looks at what others train.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a process did about an experiment.
pub(super) struct Carried {
    /// How all runs ended, as far as this process saw.
    pub(super) ends: Ends,
    /// Results that the plan no longer has.
    pub(super) retired: Vec<Retired>,
    /// Runs that this process trained to their end.
    pub(super) trained: usize,
    /// Whether a signal stopped it.
    pub(super) interrupted: bool,
    /// Its place in the experiment, until its tables are written.
    post: Post,
}

impl Experiment {
    /// Trains what is not finished, beside others that do, waits for what they train, and writes tables and scorecard.
    ///
    /// # Errors
    /// What keeps the experiment from being carried out at all. A run that fails is in the report.
    pub fn run(&self, how: &HowToRun<'_>) -> Result<Report> {
        let mut carried = self.carry(how)?;
        let scorecard = self.conclude(&mut carried, how)?;
        let first_step = how.display.first_step_seconds();
        Ok(carried.ends.report(carried.interrupted, self.view(&scorecard)?, first_step))
    }

    /// Trains what this process can take of the experiment, and leaves when nothing is left for it. Tables and scorecard
    /// are written if it leaves as the last.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn work(&self, how: &HowToRun<'_>) -> Result<Worked> {
        let mut carried = self.carry(how)?;
        let complete = self.all_ended(how, &carried.ends.runs)?;
        // One of several units that are left: whoever is the last, or `report`, writes the tables.
        let is_last = complete || how.among.is_none() && self.nobody_else_works()?;
        if is_last {
            self.conclude(&mut carried, how)?;
        }
        Ok(carried.ends.worked(carried.trained, carried.interrupted, complete))
    }

    /// Has other processes carry it out by `act`, with this one's plan in the directory, and judges what came of it.
    ///
    /// # Errors
    /// As [`Self::run`], and those of `act`.
    pub fn supervise<T>(&self, how: &HowToRun<'_>, act: impl FnOnce() -> Result<T>) -> Result<(Report, T)> {
        self.require_data()?;
        let post = self.enter(how)?;
        let done = act()?;
        let tasks = self.tasks();
        let mut ends = Ends::default();
        self.look_over(how, &tasks, &mut ends)?;
        let interrupted = how.stop.is_raised();
        let mut carried = Carried { ends, retired: self.retired(), trained: 0, interrupted, post };
        let scorecard = self.conclude(&mut carried, how)?;
        Ok((carried.ends.report(carried.interrupted, self.view(&scorecard)?, None), done))
    }

    /// Its runs as the executor sees them.
    fn tasks(&self) -> Vec<Task> {
        self.plan.runs.iter().map(|run| Task::new(self.label(run), run)).collect()
    }

    /// Trains what is not finished, as far as nobody else does.
    fn carry(&self, how: &HowToRun<'_>) -> Result<Carried> {
        self.require_data()?;
        // Before anything is written.
        places(how.reuse)?;
        self.selected_runs().try_for_each(|run| check_initial_weights(&run.config))?;
        let tasks = self.tasks();
        let post = self.enter(how)?;
        let retired = self.retired();
        let mut ends = Ends::default();
        self.take_over(how, &post.leases, &tasks, &mut ends)?;
        let Found { mut parts, begun, others_wait } = self.look_over(how, &tasks, &mut ends)?;
        let sequence = self.sequence(&ends.runs);
        if let Some(sequence) = &sequence {
            ends.note(self.said_other_looks(sequence)?);
            let _turn = self.turn(&post.leases, how)?;
            self.record_looks(&ends.runs, sequence).map_err(as_a_run)?;
            for (part, run) in parts.iter_mut().zip(&self.plan.runs) {
                if sequence.is_beyond(run.config.seed) && !self.past_looks {
                    *part = Part::None;
                }
            }
        }
        let pace = Pace::new(sequence.filter(|_| !self.past_looks));
        let pending: Vec<bool> = parts.iter().map(|part| *part == Part::Take).collect();
        let jobs = if self.shares_a_device() {
            1
        } else {
            how.jobs.unwrap_or_else(|| self.jobs(how.threads, &pending, how.share).count)
        };
        let threads = (how.threads / jobs.max(1)).max(1);
        self.require_devices(how, threads, &pending)?;
        self.require_class(&post, how, threads, &pending)?;
        if pending.contains(&true) {
            self.plan.warnings.iter().for_each(|warning| how.display.line(&format!("warning: {warning}")));
        }
        for warning in self.require_room((jobs, threads), &pending, &begun)? {
            how.display.line(&format!("warning: {warning}"));
        }
        let rows = |config: &_| self.library.rows(config);
        let core = |config: &_| self.library.core(config, jobs <= 1);
        let samples = |config: &RunConfig, engine: &mut dyn Engine| {
            sample::at_the_end(engine, self.library.open(&config.data)?.tokenizer(), config)
        };
        let gate = |index: usize| self.plan.runs.get(index).map_or(Gate::Open, |run| pace.gate(run));
        let run = |index: usize| {
            self.plan.runs.get(index).ok_or_else(|| Error::internal("a task that is no run of the plan"))
        };
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
            beside: Beside {
                take: &|index| self.take_run(run(index)?, &post, how),
                look: &|index| self.look_at(run(index)?),
                has_step: &|index, step| run(index).is_ok_and(|run| self.has_step(run, step)),
                is_nobodys: &|index| run(index).is_ok_and(|run| self.is_nobodys(run, &post.leases)),
                stay: how.stay,
                in_company: post.in_company && self.looks_as_it_goes(how),
                patience: post.leases.period() * MISSED,
                cap: post.leases.period().min(LONGEST_PAUSE),
            },
            display: how.display,
            stop: how.stop,
        };
        let cadence =
            TableCadence { told: parts.iter().filter(|part| **part == Part::None).count(), since: 0 };
        let runs = Mutex::new((std::mem::take(&mut ends.runs), cadence));
        let outcomes = executor.run(&tasks, &parts, &|index, outcome| {
            let (runs, cadence) = &mut *lock(&runs);
            for (other, task) in tasks.iter().enumerate() {
                if task.run_key == tasks[index].run_key {
                    runs[other].take(outcome);
                }
            }
            self.take_looks(runs, &pace, &post.leases, how).map_err(as_a_run)?;
            // A worker among many leaves the tables to the last.
            if !how.stay || !cadence.is_due() {
                return Ok(());
            }
            let _turn = self.turn(&post.leases, how)?;
            self.write_tables(runs, &retired).map_err(as_a_run)
        })?;
        (ends.runs, _) = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Stopped before some of them were taken, or in the middle of one.
        let untaken = |(index, (part, end)): (usize, (&Part, &Option<Ended>))| {
            *part == Part::Take && end.is_none() && gate(index) != Gate::Never
        };
        let left = parts.iter().zip(&outcomes).enumerate().filter(|one| untaken(*one));
        let left: Vec<usize> = left.map(|(index, _)| index).collect();
        let mut interrupted = how.stop.is_raised() && !left.is_empty();
        if !interrupted
            && how.stay
            && let Some(waiting) = pace.said_waiting(&left)
        {
            ends.note([waiting]);
        }
        let mut trained = 0;
        for (index, end) in outcomes.into_iter().enumerate() {
            let label = &tasks[index].label;
            let Some(Ended { outcome, here }) = end else { continue };
            match outcome {
                Outcome::Failed(error) => ends.fail(label, as_a_run(error)),
                Outcome::Diverged(attempt, divergence) => ends.diverged(label, &attempt, &divergence),
                Outcome::Interrupted { .. } => interrupted = true,
                // Compared with every other attempt's, whichever process made them.
                Outcome::Finished(_) => {
                    trained += usize::from(here);
                    let run = &self.plan.runs[index];
                    let dir = self.dir.run(&run.key.run);
                    // A lone attempt has nothing to be compared with.
                    if dir.attempts()?.len() > 1 || !dir.put_aside().is_empty() {
                        ends.compare(label, &self.standing(run)?);
                    }
                }
            }
        }
        Ok(Carried { ends, retired, trained, interrupted, post })
    }

    /// Whether runs are looked at as they are come to, and not all of them first. Of thousands of runs hundreds of workers
    /// that start together would read millions of directories before anybody trains.
    fn looks_as_it_goes(&self, how: &HowToRun<'_>) -> bool {
        // Whoever stays tells of all of them in the end; looks are taken by how all of them stand.
        !how.stay && !how.rerun && how.among.is_none() && self.plan.looks.is_none()
    }

    /// Where runs stand before this process does anything about them, as far as it has to know that.
    fn look_over(&self, how: &HowToRun<'_>, tasks: &[Task], ends: &mut Ends) -> Result<Found> {
        let mut found = Found::default();
        let mut taken = BTreeSet::new();
        let as_it_goes = self.looks_as_it_goes(how);
        for (index, run) in self.plan.runs.iter().enumerate() {
            let label = &tasks[index].label;
            if as_it_goes {
                let is_selected = self.is_selected(index);
                // They may want to fork from these.
                found.others_wait |= !is_selected;
                ends.push(label, None);
                let is_first = is_selected && taken.insert(run.key.run);
                found.push(if is_first { Part::Take } else { Part::None }, false);
                continue;
            }
            if !self.is_selected(index) {
                let standing = if run.key.pending { None } else { Some(self.standing(run)?) };
                let finished = |standing: &Standing| matches!(standing.status, Status::Finished(_));
                // They are still to be trained, and may want to fork from these.
                found.others_wait |= !standing.as_ref().is_some_and(finished);
                match standing {
                    Some(standing) => ends.push_pending(label, standing),
                    None => ends.push(label, None),
                }
                found.push(Part::None, false);
                continue;
            }
            if how.among.is_some_and(|among| !among.contains(&run.key.run)) {
                // Another unit's: with thousands of them, only what this one waits for is looked at.
                let standing = if self.plan.looks.is_some() { Some(self.standing(run)?) } else { None };
                let part =
                    if standing.as_ref().is_some_and(Standing::has_ended) { Part::None } else { Part::Watch };
                found.others_wait = true;
                match standing {
                    Some(standing) => ends.push_pending(label, standing),
                    None => ends.push(label, None),
                }
                found.push(part, false);
                continue;
            }
            let standing = self.standing(run)?;
            self.restore(run, &standing)?;
            let is_begun = matches!(standing.status, Status::Begun { .. });
            // Cells with one run key are one run.
            let first = taken.insert(run.key.run);
            let pending = first && standing.next(how.rerun).is_some();
            if pending && !standing.has_ended() || how.rerun {
                // What becomes of it is told once it ends.
                ends.push_pending(label, standing);
            } else {
                ends.push(label, Some(standing));
            }
            found.push(if pending { Part::Take } else { Part::None }, is_begun && !how.rerun);
        }
        Ok(found)
    }

    /// Writes tables, scorecard, page and ledger from what is on disk by now, others' runs included.
    fn conclude(&self, carried: &mut Carried, how: &HowToRun<'_>) -> Result<Scorecard> {
        let Carried { ends, retired, post, .. } = carried;
        let _turn = self.turn(&post.leases, how)?;
        for (run, end) in self.plan.runs.iter().zip(&mut ends.runs) {
            if matches!(end, RunEnd::Open(..)) && !run.key.pending {
                let outcome = self.look_at(run)?;
                if let Some(outcome @ (Outcome::Finished(_) | Outcome::Diverged(..))) = outcome {
                    end.take(&outcome);
                }
            }
        }
        let sequence = self.sequence(&ends.runs);
        self.mark_not_needed(&mut ends.runs, sequence.as_ref());
        self.write_tables(&ends.runs, retired).map_err(as_a_run)?;
        let scorecard = self.judge(&ends.runs, retired)?;
        tables::write_scorecard(&self.files, &self.dir, &scorecard).map_err(as_a_run)?;
        self.write_page(&ends.runs, retired, &scorecard);
        ledger::update(&self.files, &self.dir);
        Ok(scorecard)
    }

    /// Whether every run has ended that the experiment needs; `ends` is what this process saw of them. Looks at those after
    /// its own first: where many processes end one after another, each finds one that has not within a look or two.
    fn all_ended(&self, how: &HowToRun<'_>, ends: &[RunEnd]) -> Result<bool> {
        let sequence = self.sequence_on_disk()?;
        let runs: Vec<(&PlannedRun, &RunEnd)> = self.plan.runs.iter().zip(ends).collect();
        let own = |run: &PlannedRun| how.among.is_some_and(|among| among.contains(&run.key.run));
        let from = runs.iter().rposition(|(run, _)| own(run)).map_or(0, |last| last + 1);
        let (before, after) = runs.split_at(from);
        // What was seen to have ended stays so, unless it was to be trained again.
        let open = |(_, end): &&(&PlannedRun, &RunEnd)| how.rerun || matches!(end, RunEnd::Open(..));
        for (run, _) in after.iter().chain(before).filter(open) {
            let is_needed = !sequence.as_ref().is_some_and(|sequence| sequence.is_beyond(run.config.seed));
            if is_needed && (run.key.pending || !self.standing(run)?.has_ended()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn nobody_else_works(&self) -> Result<bool> {
        let others = at_work(self.dir.path());
        Ok(others.map_err(|error| FileError::new("read the workers of", self.dir.path(), error))?.is_empty())
    }
}

/// What was found of the runs before anything was done about them, in the plan's order.
#[derive(Default)]
struct Found {
    parts: Vec<Part>,
    /// Whether they carry on.
    begun: Vec<bool>,
    /// Whether runs that are not this process's are still to be trained.
    others_wait: bool,
}

impl Found {
    fn push(&mut self, part: Part, begun: bool) {
        self.parts.push(part);
        self.begun.push(begun);
    }
}

/// Bad data found while training stops a run, not the experiment; and a directory that goes meanwhile is no bad input.
pub(super) fn as_a_run(error: Error) -> Error {
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
