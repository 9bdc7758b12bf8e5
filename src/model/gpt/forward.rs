//! The forward pass, which hands out what the backward needs block by block.

use crate::model::network::Inputs;
use crate::ops::{ForwardOps, OpResult};

use super::{BlockIds, Gpt};

/// What one block keeps for its backward. N rows, C channels.
pub struct BlockSaved<B: ForwardOps> {
    /// The block's input (N, C); none stands for x0, the input of the first block.
    pub(super) x: Option<B::Tensor>,
    /// Normed input of the attention (N, C).
    pub(super) h: B::Tensor,
    pub(super) h_norm: B::NormSaved,
    /// Queries, keys and values as the attention saw them.
    pub(super) q: B::Tensor,
    pub(super) k: B::Tensor,
    pub(super) v: B::Tensor,
    pub(super) q_rotary: B::RotarySaved,
    pub(super) k_rotary: B::RotarySaved,
    pub(super) value: Option<B::ValueSaved>,
    /// Attention output (N, C).
    pub(super) o: B::Tensor,
    pub(super) attention: B::AttentionSaved,
    /// Normed input of the MLP (N, C).
    pub(super) h2: B::Tensor,
    pub(super) h2_norm: B::NormSaved,
    /// `c_fc` output before the activation (N, 4C).
    pub(super) u: B::Tensor,
}

/// What the trunk keeps for its backward.
pub struct TrunkSaved<B: ForwardOps> {
    /// Normed token embeddings before the smear (N, C), where there is a smear.
    pub(super) smear: Option<(B::Tensor, B::SmearSaved)>,
    pub(super) embedding_norm: B::NormSaved,
    /// What every block mixes in (N, C).
    pub(super) x0: B::Tensor,
    pub(super) blocks: Vec<BlockSaved<B>>,
    /// Residual after block `n_layer / 2`, where there is a backout.
    pub(super) kept: Option<B::Tensor>,
    /// Output of the final norm (N, C).
    pub(super) y: B::Tensor,
    pub(super) y_norm: B::NormSaved,
}

/// Queries, keys and values, with what their backwards need.
pub(super) struct Qkv<B: ForwardOps> {
    pub(super) q: B::Tensor,
    pub(super) k: B::Tensor,
    pub(super) v: B::Tensor,
    pub(super) q_rotary: B::RotarySaved,
    pub(super) k_rotary: B::RotarySaved,
    pub(super) value: Option<B::ValueSaved>,
}

impl Gpt {
    /// The forward pass up to the final norm. Each block's activations go to `keep` as soon as the block is done, so
    /// that an evaluation holds those of one block only.
    pub(super) fn trunk<B: ForwardOps>(
        &self,
        inputs: &Inputs<'_, B, B::Rotary>,
        mut keep: impl FnMut(BlockSaved<B>),
    ) -> OpResult<TrunkSaved<B>> {
        let &Inputs { ops, weights, tokens, sequence, .. } = inputs;
        let (ids, eps) = (&self.ids, self.config.norm_eps);
        let (embedding, embedding_norm) = ops.rms_norm(&ops.embedding(&weights[ids.wte], tokens)?, eps)?;
        let (x0, smear) = match ids.smear {
            Some(smear) => {
                let (x0, saved) =
                    ops.smear(&embedding, &weights[smear.gate], &weights[smear.lambda], sequence, None)?;
                (x0, Some((embedding, saved)))
            }
            None => (embedding, None),
        };
        let mut kept = None;
        let mut x = None;
        for (layer, block) in ids.blocks.iter().enumerate() {
            inputs.go_on()?;
            let input = x.take();
            let mixed = ops.residual_mix(
                input.as_ref().unwrap_or(&x0),
                &x0,
                &weights[ids.resid],
                &weights[ids.x0],
                layer,
            )?;
            let (h, h_norm) = ops.rms_norm(&mixed, eps)?;
            let Qkv { q, k, v, q_rotary, k_rotary, value } = self.qkv(inputs, block, 0, &h)?;
            let (o, attention) = ops.attention(&q, &k, &v, &self.attention_shape(layer, sequence))?;
            let mixed = ops.linear_add(mixed, &o, &weights[block.attn_c_proj])?;
            let (h2, h2_norm) = ops.rms_norm(&mixed, eps)?;
            let u = ops.linear(&h2, &weights[block.c_fc])?;
            let output = ops.relu_squared_linear_add(mixed, &u, &weights[block.mlp_c_proj])?;
            keep(BlockSaved {
                x: input,
                h,
                h_norm,
                q,
                k,
                v,
                q_rotary,
                k_rotary,
                value,
                o,
                attention,
                h2,
                h2_norm,
                u,
            });
            if ids.backout.is_some() && layer == self.backout_layer() {
                kept = Some(ops.copy(&output)?);
            }
            x = Some(output);
        }
        let mut x = match x {
            Some(x) => x,
            None => ops.copy(&x0)?,
        };
        if let (Some(lambda), Some(kept)) = (ids.backout, &kept) {
            x = ops.backout(x, kept, &weights[lambda])?;
        }
        let (y, y_norm) = ops.rms_norm(&x, eps)?;
        Ok(TrunkSaved { smear, embedding_norm, x0, blocks: Vec::new(), kept, y, y_norm })
    }

    /// Queries, keys and values of one block from its normed input `h` (N, C), whose first row has position `start`.
    pub(super) fn qkv<B: ForwardOps>(
        &self,
        inputs: &Inputs<'_, B, B::Rotary>,
        block: &BlockIds,
        start: usize,
        h: &B::Tensor,
    ) -> OpResult<Qkv<B>> {
        let &Inputs { ops, weights, tables: rotary, tokens, sequence, .. } = inputs;
        let config = &self.config;
        let (head_dim, scale, eps) = (config.head_dim(), config.qk_scale, config.norm_eps);
        let q = ops.linear(h, &weights[block.c_q])?;
        let k = ops.linear(h, &weights[block.c_k])?;
        let v = ops.linear(h, &weights[block.c_v])?;
        let (v, value) = match (block.value, &config.value_embeds) {
            (Some(ids), Some(value)) => {
                let (table, gate) = (&weights[ids.table], &weights[ids.gate]);
                let (v, saved) = ops.value_embedding(v, h, table, tokens, gate, value.gate_scale)?;
                (v, Some(saved))
            }
            _ => (v, None),
        };
        let (q, q_rotary) = ops.rotary_norm(q, rotary, start, sequence, head_dim, scale, eps)?;
        let (k, k_rotary) = ops.rotary_norm(k, rotary, start, sequence, head_dim, scale, eps)?;
        Ok(Qkv { q, k, v, q_rotary, k_rotary, value })
    }
}
