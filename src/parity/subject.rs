//! What parity asks of a backend.

use crate::error::Result;
use crate::model::config::GptConfig;
use crate::ops::SequenceShape;
use crate::optim::config::{OptimizerConfig, ScheduleConfig, StepValues};
use crate::precision::Precision;
use crate::tensors::SingleTensor;

/// A case's configuration: the recipe of its commit at its sizes, with its own optimizer values.
#[derive(Debug, Clone, PartialEq)]
pub struct ParityConfig {
    /// Model.
    pub model: GptConfig,
    /// Optimizer groups.
    pub optimizer: OptimizerConfig,
    /// Schedules.
    pub schedule: ScheduleConfig,
    /// Forward and backward, by upstream's formula.
    pub flops_per_token: u64,
}

/// A model with its optimizer on some backend. Parameters and gradients are in the order of the model's specs.
pub trait ParitySubject {
    /// The backend's name, as tables show it.
    fn backend(&self) -> String;
    /// What it computes in.
    fn precision(&self) -> Precision {
        Precision::F32
    }
    /// Replaces all parameters, clears gradients and starts the optimizer afresh.
    fn set_params(&mut self, values: &[Vec<f32>]) -> Result<()>;
    /// Takes up parameters and the optimizer's state after `steps` steps of a program that is not this one, by
    /// nanorun's names. False where it takes up none.
    fn resume(
        &mut self,
        steps: u64,
        values: &[Vec<f32>],
        optimizer: &[SingleTensor<'static>],
    ) -> Result<bool>;
    /// All parameters.
    fn params(&self) -> Result<Vec<Vec<f32>>>;
    /// Loss of each token in nats, 0 where the target is -1: (N) from inputs (N) and targets (N).
    fn losses(&mut self, inputs: &[i32], targets: &[i32], sequence: SequenceShape) -> Result<Vec<f32>>;
    /// Logits after the softcap, (N, V).
    fn logits(&mut self, inputs: &[i32], sequence: SequenceShape) -> Result<Vec<f32>>;
    /// Adds the gradients of `grad_scale` times the sum of the losses. -> losses as [`Self::losses`] gives them.
    fn backward(
        &mut self,
        inputs: &[i32],
        targets: &[i32],
        sequence: SequenceShape,
        grad_scale: f32,
    ) -> Result<Vec<f32>>;
    /// All gradients.
    fn grads(&self) -> Result<Vec<Vec<f32>>>;
    /// One optimizer step with these values; clears the gradients.
    fn step(&mut self, values: StepValues) -> Result<()>;
    /// What the subject's schedule gives for a step, from 0.
    fn step_values(&self, step: u64) -> StepValues;

    /// The `count` tokens that follow `prompt` when the likeliest is always taken. Without a cache unless overridden.
    fn greedy(&mut self, prompt: &[i32], count: usize) -> Result<Vec<i32>> {
        let mut tokens = prompt.to_vec();
        for _ in 0..count {
            let sequence = SequenceShape { batch: 1, len: tokens.len() };
            let logits = self.logits(&tokens, sequence)?;
            let vocab_size = logits.len() / tokens.len().max(1);
            let last = logits.get(logits.len().saturating_sub(vocab_size)..).unwrap_or_default();
            tokens.push(argmax(last) as i32);
        }
        Ok(tokens.split_off(prompt.len()))
    }
}

/// Index of the largest value, the first of equals.
pub(super) fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (index, &value)| {
        if values.get(best).is_some_and(|&largest| value > largest) { index } else { best }
    })
}
