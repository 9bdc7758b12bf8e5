//! The scaling laws: horizon, batch size, learning-rate factors, weight decay. Every one is upstream's, in
//! upstream's order of operations, over portable maths.

use super::recipe::WeightDecayLaw;

/// Tokens of a step at which upstream's learning rates were tuned.
pub const BATCH_REF: u64 = 1 << 19;
/// Depth of the reference model.
pub const DEPTH_REF: usize = 12;
/// Width at which the embedding learning rates were tuned.
pub const MODEL_DIM_REF: f64 = 768.0;

/// Python's `round`: halves go to the even neighbour. Saturates.
pub fn round_half_even(value: f64) -> u64 {
    value.round_ties_even() as u64
}

/// `D = int(ratio * S)`: tokens of the compute-optimal horizon.
pub fn target_tokens(ratio: f64, scaling_params: u64) -> u64 {
    (ratio * scaling_params as f64) as u64
}

/// `2^round(log2(2^19 * (D / D_ref)^0.383))`. arXiv 2505.13738.
pub fn auto_batch_size(target: f64, reference: f64) -> u64 {
    let predicted = BATCH_REF as f64 * libm::pow(target / reference, 0.383);
    let exponent = libm::log2(predicted).round_ties_even().clamp(0.0, 62.0);
    1 << exponent as u32
}

/// `k = sqrt(B / 2^19)`, by which the batch scales learning rates.
pub fn batch_lr_factor(batch: u64) -> f64 {
    (batch as f64 / BATCH_REF as f64).sqrt()
}

/// `m = (C / 768)^-0.5`, by which the width scales the embeddings' learning rates.
pub fn width_lr_factor(n_embd: usize) -> f64 {
    libm::pow(n_embd as f64 / MODEL_DIM_REF, -0.5)
}

/// The factor on Muon's base decay, with `target` tokens as the horizon and `reference` those of the d12.
pub fn weight_decay_factor(
    law: WeightDecayLaw,
    depth: usize,
    batch: u64,
    target: f64,
    reference: f64,
) -> f64 {
    match law {
        WeightDecayLaw::Depth => {
            let ratio = DEPTH_REF as f64 / depth as f64;
            ratio * ratio
        }
        WeightDecayLaw::Horizon => batch_lr_factor(batch) * (reference / target),
        WeightDecayLaw::Constant => 1.0,
    }
}

/// Steps of a budget in tokens: whole steps only.
pub fn steps_for_tokens(tokens: u64, batch: u64) -> u64 {
    tokens / batch.max(1)
}

/// Steps of a budget in FLOPs, rounded as upstream rounds them.
pub fn steps_for_flops(flops: f64, flops_per_token: u64, batch: u64) -> u64 {
    round_half_even(flops / (flops_per_token as f64 * batch as f64))
}
