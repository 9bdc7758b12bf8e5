//! The recipe of one commit: nothing but named numbers and named rules.

use serde::{Deserialize, Serialize};

/// Everything a commit of upstream decides about a pretraining run.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// All 40 hex digits.
    pub commit: &'static str,
    /// Committer date (UTC).
    pub date: &'static str,
    /// What it is known for.
    pub note: &'static str,
    /// Architecture.
    pub model: ModelRecipe,
    /// Initial values.
    pub init: InitRecipe,
    /// Base learning rates (before the laws scale them), betas and decays.
    pub optimizer: OptimizerRecipe,
    /// Schedules and horizon.
    pub schedule: ScheduleRecipe,
    /// Batches, evaluation and data.
    pub data: DataRecipe,
}

impl Recipe {
    /// The first seven digits of the commit.
    pub fn short(&self) -> &'static str {
        self.commit.get(..7).unwrap_or(self.commit)
    }
}

/// Architecture.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a recipe")]
pub struct ModelRecipe {
    /// Layers.
    pub depth: usize,
    /// Model dimension a layer, before rounding up to a multiple of `head_dim`.
    pub aspect_ratio: usize,
    /// D.
    pub head_dim: usize,
    /// T (upstream's `max_seq_len`).
    pub sequence_len: usize,
    /// Tiled over the layers; the last layer is always long.
    pub window_pattern: &'static str,
    /// Length of a short window.
    pub short_window: ShortWindow,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Precision of the rotary tables.
    pub rotary_precision: PrecisionRule,
    /// Multiplies q and k after their norm; 1 where upstream has none.
    pub qk_scale: f64,
    /// s of `s * tanh(logits / s)`.
    pub softcap: f64,
    /// Value embeddings on every other layer.
    pub value_embeds: bool,
    /// Channels that their gate reads.
    pub ve_gate_channels: usize,
    /// The gate is this times a sigmoid.
    pub ve_gate_scale: f64,
    /// Smear the previous token's embedding into the next.
    pub smear: bool,
    /// Channels that the smear gate reads.
    pub smear_channels: usize,
    /// Subtract the residual of the middle before the final norm.
    pub backout: bool,
    /// Epsilon of every RMS norm: torch's default, 2^-23.
    pub norm_eps: f64,
    /// Whether the smear gate counts as a matmul in FLOPs a token.
    pub flops_count_smear_gate: bool,
}

/// Initial values; `s = sqrt(3 / n_embd)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InitRecipe {
    /// wte ~ N(0, this).
    pub wte_std: f64,
    /// `lm_head` ~ N(0, this).
    pub lm_head_std: f64,
    /// `c_fc` ~ U(-s * this, s * this).
    pub c_fc_scale: f64,
    /// Gates of the value embeddings ~ U(0, this); 0 draws nothing.
    pub ve_gate_max: f64,
    /// Residual lambdas.
    pub resid_lambda: LayerRamp,
    /// x0 lambdas.
    pub x0_lambda: LayerRamp,
    /// Smear gate ~ U(0, this); 0 draws nothing.
    pub smear_gate_max: f64,
    /// Smear lambda.
    pub smear_lambda: f64,
    /// Backout lambda.
    pub backout_lambda: f64,
}

/// A value that falls linearly over the layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerRamp {
    /// At layer 0.
    pub first: f64,
    /// How much lower at the last layer.
    pub fall: f64,
}

/// Optimizer constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerRecipe {
    /// `lm_head`; its `lr` is upstream's `unembedding_lr`.
    pub unembedding: AdamWRecipe,
    /// wte; its `lr` is upstream's `embedding_lr`.
    pub embedding: AdamWRecipe,
    /// Value embeddings; `lr` is a factor on `embedding_lr`.
    pub value_embeds: AdamWRecipe,
    /// Residual lambdas; `lr` is a factor on `scalar_lr`.
    pub resid: AdamWRecipe,
    /// x0 lambdas; `lr` is upstream's `scalar_lr`.
    pub x0: AdamWRecipe,
    /// Smear and backout; `lr` is absolute and unscaled.
    pub smear: AdamWRecipe,
    /// Epsilon of AdamW, outside the root.
    pub adam_eps: f64,
    /// Everything inside the blocks.
    pub muon: MuonRecipe,
    /// How Muon's weight decay scales.
    pub weight_decay_law: WeightDecayLaw,
}

/// AdamW constants of one group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWRecipe {
    /// Learning rate or factor, as the field says.
    pub lr: f64,
    /// Decays of the two moments.
    pub betas: (f64, f64),
    /// Decoupled decay.
    pub weight_decay: f64,
}

/// Muon constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MuonRecipe {
    /// Upstream's `matrix_lr`.
    pub lr: f64,
    /// Decay of NorMuon's second moment.
    pub beta2: f64,
    /// f in `X / (|X| * f + 1e-6)`.
    pub norm_factor: f64,
    /// Polar iterations.
    pub ns_steps: usize,
    /// MuonEq before the polar iteration.
    pub row_equilibration: bool,
    /// Muon+ after it.
    pub renormalize: bool,
    /// Precision of the polar iteration.
    pub polar_precision: PrecisionRule,
    /// Precision of the direction after it.
    pub update_precision: PrecisionRule,
    /// Upstream's `weight_decay`.
    pub weight_decay: f64,
    /// Momentum over steps.
    pub momentum: MomentumRecipe,
}

/// Muon's momentum over steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MomentumRecipe {
    /// At step 0.
    pub start: f64,
    /// After the warm-up.
    pub peak: f64,
    /// Length of the warm-up.
    pub warmup_steps: u64,
    /// What it falls to over the LR warm-down.
    pub warmdown_to: Option<f64>,
}

/// Schedules and horizon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScheduleRecipe {
    /// LR warm-up.
    pub warmup: WarmupRule,
    /// Warm-down as a fraction of all steps.
    pub warmdown_ratio: f64,
    /// What the LR multiplier approaches.
    pub final_lr_frac: f64,
    /// Shape of Muon's decay.
    pub weight_decay_shape: WeightDecayShape,
    /// Tokens a scaling parameter: the horizon the laws are written for.
    pub param_data_ratio: f64,
}

/// Batches, evaluation and data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataRecipe {
    /// Rows of a micro-batch.
    pub device_batch_size: usize,
    /// Tokens of a step.
    pub total_batch_size: BatchRule,
    /// Steps between evaluations.
    pub eval_every: u64,
    /// Tokens of an evaluation.
    pub eval_tokens: u64,
    /// What counts as the bytes of a token.
    pub token_bytes: TokenBytesRule,
}

/// Length of a short window for a sequence of T tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShortWindow {
    /// `floor(T / 2)`.
    Half,
    /// `ceil(ceil(T / 3) / 128) * 128`.
    Third,
    /// `ceil(ceil(T / 4) / 128) * 128`.
    Quarter,
}

/// Which precision something is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrecisionRule {
    /// Always float32.
    F32,
    /// Always bfloat16, on every device.
    Bf16,
    /// The run's own precision.
    Compute,
}

/// How Muon's base decay scales to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightDecayLaw {
    /// `(12 / depth)^2`.
    Depth,
    /// `sqrt(B / 2^19) * (D_ref / D)`, arXiv 2405.13698.
    Horizon,
    /// 1.
    Constant,
}

/// How weight decay changes over steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightDecayShape {
    /// `wd * (1 - t / N)`.
    Linear,
    /// `wd * (1 + cos(pi t / N)) / 2`.
    Cosine,
    /// `wd`.
    Constant,
}

/// LR warm-up as the commit states it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WarmupRule {
    /// As a fraction of all steps.
    Ratio(f64),
    /// In steps.
    Steps(u64),
}

/// Total batch as the commit states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchRule {
    /// In tokens.
    Tokens(u64),
    /// From the horizon, arXiv 2505.13738.
    Auto,
}

/// What counts as the bytes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenBytesRule {
    /// Bytes of the token decoded to text with replacement characters (upstream before eb16d01).
    Decoded,
    /// The token's own bytes (from eb16d01 on).
    Raw,
}
