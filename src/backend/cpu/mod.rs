//! The ops on this machine's CPU: deterministic to the bit on any number of threads and any instruction set.
//!
//! Three rules give that. Work is cut into tasks, and no element of a result is touched by two of them, except where a
//! task's partial sums are added up afterwards in the order of the tasks; the cuts that then matter are constants.
//! Every sum has a fixed shape: one chain of fused multiply-adds a block of k in matrix products, sixteen lanes and a
//! tree along rows. And functions are those of [`crate::math`]. So the instruction set only decides how many elements
//! go at once, and threads only who does what.

// A view is a reference, though a large one.
#![allow(clippy::needless_pass_by_value)]
// Small functions must vanish into loops that are compiled for several instruction sets.
#![allow(clippy::inline_always)]

mod adamw;
mod attention;
mod attention_backward;
mod attention_scores;
mod attention_split;
mod backend;
mod balance;
mod bf16;
mod cross_entropy;
mod elementwise;
mod embedding;
mod forward;
mod gemm;
mod kv_cache;
pub mod memory;
mod muon;
mod norm;
mod pool;
mod query_sums;
mod residual;
mod rotary;
mod runtime;
mod sgd;
mod simd;
mod smear;
mod symmetric;
mod tally;
mod tensor;
mod train;
mod value_embedding;
mod workers;

use crate::manifest::settings::BackendKind;
use crate::plan::key::numerics_version;
use crate::precision::Precision;

pub use backend::CpuBackend;
pub use bf16::Bf16Backend;
#[cfg(any(test, feature = "internals"))]
pub use tensor::{Param, Tensor};

/// Machines of one class give equal bits. All do that have IEEE arithmetic: where fused multiply-adds are missing, they
/// are computed exactly in software, and so are products of bfloat16 pairs where there is no instruction for them. The
/// version changes whenever the same inputs may give other bits: with block, chunk and lane sizes, orders, functions.
pub fn environment_class(precision: Precision) -> String {
    let version = numerics_version(BackendKind::Cpu, precision);
    match precision {
        Precision::F32 => format!("cpu-ieee754-fma-v{version}"),
        Precision::Bf16 => format!("cpu-bf16-pairs-v{version}"),
    }
}

/// The precision that an environment class of this backend stands for; none of another's.
pub fn class_precision(class: &str) -> Option<Precision> {
    let is = |prefix: &str| class.starts_with(prefix);
    [(Precision::F32, "cpu-ieee754-"), (Precision::Bf16, "cpu-bf16-")]
        .into_iter()
        .find_map(|(precision, prefix)| is(prefix).then_some(precision))
}

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
