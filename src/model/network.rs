//! What every model kind offers: a forward over any backend, and a backward over those that train.

use crate::ops::{ForwardOps, Losses, OpError, OpResult, SequenceShape, TrainOps};
use crate::stop::StopFlag;

use super::param::{ParamSpec, Params};

/// What a forward works with and on: N tokens in `sequence`.
pub struct Inputs<'a, B: ForwardOps, T> {
    /// The backend.
    pub ops: &'a B,
    /// The parameters, in the order of [`Network::specs`].
    pub weights: &'a Params<B::Weight>,
    /// [`Network::tables`] for sequences at least this long.
    pub tables: &'a T,
    /// (N)
    pub tokens: &'a B::Tokens,
    /// Which of the tokens make a sequence.
    pub sequence: SequenceShape,
    /// Asked between blocks.
    pub stop: &'a StopFlag,
}

impl<B: ForwardOps, T> Inputs<'_, B, T> {
    /// Asked between blocks, in both directions.
    ///
    /// # Errors
    /// [`OpError::Stopped`] where whoever runs it asked to stop.
    pub fn go_on(&self) -> OpResult<()> {
        if self.stop.is_raised() { Err(OpError::Stopped) } else { Ok(()) }
    }
}

/// Tokens whose logits decoding gives at once, at most: every layer has room for as many.
pub const MOST_LAST: usize = 64;

/// How `ids` are fed to a cache of so many sequences, with `position` of `capacity` positions taken, where the logits
/// after the `last` of them are wanted.
///
/// # Errors
/// [`OpError::Shape`] if there are none, more than one each for several sequences, more than there is room for, or fewer
/// than `last`, which is 1 to [`MOST_LAST`], and 1 of several sequences.
pub(super) fn fed(
    ids: &[i32],
    last: usize,
    sequences: usize,
    position: usize,
    capacity: usize,
) -> OpResult<SequenceShape> {
    let len = if sequences == 1 { ids.len() } else { 1 };
    let fits = !ids.is_empty() && sequences * len == ids.len() && position + len <= capacity;
    if !fits || !(1..=len.min(MOST_LAST)).contains(&last) {
        let message = format!(
            "{} tokens for {sequences} sequences, after {position} in a cache of {capacity}",
            ids.len()
        );
        return Err(OpError::Shape { op: "decode", message });
    }
    Ok(SequenceShape { batch: sequences, len })
}

/// A model: its parameters and what is computed with them. V logits a token.
pub trait Network {
    /// What a forward reads besides the weights (rotary tables).
    type Tables<B: ForwardOps>;
    /// What decoding keeps of the tokens fed so far, of one sequence or of several that are equally long.
    type Cache<B: ForwardOps>;

    /// The parameters, in upstream's order.
    fn specs(&self) -> &[ParamSpec];

    /// The longest sequence it was made for.
    fn sequence_len(&self) -> usize;

    /// Tables for sequences of up to `len` positions.
    fn tables<B: ForwardOps>(&self, ops: &B, len: usize) -> OpResult<Self::Tables<B>>;

    /// Loss of each of the N tokens in nats; 0 where the target is -1.
    fn losses<B: ForwardOps>(
        &self,
        inputs: &Inputs<'_, B, Self::Tables<B>>,
        targets: &B::Tokens,
    ) -> OpResult<Vec<f32>>;

    /// Logits (N, V).
    fn logits<B: ForwardOps>(&self, inputs: &Inputs<'_, B, Self::Tables<B>>) -> OpResult<B::Tensor>;

    /// Losses of the N tokens, not yet waited for; adds the gradient of `grad_scale * sum of the losses` to `grads`.
    fn loss_and_grads<B: TrainOps>(
        &self,
        inputs: &Inputs<'_, B, Self::Tables<B>>,
        targets: &B::Tokens,
        grad_scale: f32,
        grads: &mut Params<B::Grad>,
    ) -> OpResult<Losses>;

    /// An empty cache for one sequence of up to `capacity` tokens.
    fn cache<B: ForwardOps>(&self, ops: &B, capacity: usize) -> OpResult<Self::Cache<B>>;

    /// A cache of its own that stands where `cache` does, of these of its sequences, in this order; a sequence may come
    /// several times.
    fn fork<B: ForwardOps>(
        &self,
        ops: &B,
        cache: &Self::Cache<B>,
        sequences: &[usize],
    ) -> OpResult<Self::Cache<B>>;

    /// Feeds `ids`, to a cache of one sequence any number, to one of S sequences one each, and returns the logits after
    /// the last of them: (last, V) of one sequence, (S, V) of several.
    ///
    /// # Errors
    /// [`crate::ops::OpError::Shape`] if there are none, more than the cache has room for, or fewer than `last`, which is
    /// 1 to [`MOST_LAST`].
    fn decode<B: ForwardOps>(
        &self,
        ops: &B,
        weights: &Params<B::Weight>,
        cache: &mut Self::Cache<B>,
        ids: &[i32],
        last: usize,
    ) -> OpResult<B::Tensor>;
}
