//! A checkpoint of upstream's as a manifest that trains it on.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::data::Position;
use crate::error::{Error, Result};
use crate::hash::Digest;
use crate::interop::upstream::{Described, Purpose, UpstreamCheckpoint, Weights, describe, token_bytes_rule};
use crate::manifest::{Manifest, Options};
use crate::model::specs::specs;
use crate::plan::run_config::DataConfig;
use crate::plan::{DataFacts, Facts, InitCheckpoint, plan};

use super::initial::check_precision;
use super::trained::{meta_of, tokenizer_of};

/// What is said of it beside its name.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions<'a> {
    /// Of which step; none is the last.
    pub step: Option<u64>,
    /// By which commit it was trained; none is told by its files.
    pub commit: Option<&'a str>,
    /// Where its tokenizer is; none is its base directory.
    pub tokenizer: Option<&'a Path>,
    /// The text to train on; none is its base directory's.
    pub shards: &'a [PathBuf],
    /// Whether its weights alone are taken over, and trained from step 0.
    pub weights_alone: bool,
    /// Fields that are set in the manifest, `path=value`.
    pub layers: Options,
}

/// A manifest, and what it does.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Its text.
    pub text: String,
    /// The name that it gives the experiment.
    pub name: String,
    /// Steps that are behind it.
    pub before: u64,
    /// Steps that it trains.
    pub steps: u64,
    /// Where the data go on; none from their start.
    pub data: Option<Position>,
    /// What is to be told.
    pub notes: Vec<String>,
}

/// What a plan is to know of the checkpoint; of the data nothing.
struct CheckpointFacts {
    found: InitCheckpoint,
}

impl Facts for CheckpointFacts {
    fn data(&self, _: &DataConfig) -> Result<DataFacts> {
        Ok(DataFacts::default())
    }

    fn init_file(&self, path: &str) -> Result<Digest> {
        Err(Error::internal("a checkpoint is no file of weights").file(path))
    }

    fn init_checkpoint(&self, _: &str, _: bool) -> Result<InitCheckpoint> {
        Ok(self.found)
    }
}

/// Puts the manifest together, and checks that everything it takes over is whole and fits.
///
/// # Errors
/// Files that are missing, damaged or not of one model, a recipe that cannot be told; class `Input`.
pub fn import(path: &Path, options: &ImportOptions<'_>) -> Result<Imported> {
    let resumes = !options.weights_alone;
    let checkpoint = UpstreamCheckpoint::find(path, options.step)?;
    let meta = meta_of(&checkpoint)?;
    let weights = Weights::open(&checkpoint.model())?;
    let (directory, tokenizer) = tokenizer_of(&checkpoint, &meta, options.tokenizer)?;
    let beside = checkpoint.shards();
    let shards = if options.shards.is_empty() { beside.as_slice() } else { options.shards };
    if shards.is_empty() {
        return Err(Error::input("there are no shards beside this checkpoint")
            .file(&checkpoint.dir)
            .expected("the text that it was trained on")
            .help("name it with --shards"));
    }
    let described = Described {
        commit: options.commit,
        sets: &options.layers.sets,
        tokenizer: &directory,
        token_bytes: token_bytes_rule(&directory, &tokenizer)?,
        shards,
        purpose: Purpose::Train,
    };
    let (mut table, told) = describe(&checkpoint, &meta, &weights, &described)?;
    let model = std::path::absolute(checkpoint.model()).unwrap_or_else(|_| checkpoint.model());
    let kind = if resumes { "resume" } else { "checkpoint" };
    let mut init = Table::new();
    init.insert(kind.to_owned(), Value::String(model.display().to_string()));
    if let Some(Value::Table(section)) = table.get_mut("model") {
        section.insert("init".to_owned(), Value::Table(init));
    }
    let described = format!("# {}: {}.\n", checkpoint.label(), told.how);
    // What was set is written down; where it excludes what was there, that goes.
    let set = Manifest::parse(&checkpoint.meta(), &table.to_string(), &options.layers)?;
    lay_over(&mut table, &set, &options.layers.sets)?;
    let text = format!("{described}{table}");
    let manifest = Manifest::parse(&checkpoint.meta(), &text, &Options::default())?;
    let data = if resumes { checkpoint.position()? } else { None };
    let found = InitCheckpoint { sha256: checkpoint.digest(resumes)?, step: checkpoint.step, data };
    let planned = plan(&manifest, &CheckpointFacts { found })?;
    let run = planned.runs.first().ok_or_else(|| Error::internal("a manifest without runs"))?;
    let specs = specs(&run.config.model);
    weights.check(&specs)?;
    if resumes {
        check_precision(&weights, run.config.backend.precision)
            .map_err(|error| error.file(checkpoint.model()))?;
    }
    let mut notes = vec![format!("{}: {}", checkpoint.label(), told.how)];
    notes.extend(told.fields.iter().map(|(path, value)| format!("its tensors say {path} = {value}")));
    if resumes {
        // Whether it is whole and fits, before anybody trains with it.
        drop(checkpoint.optimizer_state(&specs)?);
        if data.is_none() {
            notes.push("its metadata do not say where its data stand: they begin anew".to_owned());
        }
    }
    Ok(Imported {
        text,
        name: manifest.head.name.clone(),
        before: run.config.schedule.steps_before,
        steps: run.config.schedule.num_iterations,
        data,
        notes,
    })
}

/// Writes what `--set` says into the table: the values as the manifest settled them.
///
/// # Errors
/// A field that is no cell's; class `Input`.
fn lay_over(table: &mut Table, manifest: &Manifest, sets: &[String]) -> Result<()> {
    let settled = manifest.cells.first().and_then(|cell| Table::try_from(&cell.settings).ok());
    for set in sets {
        let Some((path, _)) = set.split_once('=') else { continue };
        let path: Vec<&str> = path.trim().split('.').collect();
        let Some((section, rest)) = path.split_first() else { continue };
        // A section that is a choice has one key.
        if *section == "budget" {
            table.remove(*section);
        }
        let mut value = settled.as_ref().and_then(|settled| settled.get(*section));
        for name in rest {
            value = value.and_then(|value| value.get(*name));
        }
        if *section == "name" {
            table.insert("name".to_owned(), Value::String(manifest.head.name.clone()));
            continue;
        }
        let Some(value) = value.cloned() else {
            let error = Error::input(format!("{} is not set here", path.join(".")));
            return Err(error.expected("a field of the run itself; write others into the manifest"));
        };
        let mut inner = &mut *table;
        for name in path.iter().take(path.len() - 1) {
            let slot = inner.entry(*name).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(next) = slot else {
                return Err(Error::internal(format!("{name} is no section")));
            };
            inner = next;
        }
        if let Some(last) = path.last() {
            inner.insert((*last).to_owned(), value);
        }
    }
    Ok(())
}
