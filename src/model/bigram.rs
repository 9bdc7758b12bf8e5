//! A bigram model over the op traits: the token embedding straight into `lm_head`.
//!
//! `x = norm(wte[token])`, logits are `lm_head x`. The norm and a separate `lm_head` are switches.

use crate::error::{Error, Result};
use crate::ops::{ForwardOps, HeadShape, Losses, OpResult, TrainOps};

use super::config::BigramConfig;
use super::network::{Inputs, Network, fed};
use super::param::{ParamId, ParamSpec, Params};
use super::specs::bigram_specs;

/// A bigram model: its configuration and where each parameter stands.
#[derive(Debug, Clone)]
pub struct Bigram {
    config: BigramConfig,
    specs: Vec<ParamSpec>,
    wte: ParamId,
    /// `wte` where tied.
    lm_head: ParamId,
}

/// A bigram model looks at the last token alone; this counts them.
#[derive(Debug, Clone, Copy)]
pub struct BigramCache {
    sequences: usize,
    position: usize,
    capacity: usize,
}

impl Bigram {
    /// A bigram model of these sizes.
    ///
    /// # Errors
    /// A width of 0; class `Input`.
    pub fn new(config: BigramConfig) -> Result<Self> {
        if config.n_embd == 0 {
            return Err(Error::input("a bigram model of width 0").key("model.n_embd").expected("1 or more"));
        }
        let specs = bigram_specs(&config);
        // wte comes first, and `lm_head` last where it is not wte.
        let lm_head = ParamId(specs.len() - 1);
        Ok(Self { config, specs, wte: ParamId(0), lm_head })
    }
    fn head(&self) -> HeadShape {
        HeadShape { vocab_size: self.config.vocab_size, softcap: None }
    }

    /// The embeddings (N, C), normed where they are, and what the norm kept.
    fn embed<B: ForwardOps>(
        &self,
        ops: &B,
        weights: &Params<B::Weight>,
        tokens: &B::Tokens,
    ) -> OpResult<(B::Tensor, Option<B::NormSaved>)> {
        let x = ops.embedding(&weights[self.wte], tokens)?;
        if !self.config.input_rmsnorm {
            return Ok((x, None));
        }
        let (x, norm) = ops.rms_norm(&x, self.config.norm_eps)?;
        Ok((x, Some(norm)))
    }
}

impl Network for Bigram {
    type Tables<B: ForwardOps> = ();
    type Cache<B: ForwardOps> = BigramCache;

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
        let (x, _) = self.embed(inputs.ops, inputs.weights, inputs.tokens)?;
        inputs.ops.cross_entropy(&x, &inputs.weights[self.lm_head], targets, &self.head())
    }

    fn logits<B: ForwardOps>(&self, inputs: &Inputs<'_, B, ()>) -> OpResult<B::Tensor> {
        let (x, _) = self.embed(inputs.ops, inputs.weights, inputs.tokens)?;
        inputs.ops.logits(&x, &inputs.weights[self.lm_head], &self.head())
    }

    fn loss_and_grads<B: TrainOps>(
        &self,
        inputs: &Inputs<'_, B, ()>,
        targets: &B::Tokens,
        grad_scale: f32,
        grads: &mut Params<B::Grad>,
    ) -> OpResult<Losses> {
        let &Inputs { ops, weights, tokens, .. } = inputs;
        let (x, norm) = self.embed(ops, weights, tokens)?;
        let lm_head = self.lm_head;
        let dlm_head = &mut grads[lm_head];
        let (losses, mut dx) = ops.cross_entropy_train_unread(
            &x,
            &weights[lm_head],
            targets,
            &self.head(),
            grad_scale,
            dlm_head,
        )?;
        if let Some(norm) = &norm {
            dx = ops.rms_norm_backward(&x, norm, &dx, None)?;
        }
        ops.embedding_backward(tokens, &dx, &mut grads[self.wte])?;
        Ok(losses)
    }

    fn cache<B: ForwardOps>(&self, _ops: &B, capacity: usize) -> OpResult<BigramCache> {
        Ok(BigramCache { sequences: 1, position: 0, capacity })
    }

    fn fork<B: ForwardOps>(
        &self,
        _ops: &B,
        cache: &BigramCache,
        sequences: &[usize],
    ) -> OpResult<BigramCache> {
        Ok(BigramCache { sequences: sequences.len(), ..*cache })
    }

    fn decode<B: ForwardOps>(
        &self,
        ops: &B,
        weights: &Params<B::Weight>,
        cache: &mut BigramCache,
        ids: &[i32],
        last: usize,
    ) -> OpResult<B::Tensor> {
        let BigramCache { sequences, position, capacity } = *cache;
        cache.position += fed(ids, last, sequences, position, capacity)?.len;
        let wanted = ids.get(ids.len() - last * sequences..).unwrap_or_default();
        let (x, _) = self.embed(ops, weights, &ops.tokens(wanted)?)?;
        ops.logits(&x, &weights[self.lm_head], &self.head())
    }
}
