//! A manifest carried out, from its plan to tables and scorecard.

mod judge;
mod pins;
mod speed;
mod tables;
mod trained;

use std::path::Path;
use std::sync::Mutex;

use crate::data::Cache;
use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::gate::{Comparison, read_results};
use crate::manifest::{Manifest, Options};
use crate::plan::run_config::RunConfig;
use crate::plan::{Plan, PlannedRun, plan};
use crate::record::{self, ExperimentDir, PlanRecord, RunResult};
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

pub use speed::ResultsOnDisk;
pub use tables::{Recorded, tokens_per_second};
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
        let library = Library::new(Cache::from_env());
        let plan = plan(&manifest, &library)?;
        let dir = ExperimentDir::at(results.join(&plan.results_name));
        Ok(Self { manifest, plan, dir, library, files: Files::new() })
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
            let task = Task::new(self.label(run), run.config.clone());
            Status::read(&self.files, &self.dir.run(&task.run_key), &task).map(Some)
        };
        self.plan.runs.iter().map(status).collect()
    }

    /// What data are missing, by the patterns that name them.
    pub fn missing_data(&self) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for run in &self.plan.runs {
            for pattern in self.library.missing(&run.config.data)? {
                if !missing.contains(&pattern) {
                    missing.push(pattern);
                }
            }
        }
        Ok(missing)
    }

    /// The error of running without the data, or with other data than are pinned.
    pub fn require_data(&self) -> Result<()> {
        self.require_present()?;
        self.check_pins()
    }

    /// The error of running without the data.
    pub fn require_present(&self) -> Result<()> {
        let missing = self.missing_data()?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::input(format!("the data are not here: {}", missing.join(", ")))
            .file(&self.manifest.file)
            .key("data.shards")
            .expected("upstream's parquet shards and its tokenizer at these places")
            .help(
                "download them with nanochat (`python -m nanochat.dataset -n 8`, `python -m scripts.tok_train`), or \
                 try the embedded corpus: --set 'data.shards=\"embedded\"' --set data.tokenizer.vocab_size=4096",
            ))
    }

    /// Trains what is not finished, writing tables after every run and the scorecard at the end.
    ///
    /// # Errors
    /// What keeps the experiment from being carried out at all. A run that fails is in the report.
    pub fn run(&self, how: &HowToRun<'_>) -> Result<Report> {
        self.require_data()?;
        let tasks: Vec<_> =
            self.plan.runs.iter().map(|run| Task::new(self.label(run), run.config.clone())).collect();
        let _lock = self.begin(how)?;
        let mut statuses = Vec::new();
        for task in &tasks {
            statuses.push(Status::read(&self.files, &self.dir.run(&task.run_key), task)?);
        }
        let before: Vec<Option<RunResult>> = statuses.into_iter().map(finished).collect();
        if how.rerun {
            for (task, _) in tasks.iter().zip(&before).filter(|(_, result)| result.is_some()) {
                self.set_aside(task)?;
            }
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
        let jobs = how.jobs.unwrap_or_else(|| self.jobs(how.threads, &pending));
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
        Ok(Report { results, failures, interrupted, scorecard })
    }

    /// The report of what is on disk; trains nothing.
    pub fn read(&self) -> Result<Report> {
        self.require_data()?;
        let statuses = self.statuses()?;
        let results: Vec<_> = statuses.into_iter().map(|status| status.and_then(finished)).collect();
        let unfinished = vec![("planned", None, 0); results.len()];
        let scorecard = self.judge(&results, &unfinished)?;
        Ok(Report { results, failures: Vec::new(), interrupted: false, scorecard })
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

    /// How many runs to train at the same time. Small models leave cores idle between their operations, so whole runs
    /// side by side are faster; not where speed is to be judged, which needs runs alone on the machine.
    pub fn jobs(&self, threads: usize, pending: &[bool]) -> usize {
        /// Parameters up to which a run cannot keep a second thread busy. Measured: see results/benchmarks.
        const SMALL: u64 = 1_000_000;
        let waiting = pending.iter().filter(|&&pending| pending).count();
        let small = self.plan.runs.iter().all(|run| run.sizes.params.total <= SMALL);
        let judges_speed = self.manifest.cells.iter().len() > 0 && self.asks_for_speed();
        if small && !judges_speed { waiting.min(threads).max(1) } else { 1 }
    }

    fn asks_for_speed(&self) -> bool {
        self.manifest.head.scorecard.speed.min_ratio > 0.0
            && self.plan.arms.iter().any(|arm| arm.control.is_some())
    }

    /// Makes the directory, locks it, removes what a crash left, and writes the plan.
    fn begin(&self, how: &HowToRun<'_>) -> Result<crate::files::DirLock> {
        self.files.create_dir_all(self.dir.path())?;
        let holder = crate::files::LockHolder::this_process(&record::host::host_name());
        let mut told = false;
        let lock = crate::files::DirLock::acquire_waiting(
            self.dir.path(),
            &holder,
            std::time::Duration::from_millis(500),
            |held| {
                if !std::mem::replace(&mut told, true) {
                    how.display.line(&format!("waiting: {held}"));
                }
                true
            },
        )?;
        self.files.recover(self.dir.path())?;
        let control = self.plan.arms.iter().find_map(|arm| arm.control);
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

    /// Keeps a finished result under another name and drops its checkpoints, so that the run starts over.
    fn set_aside(&self, task: &Task) -> Result<()> {
        let run = self.dir.run(&task.run_key);
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
