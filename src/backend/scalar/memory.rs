//! What the scalar oracle will need: an estimate, for its tape grows with every multiplication.

use crate::backend::memory::MemoryEstimate;

/// Bytes of the tape a multiplication: two edges of a product, each a parent and a partial derivative.
const EDGES: f64 = 2.0 * 12.0;
/// Room that growing arrays have beside what is in them, and what else is on the tape.
const SLACK: f64 = 1.6;
/// An f64 each: weight, gradient, two moments, and as much again where states are written.
const PARAMETER: u64 = 5 * 8;

/// What training needs with micro-batches of `tokens` tokens, whose forward and backward take `flops_per_token` by
/// upstream's count: two FLOPs a multiplication in the forward, four in the backward.
pub fn estimate(parameters: u64, flops_per_token: u64, tokens: usize) -> MemoryEstimate {
    let multiplications = flops_per_token as f64 / 6.0 * tokens as f64;
    MemoryEstimate {
        parameters: parameters.saturating_mul(PARAMETER),
        activations: (multiplications * EDGES * SLACK) as u64,
        workspace: 0,
    }
}
