//! Decoding with cached keys and values: the same blocks on a sequence that grows, or on several that grow together.

use std::sync::Arc;

use crate::model::network::{Inputs, Network, fed};
use crate::model::param::Params;
use crate::ops::{ForwardOps, OpError, OpResult, SequenceShape};
use crate::stop::StopFlag;

use super::Gpt;
use super::forward::Qkv;

/// Positions that a layer with a short window has room for beside its window, at least: what it no longer sees is let go
/// of once so many have come.
const ROOM: usize = 128;

/// Keys and values of one layer, as far back as it sees.
struct Layer<B: ForwardOps> {
    cache: B::KvCache,
    /// Positions in it.
    len: usize,
    /// Positions it has room for.
    capacity: usize,
}

/// Keys and values of every layer, and what else the next token needs, of S sequences that are equally long.
pub struct GptCache<B: ForwardOps> {
    sequences: usize,
    layers: Vec<Layer<B>>,
    rotary: Arc<B::Rotary>,
    /// Normed, un-smeared embedding of the last position of each (S, C).
    previous: Option<B::Tensor>,
    position: usize,
    capacity: usize,
}

impl<B: ForwardOps> GptCache<B> {
    pub(super) fn new(gpt: &Gpt, ops: &B, capacity: usize) -> OpResult<Self> {
        let layer = |&window: &usize| {
            let capacity = capacity.min(window.saturating_add(window.max(ROOM)));
            Ok(Layer { cache: ops.kv_cache(capacity, gpt.config.kv_dim())?, len: 0, capacity })
        };
        Ok(Self {
            sequences: 1,
            layers: gpt.config.windows.iter().map(layer).collect::<OpResult<_>>()?,
            rotary: Arc::new(gpt.tables(ops, capacity)?),
            previous: None,
            position: 0,
            capacity,
        })
    }

    pub(super) fn fork(&self, ops: &B, sequences: &[usize]) -> OpResult<Self> {
        let layer = |layer: &Layer<B>| {
            Ok(Layer {
                cache: ops.kv_select(&layer.cache, sequences, layer.len)?,
                len: layer.len,
                capacity: layer.capacity,
            })
        };
        Ok(Self {
            sequences: sequences.len(),
            layers: self.layers.iter().map(layer).collect::<OpResult<_>>()?,
            rotary: Arc::clone(&self.rotary),
            previous: self.previous.as_ref().map(|previous| ops.gather(previous, sequences)).transpose()?,
            position: self.position,
            capacity: self.capacity,
        })
    }
}

impl Gpt {
    /// Feeds `ids` and returns the logits after the last of them: (S, V), or (last, V) of one sequence.
    ///
    /// # Errors
    /// What [`fed`] reports.
    pub(super) fn decode_ids<B: ForwardOps>(
        &self,
        ops: &B,
        weights: &Params<B::Weight>,
        cache: &mut GptCache<B>,
        ids: &[i32],
        last: usize,
    ) -> OpResult<B::Tensor> {
        let fed = fed(ids, last, cache.sequences, cache.position, cache.capacity)?;
        // A layer takes no more at a time than it has room for beside its window.
        let room = |(layer, &window): (&Layer<B>, &usize)| {
            if layer.capacity < cache.capacity { layer.capacity - window } else { fed.len }
        };
        let piece = cache.layers.iter().zip(&self.config.windows).map(room).min().unwrap_or(fed.len);
        // Those whose logits are asked for are of one piece, the last: it may be as long as two. Several sequences have
        // one token each, which is one piece.
        let (mut rest, mut x) = (ids, None);
        while !rest.is_empty() {
            // What begins the sequence is computed as in training, up to a row of it: nothing of it need be in a cache.
            let piece = if cache.position == 0 { piece.max(self.config.sequence_len) } else { piece };
            let most =
                if rest.len() <= piece * fed.batch { rest.len() } else { piece.min(rest.len() - last) };
            let (now, later) = rest.split_at(most.max(1));
            let count = if later.is_empty() { last } else { 1 };
            x = Some(self.decode_piece(ops, weights, cache, now, count)?);
            rest = later;
        }
        let x = x.ok_or_else(|| OpError::Shape { op: "decode", message: "no tokens".to_owned() })?;
        let (y, _) = ops.rms_norm(&x, self.config.norm_eps)?;
        ops.logits(&y, &weights[self.ids.lm_head], &self.head())
    }

    /// Feeds `ids`, for which every layer has room if they do not begin the sequence, and returns the last positions before the final norm: one of each
    /// sequence (S, C), or several of one (last, C).
    fn decode_piece<B: ForwardOps>(
        &self,
        ops: &B,
        weights: &Params<B::Weight>,
        cache: &mut GptCache<B>,
        ids: &[i32],
        last: usize,
    ) -> OpResult<B::Tensor> {
        let (param, eps) = (&self.ids, self.config.norm_eps);
        let sequence = SequenceShape { batch: cache.sequences, len: ids.len() / cache.sequences };
        let len = sequence.len;
        let tokens = ops.tokens(ids)?;
        let (embedding, _) = ops.rms_norm(&ops.embedding(&weights[param.wte], &tokens)?, eps)?;
        let x0 = match param.smear {
            Some(smear) => {
                let (gate, lambda) = (&weights[smear.gate], &weights[smear.lambda]);
                let (x0, _) = ops.smear(&embedding, gate, lambda, sequence, cache.previous.as_ref())?;
                // Several sequences come a position at a time.
                cache.previous = Some(if len == 1 { embedding } else { ops.rows(&embedding, len - 1, 1)? });
                x0
            }
            None => embedding,
        };
        let stop = &StopFlag::default();
        let rotary = Arc::clone(&cache.rotary);
        let inputs = Inputs { ops, weights, tables: &*rotary, tokens: &tokens, sequence, stop };
        let mut x = ops.copy(&x0)?;
        let mut kept = None;
        for (layer, block) in param.blocks.iter().enumerate() {
            let mixed = ops.residual_mix(&x, &x0, &weights[param.resid], &weights[param.x0], layer)?;
            let (h, _) = ops.rms_norm(&mixed, eps)?;
            let Qkv { q, k, v, .. } = self.qkv(&inputs, block, cache.position, &h)?;
            let shape = self.attention_shape(layer, sequence);
            let keys = &mut cache.layers[layer];
            let o = if cache.position == 0 && cache.sequences == 1 {
                // Later tokens see no more of it than a window.
                keys.len = if len > keys.capacity { shape.window } else { len };
                ops.kv_begin(&mut keys.cache, &k, &v, len, keys.len)?;
                ops.attention(&q, &k, &v, &shape)?.0
            } else {
                if keys.len + len > keys.capacity {
                    // Beyond its window it sees nothing any more.
                    keys.len = keys.len.min(shape.window);
                    let all: Vec<usize> = (0..cache.sequences).collect();
                    keys.cache = ops.kv_select(&keys.cache, &all, keys.len)?;
                }
                ops.kv_append(&mut keys.cache, &k, &v)?;
                keys.len += len;
                ops.attention_cached(&q, &keys.cache, &shape)?
            };
            let mixed = ops.linear_add(mixed, &o, &weights[block.attn_c_proj])?;
            let (h2, _) = ops.rms_norm(&mixed, eps)?;
            let u = ops.linear(&h2, &weights[block.c_fc])?;
            x = ops.relu_squared_linear_add(mixed, &u, &weights[block.mlp_c_proj])?;
            if param.backout.is_some() && layer == self.backout_layer() {
                kept = Some(ops.copy(&x)?);
            }
        }
        cache.position += len;
        if let (Some(lambda), Some(kept)) = (param.backout, &kept) {
            x = ops.backout(x, kept, &weights[lambda])?;
        }
        if len == last { Ok(x) } else { ops.rows(&x, len - last, last) }
    }
}
