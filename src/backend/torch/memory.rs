//! Memory: what a run will need, and what it holds.

use crate::backend::memory::MemoryEstimate;
use crate::model::config::{GptConfig, ModelConfig};
use crate::precision::Precision;

use super::device::TorchDevice;
use super::{chunks, flash};

/// Bytes that CUDA's context, cuBLAS and the allocator's rounding take beside tensors.
const CUDA_OVERHEAD: u64 = 1 << 30;

/// Bytes of a float32.
const FLOAT: u64 = 4;

/// What training `model` with `rows` rows a micro-batch needs on the tch backend: an estimate, counted tensor by tensor
/// and tested on the CPU device against what was taken. None for the small models, which fit anywhere.
pub fn estimate(
    model: &ModelConfig,
    precision: Precision,
    device: TorchDevice,
    rows: usize,
) -> Option<MemoryEstimate> {
    let ModelConfig::Gpt(config) = model else { return None };
    let sizes = Sizes::new(config, precision, device, rows);
    // Every block is kept when the backward of the last one begins; the loss comes before it, the optimizer after.
    let kept = sizes.tokens * sizes.kept();
    let backward = sizes.tokens * sizes.gradients() + sizes.mlp_backward().max(sizes.attention_backward());
    let activations = kept + backward;
    let workspace = (kept + sizes.loss()).max(sizes.optimizer()).saturating_sub(activations);
    let overhead = if device == TorchDevice::Cpu { 0 } else { CUDA_OVERHEAD };
    Some(MemoryEstimate { parameters: sizes.parameters(), activations, workspace: workspace + overhead })
}

/// What the sizes of tensors follow from. Names and shapes are those of [`crate::model::gpt`].
struct Sizes<'a> {
    config: &'a GptConfig,
    precision: Precision,
    device: TorchDevice,
    /// Sequences of a micro-batch.
    rows: usize,
    /// N
    tokens: u64,
    /// C
    channels: u64,
    /// K * D
    kv: u64,
    /// Bytes of an activation.
    activation: u64,
}

impl<'a> Sizes<'a> {
    fn new(config: &'a GptConfig, precision: Precision, device: TorchDevice, rows: usize) -> Self {
        Self {
            config,
            precision,
            device,
            rows,
            tokens: (rows * config.sequence_len) as u64,
            channels: config.n_embd as u64,
            kv: config.kv_dim() as u64,
            activation: if precision == Precision::Bf16 { 2 } else { FLOAT },
        }
    }

    fn bf16(&self) -> bool {
        self.precision == Precision::Bf16
    }

    /// Bytes of weights, gradients and optimizer state.
    fn parameters(&self) -> u64 {
        let (matrices, lm_head, tables) = parameters(self.config);
        // The copy that products read, where it is not the master itself.
        let copy = if self.bf16() { self.activation } else { 0 };
        // Master, gradient and moments: Muon keeps one, AdamW two. Tables and their moments are as activations are.
        matrices * (3 * FLOAT + copy) + lm_head * (4 * FLOAT + copy) + tables * (FLOAT + 3 * self.activation)
    }

    /// Bytes a token that the forward keeps for the backward.
    fn kept(&self) -> u64 {
        let (config, heads) = (self.config, self.config.n_head as u64);
        let layers = config.n_layer as u64;
        // h, q, o, h2 and u of 4 C; k and v. Norms keep a float32 a row or a head, the attention one a head.
        let block = (8 * self.channels + 2 * self.kv) * self.activation
            + FLOAT * (2 + 2 * heads + config.n_kv_head as u64);
        // x of every block but the first, whose input is x0; and x0 and the embedding before the smear.
        let streams = layers.max(1) + u64::from(config.smear_channels.is_some());
        layers * block + streams * self.channels * self.activation
    }

    /// Bytes a token of gradients that go down from block to block: dy, dx, dx0 and that of what the backout kept.
    fn gradients(&self) -> u64 {
        (3 + u64::from(self.config.backout)) * self.channels * self.activation
    }

    /// Bytes of temporaries in the backward of an MLP.
    fn mlp_backward(&self) -> u64 {
        // relu^2 or its gradient of 4 C each, both of them or one with both factors of the weight gradient in float32.
        let hidden = 4 * self.channels * self.activation;
        let widened = if self.bf16() { 5 * self.channels * FLOAT } else { 0 };
        self.tokens * (hidden + hidden.max(widened))
    }

    /// Bytes of temporaries in the backward of the last block's attention, which works in float32.
    fn attention_backward(&self) -> u64 {
        let (channels, kv) = (self.channels * FLOAT, self.kv * FLOAT);
        // The gradient it is given; copies by head of that and of q, k and v, and gradients of the latter.
        let held = self.tokens * (self.channels * self.activation + 3 * channels + 4 * kv);
        // Then the gradients are laid out as they came, dq first.
        let joined = self.tokens * channels;
        held + joined.max(self.scores())
    }

    /// Bytes of a block of attention probabilities and their gradient. Flash attention, on CUDA in bfloat16, has none.
    fn scores(&self) -> u64 {
        let config = self.config;
        if self.bf16() && self.device != TorchDevice::Cpu && flash::takes(config.head_dim()) {
            return 0;
        }
        let queries = chunks::QUERIES.min(config.sequence_len);
        let window = config.windows.last().copied().unwrap_or(config.sequence_len);
        let keys = config.sequence_len.min(window.saturating_add(queries));
        let each = config.n_head / config.n_kv_head.max(1) * queries * keys;
        2 * FLOAT * (each * chunks::heads(self.device, each, self.rows * config.n_kv_head)) as u64
    }

    /// Bytes beside what is kept when the loss is computed: y, what the backout kept, dx, and three float32 a logit of
    /// a chunk: its softcap, its probability and its gradient.
    fn loss(&self) -> u64 {
        let logits = (chunks::logits(self.device) as u64).min(self.tokens * self.config.vocab_size as u64);
        let streams = 2 + u64::from(self.config.backout);
        self.tokens * streams * self.channels * self.activation + 3 * FLOAT * logits
    }

    /// Bytes of the optimizer's temporaries.
    fn optimizer(&self) -> u64 {
        let matrix = 4 * self.channels * self.channels;
        let stack =
            (chunks::stacked(self.device) as u64).max(matrix).min(self.config.n_layer as u64 * matrix);
        // A stack of matrices, its Gram matrix, the two terms of the polynomial, and the two terms of the result.
        let muon = 6 * self.activation * stack;
        let padded = self.config.padded_vocab_size as u64;
        // Denominator and update; of a bfloat16 table also its value and moments.
        let lm_head = 2 * FLOAT * padded * self.channels;
        let table = if self.bf16() { 5 * FLOAT * padded * self.channels.max(self.kv) } else { lm_head };
        muon.max(lm_head).max(table)
    }
}

/// Elements of matrices, of `lm_head`, and of embedding tables.
fn parameters(config: &GptConfig) -> (u64, u64, u64) {
    let (channels, kv, padded) =
        (config.n_embd as u64, config.kv_dim() as u64, config.padded_vocab_size as u64);
    let block = 2 * channels * channels + 2 * channels * kv + 8 * channels * channels;
    let values = (0..config.n_layer).filter(|&layer| config.has_value_embed(layer)).count() as u64;
    (config.n_layer as u64 * block, padded * channels, padded * channels + values * padded * kv)
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
#[cfg(feature = "tch")]
pub const CPU_LIMIT: &str = "NANORUN_TCH_CPU_BYTES";

/// Limits what tensors of the CPU device may take, for the process: more is out of memory, as on a GPU, and not an end
/// by the system's hand. To what [`CPU_LIMIT`] says, without it to what the process may hold.
#[cfg(feature = "tch")]
pub(super) fn limit_cpu() {
    let told = std::env::var(CPU_LIMIT).ok().and_then(|text| text.parse().ok());
    let may_hold = crate::host::memory_limit().map(|limit| limit.bytes);
    super::shim::cpu_limit(told.or(may_hold).unwrap_or(u64::MAX));
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

/// Hands pooled memory back, so that another batch size can be tried after an out-of-memory. Only a courtesy: a failure
/// shows when memory is next asked for.
#[cfg(feature = "tch")]
pub fn release_pool(device: TorchDevice) {
    match device {
        TorchDevice::Cpu => drop(super::shim::cpu_trim()),
        TorchDevice::Cuda(_) => drop(super::shim::cuda_empty_cache()),
    }
}
