//! Karpathy's microgpt over the op traits: token plus learned position embeddings, blocks of causal attention and a
//! ReLU-squared MLP behind RMS norms, no final norm.
//!
//! `x = norm(wte[token] + wpe[position])`, then in each block `x += wo attention(norm(x))` and
//! `x += fc2 relu(fc1 norm(x))^2`; logits are `lm_head x`. The first norm and a separate `lm_head` are switches.

use crate::error::{Error, Result};
use crate::ops::{AttentionShape, ForwardOps, HeadShape, Losses, OpError, OpResult, SequenceShape, TrainOps};

use super::config::MicrogptConfig;
use super::network::{Inputs, Network, fed};
use super::param::{ParamId, ParamSpec, Params};
use super::specs::microgpt_specs;

/// A microgpt: its configuration and where each parameter stands.
#[derive(Debug, Clone)]
pub struct Microgpt {
    config: MicrogptConfig,
    specs: Vec<ParamSpec>,
    wte: ParamId,
    wpe: ParamId,
    /// `wte` where tied.
    lm_head: ParamId,
    blocks: Vec<BlockIds>,
}

#[derive(Debug, Clone, Copy)]
struct BlockIds {
    wq: ParamId,
    wk: ParamId,
    wv: ParamId,
    wo: ParamId,
    fc1: ParamId,
    fc2: ParamId,
}

/// Keys and values of every layer, of sequences that are equally long.
pub struct MicrogptCache<B: ForwardOps> {
    sequences: usize,
    layers: Vec<B::KvCache>,
    position: usize,
    capacity: usize,
}

/// What the forward keeps for the backward.
struct Saved<B: ForwardOps> {
    /// Positions of the N tokens.
    positions: B::Tokens,
    /// Output and state of the input norm, where there is one.
    input: Option<(B::Tensor, B::NormSaved)>,
    blocks: Vec<BlockSaved<B>>,
    /// Output of the last block (N, C).
    x: B::Tensor,
}

/// What one block keeps. N rows, C channels.
struct BlockSaved<B: ForwardOps> {
    /// Normed input of the attention (N, C).
    h: B::Tensor,
    h_norm: B::NormSaved,
    q: B::Tensor,
    k: B::Tensor,
    v: B::Tensor,
    /// Attention output (N, C).
    o: B::Tensor,
    attention: B::AttentionSaved,
    /// Normed input of the MLP (N, C).
    h2: B::Tensor,
    h2_norm: B::NormSaved,
    /// `fc1` output before the activation (N, 4C).
    u: B::Tensor,
}

impl Microgpt {
    /// A microgpt of these sizes.
    ///
    /// # Errors
    /// A width of 0, or one that its heads do not divide; class `Input`.
    pub fn new(config: MicrogptConfig) -> Result<Self> {
        if config.n_head == 0 || config.n_embd == 0 || !config.n_embd.is_multiple_of(config.n_head) {
            return Err(Error::input(format!(
                "a width of {} does not divide into {} heads",
                config.n_embd, config.n_head
            ))
            .key("model.n_head")
            .expected("a divisor of model.n_embd"));
        }
        let specs = microgpt_specs(&config);
        let id = |name: &str| {
            specs
                .iter()
                .position(|spec| spec.name == name)
                .map(ParamId)
                .ok_or_else(|| Error::internal(format!("microgpt's parameter list lacks `{name}`")))
        };
        let block = |layer: usize| {
            let part = |name: &str| id(&format!("layer{layer}.{name}"));
            Ok(BlockIds {
                wq: part("attn_wq")?,
                wk: part("attn_wk")?,
                wv: part("attn_wv")?,
                wo: part("attn_wo")?,
                fc1: part("mlp_fc1")?,
                fc2: part("mlp_fc2")?,
            })
        };
        let (wte, wpe) = (id("wte")?, id("wpe")?);
        let lm_head = if config.tie_lm_head { wte } else { id("lm_head")? };
        let blocks = (0..config.n_layer).map(block).collect::<Result<_>>()?;
        Ok(Self { config, specs, wte, wpe, lm_head, blocks })
    }
    fn head(&self) -> HeadShape {
        HeadShape { vocab_size: self.config.vocab_size, softcap: None }
    }

    fn attention_shape(&self, sequence: SequenceShape) -> AttentionShape {
        let MicrogptConfig { n_head, n_embd, sequence_len, .. } = self.config;
        let head_dim = n_embd / n_head;
        AttentionShape { sequence, n_head, n_kv_head: n_head, head_dim, window: sequence_len }
    }

    /// `wte[token] + wpe[position]` (N, C), row t of a sequence at position `start + t`, and the positions.
    fn embed<B: ForwardOps>(
        &self,
        ops: &B,
        weights: &Params<B::Weight>,
        tokens: &B::Tokens,
        start: usize,
        sequence: SequenceShape,
    ) -> OpResult<(B::Tensor, B::Tokens)> {
        let end = start + sequence.len;
        if end > self.config.sequence_len {
            let message = format!("position {} of a context of {}", end - 1, self.config.sequence_len);
            return Err(OpError::Shape { op: "microgpt", message });
        }
        let positions: Vec<i32> = (0..sequence.batch).flat_map(|_| start as i32..end as i32).collect();
        let positions = ops.tokens(&positions)?;
        let x = ops.embedding(&weights[self.wte], tokens)?;
        let x = ops.add(x, &ops.embedding(&weights[self.wpe], &positions)?)?;
        Ok((x, positions))
    }

    /// The forward up to the last block. Each block's activations go to `keep` as soon as the block is done, so that
    /// an evaluation holds those of one block only.
    fn trunk<B: ForwardOps>(
        &self,
        inputs: &Inputs<'_, B, ()>,
        mut keep: impl FnMut(BlockSaved<B>),
    ) -> OpResult<Saved<B>> {
        let &Inputs { ops, weights, tokens, sequence, .. } = inputs;
        let eps = self.config.norm_eps;
        let shape = self.attention_shape(sequence);
        let (mut x, positions) = self.embed(ops, weights, tokens, 0, sequence)?;
        let mut input = None;
        if self.config.input_rmsnorm {
            let (y, norm) = ops.rms_norm(&x, eps)?;
            x = ops.copy(&y)?;
            input = Some((y, norm));
        }
        for block in &self.blocks {
            inputs.go_on()?;
            let (h, h_norm) = ops.rms_norm(&x, eps)?;
            let q = ops.linear(&h, &weights[block.wq])?;
            let k = ops.linear(&h, &weights[block.wk])?;
            let v = ops.linear(&h, &weights[block.wv])?;
            let (o, attention) = ops.attention(&q, &k, &v, &shape)?;
            x = ops.linear_add(x, &o, &weights[block.wo])?;
            let (h2, h2_norm) = ops.rms_norm(&x, eps)?;
            let u = ops.linear(&h2, &weights[block.fc1])?;
            x = ops.relu_squared_linear_add(x, &u, &weights[block.fc2])?;
            keep(BlockSaved { h, h_norm, q, k, v, o, attention, h2, h2_norm, u });
        }
        Ok(Saved { positions, input, blocks: Vec::new(), x })
    }

    /// From the gradient `dx` (N, C) of the last block's output down to the embeddings.
    fn backward<B: TrainOps>(
        &self,
        inputs: &Inputs<'_, B, ()>,
        saved: Saved<B>,
        mut dx: B::Tensor,
        grads: &mut Params<B::Grad>,
    ) -> OpResult<()> {
        let &Inputs { ops, weights, tokens, sequence, .. } = inputs;
        let shape = self.attention_shape(sequence);
        for (ids, block) in self.blocks.iter().zip(saved.blocks).rev() {
            inputs.go_on()?;
            let du =
                ops.relu_squared_linear_backward(&block.u, &weights[ids.fc2], &dx, &mut grads[ids.fc2])?;
            let dh2 = ops.linear_backward(&block.h2, &weights[ids.fc1], &du, &mut grads[ids.fc1], None)?;
            dx = ops.rms_norm_backward(&block.h2, &block.h2_norm, &dh2, Some(dx))?;

            let BlockSaved { h, q, k, v, o, .. } = &block;
            let d_o = ops.linear_backward(o, &weights[ids.wo], &dx, &mut grads[ids.wo], None)?;
            let (dq, dk, dv) = ops.attention_backward(q, k, v, o, &block.attention, &shape, &d_o)?;
            let dh = ops.linear_backward(h, &weights[ids.wq], &dq, &mut grads[ids.wq], None)?;
            let dh = ops.linear_backward(h, &weights[ids.wk], &dk, &mut grads[ids.wk], Some(dh))?;
            let dh = ops.linear_backward(h, &weights[ids.wv], &dv, &mut grads[ids.wv], Some(dh))?;
            dx = ops.rms_norm_backward(h, &block.h_norm, &dh, Some(dx))?;
        }
        if let Some((y, norm)) = &saved.input {
            dx = ops.rms_norm_backward(y, norm, &dx, None)?;
        }
        ops.embedding_backward(tokens, &dx, &mut grads[self.wte])?;
        ops.embedding_backward(&saved.positions, &dx, &mut grads[self.wpe])
    }
}

impl Network for Microgpt {
    type Tables<B: ForwardOps> = ();
    type Cache<B: ForwardOps> = MicrogptCache<B>;

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn sequence_len(&self) -> usize {
        self.config.sequence_len
    }

    fn tables<B: ForwardOps>(&self, _ops: &B, _len: usize) -> OpResult<()> {
        Ok(())
    }

    fn losses<B: ForwardOps>(&self, inputs: &Inputs<'_, B, ()>, targets: &B::Tokens) -> OpResult<Vec<f32>> {
        let x = self.trunk(inputs, |_| ())?.x;
        inputs.ops.cross_entropy(&x, &inputs.weights[self.lm_head], targets, &self.head())
    }

    fn logits<B: ForwardOps>(&self, inputs: &Inputs<'_, B, ()>) -> OpResult<B::Tensor> {
        let x = self.trunk(inputs, |_| ())?.x;
        inputs.ops.logits(&x, &inputs.weights[self.lm_head], &self.head())
    }

    fn loss_and_grads<B: TrainOps>(
        &self,
        inputs: &Inputs<'_, B, ()>,
        targets: &B::Tokens,
        grad_scale: f32,
        grads: &mut Params<B::Grad>,
    ) -> OpResult<Losses> {
        let mut blocks = Vec::with_capacity(self.config.n_layer);
        let mut saved = self.trunk(inputs, |block| blocks.push(block))?;
        saved.blocks = blocks;
        let lm_head = self.lm_head;
        let (losses, dx) = inputs.ops.cross_entropy_train_unread(
            &saved.x,
            &inputs.weights[lm_head],
            targets,
            &self.head(),
            grad_scale,
            &mut grads[lm_head],
        )?;
        self.backward(inputs, saved, dx, grads)?;
        Ok(losses)
    }

    /// # Errors
    /// [`OpError::Shape`] if `capacity` is beyond the context, for whose positions alone there are embeddings.
    fn cache<B: ForwardOps>(&self, ops: &B, capacity: usize) -> OpResult<MicrogptCache<B>> {
        if capacity > self.config.sequence_len {
            let message = format!("{capacity} positions of a context of {}", self.config.sequence_len);
            return Err(OpError::Shape { op: "cache", message });
        }
        let layers = (0..self.config.n_layer).map(|_| ops.kv_cache(capacity, self.config.n_embd));
        Ok(MicrogptCache { layers: layers.collect::<OpResult<_>>()?, sequences: 1, position: 0, capacity })
    }

    fn fork<B: ForwardOps>(
        &self,
        ops: &B,
        cache: &MicrogptCache<B>,
        sequences: &[usize],
    ) -> OpResult<MicrogptCache<B>> {
        let layers = cache.layers.iter().map(|layer| ops.kv_select(layer, sequences, cache.position));
        let layers = layers.collect::<OpResult<_>>()?;
        let (position, capacity) = (cache.position, cache.capacity);
        Ok(MicrogptCache { layers, sequences: sequences.len(), position, capacity })
    }

    fn decode<B: ForwardOps>(
        &self,
        ops: &B,
        weights: &Params<B::Weight>,
        cache: &mut MicrogptCache<B>,
        ids: &[i32],
        last: usize,
    ) -> OpResult<B::Tensor> {
        let sequence = fed(ids, last, cache.sequences, cache.position, cache.capacity)?;
        let eps = self.config.norm_eps;
        let shape = self.attention_shape(sequence);
        let (mut x, _) = self.embed(ops, weights, &ops.tokens(ids)?, cache.position, sequence)?;
        if self.config.input_rmsnorm {
            x = ops.rms_norm(&x, eps)?.0;
        }
        for (block, keys) in self.blocks.iter().zip(&mut cache.layers) {
            let (h, _) = ops.rms_norm(&x, eps)?;
            let q = ops.linear(&h, &weights[block.wq])?;
            let k = ops.linear(&h, &weights[block.wk])?;
            let v = ops.linear(&h, &weights[block.wv])?;
            ops.kv_append(keys, &k, &v)?;
            let o = ops.attention_cached(&q, keys, &shape)?;
            x = ops.linear_add(x, &o, &weights[block.wo])?;
            let (h2, _) = ops.rms_norm(&x, eps)?;
            let u = ops.linear(&h2, &weights[block.fc1])?;
            x = ops.relu_squared_linear_add(x, &u, &weights[block.fc2])?;
        }
        cache.position += sequence.len;
        if sequence.len > last {
            x = ops.rows(&x, sequence.len - last, last)?;
        }
        ops.logits(&x, &weights[self.lm_head], &self.head())
    }
}
