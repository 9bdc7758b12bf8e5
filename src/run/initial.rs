//! The weights that a run starts with, and the optimizer's state where it takes one over.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::{Canonical, Digest};
use crate::interop::upstream::{TOKEN_TABLE, UpstreamCheckpoint, Weights};
use crate::model::init::InitialValues;
use crate::model::param::ParamSpec;
use crate::plan::InitCheckpoint;
use crate::plan::run_config::{BackendKind, InitSource, RunConfig};
use crate::precision::Precision;
use crate::tensors::{self, Values};
use crate::text::word;
use crate::train::checkpoint::Checkpoint;
use crate::train::engine::{Engine, NamedTensor, in_order};
use crate::train::named_tensors::plain;

/// What is to be known of a checkpoint that a run starts from.
///
/// # Errors
/// A path that names none, files that cannot be read; class `Input`.
pub(super) fn facts(path: &str, resumes: bool) -> Result<InitCheckpoint> {
    let place = Path::new(path);
    if UpstreamCheckpoint::is_named_by(place) {
        let checkpoint = UpstreamCheckpoint::find(place, None)?;
        let data = if resumes { checkpoint.position()? } else { None };
        return Ok(InitCheckpoint { sha256: checkpoint.digest(resumes)?, step: checkpoint.step, data });
    }
    if resumes {
        return Err(Error::input("there is no checkpoint of upstream's here")
            .file(place)
            .expected("a run's directory of upstream's, or model_NNNNNN.pt in it")
            .help("a run of nanorun's is carried on by `nanorun resume`; its weights start another as `checkpoint`"));
    }
    let own = Checkpoint::read(&Files::new(), place)?;
    Ok(InitCheckpoint { sha256: own_digest(&own), step: own.state.step, data: None })
}

/// Digest of the weights of a checkpoint of nanorun's.
fn own_digest(checkpoint: &Checkpoint<'_>) -> Digest {
    let mut canonical = Canonical::new("nanorun checkpoint weights");
    for tensor in &checkpoint.params {
        canonical.str("name", &tensor.name);
        for size in &tensor.shape {
            canonical.u64("size", *size as u64);
        }
        for bits in tensor.as_f32().unwrap_or_default().iter().map(|value| value.to_bits()) {
            canonical.u64("bits", u64::from(bits));
        }
    }
    canonical.finish()
}

/// The values that a run's parameters start at.
///
/// # Errors
/// A file that is not there, is not what it was when the run was planned, or has other names or shapes; class `Input`.
pub(super) fn values(specs: &[ParamSpec], config: &RunConfig) -> Result<InitialValues> {
    let precision = config.backend.precision;
    match &config.init {
        InitSource::Torch => Ok(InitialValues::Drawn { seed: config.seed }),
        InitSource::File { path, sha256 } => from_file(Path::new(path), *sha256, specs),
        InitSource::Checkpoint { path, sha256 } => from_checkpoint(path, false, *sha256, specs, precision),
        InitSource::Resume { path, sha256, .. } => from_checkpoint(path, true, *sha256, specs, precision),
    }
}

/// Takes over the optimizer's state, where the run does.
///
/// # Errors
/// State that is not of this model and step, or a backend that cannot take it; class `Input`.
pub(super) fn take_over(engine: &mut dyn Engine, config: &RunConfig) -> Result<()> {
    let InitSource::Resume { path, step, .. } = &config.init else { return Ok(()) };
    if config.backend.kind == BackendKind::Scalar {
        return Err(Error::input("the scalar backend takes over no optimizer of upstream's")
            .key("run.backend")
            .expected("\"cpu\" or \"tch\"")
            .help("take over the weights alone: model.init = { checkpoint = \"...\" }"));
    }
    let checkpoint = UpstreamCheckpoint::find(Path::new(path), Some(*step))?;
    let state = checkpoint.optimizer_state(engine.specs())?;
    engine.take_up_state(*step, &state)
}

fn changed(path: &Path, found: Digest, expected: Digest) -> Error {
    Error::input(format!("the initial weights have SHA-256 {found}"))
        .file(path)
        .key("model.init")
        .expected(expected.to_string())
}

fn from_file(path: &Path, sha256: Digest, specs: &[ParamSpec]) -> Result<InitialValues> {
    let bytes = Files::new().read(path)?;
    let found = Digest::of(&bytes);
    if found != sha256 {
        return Err(changed(path, found, sha256));
    }
    let found = tensors::read_safetensors(&bytes)
        .map_err(|what| Error::input(format!("the initial weights cannot be read: {what}")).file(path))?;
    let single = |tensor: tensors::NamedTensor<'static>| {
        let (name, (found, _)) = (tensor.name, tensor.values.dtype());
        let Values::F32(values) = tensor.values else {
            return Err(Error::input(format!("the parameter `{name}` holds {found}"))
                .file(path)
                .key("model.init")
                .expected("F32")
                .help("save the weights in single precision"));
        };
        Ok(NamedTensor { name, shape: tensor.shape, values: values.into() })
    };
    let tensors = found.into_iter().map(single).collect::<Result<Vec<_>>>()?;
    ordered(specs, &tensors).map_err(|error| error.file(path))
}

/// Whether a training can go on in the precision in which it began: its tables, and their optimizer's state, are stored in
/// that.
///
/// # Errors
/// Another precision, with the way to start from the weights alone; class `Input`.
pub(super) fn check_precision(weights: &Weights, precision: Precision) -> Result<()> {
    let theirs = if weights.is_bf16(TOKEN_TABLE) { Precision::Bf16 } else { Precision::F32 };
    if precision == theirs {
        return Ok(());
    }
    let (theirs, ours) = (word(&theirs), word(&precision));
    Err(Error::input(format!("the checkpoint's training computes in {theirs}, the run in {ours}"))
        .key("run.precision")
        .expected(format!("\"{theirs}\""))
        .help(
            "its weights alone start a run in another precision: model.init = { checkpoint = \"...\" } (`nanorun import \
             --weights`)",
        ))
}

fn from_checkpoint(
    path: &str,
    resumes: bool,
    sha256: Digest,
    specs: &[ParamSpec],
    precision: Precision,
) -> Result<InitialValues> {
    let place = Path::new(path);
    if UpstreamCheckpoint::is_named_by(place) {
        let checkpoint = UpstreamCheckpoint::find(place, None)?;
        let found = checkpoint.digest(resumes)?;
        if found != sha256 {
            return Err(changed(place, found, sha256));
        }
        let mut weights = Weights::open(&checkpoint.model())?;
        weights.check(specs)?;
        if resumes {
            check_precision(&weights, precision).map_err(|error| error.file(place))?;
        }
        return Ok(InitialValues::Read(Box::new(move |spec| weights.values(spec))));
    }
    let own = Checkpoint::read(&Files::new(), place)?;
    let found = own_digest(&own);
    if found != sha256 {
        return Err(changed(place, found, sha256));
    }
    in_order(specs, &plain(&own.params)?).map_err(|error| error.file(place))?;
    // Let go of one by one, as the engine takes them; its optimizer's state at once.
    let mut params = own.params;
    Ok(InitialValues::Read(Box::new(move |spec| {
        let at = params.iter().position(|tensor| tensor.name == spec.name);
        match at.map(|at| params.swap_remove(at).values) {
            Some(Values::F32(values)) => Ok(values.into_owned()),
            _ => Err(Error::internal(format!("the weights of `{}` are read twice", spec.name))),
        }
    })))
}

fn ordered(specs: &[ParamSpec], tensors: &[NamedTensor<'_>]) -> Result<InitialValues> {
    let ordered = in_order(specs, tensors)?;
    Ok(InitialValues::Given(ordered.into_iter().map(|tensor| tensor.values.wide().into_owned()).collect()))
}
