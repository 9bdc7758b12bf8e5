//! The engine of a run: its model kind on its backend, with its initial weights.

use std::path::Path;

use crate::backend::cpu::CpuBackend;
use crate::control_word;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::Digest;
use crate::model::bigram::Bigram;
use crate::model::config::ModelConfig;
use crate::model::gpt::Gpt;
use crate::model::init::InitialValues;
use crate::model::microgpt::Microgpt;
use crate::model::network::Network;
use crate::model::param::ParamSpec;
use crate::ops::Backend;
use crate::optim::config::OptimizerConfig;
use crate::plan::run_config::{BackendChoice, BackendKind, InitSource, RunConfig};
use crate::tensors::{self, Values};
use crate::train::engine::{Engine, NamedTensor, in_order};
use crate::train::ops_engine::{OpsEngine, op_error};
use crate::train::scalar_engine::{ENVIRONMENT_CLASS as SCALAR_CLASS, ScalarEngine};

/// Makes the engine of a run; `threads` never changes its results on the cpu backend; on
/// the tch backend's CPU device it is part of the environment class.
///
/// # Errors
/// A backend or device that is not there; memory that cannot be had; an initial-weights file that does not fit.
pub fn engine(config: &RunConfig, threads: usize) -> Result<Box<dyn Engine>> {
    engine_from(&config.model, &config.optimizer, &config.backend, threads, |specs| values(specs, config))
}

/// Reads a run's initial-weights file, if it has one, to see whether it fits: before anything is trained or written.
///
/// # Errors
/// A file that is not there, is not what it was, or has other names or shapes; class `Input`.
pub fn check_initial_weights(config: &RunConfig) -> Result<()> {
    if config.init == InitSource::Torch {
        return Ok(());
    }
    match &config.model {
        ModelConfig::Gpt(model) => values(Gpt::new(model.clone())?.specs(), config),
        ModelConfig::Microgpt(model) => values(Microgpt::new(model.clone())?.specs(), config),
        ModelConfig::Bigram(model) => values(Bigram::new(model.clone())?.specs(), config),
    }
    .map(drop)
}

/// Makes an engine whose weights start at what `values` says for the model's parameters.
///
/// # Errors
/// A backend or device that is not there; memory that cannot be had; values that do not fit.
pub fn engine_from(
    model: &ModelConfig,
    optimizer: &OptimizerConfig,
    backend: &BackendChoice,
    threads: usize,
    values: impl FnOnce(&[ParamSpec]) -> Result<InitialValues>,
) -> Result<Box<dyn Engine>> {
    // Initial values are drawn here, partly in this thread.
    control_word::set();
    match model {
        ModelConfig::Gpt(model) => on_backend(Gpt::new(model.clone())?, optimizer, backend, threads, values),
        ModelConfig::Microgpt(model) => {
            on_backend(Microgpt::new(model.clone())?, optimizer, backend, threads, values)
        }
        ModelConfig::Bigram(model) => {
            on_backend(Bigram::new(model.clone())?, optimizer, backend, threads, values)
        }
    }
}

/// The engine of a run on a backend that is there already.
///
/// # Errors
/// As [`engine`].
pub fn engine_on<B: Backend + 'static>(config: &RunConfig, ops: B) -> Result<Box<dyn Engine>> {
    match &config.model {
        ModelConfig::Gpt(model) => with_ops(Gpt::new(model.clone())?, config, ops),
        ModelConfig::Microgpt(model) => with_ops(Microgpt::new(model.clone())?, config, ops),
        ModelConfig::Bigram(model) => with_ops(Bigram::new(model.clone())?, config, ops),
    }
}

fn with_ops<M: Network + 'static, B: Backend + 'static>(
    network: M,
    config: &RunConfig,
    ops: B,
) -> Result<Box<dyn Engine>> {
    let values = values(network.specs(), config)?;
    Ok(Box::new(OpsEngine::new(network, ops, &config.optimizer, values)?))
}

fn on_backend<M: Network + 'static>(
    network: M,
    optimizer: &OptimizerConfig,
    backend: &BackendChoice,
    threads: usize,
    values: impl FnOnce(&[ParamSpec]) -> Result<InitialValues>,
) -> Result<Box<dyn Engine>> {
    let values = values(network.specs())?;
    match backend.kind {
        BackendKind::Cpu => {
            let ops = CpuBackend::new(threads).map_err(op_error)?;
            Ok(Box::new(OpsEngine::new(network, ops, optimizer, values)?))
        }
        BackendKind::Scalar => {
            let all = values.all(network.specs());
            Ok(Box::new(ScalarEngine::new(network, optimizer, &all)?))
        }
        #[cfg(feature = "tch")]
        BackendKind::Tch => {
            let ops = torch(backend, threads)?;
            Ok(Box::new(OpsEngine::new(network, ops, optimizer, values)?))
        }
        #[cfg(not(feature = "tch"))]
        BackendKind::Tch => Err(crate::backend::torch::device::DeviceError::NotBuilt.into()),
    }
}

/// The environment class of a backend as it is here; on the tch backend's CPU device `threads` are part of it.
///
/// # Errors
/// A backend or device that is not there.
pub fn environment_class(backend: &BackendChoice, threads: usize) -> Result<String> {
    match backend.kind {
        BackendKind::Cpu => Ok(crate::backend::cpu::environment_class()),
        BackendKind::Scalar => Ok(SCALAR_CLASS.to_owned()),
        #[cfg(feature = "tch")]
        BackendKind::Tch => Ok(torch(backend, threads)?.environment_class()),
        #[cfg(not(feature = "tch"))]
        BackendKind::Tch => {
            let _ = threads;
            Err(crate::backend::torch::device::DeviceError::NotBuilt.into())
        }
    }
}

/// The tch backend as a run chooses it.
///
/// # Errors
/// A device, precision or libtorch that is not here.
#[cfg(feature = "tch")]
pub fn torch(backend: &BackendChoice, threads: usize) -> Result<crate::backend::torch::TorchBackend> {
    let device = backend.device.parse::<crate::backend::torch::device::TorchDevice>()?;
    Ok(crate::backend::torch::TorchBackend::new(device, backend.precision, threads)?)
}

fn values(specs: &[ParamSpec], config: &RunConfig) -> Result<InitialValues> {
    match &config.init {
        InitSource::Torch => Ok(InitialValues::Drawn { seed: config.seed }),
        InitSource::File { path, sha256 } => {
            let path = Path::new(path);
            let bytes = Files::new().read(path)?;
            let found = Digest::of(&bytes);
            if found != *sha256 {
                return Err(Error::input(format!("the initial weights have SHA-256 {found}"))
                    .file(path)
                    .key("model.init")
                    .expected(sha256.to_string()));
            }
            let found = tensors::read_safetensors(&bytes).map_err(|what| {
                Error::input(format!("the initial weights cannot be read: {what}")).file(path)
            })?;
            let single = |tensor: tensors::NamedTensor<'static>| {
                let (name, (found, _)) = (tensor.name, tensor.values.dtype());
                let Values::F32(values) = tensor.values else {
                    return Err(Error::input(format!("the parameter `{name}` holds {found}"))
                        .file(path)
                        .key("model.init")
                        .expected("F32")
                        .help("save the weights in single precision"));
                };
                Ok(NamedTensor { name, shape: tensor.shape, values })
            };
            let tensors = found.into_iter().map(single).collect::<Result<Vec<_>>>()?;
            let ordered = in_order(specs, &tensors).map_err(|error| error.file(path))?;
            Ok(InitialValues::Given(ordered.into_iter().map(|tensor| tensor.values.to_vec()).collect()))
        }
    }
}
