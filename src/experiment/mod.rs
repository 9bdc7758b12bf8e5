//! A manifest carried out, from its plan to tables and scorecard.

mod anew;
mod carry_out;
mod clean;
mod disk;
mod ends;
mod jobs;
mod judge;
mod missing;
mod pins;
mod preflight;
mod recorded;
mod room;
mod size;
mod speed;
mod tables;
mod tokenizer;
mod trained;

use std::path::Path;

use crate::data::Cache;
use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::gate::{Comparison, read_results};
use crate::hash::Digest;
use crate::manifest::{Manifest, Options};
use crate::plan::run_config::BackendKind;
use crate::plan::{Plan, PlannedRun, plan};
use crate::record::{Event, ExperimentDir, Journal, PlanRecord, RunResult, key_of};
use crate::run::batch_search;
use crate::run::library::Library;
use crate::run::progress::Display;
use crate::run::state::Standing;
use crate::scorecard::Scorecard;
use crate::stop::StopFlag;

use ends::{Ends, RunEnd};
use recorded::{RecordedFacts, RecordedFirst};

pub use clean::{Cleaned, Unneeded, Why, clean, unneeded};
pub use disk::DiskPlan;
pub use jobs::Jobs;
pub(crate) use pins::{TOKENIZER_PIN, shard_pins};
pub use preflight::{MemoryPlan, Preflight};
pub use recorded::FromResults;
pub use speed::ResultsOnDisk;
pub use tables::{Recorded, mfu, tokens_per_second};
pub use tokenizer::{AskedFor, TokenizerOrder};

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
    /// What results know of the data, where that is what the plan was made by.
    facts: Option<RecordedFacts>,
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
    /// Runs that failed, diverged or are damaged: label and why.
    pub failures: Vec<(String, Error)>,
    /// What else is to be told of runs.
    pub notes: Vec<String>,
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
        let failed = self.failures.iter().map(|(_, error)| error.class());
        let interrupted = self.interrupted.then_some(Class::Interrupted);
        failed.chain(interrupted).chain(self.scorecard.failure()).max_by_key(|class| class.severity())
    }
}

impl Experiment {
    /// Plans a manifest against the data that are here.
    ///
    /// # Errors
    /// Anything wrong with the manifest or with data that are here. Data that are not here are no error yet.
    pub fn load(manifest: &Path, options: &Options, results: &Path) -> Result<Self> {
        Self::of(Manifest::load(manifest, options)?, results)
    }

    /// The same of a manifest that is read already.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn of(manifest: Manifest, results: &Path) -> Result<Self> {
        let dir = ExperimentDir::at(results.join(manifest.results_name()));
        Self::plan_in(dir, manifest, None)
    }

    fn plan_in(dir: ExperimentDir, manifest: Manifest, facts: Option<RecordedFacts>) -> Result<Self> {
        let library = Library::new(Cache::from_env()?);
        let plan = planned(&manifest, &library, facts.as_ref())?;
        let files = Files::from_env()?;
        let mut experiment = Self { manifest, plan, dir, library, files, facts, search: None };
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
        self.plan = planned(&self.manifest, &self.library, self.facts.as_ref())?;
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

    /// The key that begins with these digits.
    ///
    /// # Errors
    /// None or several; class `Input`.
    pub(super) fn key_of(&self, digits: &str) -> Result<Digest> {
        let keys: Vec<_> = self.plan.runs.iter().map(|run| (run.key.run, self.label(run))).collect();
        key_of(digits, &keys)
    }

    /// What a run is called.
    pub fn label(&self, run: &PlannedRun) -> String {
        format!("{} seed={}", self.arm(run), run.config.seed)
    }

    fn arm(&self, run: &PlannedRun) -> &str {
        self.plan.arms.get(run.arm).map_or("base", |arm| &arm.label)
    }

    /// Where each run stands; none while its key is pending.
    ///
    /// # Errors
    /// Results of a later layout; directories that cannot be read. A damaged result is a status.
    pub fn standings(&self) -> Result<Vec<Option<Standing>>> {
        PlanRecord::check_layout(&self.files, &self.dir)?;
        let standing = |run: &PlannedRun| {
            if run.key.pending {
                return Ok(None);
            }
            self.standing(run).map(Some)
        };
        self.plan.runs.iter().map(standing).collect()
    }

    fn standing(&self, run: &PlannedRun) -> Result<Standing> {
        Standing::read(&self.files, &self.dir.run(&run.key.run), &run.config, &run.key.run)
    }

    /// How the last attempt at a run failed: at which step, and why; none where it did not.
    pub fn last_failure(&self, run: &PlannedRun) -> Option<(u64, String)> {
        let attempt = self.dir.run(&run.key.run).attempts().ok()?.pop()?;
        let journal = Journal::new(self.files.clone(), attempt.journal());
        // The journal is for people: one that cannot be read leaves the reason untold.
        match journal.read().ok()?.entries.pop()?.event {
            Event::Failed { step, reason, .. } => {
                Some((step, reason.lines().next().unwrap_or_default().to_owned()))
            }
            _ => None,
        }
    }

    /// The report of what is on disk; trains nothing.
    ///
    /// # Errors
    /// What keeps the experiment from being read at all. A run whose result is damaged is in the report.
    pub fn read(&self) -> Result<Report> {
        let standings = self.standings()?;
        // Of runs that were never planned with their data, nothing can be there.
        if standings.iter().all(Option::is_none) {
            self.require_data()?;
        }
        let mut ends = Ends::default();
        for (run, standing) in self.plan.runs.iter().zip(standings) {
            ends.push(&self.label(run), standing);
        }
        let scorecard = self.judge(&ends.runs)?;
        Ok(ends.report(false, scorecard, None))
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

    fn recorded<'a>(&'a self, ends: &'a [RunEnd]) -> Vec<Recorded<'a>> {
        let each = self.plan.runs.iter().zip(ends);
        each.map(|(run, end)| Recorded {
            experiment: &self.plan.name,
            arm: self.arm(run),
            config: &run.config,
            run_key: run.key.run.to_string(),
            parameters: run.sizes.params.total,
            flops_per_token: run.sizes.flops_per_token as f64,
            end,
        })
        .collect()
    }

    fn write_tables(&self, ends: &[RunEnd]) -> Result<()> {
        tables::write_tables(&self.files, &self.dir, &self.recorded(ends))
    }

    fn judge(&self, ends: &[RunEnd]) -> Result<Scorecard> {
        let metric = judge::metric(self)?;
        let runs = self.recorded(ends).iter().map(|run| tables::summary(run, &metric)).collect();
        judge::scorecard(&self.files, self, runs)
    }
}

fn planned(manifest: &Manifest, library: &Library, recorded: Option<&RecordedFacts>) -> Result<Plan> {
    match recorded {
        Some(recorded) => plan(manifest, &RecordedFirst { recorded, library }),
        None => plan(manifest, library).map_err(|error| missing::named(error, manifest, library)),
    }
}
