//! Memory: what a run will need, and what it holds.

use crate::model::config::{GptConfig, ModelConfig};
use crate::precision::Precision;

#[cfg(feature = "tch")]
use super::device::TorchDevice;

/// Bytes that CUDA, cuBLAS and the allocator's rounding take before the first tensor.
const CUDA_OVERHEAD: u64 = 1 << 30;
/// Float32 logits of a chunk and their companions; see `loss.rs`.
const LOGIT_CHUNK: u64 = 1 << 27;

/// What a training run needs at once, in bytes. An estimate: good to about a fifth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Master weights, compute copies, gradients and optimizer state.
    pub parameters: u64,
    /// What the forward keeps for the backward, and the largest temporaries beside it.
    pub activations: u64,
    /// Logits of one chunk, the optimizer's stack, the library itself.
    pub workspace: u64,
}

impl MemoryEstimate {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.parameters + self.activations + self.workspace
    }
}

/// What training `model` with `rows` rows a micro-batch needs on the tch backend. None for the small models, which fit
/// anywhere.
pub fn estimate(model: &ModelConfig, precision: Precision, rows: usize) -> Option<MemoryEstimate> {
    let ModelConfig::Gpt(config) = model else { return None };
    let compute = match precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
    };
    let (matrices, tables) = parameters(config);
    // Master, gradient, two moments; Muon keeps one moment and the rest of AdamW's share is its stack.
    let copies = if precision == Precision::Bf16 { 2 } else { 0 };
    let parameters = matrices * (16 + copies) + tables * (4 + 3 * compute);
    let tokens = (rows * config.sequence_len) as u64;
    let (channels, kv) = (config.n_embd as u64, config.kv_dim() as u64);
    // x, h, q, o, h2 and u of 4 C; k and v. Norms keep a float32 or two a head.
    let layer = 9 * channels + 2 * kv;
    let statistics = 4 * (4 + 3 * config.n_head as u64);
    // Embedding, x0, kept, y, dx0, dx, and the float32 temporaries of the widest backward (two of 4 C).
    let once = 8 * channels * compute + 2 * 4 * channels * 4;
    let activations = tokens * (config.n_layer as u64 * (layer * compute + statistics) + once);
    let chunk = LOGIT_CHUNK.min(tokens * config.vocab_size as u64);
    let workspace = chunk * (8 + compute) + CUDA_OVERHEAD;
    Some(MemoryEstimate { parameters, activations, workspace })
}

/// Elements of matrices (with `lm_head`) and of embedding tables.
fn parameters(config: &GptConfig) -> (u64, u64) {
    let (channels, kv, padded) =
        (config.n_embd as u64, config.kv_dim() as u64, config.padded_vocab_size as u64);
    let block = 2 * channels * channels + 2 * channels * kv + 8 * channels * channels;
    let values = (0..config.n_layer).filter(|&layer| config.has_value_embed(layer)).count() as u64;
    (config.n_layer as u64 * block + padded * channels, padded * channels + values * padded * kv)
}

/// The largest number of rows a micro-batch, at most `rows` and a power of two below it, that fits into `bytes`; none if
/// not even one does.
pub fn largest_batch(model: &ModelConfig, precision: Precision, rows: usize, bytes: u64) -> Option<usize> {
    let fits = |rows| estimate(model, precision, rows).is_none_or(|estimate| estimate.total() <= bytes);
    if fits(rows) {
        return Some(rows);
    }
    std::iter::successors(Some(rows.next_power_of_two() / 2), |rows| Some(rows / 2))
        .take_while(|&rows| rows > 0)
        .find(|&rows| fits(rows))
}

/// Bytes in tensors now, and at most since [`reset_peak`]. Pooled memory is not counted. None where libtorch does not
/// say.
#[cfg(feature = "tch")]
pub fn live_and_peak(device: TorchDevice) -> Option<(u64, u64)> {
    match device {
        TorchDevice::Cpu => Some(super::shim::cpu_bytes()),
        TorchDevice::Cuda(index) => super::shim::cuda_bytes(index).ok(),
    }
}

/// Starts counting the peak anew.
#[cfg(feature = "tch")]
pub fn reset_peak(device: TorchDevice) {
    match device {
        TorchDevice::Cpu => super::shim::cpu_reset_peak(),
        // Only counts: a failure leaves the peak of before.
        TorchDevice::Cuda(index) => drop(super::shim::cuda_reset_peak(index)),
    }
}

/// Free and total bytes of a CUDA device once a backend runs on it; none on the CPU device.
#[cfg(feature = "tch")]
pub fn free_and_total(device: TorchDevice) -> Option<(u64, u64)> {
    match device {
        TorchDevice::Cpu => None,
        TorchDevice::Cuda(index) => super::shim::cuda_memory(index).ok(),
    }
}

/// Hands pooled memory back to the device, so that another batch size can be tried after an out-of-memory.
#[cfg(feature = "tch")]
pub fn release_pool(device: TorchDevice) {
    if let TorchDevice::Cuda(_) = device {
        // Only a courtesy: a failure shows when memory is next asked for.
        drop(super::shim::cuda_empty_cache());
    }
}

/// What to try after an out-of-memory at this device batch size.
pub fn out_of_memory_help(device_batch_size: usize) -> String {
    match device_batch_size / 2 {
        0 => "one row a micro-batch does not fit: lower model.sequence_len or model.depth, or take another device"
            .to_owned(),
        half => format!(
            "try --set train.device_batch_size={half} (gradient accumulation keeps the total batch; the run key \
             changes, for float32 sums do)"
        ),
    }
}
