//! Decoding with cached keys and values: the same blocks on one sequence that grows.

use crate::model::network::{Inputs, Network};
use crate::model::param::Params;
use crate::ops::{ForwardOps, OpError, OpResult, SequenceShape};
use crate::stop::StopFlag;

use super::Gpt;
use super::forward::Qkv;

/// Keys and values of every layer for one sequence, and what else the next token needs.
pub struct GptCache<B: ForwardOps> {
    layers: Vec<B::KvCache>,
    rotary: B::Rotary,
    /// Normed, un-smeared embedding of the last position (1, C).
    previous: Option<B::Tensor>,
    position: usize,
    capacity: usize,
}

impl<B: ForwardOps> GptCache<B> {
    pub(super) fn new(gpt: &Gpt, ops: &B, capacity: usize) -> OpResult<Self> {
        Ok(Self {
            layers: (0..gpt.config.n_layer)
                .map(|_| ops.kv_cache(capacity, gpt.config.kv_dim()))
                .collect::<OpResult<_>>()?,
            rotary: gpt.tables(ops, capacity)?,
            previous: None,
            position: 0,
            capacity,
        })
    }
}

impl Gpt {
    /// Feeds `ids` and returns the logits (1, V) after the last of them.
    ///
    /// # Errors
    /// [`OpError::Shape`] if there are none, or more than the cache has room for.
    pub(super) fn decode_ids<B: ForwardOps>(
        &self,
        ops: &B,
        weights: &Params<B::Weight>,
        cache: &mut GptCache<B>,
        ids: &[i32],
    ) -> OpResult<B::Tensor> {
        if ids.is_empty() || cache.position + ids.len() > cache.capacity {
            return Err(OpError::Shape {
                op: "decode",
                message: format!(
                    "{} tokens after {} in a cache of {}",
                    ids.len(),
                    cache.position,
                    cache.capacity
                ),
            });
        }
        let (param, eps) = (&self.ids, self.config.norm_eps);
        let sequence = SequenceShape { batch: 1, len: ids.len() };
        let tokens = ops.tokens(ids)?;
        let (embedding, _) = ops.rms_norm(&ops.embedding(&weights[param.wte], &tokens)?, eps)?;
        let x0 = match param.smear {
            Some(smear) => {
                let (gate, lambda) = (&weights[smear.gate], &weights[smear.lambda]);
                let (x0, _) = ops.smear(&embedding, gate, lambda, sequence, cache.previous.as_ref())?;
                cache.previous = Some(ops.rows(&embedding, ids.len() - 1, 1)?);
                x0
            }
            None => embedding,
        };
        let stop = &StopFlag::default();
        let inputs = Inputs { ops, weights, tables: &cache.rotary, tokens: &tokens, sequence, stop };
        let mut x = ops.copy(&x0)?;
        let mut kept = None;
        for (layer, block) in param.blocks.iter().enumerate() {
            let mixed = ops.residual_mix(&x, &x0, &weights[param.resid], &weights[param.x0], layer)?;
            let (h, _) = ops.rms_norm(&mixed, eps)?;
            let Qkv { q, k, v, .. } = self.qkv(&inputs, block, cache.position, &h)?;
            let keys = &mut cache.layers[layer];
            ops.kv_append(keys, &k, &v)?;
            let o = ops.attention_cached(&q, keys, &self.attention_shape(layer, sequence))?;
            let mixed = ops.linear_add(mixed, &o, &weights[block.attn_c_proj])?;
            let (h2, _) = ops.rms_norm(&mixed, eps)?;
            let u = ops.linear(&h2, &weights[block.c_fc])?;
            x = ops.relu_squared_linear_add(mixed, &u, &weights[block.mlp_c_proj])?;
            if param.backout.is_some() && layer == self.backout_layer() {
                kept = Some(ops.copy(&x)?);
            }
        }
        cache.position += ids.len();
        if let (Some(lambda), Some(kept)) = (param.backout, &kept) {
            x = ops.backout(x, kept, &weights[lambda])?;
        }
        let last = ops.rows(&x, ids.len() - 1, 1)?;
        let (y, _) = ops.rms_norm(&last, eps)?;
        ops.logits(&y, &weights[param.lm_head], &self.head())
    }
}
