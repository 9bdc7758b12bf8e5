//! Memory: what a run will need, and what it holds.

use crate::model::config::{GptConfig, ModelConfig};
use crate::precision::Precision;

use super::chunks;
use super::device::TorchDevice;

/// Bytes that CUDA's context, cuBLAS and the allocator's rounding take beside tensors.
const CUDA_OVERHEAD: u64 = 1 << 30;

/// What a training run needs at once, in bytes. An estimate: tested on the CPU device to within a fifth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryEstimate {
    /// Master weights, compute copies, gradients and optimizer state.
    pub parameters: u64,
    /// What the forward keeps for the backward, and the largest temporaries beside it.
    pub activations: u64,
    /// Logits of one chunk, or what the optimizer needs beyond the room that activations leave; on a GPU the library.
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
pub fn estimate(
    model: &ModelConfig,
    precision: Precision,
    device: TorchDevice,
    rows: usize,
) -> Option<MemoryEstimate> {
    let ModelConfig::Gpt(config) = model else { return None };
    // Bytes of an activation; of the copy that products read; of the float32 copies of both factors of a weight gradient
    // where they are not fused; and of what Muon holds for each element of a stack.
    let (compute, copies, widened, stacked) = match precision {
        Precision::F32 => (4, 0, 0, 24),
        Precision::Bf16 => (2, 2, 4, 12),
    };
    let (matrices, lm_head, tables) = parameters(config);
    // Master, gradient and the moments: Muon keeps one, AdamW two. Tables and their moments are in the compute type.
    let parameters = matrices * (12 + copies) + lm_head * (16 + copies) + tables * (4 + 3 * compute);
    let tokens = (rows * config.sequence_len) as u64;
    let (channels, kv) = (config.n_embd as u64, config.kv_dim() as u64);
    // x, h, q, o, h2 and u of 4 C; k and v. Norms keep a float32 a row or a head, attention one a head.
    let layer = (9 * channels + 2 * kv) * compute + 4 * (2 + 3 * config.n_head as u64);
    // Embedding, x0, kept, its gradient, dx, dx0: they live through the loss and the backward.
    let stream = 6 * channels * compute;
    // relu^2 and its gradient of 4 C each, and in the attention's backward float32 copies of all it reads and writes.
    let mlp = 8 * channels * compute + 5 * channels * widened;
    let attention = 4 * (5 * channels + 4 * kv);
    let backward = tokens * mlp.max(attention);
    let activations = tokens * (config.n_layer as u64 * layer + stream) + backward;
    // Three float32 numbers a logit. The loss is done before the backward of the blocks starts, the optimizer after.
    let loss = (chunks::logits(device) as u64).min(tokens * config.vocab_size as u64) * 12;
    let alike = config.n_layer as u64 * 4 * channels * channels;
    let muon = (chunks::stacked(device) as u64).max(4 * channels * channels).min(alike) * stacked;
    // Float32 temporaries of the largest tensor; in bfloat16 also of its value and moments.
    let adamw =
        config.padded_vocab_size as u64 * channels * if precision == Precision::Bf16 { 20 } else { 12 };
    let workspace = loss.saturating_sub(backward).max(muon.max(adamw).saturating_sub(activations));
    let overhead = if device == TorchDevice::Cpu { 0 } else { CUDA_OVERHEAD };
    Some(MemoryEstimate { parameters, activations, workspace: workspace + overhead })
}

/// Elements of matrices, of `lm_head`, and of embedding tables.
fn parameters(config: &GptConfig) -> (u64, u64, u64) {
    let (channels, kv, padded) =
        (config.n_embd as u64, config.kv_dim() as u64, config.padded_vocab_size as u64);
    let block = 2 * channels * channels + 2 * channels * kv + 8 * channels * channels;
    let values = (0..config.n_layer).filter(|&layer| config.has_value_embed(layer)).count() as u64;
    (config.n_layer as u64 * block, padded * channels, padded * channels + values * padded * kv)
}

/// The largest power of two of rows a micro-batch, below `rows`, that fits into `bytes`; none if not even one row does.
pub fn largest_batch(
    model: &ModelConfig,
    precision: Precision,
    device: TorchDevice,
    rows: usize,
    bytes: u64,
) -> Option<usize> {
    let fits = |rows: &usize| {
        estimate(model, precision, device, *rows).is_none_or(|estimate| estimate.total() <= bytes)
    };
    let halves = std::iter::successors(Some(rows.next_power_of_two() / 2), |rows| Some(rows / 2));
    halves.take_while(|&rows| rows > 0).find(fits)
}

/// Bytes in tensors now, and at most since [`reset_peak`]. Pooled memory is not counted. None where libtorch does not
/// say.
#[cfg(feature = "tch")]
pub fn live_and_peak(device: TorchDevice) -> Option<(u64, u64)> {
    match device {
        TorchDevice::Cpu => Some(super::shim::cpu_bytes()),
        TorchDevice::Cuda(index) => super::shim::cuda_bytes(index).ok().map(|(live, peak, _)| (live, peak)),
    }
}

/// How often the pool asked the system or the device for memory.
#[cfg(feature = "tch")]
pub fn allocations(device: TorchDevice) -> Option<u64> {
    match device {
        TorchDevice::Cpu => Some(super::shim::cpu_allocations()),
        TorchDevice::Cuda(index) => {
            super::shim::cuda_bytes(index).ok().map(|(_, _, allocations)| allocations)
        }
    }
}

/// The variable that limits the CPU device's memory, in bytes.
pub const CPU_LIMIT: &str = "NANORUN_TCH_CPU_BYTES";

/// Limits what tensors of the CPU device may take, for the process: more is out of memory, as on a GPU, and not an end by
/// the system's hand. To what [`CPU_LIMIT`] says, without it to the machine's memory.
#[cfg(feature = "tch")]
pub(super) fn limit_cpu() {
    let told = std::env::var(CPU_LIMIT).ok().and_then(|text| text.parse().ok());
    super::shim::cpu_limit(told.or_else(crate::host::memory_bytes).unwrap_or(u64::MAX));
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

/// Hands pooled memory back, so that another batch size can be tried after an out-of-memory. Only a courtesy: a failure
/// shows when memory is next asked for.
#[cfg(feature = "tch")]
pub fn release_pool(device: TorchDevice) {
    match device {
        TorchDevice::Cpu => drop(super::shim::cpu_trim()),
        TorchDevice::Cuda(_) => drop(super::shim::cuda_empty_cache()),
    }
}
