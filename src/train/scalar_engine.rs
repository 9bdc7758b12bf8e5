//! The engine of the scalar oracle: gradients by differentiation of the forward, updates in f64.

use crate::backend::scalar::optim::ParamState;
use crate::backend::scalar::{Gradients, ScalarBackend, TapeCost, Weight};
use crate::error::{Error, Result};
use crate::model::network::{Inputs, Network};
use crate::model::param::{ParamSpec, Params};
use crate::ops::{ForwardOps, Losses, OpResult};
use crate::optim::config::{GroupConfig, OptimizerConfig, StepValues};
use crate::stop::StopFlag;

use super::decoding::Decoding;
use super::engine::{Engine, MicroBatch, NamedTensor, in_order};
use super::ops_engine::op_error;

/// Scalar IEEE arithmetic and portable functions, in one thread: every machine gives the same bits.
pub const ENVIRONMENT_CLASS: &str = "scalar";

/// A network on the scalar backend.
///
/// Weights and optimizer state are f64. [`Engine::parameters`] gives them rounded to f32; a checkpoint also takes
/// their exact bits along in [`Engine::optimizer_state`] (names ending in `.f64`, three digits a value), so that a
/// resumed run goes on with the very same numbers.
pub struct ScalarEngine<M: Network> {
    network: M,
    ops: ScalarBackend,
    tables: M::Tables<ScalarBackend>,
    weights: Params<Weight>,
    gradients: Gradients,
    /// Update and state of every parameter.
    optimizer: Vec<(GroupConfig, ParamState)>,
    steps: u64,
    decoding: Decoding<M, ScalarBackend>,
    tape_cost: TapeCost,
    stop: StopFlag,
}

impl<M: Network> ScalarEngine<M> {
    /// An engine whose weights start at `values`, one vector a parameter.
    ///
    /// # Errors
    /// Values that do not fit the network's parameters; a group without an optimizer.
    pub fn new(network: M, optimizer: &OptimizerConfig, values: &[Vec<f32>]) -> Result<Self> {
        let ops = ScalarBackend::new();
        let specs = network.specs();
        if values.len() != specs.len() || specs.iter().zip(values).any(|(s, v)| s.numel() != v.len()) {
            return Err(Error::internal("initial values do not fit the network's parameters"));
        }
        let weights = specs.iter().zip(values).map(|(spec, values)| ops.weight(&spec.shape, values));
        let weights = Params(weights.collect::<OpResult<_>>().map_err(op_error)?);
        let state = |spec: &ParamSpec| {
            let group = optimizer.groups.iter().find(|(group, _)| *group == spec.group);
            let (_, config) = group.ok_or_else(|| {
                Error::internal(format!("no optimizer for group {:?} of `{}`", spec.group, spec.name))
            })?;
            Ok((config.clone(), ParamState::new(config, &spec.shape)))
        };
        let optimizer = specs.iter().map(state).collect::<Result<_>>()?;
        let tables = network.tables(&ops, network.sequence_len()).map_err(op_error)?;
        Ok(Self {
            network,
            ops,
            tables,
            weights,
            gradients: Gradients::default(),
            optimizer,
            steps: 0,
            decoding: Decoding::default(),
            tape_cost: TapeCost::default(),
            stop: StopFlag::default(),
        })
    }

    /// The exact weights, in the order of [`Engine::specs`].
    #[cfg(any(test, feature = "internals"))]
    pub fn exact_parameters(&self) -> impl Iterator<Item = &[f64]> {
        self.weights.0.iter().map(Weight::values)
    }

    /// The exact gradients accumulated so far, in the order of [`Engine::specs`].
    #[cfg(any(test, feature = "internals"))]
    pub fn exact_gradients(&self) -> impl Iterator<Item = Vec<f64>> + '_ {
        self.weights.0.iter().map(|weight| self.gradients.weight_gradient(weight))
    }

    /// [`Engine::accumulate`] with the losses in f64.
    pub fn accumulate_exact(&mut self, batch: &MicroBatch<'_>, grad_scale: f64) -> Result<Vec<f64>> {
        let Self { network, ops, tables, weights, stop, .. } = self;
        let differentiated = ops.differentiate(grad_scale, |ops| {
            let (tokens, targets) = (ops.tokens(batch.inputs)?, ops.tokens(batch.targets)?);
            let inputs = Inputs { ops, weights, tables, tokens: &tokens, sequence: batch.sequence, stop };
            network.losses(&inputs, &targets).map(drop)
        });
        let differentiated = differentiated.map_err(op_error)?;
        self.gradients.accumulate(&differentiated.gradients);
        self.tape_cost = differentiated.cost;
        Ok(differentiated.losses)
    }

    /// What the tape of the last [`Engine::accumulate`] took.
    #[cfg(any(test, feature = "internals"))]
    pub fn tape_cost(&self) -> TapeCost {
        self.tape_cost
    }

    fn named(&self, values: impl Fn(usize) -> Vec<f32>) -> Vec<NamedTensor<'static>> {
        let named = |(index, spec): (usize, &ParamSpec)| NamedTensor {
            name: spec.name.clone(),
            shape: spec.shape.clone(),
            values: values(index).into(),
        };
        self.network.specs().iter().enumerate().map(named).collect()
    }

    /// Names of a parameter's exact arrays in a checkpoint: its own, then its state's.
    fn exact_names(&self, index: usize) -> Vec<String> {
        let states: &[&str] = match self.optimizer[index].1 {
            ParamState::Adamw { .. } => &["exp_avg.", "exp_avg_sq."],
            ParamState::Muon { .. } => &["momentum_buffer.", "second_momentum_buffer."],
            ParamState::Sgd { .. } => &["momentum_buffer."],
        };
        let name = &self.network.specs()[index].name;
        std::iter::once(&"").chain(states).map(|state| format!("{name}.{state}f64")).collect()
    }
}

impl<M: Network> Engine for ScalarEngine<M> {
    fn stop_on(&mut self, stop: &StopFlag) {
        self.stop = stop.clone();
    }

    fn drop_gradients(&mut self) -> Result<()> {
        self.gradients = Gradients::default();
        Ok(())
    }

    fn specs(&self) -> &[ParamSpec] {
        self.network.specs()
    }

    fn accumulate(&mut self, batch: &MicroBatch<'_>, grad_scale: f32) -> Result<Losses<Error>> {
        let losses = self.accumulate_exact(batch, f64::from(grad_scale))?;
        Ok(losses.into_iter().map(|loss| loss as f32).collect::<Vec<_>>().into())
    }

    fn update(&mut self, values: &StepValues) -> Result<()> {
        self.steps += 1;
        for (weight, (config, state)) in self.weights.0.iter_mut().zip(&mut self.optimizer) {
            let gradient = self.gradients.weight_gradient(weight);
            state.update(config, values, self.steps, weight, &gradient);
        }
        self.drop_gradients()
    }

    fn losses(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>> {
        let Self { network, ops, tables, weights, stop, .. } = self;
        let run = || {
            let (tokens, targets) = (ops.tokens(batch.inputs)?, ops.tokens(batch.targets)?);
            let inputs = Inputs { ops, weights, tables, tokens: &tokens, sequence: batch.sequence, stop };
            network.losses(&inputs, &targets)
        };
        run().map_err(op_error)
    }

    fn logits(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>> {
        let Self { network, ops, tables, weights, stop, .. } = self;
        let run = || {
            let tokens = ops.tokens(batch.inputs)?;
            let inputs = Inputs { ops, weights, tables, tokens: &tokens, sequence: batch.sequence, stop };
            ops.tensor_values(&network.logits(&inputs)?)
        };
        run().map_err(op_error)
    }

    fn gradients(&self) -> Result<Vec<NamedTensor<'_>>> {
        let rounded = |index: usize| {
            let gradient = self.gradients.weight_gradient(&self.weights.0[index]);
            gradient.into_iter().map(|value| value as f32).collect()
        };
        Ok(self.named(rounded))
    }

    fn parameters(&self) -> Result<Vec<NamedTensor<'_>>> {
        let rounded = |index: usize| self.weights.0[index].values().iter().map(|v| *v as f32).collect();
        Ok(self.named(rounded))
    }

    fn optimizer_state(&self) -> Result<Vec<NamedTensor<'_>>> {
        let mut tensors = Vec::new();
        for (index, (weight, (_, state))) in self.weights.0.iter().zip(&self.optimizer).enumerate() {
            let arrays =
                std::iter::once(weight.values()).chain(state.arrays().into_iter().map(Vec::as_slice));
            for (name, array) in self.exact_names(index).into_iter().zip(arrays) {
                let values: Vec<f32> = array.iter().flat_map(|value| to_digits(*value)).collect();
                tensors.push(NamedTensor { name, shape: vec![array.len(), 3], values: values.into() });
            }
        }
        Ok(tensors)
    }

    fn restore(
        &mut self,
        steps: u64,
        parameters: &[NamedTensor<'_>],
        optimizer: &[NamedTensor<'_>],
    ) -> Result<()> {
        let values = in_order(self.network.specs(), parameters)?;
        for (weight, tensor) in self.weights.0.iter_mut().zip(values) {
            weight.values_mut().iter_mut().zip(&*tensor.values.wide()).for_each(|(w, v)| *w = f64::from(*v));
        }
        if steps > 0 {
            for index in 0..self.optimizer.len() {
                let names = self.exact_names(index);
                let (weight, (_, state)) = (&mut self.weights.0[index], &mut self.optimizer[index]);
                let arrays = std::iter::once(weight.values_mut())
                    .chain(state.arrays_mut().into_iter().map(Vec::as_mut_slice));
                for (name, array) in names.iter().zip(arrays) {
                    restore_exact(name, array, optimizer)?;
                }
            }
        }
        self.steps = steps;
        self.gradients = Gradients::default();
        self.decoding.clear();
        Ok(())
    }

    fn start_decoding(&mut self, capacity: usize) -> Result<()> {
        self.decoding.start(&self.network, &self.ops, capacity)
    }

    fn decode_last(&mut self, ids: &[i32], last: usize) -> Result<Vec<f32>> {
        let Self { network, ops, weights, decoding, .. } = self;
        decoding.feed(network, ops, weights, ids, last).map_err(op_error)
    }

    fn mark_decoding(&mut self) -> Result<()> {
        self.decoding.mark(&self.network, &self.ops)
    }

    fn rewind_decoding(&mut self, sequences: usize) -> Result<()> {
        self.decoding.rewind(&self.network, &self.ops, sequences)
    }

    fn keep_decoding(&mut self, sequences: &[usize]) -> Result<()> {
        self.decoding.keep(&self.network, &self.ops, sequences)
    }

    fn decodes_together(&self) -> bool {
        self.ops.rows_stand_alone()
    }

    fn end_decoding(&mut self) {
        self.decoding.clear();
    }

    fn live_bytes(&self) -> u64 {
        self.ops.live_bytes()
    }

    fn environment_class(&self) -> String {
        ENVIRONMENT_CLASS.to_owned()
    }
}

/// Fills `array` from the checkpoint's tensor of that name.
fn restore_exact(name: &str, array: &mut [f64], tensors: &[NamedTensor<'_>]) -> Result<()> {
    let tensor = tensors
        .iter()
        .find(|tensor| tensor.name == name)
        .ok_or_else(|| Error::input(format!("the checkpoint lacks the optimizer state `{name}`")))?;
    if tensor.shape != [array.len(), 3] || tensor.values.len() != 3 * array.len() {
        let what = format!("optimizer state `{name}` has shape {:?} in the checkpoint", tensor.shape);
        return Err(Error::input(what).expected(format!("{:?}", [array.len(), 3])));
    }
    for (value, digits) in array.iter_mut().zip(tensor.values.wide().chunks_exact(3)) {
        *value = from_digits(digits);
    }
    Ok(())
}

/// The bits of an f64 as three whole numbers below 2^22, highest first: f32 holds those exactly, and none is a NaN that
/// a copy or a comparison might treat in its own way.
fn to_digits(value: f64) -> [f32; 3] {
    [44, 22, 0].map(|shift| (value.to_bits() >> shift & DIGIT) as f32)
}

fn from_digits(digits: &[f32]) -> f64 {
    f64::from_bits(digits.iter().fold(0, |bits, digit| bits << 22 | (*digit as u64 & DIGIT)))
}

/// The lowest 22 bits.
const DIGIT: u64 = (1 << 22) - 1;

#[cfg(test)]
mod tests;
