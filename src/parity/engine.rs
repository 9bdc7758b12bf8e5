//! An engine as a subject of parity: the one that runs train with.

use super::{ParityConfig, ParitySubject};
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::init::InitialValues;
use crate::ops::SequenceShape;
use crate::optim::config::StepValues;
use crate::plan::run_config::{BackendChoice, BackendKind};
use crate::precision::Precision;
use crate::run::engine::engine_from;
use crate::tensors::SingleTensor;
use crate::train::engine::{Engine, MicroBatch, NamedTensor};

use super::subject::argmax;

/// A case's model on a backend. Parameters start at zero.
pub struct EngineSubject {
    config: ParityConfig,
    backend: BackendChoice,
    threads: usize,
    engine: Box<dyn Engine>,
}

impl EngineSubject {
    /// A subject on `backend`.
    ///
    /// # Errors
    /// A backend or device that is not there; memory that cannot be had.
    pub fn new(config: ParityConfig, backend: BackendChoice, threads: usize) -> Result<Self> {
        let engine = make(&config, &backend, threads, None)?;
        Ok(Self { config, backend, threads, engine })
    }
}

fn make(
    config: &ParityConfig,
    backend: &BackendChoice,
    threads: usize,
    values: Option<&[Vec<f32>]>,
) -> Result<Box<dyn Engine>> {
    let model = ModelConfig::Gpt(config.model.clone());
    engine_from(&model, &config.optimizer, backend, threads, |specs| {
        let zeros = || specs.iter().map(|spec| vec![0.0; spec.numel()]).collect();
        Ok(InitialValues::Given(values.map_or_else(zeros, <[_]>::to_vec)))
    })
}

fn values(tensors: Vec<NamedTensor<'_>>) -> Vec<Vec<f32>> {
    tensors.into_iter().map(|tensor| tensor.values.into_wide().into_owned()).collect()
}

impl ParitySubject for EngineSubject {
    fn backend(&self) -> String {
        match self.backend.kind {
            BackendKind::Cpu => match self.backend.precision {
                Precision::F32 => "cpu".to_owned(),
                Precision::Bf16 => "cpu in bf16".to_owned(),
            },
            BackendKind::Scalar => "scalar".to_owned(),
            BackendKind::Tch => match self.backend.precision {
                Precision::F32 => format!("tch:{}", self.backend.device),
                Precision::Bf16 => format!("tch:{} in bf16", self.backend.device),
            },
        }
    }

    fn precision(&self) -> Precision {
        self.backend.precision
    }

    // A new engine: an optimizer cannot go back to its first step.
    fn set_params(&mut self, values: &[Vec<f32>]) -> Result<()> {
        self.engine = make(&self.config, &self.backend, self.threads, Some(values))?;
        Ok(())
    }

    fn resume(
        &mut self,
        steps: u64,
        values: &[Vec<f32>],
        optimizer: &[SingleTensor<'static>],
    ) -> Result<bool> {
        // Its state has the bits of f64 values, which no other program wrote.
        if self.backend.kind == BackendKind::Scalar {
            return Ok(false);
        }
        self.set_params(values)?;
        self.engine.take_up_state(steps, optimizer)?;
        Ok(true)
    }

    fn params(&self) -> Result<Vec<Vec<f32>>> {
        self.engine.parameters().map(values)
    }

    fn losses(&mut self, inputs: &[i32], targets: &[i32], sequence: SequenceShape) -> Result<Vec<f32>> {
        self.engine.losses(&MicroBatch { inputs, targets, sequence })
    }

    fn logits(&mut self, inputs: &[i32], sequence: SequenceShape) -> Result<Vec<f32>> {
        // The targets play no part.
        self.engine.logits(&MicroBatch { inputs, targets: inputs, sequence })
    }

    fn backward(
        &mut self,
        inputs: &[i32],
        targets: &[i32],
        sequence: SequenceShape,
        grad_scale: f32,
    ) -> Result<Vec<f32>> {
        self.engine.accumulate(&MicroBatch { inputs, targets, sequence }, grad_scale)?.read()
    }

    fn grads(&self) -> Result<Vec<Vec<f32>>> {
        self.engine.gradients().map(values)
    }

    fn step(&mut self, values: StepValues) -> Result<()> {
        self.engine.update(&values)
    }

    fn step_values(&self, step: u64) -> StepValues {
        self.config.schedule.step_values(step)
    }

    /// With the cache of keys and values.
    fn greedy(&mut self, prompt: &[i32], count: usize) -> Result<Vec<i32>> {
        let tokens = prompt.len() + count;
        if tokens > self.config.model.sequence_len {
            return Err(Error::input(format!("greedy decoding takes {tokens} tokens"))
                .key("greedy")
                .expected(format!("at most sequence_len, {}", self.config.model.sequence_len)));
        }
        self.engine.start_decoding(tokens)?;
        let mut next = prompt.to_vec();
        let mut found = Vec::with_capacity(count);
        for _ in 0..count {
            let token = argmax(&self.engine.decode(&next)?) as i32;
            found.push(token);
            next = vec![token];
        }
        Ok(found)
    }
}
