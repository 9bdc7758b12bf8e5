//! Cell by cell: recipe + overrides + data facts -> complete runs, their keys and the tree of shared prefixes.

mod arms;
mod batch;
mod complete;
mod data_use;
mod details;
pub mod evaluation;
mod groups;
pub mod key;
pub mod limits;
pub mod looks;
pub mod prefix;
pub mod render;
pub mod run_config;
pub mod targets;
pub mod time;
mod warnings;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

pub use self::arms::Arm;
pub(crate) use self::complete::data_config;
pub use self::data_use::{DataUse, SplitUse};
use self::evaluation::Evaluation;
use self::key::{KeyChain, Links, RunKey};
use self::looks::Looks;
use self::prefix::PrefixForest;
use self::run_config::{DataConfig, RunConfig};
use self::targets::Target;
use crate::data::{Position, Splits};
use crate::error::{Error, Result};
use crate::hash::Digest;
use crate::manifest::Manifest;
use crate::upstream::ParamCounts;

/// What only the data can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DataFacts {
    /// Tokens the tokenizer knows; none while it is not here.
    pub vocab_size: Option<usize>,
    /// Hash over the contents of shards and tokenizer; none while they are not here.
    pub content: Option<Digest>,
    /// What its splits are.
    pub splits: Option<Splits>,
}

/// A checkpoint that a run starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitCheckpoint {
    /// Digest of the files that are taken over.
    pub sha256: Digest,
    /// Steps it was trained for.
    pub step: u64,
    /// Where its data go on.
    pub data: Option<Position>,
}

/// Where a plan learns what is not in the manifest.
pub trait Facts {
    /// Facts of a data set; asked once for each distinct one. An error is for data that are there and bad, absence
    /// is no error.
    fn data(&self, data: &DataConfig) -> Result<DataFacts>;

    /// How often a run reads its data; none while they are not here.
    ///
    /// # Errors
    /// Data that cannot be read.
    fn data_use(&self, _: &RunConfig) -> Result<Option<DataUse>> {
        Ok(None)
    }

    /// Hash of what decides a CORE metric beside the model; none while the bundle is not here.
    ///
    /// # Errors
    /// A bundle that is bad; class `Input`.
    fn core_bundle(&self, _path: &str, _max_per_task: Option<u64>) -> Result<Option<Digest>> {
        Ok(None)
    }

    /// SHA-256 of a file of initial weights.
    fn init_file(&self, path: &str) -> Result<Digest>;

    /// What is to be known of a checkpoint that a run starts from: of its weights alone, or where it is trained on.
    ///
    /// # Errors
    /// A checkpoint that is not there or cannot be read.
    fn init_checkpoint(&self, path: &str, _resumes: bool) -> Result<InitCheckpoint> {
        Err(Error::internal("nobody reads checkpoints here").file(path))
    }
}

/// Facts of a machine without the data.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoData;

impl Facts for NoData {
    fn data(&self, _: &DataConfig) -> Result<DataFacts> {
        Ok(DataFacts::default())
    }

    fn init_file(&self, path: &str) -> Result<Digest> {
        let bytes = std::fs::read(path)
            .map_err(|cause| Error::input("cannot read the initial weights").file(path).because(cause))?;
        Ok(Digest::of(&bytes))
    }
}

/// Everything that is going to happen, before any of it does.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The experiment's name.
    pub name: String,
    /// Its directory under `results/`.
    pub results_name: String,
    /// What it asks.
    pub question: Option<String>,
    /// The manifest it was made from.
    pub manifest: PathBuf,
    /// Threads of the cpu backend; none is all cores.
    pub threads: Option<usize>,
    /// The arms: cells without their seeds.
    pub arms: Vec<Arm>,
    /// The runs, in the order of the cells.
    pub runs: Vec<PlannedRun>,
    /// Which runs share which steps.
    pub prefixes: PrefixForest,
    /// After how many seeds quality is judged before all are trained; none where it is judged once.
    pub looks: Option<Looks>,
    /// Numbers that arms are held against.
    pub targets: Vec<Target>,
    /// What is legal and most likely not meant, a sentence each.
    pub warnings: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedRun {
    /// Its arm, by index.
    pub arm: usize,
    /// What the matrix sets in its cell.
    pub cell: BTreeMap<String, toml::Value>,
    /// The run itself.
    pub config: RunConfig,
    /// Sizes that follow from it.
    pub sizes: RunSizes,
    /// Its key; pending while the data's contents are unknown.
    pub key: RunKey,
    /// What of the chain behind the key is kept.
    #[serde(skip)]
    pub links: Links,
    /// How much text it has and how often it reads it; none while the data are not here.
    pub data: Option<DataUse>,
}

/// Sizes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RunSizes {
    /// Parameters by upstream's groups.
    pub params: ParamCounts,
    /// Forward and backward, by upstream's formula.
    pub flops_per_token: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// FLOPs in all.
    pub flops: f64,
}

/// Plans a manifest. Computes sizes and keys, touches no data itself.
pub fn plan(manifest: &Manifest, facts: &dyn Facts) -> Result<Plan> {
    let mut known: Vec<(DataConfig, DataFacts)> = Vec::new();
    let arms = arms::arms(manifest)?;
    let mut arm_of = vec![0; manifest.cells.len()];
    for (arm, run) in arms.iter().enumerate().flat_map(|(arm, of)| of.runs.iter().map(move |&run| (arm, run)))
    {
        arm_of.get_mut(run).into_iter().for_each(|slot| *slot = arm);
    }
    let mut complete = Vec::with_capacity(manifest.cells.len());
    for cell in &manifest.cells {
        let data = complete::data_config(&cell.settings);
        let data_facts = if let Some((_, facts)) = known.iter().find(|(other, _)| *other == data) {
            *facts
        } else {
            let found = facts.data(&data)?;
            known.push((data.clone(), found));
            found
        };
        let (config, sizes) = complete::complete(cell, data, data_facts, facts)?;
        let data = facts.data_use(&config).map_err(|error| match error.key_path() {
            Some("run.ranks") => cell.locate("run.ranks", error),
            _ => error,
        })?;
        complete.push((config, sizes, data));
    }
    let chains: Vec<KeyChain<'_>> = complete.par_iter().map(|(config, ..)| KeyChain::new(config)).collect();
    let prefixes = PrefixForest::of_chains(&chains);
    let links = prefixes.links(&chains);
    let keys: Vec<RunKey> =
        chains.iter().zip(&links).map(|(chain, links)| chain.run_key(&links.last())).collect();
    let each = manifest.cells.iter().zip(arm_of).zip(complete).zip(keys.into_iter().zip(links));
    let runs: Vec<PlannedRun> = each
        .map(|(((cell, arm), (config, sizes, data)), (key, links))| PlannedRun {
            arm,
            cell: cell.overrides.clone(),
            config,
            sizes,
            key,
            links,
            data,
        })
        .collect();
    check_evaluations(manifest, &arms, &runs)?;
    check_across(manifest)?;
    targets::check(manifest)?;
    let targets = targets::targets(manifest)?;
    let looks = looks::looks(manifest, &arms, &runs)?;
    let warnings = warnings::warnings(&manifest.cells, &arms, &runs);
    Ok(Plan {
        name: manifest.head.name.clone(),
        results_name: manifest.results_name(),
        question: manifest.head.question.clone(),
        manifest: manifest.file.clone(),
        threads: manifest.cells.first().and_then(|cell| cell.settings.run.threads),
        arms,
        runs,
        prefixes,
        looks,
        targets,
        warnings,
    })
}

/// What verdicts are to compare across must be something by which evaluations can differ.
fn check_across(manifest: &Manifest) -> Result<()> {
    let across = manifest.head.scorecard.across.as_slice();
    let Some(unknown) = across.iter().find(|field| !evaluation::FIELDS.contains(&field.as_str())) else {
        return Ok(());
    };
    let error = Error::input(format!("no evaluation differs by `{unknown}`"))
        .expected(format!("some of {}", evaluation::FIELDS.join(", ")));
    Err(manifest.locate_head("scorecard.across", error))
}

/// Cells that train alike are one run with one result, so they must be evaluated alike: keys do not cover evaluation.
fn check_evaluations(manifest: &Manifest, arms: &[Arm], runs: &[PlannedRun]) -> Result<()> {
    let mut first: BTreeMap<Digest, &PlannedRun> = BTreeMap::new();
    for (index, run) in runs.iter().enumerate() {
        let other = *first.entry(run.key.run).or_insert(run);
        if Evaluation::of(&run.config).digest() == Evaluation::of(&other.config).digest() {
            continue;
        }
        let label = |run: &PlannedRun| arms.get(run.arm).map_or("base", |arm| &arm.label);
        let (this, that) = (label(run), label(other));
        let what = format!("`{that}` and `{this}` train alike and differ in their evaluation alone");
        let error = Error::input(what).expected("one evaluation for runs that train alike").help(
            "give all cells of the manifest one eval.tokens and one data.token_bytes; --set or a manifest of its own \
             evaluates otherwise",
        );
        return Err(match manifest.cells.get(index) {
            Some(cell) => cell.locate("eval.tokens", error),
            None => error.file(&manifest.file),
        });
    }
    Ok(())
}
