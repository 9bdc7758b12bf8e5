//! The engine of a run: its model kind on its backend, with its initial weights.

use super::initial::{take_over, values};
use crate::backend::cpu::{Bf16Backend, CpuBackend};
use crate::control_word;
use crate::error::Result;
use crate::model::bigram::Bigram;
use crate::model::config::ModelConfig;
use crate::model::gpt::Gpt;
use crate::model::init::InitialValues;
use crate::model::microgpt::Microgpt;
use crate::model::network::Network;
use crate::model::param::ParamSpec;
use crate::ops::Backend;
use crate::optim::config::{GroupConfig, OptimizerConfig, SgdConfig};
use crate::plan::run_config::{BackendChoice, BackendKind, InitSource, RunConfig};
use crate::precision::Precision;
use crate::train::engine::Engine;
use crate::train::ops_engine::{OpsEngine, ReadValues, op_error};
use crate::train::scalar_engine::{ENVIRONMENT_CLASS as SCALAR_CLASS, ScalarEngine};

/// Makes the engine of a run; `threads` never changes its results on the cpu backend; on
/// the tch backend's CPU device it is part of the environment class.
///
/// # Errors
/// A backend or device that is not there; memory that cannot be had; an initial-weights file that does not fit.
pub fn engine(config: &RunConfig, threads: usize) -> Result<Box<dyn Engine>> {
    let mut engine = engine_from(&config.model, &config.optimizer, &config.backend, threads, |specs| {
        values(specs, config)
    })?;
    take_over(engine.as_mut(), config)?;
    Ok(engine)
}

/// Reads a run's initial-weights file, if it has one, to see whether it fits: before anything is trained or written.
///
/// # Errors
/// A file that is not there, is not what it was, or has other names or shapes; class `Input`.
pub fn check_initial_weights(config: &RunConfig) -> Result<()> {
    if config.init == InitSource::Torch {
        return Ok(());
    }
    let check = |specs: &[ParamSpec]| values(specs, config)?.for_each(specs, |_, _| crate::stop::check());
    match &config.model {
        ModelConfig::Gpt(model) => check(Gpt::new(model.clone())?.specs()),
        ModelConfig::Microgpt(model) => check(Microgpt::new(model.clone())?.specs()),
        ModelConfig::Bigram(model) => check(Bigram::new(model.clone())?.specs()),
    }
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

/// Makes an engine that evaluates and decodes with weights that `read` gives one after another: it takes no memory for
/// training.
///
/// # Errors
/// A backend or device that is not there; memory that cannot be had; values that cannot be read.
pub fn inference_engine(
    model: &ModelConfig,
    backend: &BackendChoice,
    threads: usize,
    read: &mut ReadValues<'_>,
) -> Result<Box<dyn Engine>> {
    control_word::set();
    match model {
        ModelConfig::Gpt(model) => inference_on(Gpt::new(model.clone())?, backend, threads, read),
        ModelConfig::Microgpt(model) => inference_on(Microgpt::new(model.clone())?, backend, threads, read),
        ModelConfig::Bigram(model) => inference_on(Bigram::new(model.clone())?, backend, threads, read),
    }
}

fn inference_on<M: Network + 'static>(
    network: M,
    backend: &BackendChoice,
    threads: usize,
    read: &mut ReadValues<'_>,
) -> Result<Box<dyn Engine>> {
    match backend.kind {
        BackendKind::Cpu => match backend.precision {
            Precision::F32 => {
                let ops = CpuBackend::new(threads).map_err(op_error)?;
                Ok(Box::new(OpsEngine::for_inference(network, ops, read)?))
            }
            Precision::Bf16 => {
                let ops = Bf16Backend::new(threads).map_err(op_error)?;
                Ok(Box::new(OpsEngine::for_inference(network, ops, read)?))
            }
        },
        BackendKind::Scalar => {
            let values = network.specs().iter().map(read).collect::<Result<Vec<_>>>()?;
            // Its optimizer is never asked for anything, and this kind has the least state.
            let sgd = |spec: &ParamSpec| {
                (spec.group, GroupConfig::Sgd(SgdConfig { lr: 0.0, momentum: 0.0, weight_decay: 0.0 }))
            };
            let optimizer = OptimizerConfig { groups: network.specs().iter().map(sgd).collect() };
            Ok(Box::new(ScalarEngine::new(network, &optimizer, &values)?))
        }
        #[cfg(feature = "tch")]
        BackendKind::Tch => {
            let ops = torch(backend, threads)?;
            Ok(Box::new(OpsEngine::for_inference(network, ops, read)?))
        }
        #[cfg(not(feature = "tch"))]
        BackendKind::Tch => Err(crate::backend::torch::device::DeviceError::NotBuilt.into()),
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
    let mut engine = OpsEngine::new(network, ops, &config.optimizer, values)?;
    take_over(&mut engine, config)?;
    Ok(Box::new(engine))
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
        BackendKind::Cpu => match backend.precision {
            Precision::F32 => {
                let ops = CpuBackend::new(threads).map_err(op_error)?;
                Ok(Box::new(OpsEngine::new(network, ops, optimizer, values)?))
            }
            Precision::Bf16 => {
                let ops = Bf16Backend::new(threads).map_err(op_error)?;
                Ok(Box::new(OpsEngine::new(network, ops, optimizer, values)?))
            }
        },
        BackendKind::Scalar => {
            let all = values.all(network.specs())?;
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
        BackendKind::Cpu => Ok(crate::backend::cpu::environment_class(backend.precision)),
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
