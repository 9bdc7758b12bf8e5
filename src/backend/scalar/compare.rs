//! Hand-written gradients of a backend beside the oracle's.

use super::ScalarBackend;
use crate::model::network::{Inputs, Network};
use crate::model::param::Params;
use crate::ops::{ForwardOps, OpResult, SequenceShape, TrainOps};
use crate::stop::StopFlag;

/// How far a backend is from the oracle on one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Largest difference of a token's loss from the oracle's, in nats, relative to it where it is more than one.
    pub loss: f64,
    /// For each parameter its name and `|g - oracle| / |oracle|` in the Frobenius norm; `|oracle|` is taken as no less
    /// than a hundredth of the norm of all gradients.
    pub gradients: Vec<(String, f64)>,
}

/// A gradient whose norm is below this fraction of that of all gradients together is compared to that fraction instead:
/// float32 rounds the terms of its sums, and where those nearly cancel the rounding is all that is left of it.
const NORM_FLOOR: f64 = 1e-2;

/// Losses and gradients of `network` with weights `values` (one vector a parameter) on `ops`, compared to the
/// oracle's. The gradient is that of `grad_scale` times the sum of the losses.
pub fn compare_gradients<M: Network, B: TrainOps>(
    network: &M,
    ops: &B,
    values: &[Vec<f32>],
    inputs: &[i32],
    targets: &[i32],
    sequence: SequenceShape,
    grad_scale: f32,
) -> OpResult<Comparison> {
    let specs = network.specs();
    let oracle = ScalarBackend::new();
    let weights = weights(&oracle, network, values)?;
    let stop = &StopFlag::default();
    let tables = network.tables(&oracle, sequence.len)?;
    let expected = oracle.differentiate(f64::from(grad_scale), |ops| {
        let (tokens, targets) = (ops.tokens(inputs)?, ops.tokens(targets)?);
        let inputs = Inputs { ops, weights: &weights, tables: &tables, tokens: &tokens, sequence, stop };
        network.losses(&inputs, &targets).map(drop)
    })?;
    let expected_gradients: Vec<Vec<f64>> =
        weights.0.iter().map(|weight| expected.gradients.weight_gradient(weight)).collect();

    let weights = self::weights(ops, network, values)?;
    let tables = network.tables(ops, sequence.len)?;
    let mut grads = Params(specs.iter().map(|spec| ops.grad(&spec.shape)).collect::<OpResult<Vec<_>>>()?);
    let (tokens, targets) = (ops.tokens(inputs)?, ops.tokens(targets)?);
    let inputs = Inputs { ops, weights: &weights, tables: &tables, tokens: &tokens, sequence, stop };
    let losses = network.loss_and_grads(&inputs, &targets, grad_scale, &mut grads)?.read()?;

    let difference =
        |(found, expected): (&f32, &f64)| (f64::from(*found) - expected).abs() / expected.abs().max(1.0);
    let floor = NORM_FLOOR * norm(expected_gradients.iter().flatten().copied());
    let gradients = specs.iter().zip(&grads.0).zip(&expected_gradients).map(|((spec, grad), expected)| {
        let found = ops.grad_values(grad)?;
        let error = norm(found.iter().zip(expected).map(|(found, expected)| f64::from(*found) - expected));
        let size = norm(expected.iter().copied()).max(floor);
        Ok((spec.name.clone(), if error == 0.0 { 0.0 } else { error / size }))
    });
    Ok(Comparison {
        loss: losses.iter().zip(&expected.losses).map(difference).fold(0.0, f64::max),
        gradients: gradients.collect::<OpResult<_>>()?,
    })
}

fn weights<M: Network, B: ForwardOps>(
    ops: &B,
    network: &M,
    values: &[Vec<f32>],
) -> OpResult<Params<B::Weight>> {
    let weights = network.specs().iter().zip(values).map(|(spec, values)| ops.weight(&spec.shape, values));
    Ok(Params(weights.collect::<OpResult<_>>()?))
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}
