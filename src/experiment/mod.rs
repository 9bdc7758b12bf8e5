//! A manifest carried out, from its plan to tables and scorecard.

mod jobs;
mod judge;
mod missing;
mod pins;
mod preflight;
mod speed;
mod tables;
mod trained;

use std::path::Path;
use std::sync::Mutex;

use crate::data::Cache;
use crate::error::{Class, Error, Result};
use crate::files::{FileError, Files};
use crate::gate::{Comparison, read_results};
use crate::hash::Digest;
use crate::host::host_name;
use crate::manifest::{Manifest, Options};
use crate::plan::run_config::{BackendKind, RunConfig};
use crate::plan::{Plan, PlannedRun, plan};
use crate::record::{self, Event, ExperimentDir, Journal, PlanRecord, RunResult};
use crate::run::batch_search;
use crate::run::engine::check_initial_weights;
use crate::run::execute::Executor;
use crate::run::library::Library;
use crate::run::progress::Display;
use crate::run::sample;
use crate::run::single::Outcome;
use crate::run::status::Status;
use crate::run::stop::StopFlag;
use crate::run::task::Task;
use crate::scorecard::Scorecard;
use crate::train::engine::Engine;

pub use jobs::Jobs;
pub(crate) use pins::TOKENIZER_PIN;
pub use preflight::Preflight;
pub use speed::ResultsOnDisk;
pub use tables::{Recorded, mfu, tokens_per_second};
pub use trained::Trained;

/// An experiment: its plan, its data and where its results are.
pub struct Experiment {
    /// The manifest, settled.
    pub manifest: Manifest,
    /// What it plans.
    pub plan: Plan,
    /// Its directory.
    pub dir: ExperimentDir,
    /// Its data.
    pub library: Library,
    files: Files,
    /// The search that `train.device_batch_size = "auto"` still asks for.
    search: Option<Digest>,
}

/// How to carry it out. Nothing here changes a result.
pub struct HowToRun<'a> {
    /// Threads in all.
    pub threads: usize,
    /// Runs at the same time; none leaves it to [`Experiment::jobs`].
    pub jobs: Option<usize>,
    /// Whether runs take over steps they share.
    pub share: bool,
    /// Whether finished runs are trained again.
    pub rerun: bool,
    /// Shows progress.
    pub display: &'a Display,
    /// Asks to stop.
    pub stop: &'a StopFlag,
}

/// How it went.
pub struct Report {
    /// How each run stands now, in the plan's order.
    pub results: Vec<Option<RunResult>>,
    /// Runs that failed: label and why.
    pub failures: Vec<(String, Error)>,
    /// Whether a signal stopped it.
    pub interrupted: bool,
    /// The verdicts.
    pub scorecard: Scorecard,
    /// From the start of this process to the end of the first optimizer step in it; none where it took no step.
    pub first_step_seconds: Option<f64>,
}

impl Report {
    /// The gravest thing that happened, which decides the exit code.
    pub fn class(&self) -> Option<Class> {
        let failed = self.failures.iter().map(|(_, error)| match error.class() {
            // Bad data found while training stops a run, not the experiment.
            Class::Input => Class::Run,
            class => class,
        });
        let interrupted = self.interrupted.then_some(Class::Interrupted);
        failed.chain(interrupted).chain(self.scorecard.failure()).max_by_key(|class| class.severity())
    }
}

/// Steps of how far a run came where it did not finish.
type Unfinished = (&'static str, Option<String>, u64);

impl Experiment {
    /// Plans a manifest against the data that are here.
    ///
    /// # Errors
    /// Anything wrong with the manifest or with data that are here. Data that are not here are no error yet.
    pub fn load(manifest: &Path, options: &Options, results: &Path) -> Result<Self> {
        let manifest = Manifest::load(manifest, options)?;
        let dir = ExperimentDir::at(results.join(manifest.results_name()));
        Self::plan_in(dir, manifest)
    }

    /// The same with its results in `dir`, whatever the directory is called.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_in(dir: &Path, manifest: &Path, options: &Options) -> Result<Self> {
        Self::plan_in(ExperimentDir::at(dir), Manifest::load(manifest, options)?)
    }

    fn plan_in(dir: ExperimentDir, manifest: Manifest) -> Result<Self> {
        let library = Library::new(Cache::from_env()?);
        let plan = plan(&manifest, &library)?;
        let mut experiment = Self { manifest, plan, dir, library, files: Files::from_env()?, search: None };
        if experiment.manifest.asks_for_batch_search() {
            let question = batch_search::question(&experiment.plan);
            match batch_search::recorded(&experiment.files, &experiment.dir, &question)? {
                Some(rows) => experiment.settle_batch(rows)?,
                None => experiment.search = Some(question),
            }
        }
        Ok(experiment)
    }

    fn settle_batch(&mut self, rows: usize) -> Result<()> {
        self.manifest.settle_device_batch(rows);
        self.plan = plan(&self.manifest, &self.library)?;
        self.search = None;
        Ok(())
    }

    /// Whether the device batch size is still to be searched for; until then the plan has a usual one.
    pub fn awaits_batch_search(&self) -> bool {
        self.search.is_some()
    }

    /// Searches for the device batch size if the manifest asks for it and nobody has yet, and keeps what it finds.
    ///
    /// # Errors
    /// Data that are not here; a run that does not fit with one row; a backend that cannot search.
    pub fn search_batch(&mut self, threads: usize, display: &Display) -> Result<()> {
        let Some(question) = self.search else { return Ok(()) };
        self.require_data()?;
        display.line("searching for the largest device batch size that fits");
        let rows = batch_search::search(&self.plan, threads)?;
        batch_search::record(&self.files, &self.dir, &question, rows)?;
        display.line(&format!("device batch size: {rows} rows"));
        self.settle_batch(rows)
    }

    /// What a run is called.
    pub fn label(&self, run: &PlannedRun) -> String {
        format!("{} seed={}", self.arm(run), run.config.seed)
    }

    fn arm(&self, run: &PlannedRun) -> &str {
        self.plan.arms.get(run.arm).map_or("base", |arm| &arm.label)
    }

    /// Where each run stands; none while its key is pending.
    pub fn statuses(&self) -> Result<Vec<Option<Status>>> {
        let status = |run: &PlannedRun| {
            if run.key.pending {
                return Ok(None);
            }
            self.status(run).map(Some)
        };
        self.plan.runs.iter().map(status).collect()
    }

    /// How the last attempt at a run failed: at which step, and why; none where it did not.
    pub fn last_failure(&self, run: &PlannedRun) -> Option<(u64, String)> {
        let journal = Journal::new(self.files.clone(), self.dir.run(&run.key.run).journal());
        // The journal is for people: one that cannot be read leaves the reason untold.
        match journal.read().ok()?.entries.pop()?.event {
            Event::Failed { step, reason, .. } => {
                Some((step, reason.lines().next().unwrap_or_default().to_owned()))
            }
            _ => None,
        }
    }

    fn status(&self, run: &PlannedRun) -> Result<Status> {
        Status::read(&self.files, &self.dir.run(&run.key.run), &run.config, &run.key.run)
    }

    /// Trains what is not finished, writing tables after every run and the scorecard at the end.
    ///
    /// # Errors
    /// What keeps the experiment from being carried out at all. A run that fails is in the report.
    pub fn run(&self, how: &HowToRun<'_>) -> Result<Report> {
        self.require_data()?;
        self.plan.runs.iter().try_for_each(|run| check_initial_weights(&run.config))?;
        let task = |run: &PlannedRun| Task::new(self.label(run), run.config.clone(), run.key.run);
        let tasks: Vec<_> = self.plan.runs.iter().map(task).collect();
        let _lock = self.begin(how)?;
        let mut before: Vec<Option<RunResult>> = Vec::new();
        for run in &self.plan.runs {
            before.push(match self.status(run) {
                Ok(status) => finished(status),
                // Whatever is wrong with a result, running again replaces it.
                Err(_) if how.rerun => None,
                Err(error) => return Err(error),
            });
        }
        if how.rerun {
            tasks.iter().try_for_each(|task| self.set_aside(task))?;
        }
        let pending: Vec<bool> = tasks
            .iter()
            .enumerate()
            .map(|(index, task)| {
                // Cells with one run key are one run.
                let first = tasks.iter().position(|other| other.run_key == task.run_key) == Some(index);
                first && (how.rerun || before[index].is_none())
            })
            .collect();
        let jobs = if self.shares_a_device() {
            1
        } else {
            how.jobs.unwrap_or_else(|| self.jobs(how.threads, &pending, how.share).count)
        };
        let results = Mutex::new(if how.rerun { vec![None; tasks.len()] } else { before.clone() });
        let unfinished = Mutex::new(vec![("planned", None, 0); tasks.len()]);
        let rows = |config: &_| self.library.rows(config);
        let samples = |config: &RunConfig, engine: &mut dyn Engine| {
            sample::at_the_end(engine, self.library.open(&config.data)?.tokenizer(), config)
        };
        let executor = Executor {
            files: self.files.clone(),
            dir: self.dir.clone(),
            threads: how.threads,
            jobs,
            share: how.share,
            rows: &rows,
            samples: &samples,
            display: how.display,
            stop: how.stop,
        };
        let outcomes = executor.run(&tasks, &pending, &|index, outcome| {
            let (mut results, mut unfinished) = (lock(&results), lock(&unfinished));
            for (other, task) in tasks.iter().enumerate() {
                if task.run_key == tasks[index].run_key {
                    match outcome {
                        Outcome::Finished(result) => results[other] = Some((**result).clone()),
                        Outcome::Interrupted { step } => unfinished[other] = ("interrupted", None, *step),
                        Outcome::Failed(error) => {
                            unfinished[other] = ("failed", Some(error.what().to_owned()), 0);
                        }
                    }
                }
            }
            self.write_tables(&results, &unfinished)
        })?;
        let (results, unfinished) = (unlocked(results), unlocked(unfinished));
        let mut failures = Vec::new();
        let mut interrupted = how.stop.is_raised() && results.iter().any(Option::is_none);
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Some(Outcome::Failed(error)) => failures.push((tasks[index].label.clone(), error)),
                Some(Outcome::Interrupted { .. }) => interrupted = true,
                Some(Outcome::Finished(result)) => {
                    if let Some(old) = before[index].as_ref().filter(|old| old.contradicts(&result)) {
                        failures.push((tasks[index].label.clone(), contradiction(old, &result)));
                    }
                }
                None => {}
            }
        }
        self.write_tables(&results, &unfinished)?;
        let scorecard = self.judge(&results, &unfinished)?;
        tables::write_scorecard(&self.files, &self.dir, &scorecard)?;
        let first_step_seconds = how.display.first_step_seconds();
        Ok(Report { results, failures, interrupted, scorecard, first_step_seconds })
    }

    /// The report of what is on disk; trains nothing.
    pub fn read(&self) -> Result<Report> {
        self.require_data()?;
        let statuses = self.statuses()?;
        let results: Vec<_> = statuses.into_iter().map(|status| status.and_then(finished)).collect();
        let unfinished = vec![("planned", None, 0); results.len()];
        let scorecard = self.judge(&results, &unfinished)?;
        let failures = Vec::new();
        Ok(Report { results, failures, interrupted: false, scorecard, first_step_seconds: None })
    }

    /// Results against a baseline.
    pub fn compare(&self, baseline: &Path) -> Result<Comparison> {
        judge::compare(&self.files, &self.dir, baseline)
    }

    /// Makes the results the baseline.
    pub fn bless(&self, baseline: &Path) -> Result<crate::gate::Blessed> {
        let results = read_results(&self.files, &self.dir)?;
        Ok(crate::gate::bless(&self.files, baseline, &results.experiment, &results.candidates)?)
    }

    /// Whether runs compute on tch's device: they go one after another, for its memory, its counts and the bits of its
    /// CPU work are the whole process's.
    fn shares_a_device(&self) -> bool {
        self.plan.runs.iter().any(|run| run.config.backend.kind == BackendKind::Tch)
    }

    /// Makes the directory, locks it, removes what a crash left, and writes the plan.
    fn begin(&self, how: &HowToRun<'_>) -> Result<crate::files::DirLock> {
        self.files.create_dir_all(self.dir.path()).map_err(|error| self.not_writable(&error))?;
        let holder = crate::files::LockHolder::this_process(&host_name());
        let mut told = false;
        let lock = crate::files::DirLock::acquire_waiting(
            self.dir.path(),
            &holder,
            std::time::Duration::from_millis(500),
            |held| {
                if !std::mem::replace(&mut told, true) {
                    how.display.line(&format!("waiting: {held}"));
                }
                !how.stop.is_raised()
            },
        );
        let lock = match lock {
            Err(crate::files::LockError::Held { .. }) if how.stop.is_raised() => {
                return Err(Error::new(Class::Interrupted, "stopped while waiting for another nanorun"));
            }
            lock => lock?,
        };
        self.files.recover(self.dir.path())?;
        let mut controls: Vec<usize> = self.plan.arms.iter().filter_map(|arm| arm.control).collect();
        controls.dedup();
        // Where every arm has a control of its own, no single one is the experiment's.
        let control = Some(controls).filter(|controls| controls.len() == 1).and_then(|mut one| one.pop());
        let runs = self.plan.runs.iter().map(|run| record::PlannedRun {
            arm: self.arm(run).to_owned(),
            seed: run.config.seed,
            key: run.key.run,
            steps: run.sizes.steps,
            cell: run.cell.clone(),
        });
        let record = PlanRecord {
            name: self.plan.name.clone(),
            question: self.plan.question.clone(),
            manifest: self.manifest.file.display().to_string(),
            profile: self.manifest.profile.clone(),
            sets: self.manifest.sets.clone(),
            env: self.manifest.env.clone(),
            no_share: !how.share,
            nanorun: env!("CARGO_PKG_VERSION").to_owned(),
            control: control.and_then(|arm| Some(self.plan.arms.get(arm)?.label.clone())),
            runs: runs.collect(),
        };
        record.write(&self.files, &self.dir)?;
        Ok(lock)
    }

    /// The error of a results directory that cannot be made.
    fn not_writable(&self, cause: &FileError) -> Error {
        let why = match cause.kind() {
            // Of the directory itself: file systems such as /proc take none.
            std::io::ErrorKind::NotFound => "nothing can be made there".to_owned(),
            _ => cause.to_string(),
        };
        Error::input(format!("the results directory cannot be made: {why}"))
            .file(self.dir.path())
            .expected("a directory that can be written")
            .help("choose another place with --results DIR")
    }

    /// Keeps a finished result under another name and drops its checkpoints, so that the run starts over.
    fn set_aside(&self, task: &Task) -> Result<()> {
        let run = self.dir.run(&task.run_key);
        // Unfinished, or set aside for another cell of the same run.
        if !run.result().exists() {
            return Ok(());
        }
        let free = |n: &u32| !run.path().join(format!("result.{n}.json")).exists();
        let kept = run.path().join(format!("result.{}.json", (1..=9999).find(free).unwrap_or(0)));
        let bytes = self.files.read(&run.result())?;
        self.files.write(&kept, &bytes)?;
        self.files.remove_file(&run.result())?;
        Ok(self.files.remove_dir(&run.checkpoints())?)
    }

    fn recorded<'a>(
        &'a self,
        results: &'a [Option<RunResult>],
        unfinished: &'a [Unfinished],
    ) -> Vec<Recorded<'a>> {
        let each = self.plan.runs.iter().zip(results).zip(unfinished);
        each.map(|((run, result), unfinished)| Recorded {
            experiment: &self.plan.name,
            arm: self.arm(run),
            config: &run.config,
            run_key: run.key.run.to_string(),
            parameters: run.sizes.params.total,
            flops_per_token: run.sizes.flops_per_token as f64,
            result: result.as_ref(),
            unfinished: unfinished.clone(),
        })
        .collect()
    }

    fn write_tables(&self, results: &[Option<RunResult>], unfinished: &[Unfinished]) -> Result<()> {
        tables::write_tables(&self.files, &self.dir, &self.recorded(results, unfinished))
    }

    fn judge(&self, results: &[Option<RunResult>], unfinished: &[Unfinished]) -> Result<Scorecard> {
        let runs = self.recorded(results, unfinished).iter().map(tables::summary).collect();
        judge::scorecard(&self.files, self, runs)
    }
}

fn finished(status: Status) -> Option<RunResult> {
    match status {
        Status::Finished(result) => Some(*result),
        _ => None,
    }
}

/// One run, one class, two results: the promise is broken, and neither result is the right one.
fn contradiction(old: &RunResult, new: &RunResult) -> Error {
    let place = |result: &RunResult| {
        let host = &result.host;
        format!(
            "{} on {} ({}), nanorun {}",
            result.result_hash.short(),
            host.host,
            host.cpu_model,
            host.nanorun
        )
    };
    Error::new(Class::HashMismatch, format!("run {} has two results in one class", old.run_key.short()))
        .expected(format!("{} as before: {}; now {}", old.environment_class, place(old), place(new)))
        .help("this is a defect: please report it with both result files; the old one is kept beside the new one")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn unlocked<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}
