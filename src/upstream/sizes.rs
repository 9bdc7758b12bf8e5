//! Sizes that follow from a depth: widths, windows, parameter counts, FLOPs a token.

use serde::{Deserialize, Serialize};

use super::recipe::ShortWindow;

/// What decides the sizes of a nanochat GPT. All limits are checked before one of these is made.
#[derive(Debug, Clone, PartialEq)]
pub struct GptShape {
    /// Layers, at least 1.
    pub depth: usize,
    /// Model dimension a layer.
    pub aspect_ratio: usize,
    /// D.
    pub head_dim: usize,
    /// K; none is as many as query heads.
    pub n_kv_head: Option<usize>,
    /// T.
    pub sequence_len: usize,
    /// V.
    pub vocab_size: usize,
    /// S and L, tiled.
    pub window_pattern: String,
    /// What S means.
    pub short_window: ShortWindow,
    /// Channels of the value embeddings' gate, if there are any.
    pub ve_gate_channels: Option<usize>,
    /// Channels of the smear gate, if there is one.
    pub smear_channels: Option<usize>,
    /// Whether there is a backout lambda.
    pub backout: bool,
    /// Whether FLOPs count the smear gate (92d63d4).
    pub flops_count_smear_gate: bool,
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct GptSizes {
    /// C.
    pub n_embd: usize,
    /// H.
    pub n_head: usize,
    /// K.
    pub n_kv_head: usize,
    /// Rows of the embedding tables.
    pub padded_vocab_size: usize,
    /// Left window a layer.
    pub windows: Vec<usize>,
    /// Layers with a value embedding.
    pub value_embed_layers: Vec<usize>,
    /// Parameters by group.
    pub params: ParamCounts,
    /// Forward and backward FLOPs a token, by upstream's formula.
    pub flops_per_token: u64,
}

/// Parameters by upstream's groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ParamCounts {
    /// Token embedding.
    pub wte: u64,
    /// Value embeddings.
    pub value_embeds: u64,
    /// Unembedding.
    pub lm_head: u64,
    /// Everything inside the blocks.
    pub transformer_matrices: u64,
    /// Lambdas and the smear gate.
    pub scalars: u64,
    /// All of them.
    pub total: u64,
}

impl ParamCounts {
    /// The parameters that upstream's scaling laws count.
    pub fn scaling(&self) -> u64 {
        self.transformer_matrices + self.lm_head
    }
}

/// V rounded up to a multiple of 64.
pub fn padded_vocab_size(vocab_size: usize) -> usize {
    vocab_size.next_multiple_of(64)
}

/// The left window of each layer. The pattern is not empty and has only `S` and `L`; anything but `S` is long.
pub fn windows(pattern: &str, short: ShortWindow, sequence_len: usize, depth: usize) -> Vec<usize> {
    let short = match short {
        ShortWindow::Half => sequence_len / 2,
        ShortWindow::Third => sequence_len.div_ceil(3).next_multiple_of(128),
        ShortWindow::Quarter => sequence_len.div_ceil(4).next_multiple_of(128),
    };
    let letters = pattern.as_bytes().iter().cycle();
    let mut windows: Vec<usize> =
        letters.take(depth).map(|&letter| if letter == b'S' { short } else { sequence_len }).collect();
    if let Some(last) = windows.last_mut() {
        *last = sequence_len;
    }
    windows
}

impl GptShape {
    /// Derives every size.
    pub fn sizes(&self) -> GptSizes {
        let n_embd = (self.depth * self.aspect_ratio).next_multiple_of(self.head_dim);
        let n_head = n_embd / self.head_dim;
        let n_kv_head = self.n_kv_head.unwrap_or(n_head);
        let kv_dim = n_kv_head * self.head_dim;
        let padded_vocab_size = padded_vocab_size(self.vocab_size);
        let value_embed_layers: Vec<usize> = match self.ve_gate_channels {
            Some(_) => (0..self.depth).filter(|layer| layer % 2 == (self.depth + 1) % 2).collect(),
            None => Vec::new(),
        };
        let windows = windows(&self.window_pattern, self.short_window, self.sequence_len, self.depth);

        let [depth, dim, kv, rows] = [self.depth, n_embd, kv_dim, padded_vocab_size].map(|size| size as u64);
        let ve_layers = value_embed_layers.len() as u64;
        let gate = self.ve_gate_channels.unwrap_or(0) as u64 * n_kv_head as u64;
        let smear_gate = self.smear_channels.unwrap_or(0) as u64;
        let mut params = ParamCounts {
            wte: rows * dim,
            value_embeds: ve_layers * rows * kv,
            lm_head: rows * dim,
            // c_q and c_proj are dim x dim, c_k and c_v are kv x dim, the MLP is twice 4 dim x dim.
            transformer_matrices: depth * (2 * dim * dim + 2 * kv * dim + 8 * dim * dim) + ve_layers * gate,
            scalars: 2 * depth
                + smear_gate
                + u64::from(self.smear_channels.is_some())
                + u64::from(self.backout),
            total: 0,
        };
        params.total =
            params.wte + params.value_embeds + params.lm_head + params.transformer_matrices + params.scalars;

        let counted = params.scaling() + if self.flops_count_smear_gate { smear_gate } else { 0 };
        let attention: u64 = windows.iter().map(|&w| 12 * dim * w.min(self.sequence_len) as u64).sum();
        GptSizes {
            n_embd,
            n_head,
            n_kv_head,
            padded_vocab_size,
            windows,
            value_embed_layers,
            params,
            flops_per_token: 6 * counted + attention,
        }
    }
}
