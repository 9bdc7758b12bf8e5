//! Every op: against a naive f64 reference, its backward against central differences of that reference, and its bits
//! over thread counts and instruction sets.

mod conformance;
mod bits;
mod gradients;
mod memory;
mod muon;
mod optimizers;
mod plan;
mod reference;
pub(super) mod ways;
