//! The hand-written backward, in the reverse order of the forward.

use crate::error::Error;
use crate::model::network::Inputs;
use crate::model::param::{ParamId, Params};
use crate::ops::{OpError, OpResult, TrainOps};

use super::forward::{BlockSaved, TrunkSaved};
use super::{BlockIds, Gpt};

impl Gpt {
    /// From the gradient `dy` (N, C) of the final norm's output down to the embedding.
    pub(super) fn backward<B: TrainOps>(
        &self,
        inputs: &Inputs<'_, B, B::Rotary>,
        saved: TrunkSaved<B>,
        dy: &B::Tensor,
        grads: &mut Params<B::Grad>,
    ) -> OpResult<()> {
        let &Inputs { ops, weights, tokens, sequence, .. } = inputs;
        let ids = &self.ids;
        let TrunkSaved { smear, embedding_norm, x0, mut blocks, kept, y, y_norm } = saved;
        let mut dx = ops.rms_norm_backward(&y, &y_norm, dy, None)?;
        drop((y, y_norm));
        let mut dkept = match (ids.backout, kept) {
            (Some(lambda), Some(kept)) => {
                Some(ops.backout_backward(&kept, &weights[lambda], &dx, &mut grads[lambda])?)
            }
            _ => None,
        };
        let mut dx0 = ops.zeros(sequence.rows(), self.config.n_embd)?;
        for (layer, block) in ids.blocks.iter().enumerate().rev() {
            inputs.go_on()?;
            let Some(saved) = blocks.pop() else { break };
            if layer == self.backout_layer()
                && let Some(dkept) = dkept.take()
            {
                dx = ops.add(dx, &dkept)?;
            }
            dx = mlp_backward(ops, weights, block, &saved, dx, grads)?;
            dx = self.attention_backward(inputs, block, layer, &saved, dx, grads)?;
            let (dresid, dx0_lambdas) = pair(grads, ids.resid, ids.x0)?;
            let x = saved.x.as_ref().unwrap_or(&x0);
            let (resid, x0_lambdas) = (&weights[ids.resid], &weights[ids.x0]);
            dx = ops.residual_mix_backward(
                x,
                &x0,
                resid,
                x0_lambdas,
                layer,
                dx,
                &mut dx0,
                dresid,
                dx0_lambdas,
            )?;
        }
        let dx0 = ops.add(dx0, &dx)?;
        let (embedding, dembedding) = match (ids.smear, smear) {
            (Some(ids), Some((embedding, saved))) => {
                let (dgate, dlambda) = pair(grads, ids.gate, ids.lambda)?;
                let (gate, lambda) = (&weights[ids.gate], &weights[ids.lambda]);
                let d =
                    ops.smear_backward(&embedding, gate, lambda, sequence, &saved, &dx0, dgate, dlambda)?;
                (embedding, d)
            }
            _ => (x0, dx0),
        };
        let dembedding = ops.rms_norm_backward(&embedding, &embedding_norm, &dembedding, None)?;
        ops.embedding_backward(tokens, &dembedding, &mut grads[ids.wte])
    }

    /// Backward of `x + c_proj(attention(norm(x)))` from the gradient of its output.
    fn attention_backward<B: TrainOps>(
        &self,
        inputs: &Inputs<'_, B, B::Rotary>,
        block: &BlockIds,
        layer: usize,
        saved: &BlockSaved<B>,
        dx: B::Tensor,
        grads: &mut Params<B::Grad>,
    ) -> OpResult<B::Tensor> {
        let &Inputs { ops, weights, tables: rotary, tokens, sequence, .. } = inputs;
        let config = &self.config;
        let (head_dim, scale) = (config.head_dim(), config.qk_scale);
        let BlockSaved { h, q, k, v, o, .. } = saved;
        let c_proj = block.attn_c_proj;
        let d_o = ops.linear_backward(o, &weights[c_proj], &dx, &mut grads[c_proj], None)?;
        let shape = self.attention_shape(layer, sequence);
        let (dq, dk, dv) = ops.attention_backward(q, k, v, o, &saved.attention, &shape, &d_o)?;
        drop(d_o);
        let dq = ops.rotary_norm_backward(q, rotary, sequence, head_dim, scale, &saved.q_rotary, dq)?;
        let dk = ops.rotary_norm_backward(k, rotary, sequence, head_dim, scale, &saved.k_rotary, dk)?;
        let mut dh = ops.linear_backward(h, &weights[block.c_v], &dv, &mut grads[block.c_v], None)?;
        if let (Some(ids), Some(value), Some(saved)) = (block.value, &config.value_embeds, &saved.value) {
            let (dtable, dgate) = pair(grads, ids.table, ids.gate)?;
            let (table, gate, scale) = (&weights[ids.table], &weights[ids.gate], value.gate_scale);
            ops.value_embedding_backward(h, table, tokens, gate, scale, saved, &dv, dtable, dgate, &mut dh)?;
        }
        let dh = ops.linear_backward(h, &weights[block.c_q], &dq, &mut grads[block.c_q], Some(dh))?;
        let dh = ops.linear_backward(h, &weights[block.c_k], &dk, &mut grads[block.c_k], Some(dh))?;
        ops.rms_norm_backward(h, &saved.h_norm, &dh, Some(dx))
    }
}

/// Backward of `x + c_proj(relu(c_fc(norm(x)))^2)` from the gradient of its output. The squares are made again rather
/// than kept: they are the largest tensor of a block.
fn mlp_backward<B: TrainOps>(
    ops: &B,
    weights: &Params<B::Weight>,
    block: &BlockIds,
    saved: &BlockSaved<B>,
    dx: B::Tensor,
    grads: &mut Params<B::Grad>,
) -> OpResult<B::Tensor> {
    let (c_fc, c_proj) = (block.c_fc, block.mlp_c_proj);
    let du = ops.relu_squared_linear_backward(&saved.u, &weights[c_proj], &dx, &mut grads[c_proj])?;
    let dh2 = ops.linear_backward(&saved.h2, &weights[c_fc], &du, &mut grads[c_fc], None)?;
    drop(du);
    ops.rms_norm_backward(&saved.h2, &saved.h2_norm, &dh2, Some(dx))
}

fn pair<T>(grads: &mut Params<T>, a: ParamId, b: ParamId) -> OpResult<(&mut T, &mut T)> {
    grads.pair_mut(a, b).ok_or_else(|| OpError::Backend {
        op: "gradients",
        message: Error::internal(format!("parameters {} and {} do not differ", a.0, b.0)).to_string(),
    })
}
