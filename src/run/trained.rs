//! A model with trained weights, to be evaluated and sampled from: of a run of nanorun's or of upstream's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::interop::upstream::{
    Described, Meta, Purpose, UpstreamCheckpoint, Weights, describe, token_bytes_rule,
};
use crate::manifest::{Manifest, Options};
use crate::model::specs::specs;
use crate::plan::run_config::{BackendChoice, RunConfig};
use crate::plan::{NoData, plan};
use crate::train::engine::Engine;

use super::engine::inference_engine;
use super::room::{Memory, Use, Wanted};

/// A model with trained weights.
pub struct Trained {
    /// What it is called.
    pub label: String,
    /// Steps its weights were trained for.
    pub step: u64,
    /// Steps it is trained for in all, where that is known.
    pub steps: Option<u64>,
    /// The run that it is of.
    pub config: RunConfig,
    /// The model with those weights.
    pub engine: Box<dyn Engine>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// What is to be told of it.
    pub notes: Vec<String>,
}

/// What is said of a checkpoint of upstream's beside its name.
#[derive(Debug, Clone, Default)]
pub struct ForeignOptions<'a> {
    /// Of which step; none is the last.
    pub step: Option<u64>,
    /// By which commit it was made; none is told by its tensors.
    pub commit: Option<&'a str>,
    /// Where its tokenizer is; none is the base directory that it lies in.
    pub tokenizer: Option<&'a Path>,
    /// Whether it is described as the run that trained it, with all its flags; else as far as it computes.
    pub as_trained: bool,
    /// What lies over the manifest that it is described by.
    pub layers: Options,
    /// What computes instead of the cpu backend.
    pub backend: Option<BackendChoice>,
}

/// What a model of this run is to be used for.
pub type Wants<'w> = &'w dyn Fn(&RunConfig) -> Use;

/// A checkpoint of upstream's, its weights not yet read.
pub struct Foreign {
    /// Which.
    pub checkpoint: UpstreamCheckpoint,
    /// What upstream says of it.
    pub meta: Meta,
    /// Its parameters, which fit the configuration.
    pub weights: Weights,
    /// The run that it is of.
    pub config: RunConfig,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What is to be told of it.
    pub notes: Vec<String>,
    /// Whether it is refused where it will not fit.
    pub preflight: bool,
}

/// A checkpoint of upstream's with its weights, for what `wants` says.
///
/// # Errors
/// As [`open_foreign`]. Memory or a backend that is not there.
pub fn foreign(
    path: &Path,
    options: &ForeignOptions<'_>,
    threads: usize,
    wants: Wants<'_>,
) -> Result<Trained> {
    let Foreign { checkpoint, mut weights, config, tokenizer, notes, preflight, .. } =
        open_foreign(path, options)?;
    if preflight {
        // Read one at a time.
        Wanted { config: &config, what: wants(&config), threads, copies: 0 }.fits(&Memory::here())?;
    }
    let engine = inference_engine(&config.model, &config.backend, threads, &mut |spec| weights.values(spec))?;
    Ok(Trained {
        label: checkpoint.label(),
        step: checkpoint.step,
        steps: None,
        config,
        engine,
        tokenizer: Arc::new(tokenizer),
        notes,
    })
}

/// Opens a checkpoint of upstream's and tells what run it is of.
///
/// # Errors
/// Files that are missing, damaged or not of one model, a recipe that cannot be told, a tokenizer that does not fit;
/// class `Input`.
pub fn open_foreign(path: &Path, options: &ForeignOptions<'_>) -> Result<Foreign> {
    let checkpoint = UpstreamCheckpoint::find(path, options.step)?;
    let meta = meta_of(&checkpoint)?;
    let weights = Weights::open(&checkpoint.model())?;
    let (directory, tokenizer) = tokenizer_of(&checkpoint, &meta, options.tokenizer)?;
    let shards = checkpoint.shards();
    let described = Described {
        commit: options.commit,
        sets: &options.layers.sets,
        tokenizer: &directory,
        token_bytes: token_bytes_rule(&directory, &tokenizer)?,
        shards: shards.as_slice(),
        purpose: if options.as_trained { Purpose::Train } else { Purpose::Evaluate },
    };
    let (table, told) = describe(&checkpoint, &meta, &weights, &described)?;
    let manifest = Manifest::parse(&checkpoint.meta(), &table.to_string(), &options.layers)?;
    let mut planned = plan(&manifest, &NoData)?;
    let mut config = match (planned.runs.pop(), planned.runs.is_empty()) {
        (Some(run), true) => run.config,
        _ => return Err(Error::internal("a checkpoint is of one run").file(checkpoint.meta())),
    };
    if let Some(backend) = &options.backend {
        config.backend = backend.clone();
    }
    if manifest.cells.iter().all(|cell| !cell.is_written("data.shards")) {
        // Text that comes with nanorun is not what it was evaluated on.
        config.data.shards.clear();
    }
    let specs = specs(&config.model);
    weights.check(&specs)?;
    let mut notes = vec![format!("{}: {}", checkpoint.label(), told.how)];
    for (path, value) in &told.fields {
        notes.push(format!("its tensors say {path} = {value}"));
    }
    let ranks = checkpoint.optimizer().len();
    if ranks > 1 {
        notes.push(format!(
            "it was trained by {ranks} ranks, run.ranks = {ranks}: their rows are evaluated, as upstream does it"
        ));
    }
    let preflight = manifest.cells.iter().all(|cell| cell.settings.run.preflight);
    Ok(Foreign { checkpoint, meta, weights, config, tokenizer, notes, preflight })
}

/// The metadata of a checkpoint, which must be of its step.
pub(super) fn meta_of(checkpoint: &UpstreamCheckpoint) -> Result<Meta> {
    let meta = Meta::read(&checkpoint.meta())?;
    if meta.step == checkpoint.step {
        return Ok(meta);
    }
    let what = format!("the metadata are of step {}, not {}", meta.step, checkpoint.step);
    Err(Error::input(what).file(checkpoint.meta()))
}

/// The tokenizer of a checkpoint, and its directory: `given`, else that of the base directory.
pub(super) fn tokenizer_of(
    checkpoint: &UpstreamCheckpoint,
    meta: &Meta,
    given: Option<&Path>,
) -> Result<(PathBuf, Tokenizer)> {
    let directory = given.map(Path::to_owned).or_else(|| checkpoint.tokenizer()).ok_or_else(|| {
        Error::input("there is no tokenizer beside this checkpoint")
            .file(&checkpoint.dir)
            .expected("tokenizer/tokenizer.pkl in the base directory")
            .help("name its directory with --tokenizer DIR")
    })?;
    let tokenizer = Tokenizer::load(&directory)?;
    let (knows, has) = (tokenizer.vocab_size(), meta.model_config.vocab_size);
    if knows == has {
        return Ok((directory, tokenizer));
    }
    Err(Error::input(format!("the tokenizer knows {knows} tokens, the model {has}"))
        .file(&directory)
        .expected(format!("the tokenizer that {} was trained with", checkpoint.label()))
        .help("name its directory with --tokenizer DIR"))
}
