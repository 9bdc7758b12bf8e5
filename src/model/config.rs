//! Complete model configurations: every size is a number, nothing is left to derive.

use serde::{Deserialize, Serialize};

use crate::precision::Precision;

/// One of the model kinds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ModelConfig {
    /// nanochat's GPT.
    Gpt(GptConfig),
    /// Karpathy's microgpt.
    Microgpt(MicrogptConfig),
    /// A bigram model through an embedding.
    Bigram(BigramConfig),
}

/// nanochat's GPT, complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GptConfig {
    /// T, tokens in a training row.
    pub sequence_len: usize,
    /// V, tokens the tokenizer knows.
    pub vocab_size: usize,
    /// Rows of the embedding tables and `lm_head`: V rounded up to a multiple of 64.
    pub padded_vocab_size: usize,
    /// Layers (`depth`).
    pub n_layer: usize,
    /// H.
    pub n_head: usize,
    /// K; divides H.
    pub n_kv_head: usize,
    /// C = H * D.
    pub n_embd: usize,
    /// For each layer, how many positions back it sees (upstream's left window); T or more is plain causal.
    pub windows: Vec<usize>,
    /// Base of the rotary frequencies.
    pub rotary_base: f64,
    /// Precision the rotary tables are rounded to.
    pub rotary_precision: Precision,
    /// Multiplies q and k after their norm; 1 where upstream has none.
    pub qk_scale: f32,
    /// s of `s * tanh(logits / s)`.
    pub softcap: Option<f32>,
    /// Value embeddings on layers i with `i mod 2 == (n_layer - 1) mod 2`.
    pub value_embeds: Option<ValueEmbedConfig>,
    /// Smear: channels its gate reads.
    pub smear_channels: Option<usize>,
    /// Whether the residual after block `n_layer / 2` is subtracted before the final norm.
    pub backout: bool,
    /// Epsilon of every RMS norm. torch's default for float32 is 2^-23.
    pub norm_eps: f32,
    /// How parameters start.
    pub init: GptInit,
}

/// Value embeddings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValueEmbedConfig {
    /// Channels of the attention input that the gate reads.
    pub gate_channels: usize,
    /// The gate is `gate_scale * sigmoid(..)`.
    pub gate_scale: f32,
}

/// Initial values of a GPT. With `s = sqrt(3 / n_embd)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GptInit {
    /// wte ~ N(0, this).
    pub wte_std: f64,
    /// `lm_head` ~ N(0, this).
    pub lm_head_std: f64,
    /// `c_fc` ~ U(-s * this, s * this).
    pub c_fc_scale: f64,
    /// Gates of the value embeddings ~ U(0, this); 0 starts them at zero without drawing.
    pub ve_gate_max: f64,
    /// Residual lambda of layer i: `first - fall * i / max(n_layer - 1, 1)`.
    pub resid_lambda: LayerRamp,
    /// x0 lambda of layer i, likewise.
    pub x0_lambda: LayerRamp,
    /// Smear gate ~ U(0, this); 0 starts it at zero without drawing.
    pub smear_gate_max: f64,
    /// Start of the smear lambda.
    pub smear_lambda: f64,
    /// Start of the backout lambda.
    pub backout_lambda: f64,
}

/// A value that falls linearly over the layers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LayerRamp {
    /// Value at layer 0.
    pub first: f64,
    /// How much lower it is at the last layer.
    pub fall: f64,
}

/// Karpathy's microgpt: learned positions, RMS norm, no final norm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MicrogptConfig {
    /// Longest context.
    pub sequence_len: usize,
    /// V.
    pub vocab_size: usize,
    /// Layers.
    pub n_layer: usize,
    /// H.
    pub n_head: usize,
    /// C.
    pub n_embd: usize,
    /// Epsilon of the RMS norm: 1e-5.
    pub norm_eps: f32,
    /// Whether `lm_head` is the token embedding.
    pub tie_lm_head: bool,
    /// Whether the summed embeddings are normalised before the first block.
    pub input_rmsnorm: bool,
    /// Standard deviation of the initial weights.
    pub init_std: f64,
}

/// Token embedding straight into `lm_head`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BigramConfig {
    /// Longest training row.
    pub sequence_len: usize,
    /// V.
    pub vocab_size: usize,
    /// C.
    pub n_embd: usize,
    /// Epsilon of the RMS norm.
    pub norm_eps: f32,
    /// Whether `lm_head` is the token embedding.
    pub tie_lm_head: bool,
    /// Whether the embedding is normalised.
    pub input_rmsnorm: bool,
    /// Standard deviation of the initial weights.
    pub init_std: f64,
}

impl ModelConfig {
    /// T.
    pub fn sequence_len(&self) -> usize {
        match self {
            Self::Gpt(c) => c.sequence_len,
            Self::Microgpt(c) => c.sequence_len,
            Self::Bigram(c) => c.sequence_len,
        }
    }

    /// V.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Gpt(c) => c.vocab_size,
            Self::Microgpt(c) => c.vocab_size,
            Self::Bigram(c) => c.vocab_size,
        }
    }
}

impl GptConfig {
    /// D.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Channels of keys and values, K * D.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_head * self.head_dim()
    }

    /// Whether layer `layer` has a value embedding.
    pub fn has_value_embed(&self, layer: usize) -> bool {
        self.value_embeds.is_some() && layer % 2 == (self.n_layer + 1) % 2
    }
}
