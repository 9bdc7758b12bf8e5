//! nanochat's GPT over the op traits: one forward, one backward and one decoder for every backend.

mod backward;
mod decode;
mod forward;

pub use decode::GptCache;

use crate::error::{Error, Result};
use crate::ops::{AttentionShape, ForwardOps, HeadShape, Losses, OpResult, SequenceShape, TrainOps};

use super::config::GptConfig;
use super::network::{Inputs, Network};
use super::param::{ParamId, ParamSpec, Params};
use super::specs::gpt_specs;

/// A GPT: its configuration and where each parameter stands.
#[derive(Debug, Clone)]
pub struct Gpt {
    config: GptConfig,
    specs: Vec<ParamSpec>,
    ids: GptIds,
}

/// Parameters outside the blocks, and the blocks'.
#[derive(Debug, Clone)]
struct GptIds {
    wte: ParamId,
    lm_head: ParamId,
    resid: ParamId,
    x0: ParamId,
    smear: Option<SmearIds>,
    backout: Option<ParamId>,
    blocks: Vec<BlockIds>,
}

#[derive(Debug, Clone, Copy)]
struct SmearIds {
    gate: ParamId,
    lambda: ParamId,
}

#[derive(Debug, Clone)]
struct BlockIds {
    c_q: ParamId,
    c_k: ParamId,
    c_v: ParamId,
    attn_c_proj: ParamId,
    c_fc: ParamId,
    mlp_c_proj: ParamId,
    value: Option<ValueIds>,
}

#[derive(Debug, Clone, Copy)]
struct ValueIds {
    table: ParamId,
    gate: ParamId,
}

impl Gpt {
    /// A GPT of these sizes.
    ///
    /// # Errors
    /// An internal error if the specs lack a parameter the forward needs.
    pub fn new(config: GptConfig) -> Result<Self> {
        let specs = gpt_specs(&config);
        let ids = GptIds::find(&config, &specs)?;
        Ok(Self { config, specs, ids })
    }

    /// Its sizes.
    #[cfg(all(test, feature = "tch"))]
    pub fn config(&self) -> &GptConfig {
        &self.config
    }

    /// What turns its last activations into logits.
    pub fn head(&self) -> HeadShape {
        HeadShape { vocab_size: self.config.vocab_size, softcap: self.config.softcap }
    }

    fn attention_shape(&self, layer: usize, sequence: SequenceShape) -> AttentionShape {
        AttentionShape {
            sequence,
            n_head: self.config.n_head,
            n_kv_head: self.config.n_kv_head,
            head_dim: self.config.head_dim(),
            window: self.config.windows[layer],
        }
    }

    /// The block whose output is subtracted before the final norm.
    fn backout_layer(&self) -> usize {
        self.config.n_layer / 2
    }
}

impl Network for Gpt {
    type Tables<B: ForwardOps> = B::Rotary;
    type Cache<B: ForwardOps> = GptCache<B>;

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn sequence_len(&self) -> usize {
        self.config.sequence_len
    }

    fn tables<B: ForwardOps>(&self, ops: &B, len: usize) -> OpResult<B::Rotary> {
        let config = &self.config;
        ops.rotary(len, config.head_dim(), config.rotary_base, config.rotary_precision)
    }

    fn losses<B: ForwardOps>(
        &self,
        inputs: &Inputs<'_, B, B::Rotary>,
        targets: &B::Tokens,
    ) -> OpResult<Vec<f32>> {
        let y = self.trunk(inputs, |_| ())?.y;
        inputs.ops.cross_entropy(&y, &inputs.weights[self.ids.lm_head], targets, &self.head())
    }

    fn logits<B: ForwardOps>(&self, inputs: &Inputs<'_, B, B::Rotary>) -> OpResult<B::Tensor> {
        let y = self.trunk(inputs, |_| ())?.y;
        inputs.ops.logits(&y, &inputs.weights[self.ids.lm_head], &self.head())
    }

    fn loss_and_grads<B: TrainOps>(
        &self,
        inputs: &Inputs<'_, B, B::Rotary>,
        targets: &B::Tokens,
        grad_scale: f32,
        grads: &mut Params<B::Grad>,
    ) -> OpResult<Losses> {
        let mut blocks = Vec::with_capacity(self.config.n_layer);
        let mut saved = self.trunk(inputs, |block| blocks.push(block))?;
        saved.blocks = blocks;
        let lm_head = self.ids.lm_head;
        inputs.go_on()?;
        let (losses, dy) = inputs.ops.cross_entropy_train_unread(
            &saved.y,
            &inputs.weights[lm_head],
            targets,
            &self.head(),
            grad_scale,
            &mut grads[lm_head],
        )?;
        self.backward(inputs, saved, &dy, grads)?;
        Ok(losses)
    }

    fn cache<B: ForwardOps>(&self, ops: &B, capacity: usize) -> OpResult<GptCache<B>> {
        GptCache::new(self, ops, capacity)
    }

    fn fork<B: ForwardOps>(
        &self,
        ops: &B,
        cache: &GptCache<B>,
        sequences: &[usize],
    ) -> OpResult<GptCache<B>> {
        cache.fork(ops, sequences)
    }

    fn decode<B: ForwardOps>(
        &self,
        ops: &B,
        weights: &Params<B::Weight>,
        cache: &mut GptCache<B>,
        ids: &[i32],
        last: usize,
    ) -> OpResult<B::Tensor> {
        self.decode_ids(ops, weights, cache, ids, last)
    }
}

impl GptIds {
    fn find(config: &GptConfig, specs: &[ParamSpec]) -> Result<Self> {
        let id = |name: &str| {
            specs
                .iter()
                .position(|spec| spec.name == name)
                .map(ParamId)
                .ok_or_else(|| Error::internal(format!("the GPT's parameter list lacks `{name}`")))
        };
        let block = |layer: usize| {
            let part = |name: &str| id(&format!("transformer.h.{layer}.{name}.weight"));
            let value = if config.has_value_embed(layer) {
                let table = id(&format!("value_embeds.{layer}.weight"))?;
                Some(ValueIds { table, gate: part("attn.ve_gate")? })
            } else {
                None
            };
            Ok(BlockIds {
                c_q: part("attn.c_q")?,
                c_k: part("attn.c_k")?,
                c_v: part("attn.c_v")?,
                attn_c_proj: part("attn.c_proj")?,
                c_fc: part("mlp.c_fc")?,
                mlp_c_proj: part("mlp.c_proj")?,
                value,
            })
        };
        let smear = match config.smear_channels {
            Some(_) => Some(SmearIds { gate: id("smear_gate.weight")?, lambda: id("smear_lambda")? }),
            None => None,
        };
        Ok(Self {
            wte: id("transformer.wte.weight")?,
            lm_head: id("lm_head.weight")?,
            resid: id("resid_lambdas")?,
            x0: id("x0_lambdas")?,
            smear,
            backout: if config.backout { Some(id("backout_lambda")?) } else { None },
            blocks: (0..config.n_layer).map(block).collect::<Result<_>>()?,
        })
    }
}
