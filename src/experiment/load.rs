//! An experiment from its manifest: planned against the data that are here, its batch size searched for.

use std::collections::BTreeMap;
use std::path::Path;

use super::Experiment;
use super::missing;
use super::recorded::{RecordedFacts, RecordedFirst};
use crate::data::{Cache, FrozenShards};
use crate::error::Result;
use crate::files::Files;
use crate::manifest::{Manifest, Options};
use crate::plan::{Plan, plan};
use crate::record::ExperimentDir;
use crate::run::batch_search;
use crate::run::library::Library;
use crate::run::progress::Display;

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
        Self::of_frozen(manifest, results, FrozenShards::default())
    }

    /// The same, of which these shards were frozen: what is what it was is not read to be hashed.
    ///
    /// # Errors
    /// As [`Self::load`]; shards that are others.
    pub fn of_frozen(manifest: Manifest, results: &Path, shards: FrozenShards) -> Result<Self> {
        let dir = ExperimentDir::at(results.join(manifest.results_name()));
        // Cells that the command is not about need not have their data here.
        let environment: Vec<_> = manifest.env.clone().into_iter().collect();
        let facts = if manifest.is_view() { Self::recorded_facts(&dir, &environment, true) } else { None };
        Self::plan_with(Cache::from_env()?.with_frozen(shards), dir, manifest, facts)
    }

    pub(super) fn plan_in(
        dir: ExperimentDir,
        manifest: Manifest,
        facts: Option<RecordedFacts>,
    ) -> Result<Self> {
        Self::plan_with(Cache::from_env()?, dir, manifest, facts)
    }

    fn plan_with(
        cache: Cache,
        dir: ExperimentDir,
        manifest: Manifest,
        facts: Option<RecordedFacts>,
    ) -> Result<Self> {
        let library = Library::new(cache);
        let plan = planned(&manifest, &library, facts.as_ref())?;
        let files = Files::from_env()?;
        let mut experiment = Self {
            manifest,
            plan,
            dir,
            library,
            files,
            facts,
            past_looks: false,
            expected_classes: BTreeMap::new(),
            search: None,
        };
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
