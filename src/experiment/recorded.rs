//! What results know of the experiment that left them: enough to plan it again without its manifest and its data.

use std::path::{Path, PathBuf};

use super::Experiment;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::Digest;
use crate::manifest::settings::InitChoice;
use crate::manifest::{Manifest, Options};
use crate::plan::run_config::DataConfig;
use crate::plan::{DataFacts, DataUse, Facts, InitCheckpoint, Plan, data_config};
use crate::record::{ExperimentDir, PlanRecord, PlannedRun};
use crate::run::library::Library;
use crate::toml_text;

/// Facts of data sets and files of initial weights as they were when the runs of these results were planned.
#[derive(Debug, Default)]
pub(super) struct RecordedFacts {
    data: Vec<(DataConfig, DataFacts)>,
    /// Whether the data that are here are asked before.
    data_first: bool,
    init: Vec<(String, Digest)>,
    /// How often runs read their data, by run key.
    uses: Vec<(Digest, DataUse)>,
    checkpoints: Vec<(String, InitCheckpoint)>,
    /// Digests of evaluation bundles, by path and limit.
    bundles: Vec<(String, Option<u64>, Digest)>,
}

impl RecordedFacts {
    /// Of the runs of these results, by what their own manifest says of their data.
    fn of(files: &Files, results: &FromResults, manifest: &Manifest) -> Self {
        // The manifest of layout 1 may have changed since: what is here speaks first.
        let mut facts = Self { data_first: results.record.layout < 2, ..Self::default() };
        for cell in &manifest.cells {
            let Some(run) = results.record.runs.iter().find(|run| run.cell == cell.overrides) else {
                continue;
            };
            facts.uses.extend(run.data.map(|data| (run.key, data)));
            let (found, weights, bundle) = of_run(files, &results.dir, run);
            let core = &cell.settings.eval.core;
            if let (Some(path), Some(digest)) = (&core.bundle, bundle) {
                facts.bundles.push((path.clone(), core.max_per_task, digest));
            }
            if found.content.is_some() {
                facts.data.push((data_config(&cell.settings), found));
            }
            match (&cell.settings.model.init, weights) {
                (InitChoice::File(path), Some(found)) => facts.init.push((path.clone(), found.sha256)),
                (InitChoice::Checkpoint(path) | InitChoice::Resume(path), Some(found)) => {
                    facts.checkpoints.push((path.clone(), found));
                }
                _ => {}
            }
        }
        facts
    }

    /// Tells the runs of a plan that was made without looking at their data how often they read them.
    pub(super) fn tell_uses(&self, plan: &mut Plan) {
        for run in plan.runs.iter_mut().filter(|run| run.data.is_none()) {
            let known = self.uses.iter().find(|(key, _)| *key == run.key.run);
            run.data = known.map(|(_, data)| *data);
        }
    }
}

/// Of one run: by the plan, or where that is of a version that did not record it, by the run's own manifest.
fn of_run(
    files: &Files,
    dir: &ExperimentDir,
    run: &PlannedRun,
) -> (DataFacts, Option<InitCheckpoint>, Option<Digest>) {
    let recorded = DataFacts {
        vocab_size: run.vocab_size.and_then(|size| usize::try_from(size).ok()),
        content: run.content,
        splits: None,
    };
    let own = files.read_if_there(&dir.run(&run.key).manifest()).ok().flatten();
    let own: Option<toml::Table> = own.and_then(|bytes| toml_text::from_slice(&bytes).ok());
    let at = |path: &[&str]| {
        let (last, sections) = path.split_last()?;
        let table = sections.iter().try_fold(own.as_ref()?, |table, name| table.get(*name)?.as_table())?;
        table.get(*last)
    };
    let digest = |path: &[&str]| at(path)?.as_str()?.parse::<Digest>().ok();
    let vocab_size = at(&["model", "vocab_size"]).and_then(toml::Value::as_integer);
    let facts = DataFacts {
        vocab_size: recorded.vocab_size.or(vocab_size.and_then(|size| usize::try_from(size).ok())),
        content: recorded.content.or_else(|| digest(&["data", "content"])),
        splits: None,
    };
    // Of whichever kind; where data go on matters to those who train alone.
    let init = ["file", "checkpoint", "resume"].into_iter().find_map(|kind| {
        let step = at(&["init", kind, "step"]).and_then(toml::Value::as_integer);
        let step = step.and_then(|step| u64::try_from(step).ok()).unwrap_or(0);
        Some(InitCheckpoint { sha256: digest(&["init", kind, "sha256"])?, step, data: None })
    });
    (facts, init, digest(&["eval", "core", "sha256"]))
}

/// What was recorded, else what the data that are here say.
pub(super) struct RecordedFirst<'a> {
    pub(super) recorded: &'a RecordedFacts,
    pub(super) library: &'a Library,
}

impl Facts for RecordedFirst<'_> {
    fn data(&self, data: &DataConfig) -> Result<DataFacts> {
        let recorded = self.recorded.data.iter().find(|(known, _)| known == data).map(|(_, facts)| *facts);
        match recorded {
            Some(facts) if !self.recorded.data_first => Ok(facts),
            recorded => {
                let here = self.library.data(data)?;
                Ok(if here.content.is_some() { here } else { recorded.unwrap_or(here) })
            }
        }
    }

    fn core_bundle(&self, path: &str, max_per_task: Option<u64>) -> Result<Option<Digest>> {
        let is_it = |(at, most, _): &&(String, Option<u64>, Digest)| at == path && *most == max_per_task;
        match self.recorded.bundles.iter().find(is_it) {
            Some((.., digest)) => Ok(Some(*digest)),
            None => self.library.core_bundle(path, max_per_task),
        }
    }

    fn init_checkpoint(&self, path: &str, resumes: bool) -> Result<InitCheckpoint> {
        let known = self.recorded.checkpoints.iter().find(|(known, _)| known == path);
        known.map_or_else(|| self.library.init_checkpoint(path, resumes), |(_, found)| Ok(*found))
    }

    fn init_file(&self, path: &str) -> Result<Digest> {
        match self.recorded.init.iter().find(|(known, _)| known == path) {
            Some((_, digest)) => Ok(*digest),
            None => self.library.init_file(path),
        }
    }
}

/// An experiment as its results tell it.
pub struct FromResults {
    /// Its results.
    pub dir: ExperimentDir,
    /// The plan as it was carried out.
    pub record: PlanRecord,
    text: String,
    manifest: PathBuf,
}

impl FromResults {
    /// Reads plan and manifest. Results of layout 1 have no manifest: there it is read where it was.
    ///
    /// # Errors
    /// Results of a later layout; a plan that cannot be read; a manifest that is not there.
    pub fn read(files: &Files, dir: &ExperimentDir) -> Result<Self> {
        let record = PlanRecord::read(files, dir)?;
        let manifest = PathBuf::from(&record.manifest);
        let text = match files.read_if_there(&dir.manifest())? {
            Some(bytes) => bytes,
            None => files.read_if_there(&manifest)?.ok_or_else(|| {
                Error::input("the manifest of this experiment is not here").file(&manifest).expected(
                    "the manifest that plan.toml names, from the working directory of the first start",
                )
            })?,
        };
        let text = String::from_utf8(text).map_err(|_| {
            Error::input("the manifest that the results hold is not UTF-8").file(dir.manifest())
        })?;
        Ok(Self { dir: dir.clone(), record, text, manifest })
    }

    /// The working directory that its relative paths are relative to, where it is there and another than this one.
    pub fn home(&self) -> Option<PathBuf> {
        let home = PathBuf::from(self.record.directory.as_ref()?);
        let here = std::env::current_dir().ok()?;
        (home.is_dir() && home != here).then_some(home)
    }

    /// What lay over its manifest. Of the environment, `here` has what paths refer to; what set fields is as recorded.
    fn options(&self, here: &[(String, String)], only: &[String]) -> Options {
        let paths = here.iter().filter(|(name, _)| !name.starts_with("NANORUN_")).cloned();
        let recorded = self.record.env.iter().map(|(name, value)| (name.clone(), value.clone()));
        Options {
            profile: self.record.profile.clone(),
            sets: self.record.sets.clone(),
            only: only.to_vec(),
            env: paths.chain(recorded).collect(),
        }
    }

    fn parse(&self, environment: &[(String, String)], only: &[String]) -> Result<Manifest> {
        let options = self.options(environment, only);
        Manifest::parse(&self.manifest, &self.text, &options).or_else(|error| {
            // What is wrong stands in the copy, where there is one: the file it was copied from may be whole.
            let copy = self.dir.manifest();
            if copy.is_file() { Manifest::parse(&copy, &self.text, &options) } else { Err(error) }
        })
    }

    /// The manifest as it was carried out.
    ///
    /// # Errors
    /// One that cannot be read any more.
    pub fn manifest(&self, environment: &[(String, String)]) -> Result<Manifest> {
        self.parse(environment, &[])
    }

    /// The experiment, or the cells of it that `only` picks, to be carried on: planned against the data that are here.
    ///
    /// # Errors
    /// As [`Experiment::load`].
    pub fn to_carry_on(&self, environment: &[(String, String)], only: &[String]) -> Result<Experiment> {
        let manifest = self.parse(environment, only)?;
        let facts = manifest.is_view().then(|| self.facts(&manifest, true));
        Experiment::plan_in(self.dir.clone(), manifest, facts)
    }

    /// What they know of the data of a manifest's runs; with `data_first` only where the data themselves are not here.
    fn facts(&self, manifest: &Manifest, data_first: bool) -> RecordedFacts {
        let mut facts = RecordedFacts::of(&Files::new(), self, manifest);
        facts.data_first |= data_first;
        facts
    }

    /// The experiment, or the cells of it that `only` picks, to be read: planned by what the results know of its data.
    ///
    /// # Errors
    /// A manifest that cannot be read any more.
    pub fn to_read(&self, environment: &[(String, String)], only: &[String]) -> Result<Experiment> {
        let manifest = self.parse(environment, only)?;
        let facts = self.facts(&manifest, false);
        Experiment::plan_in(self.dir.clone(), manifest, Some(facts))
    }
}

impl Experiment {
    /// A manifest's experiment, to be read: planned by what its results know of its data, else by the data that are here.
    ///
    /// # Errors
    /// Anything wrong with the manifest or with data that are here; results of a later layout.
    pub fn load_to_read(manifest: &Path, options: &Options, results: &Path) -> Result<Self> {
        let manifest = Manifest::load(manifest, options)?;
        let dir = ExperimentDir::at(results.join(manifest.results_name()));
        PlanRecord::check_layout(&Files::new(), &dir)?;
        let facts = Self::recorded_facts(&dir, &options.env, false);
        Self::plan_in(dir, manifest, facts)
    }

    /// What results know of their data. Those that cannot be read know nothing; data of which they know nothing are
    /// asked themselves.
    pub(super) fn recorded_facts(
        dir: &ExperimentDir,
        environment: &[(String, String)],
        data_first: bool,
    ) -> Option<RecordedFacts> {
        let recorded = FromResults::read(&Files::new(), dir).ok()?;
        let then = recorded.parse(environment, &[]).ok()?;
        Some(recorded.facts(&then, data_first))
    }

    /// Makes it about the run alone whose key begins with these digits.
    ///
    /// # Errors
    /// No such run, or several; class `Input`.
    pub fn only(&mut self, digits: &str) -> Result<()> {
        let key = self.key_of(digits)?;
        for (cell, run) in self.manifest.cells.iter_mut().zip(&self.plan.runs) {
            cell.selected &= run.key.run == key;
        }
        Ok(())
    }
}
