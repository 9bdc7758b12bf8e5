//! A manifest carried out, from its plan to tables and scorecard.

mod anew;
mod carry_out;
mod clean;
mod disk;
mod ends;
mod jobs;
mod judge;
mod missing;
mod owner;
mod pins;
mod preflight;
mod recorded;
mod retired;
mod reuse;
mod room;
mod size;
mod speed;
mod tables;
mod tokenizer;
mod trained;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::data::Cache;
use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::gate::{Comparison, read_results};
use crate::hash::Digest;
use crate::manifest::{Manifest, Options};
use crate::plan::run_config::BackendKind;
use crate::plan::{DataUse, Plan, PlannedRun, plan};
use crate::record::{Event, ExperimentDir, Journal, PlanRecord, RunResult, key_of};
use crate::run::batch_search;
use crate::run::execute::MakeEngine;
use crate::run::library::Library;
use crate::run::progress::Display;
use crate::run::state::Standing;
use crate::scorecard::Scorecard;
use crate::stop::StopFlag;

use ends::{Ends, RunEnd};
use recorded::{RecordedFacts, RecordedFirst};
use retired::Retired;

pub use clean::{Cleaned, clean};
pub use disk::DiskPlan;
pub(crate) use pins::{TOKENIZER_PIN, shard_pins};
pub use preflight::MemoryPlan;
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
    /// Results from which finished runs are taken over: of experiments, or directories that hold several.
    pub reuse: &'a [PathBuf],
    /// Makes the engines of the runs.
    pub engine: &'a MakeEngine<'a>,
    /// Shows progress.
    pub display: &'a Display,
    /// Asks to stop.
    pub stop: &'a StopFlag,
}

/// How it went.
pub struct Report {
    /// How each run stands now, in the plan's order, those that the command is not about included.
    pub results: Vec<Option<Arc<RunResult>>>,
    /// Runs that failed, diverged or are damaged: label and why.
    pub failures: Vec<(String, Error)>,
    /// What else is to be told of runs.
    pub notes: Vec<String>,
    /// Whether a signal stopped it.
    pub interrupted: bool,
    /// The runs that the command is about, with the verdicts on their arms.
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
        // Cells that the command is not about need not have their data here.
        let environment: Vec<_> = manifest.env.clone().into_iter().collect();
        let facts = if manifest.is_view() { Self::recorded_facts(&dir, &environment, true) } else { None };
        Self::plan_in(dir, manifest, facts)
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
        self.require_own_directory()?;
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

    /// A command on this experiment, as advice tells it: with everything that makes it this one.
    pub fn command(&self, verb: &str) -> String {
        let mut command = self.command_on_manifest(verb);
        if let Some(results) = self.dir.path().parent().filter(|results| *results != Path::new("results")) {
            let _ = write!(command, " --results '{}'", results.display());
        }
        command
    }

    /// The same of one that has no results.
    fn command_on_manifest(&self, verb: &str) -> String {
        let mut command = format!("nanorun {verb} {}", self.manifest.file.display());
        if let Some(profile) = &self.manifest.profile {
            let _ = write!(command, " --profile {profile}");
        }
        for (option, values) in [("--set", &self.manifest.sets), ("--only", &self.manifest.only)] {
            for value in values {
                let _ = write!(command, " {option} '{value}'");
            }
        }
        command
    }

    /// Whether the command is about the run at this place of the plan.
    pub fn is_selected(&self, run: usize) -> bool {
        self.manifest.cells.get(run).is_none_or(|cell| cell.selected)
    }

    /// The runs that the command is about.
    pub fn selected_runs(&self) -> impl Iterator<Item = &PlannedRun> {
        self.plan.runs.iter().enumerate().filter(|(index, _)| self.is_selected(*index)).map(|(_, run)| run)
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
        for (index, (run, standing)) in self.plan.runs.iter().zip(standings).enumerate() {
            match standing {
                // What is wrong with runs that nobody asks about, whoever asks about them is told.
                Some(standing) if !self.is_selected(index) => ends.push_pending(&self.label(run), standing),
                standing => ends.push(&self.label(run), standing),
            }
        }
        ends.note(self.other_owner().map(|other| other.note()));
        ends.note(self.plan.runs.iter().filter_map(|run| run.data.as_ref()).flat_map(DataUse::warnings));
        let scorecard = self.view(&self.judge(&ends.runs, &self.retired())?)?;
        Ok(ends.report(false, scorecard, None))
    }

    /// Results against a baseline.
    pub fn compare(&self, baseline: &Path) -> Result<Comparison> {
        let mut comparison = judge::compare(&self.files, &self.dir, baseline)?;
        self.keep_selected(&mut comparison);
        Ok(comparison)
    }

    /// Leaves out of a comparison what the command is not about.
    fn keep_selected(&self, comparison: &mut Comparison) {
        if self.manifest.is_view() {
            let picked =
                |run: &PlannedRun, arm: &str, seed: u64| self.arm(run) == arm && run.config.seed == seed;
            comparison.runs.retain(|one| self.selected_runs().any(|run| picked(run, &one.arm, one.seed)));
        }
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
            epochs: [run.data.map(|data| data.train.epochs), run.data.map(|data| data.validation.epochs)],
            run_key: run.key.run.to_string(),
            parameters: run.sizes.params.total,
            flops_per_token: run.sizes.flops_per_token as f64,
            end,
            retired: false,
        })
        .collect()
    }

    /// Over all that is there: the runs of the plan, whether the command is about them or not, then the retired ones.
    fn write_tables(&self, ends: &[RunEnd], retired: &[Retired]) -> Result<()> {
        let mut runs = self.recorded(ends);
        runs.extend(retired.iter().map(|run| run.recorded(&self.plan.name)));
        tables::write_tables(&self.files, &self.dir, &runs)
    }

    /// Judges the runs of the plan and lists the retired ones.
    fn judge(&self, ends: &[RunEnd], retired: &[Retired]) -> Result<Scorecard> {
        let metric = judge::metric(self);
        let runs = self.recorded(ends).iter().map(|run| tables::summary(run, &metric)).collect();
        let mut scorecard = judge::scorecard(&self.files, self, runs)?;
        let summary = |run: &Retired| tables::summary(&run.recorded(&self.plan.name), &metric);
        scorecard.retired = retired.iter().map(summary).collect();
        Ok(scorecard)
    }

    /// What of a scorecard the command is about. The numbers of an arm and the verdicts on it stay those over all that
    /// is there: a view must not make another verdict.
    fn view(&self, scorecard: &Scorecard) -> Result<Scorecard> {
        if !self.manifest.is_view() {
            return Ok(scorecard.clone());
        }
        let mut view = scorecard.view(&|run| self.is_selected(run));
        if let Some(path) = &self.manifest.head.scorecard.reproducibility.baseline {
            let baseline = judge::baseline(self, Path::new(path))?;
            view.judge_reproducibility(&baseline);
        }
        Ok(view)
    }
}

fn planned(manifest: &Manifest, library: &Library, recorded: Option<&RecordedFacts>) -> Result<Plan> {
    let planned = match recorded {
        Some(recorded) => plan(manifest, &RecordedFirst { recorded, library }).map(|mut plan| {
            recorded.tell_uses(&mut plan);
            plan
        }),
        None => plan(manifest, library),
    };
    planned.map_err(|error| missing::named(error, manifest, library))
}
