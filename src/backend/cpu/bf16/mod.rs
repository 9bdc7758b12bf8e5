//! The ops in mixed precision, as upstream has it: activations, embedding tables and products in bfloat16, master
//! weights, other gradients and optimizer state, norms, softmax, loss and sums in float32. See `docs/numerics_bf16.md`.
//!
//! Bits are equal on any machine, as those of f32 are. Products of bfloat16 pairs are defined by what `VDPBF16PS`
//! computes ([`dot`]), which other machines compute with fused multiply-adds; everything between products is that of the
//! f32 ops, on values that are widened, and each result is rounded once.

// Pairs are read by instructions that ask for no alignment.
#![allow(clippy::cast_ptr_alignment)]

mod attention;
mod attention_backward;
mod convert;
mod dot;
mod forward;
pub(super) mod gemm;
mod kv_cache;
mod loss;
mod muon;
mod optimizer;
mod pack;
mod rows;
mod runtime;
mod storage;
mod tables;
mod train;

pub(super) use attention::packed_len;
pub(super) use attention_backward::SCRATCH as BACKWARD_SCRATCH;
pub(super) use kv_cache::packed_positions;
pub(super) use storage::{floats, room};

use super::CpuBackend;
use super::pool::Pool;
use super::workers::{SCRATCH_LEN, Workers};
use crate::ops::OpResult;

/// Floats of scratch of a thread.
pub(super) const SCRATCH: usize = if BACKWARD_SCRATCH > SCRATCH_LEN { BACKWARD_SCRATCH } else { SCRATCH_LEN };

/// The ops on this machine's CPU in bfloat16.
#[derive(Debug)]
pub struct Bf16Backend(CpuBackend);

impl Bf16Backend {
    /// A backend with `threads` threads of its own. Results do not depend on their number.
    pub fn new(threads: usize) -> OpResult<Self> {
        let pool = Pool::default();
        Ok(Self(CpuBackend { workers: Workers::with_scratch(threads, &pool, SCRATCH)?, pool }))
    }

    /// One that notes what it would hand to other threads.
    #[cfg(test)]
    pub(super) fn simulated(simulated: super::simulated::Simulated) -> Self {
        let mut ops = Self::new(1).unwrap();
        ops.0.workers.simulated = Some(simulated);
        ops
    }

    /// How often tensor memory has been asked of the system; constant from the second step on.
    #[cfg(test)]
    pub fn allocations(&self) -> u64 {
        self.0.pool.allocations()
    }
}

#[cfg(test)]
mod tests;
