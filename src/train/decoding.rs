//! What decoding holds between two tokens, on any backend: the caches, and where it can go back to.

use crate::error::{Error, Result};
use crate::model::network::Network;
use crate::model::param::Params;
use crate::ops::{ForwardOps, OpError, OpResult};

use super::ops_engine::op_error;

/// Decoding of one sequence, or of several that are equally long, with the weights of an engine.
pub(super) struct Decoding<M: Network, B: ForwardOps> {
    cache: Option<M::Cache<B>>,
    /// Where it goes back to: one sequence.
    marked: Option<M::Cache<B>>,
}

impl<M: Network, B: ForwardOps> Default for Decoding<M, B> {
    fn default() -> Self {
        Self { cache: None, marked: None }
    }
}

impl<M: Network, B: ForwardOps> Decoding<M, B> {
    /// Drops everything. Whether there was anything.
    pub(super) fn clear(&mut self) -> bool {
        self.marked = None;
        self.cache.take().is_some()
    }

    /// Starts one sequence of up to `capacity` tokens.
    pub(super) fn start(&mut self, network: &M, ops: &B, capacity: usize) -> Result<()> {
        self.clear();
        self.cache = Some(network.cache(ops, capacity).map_err(op_error)?);
        Ok(())
    }

    /// Feeds ids, any number to one sequence or one each to several, and returns the logits after them: (S, V), or after
    /// each of the last of one sequence (last, V).
    pub(super) fn feed(
        &mut self,
        network: &M,
        ops: &B,
        weights: &Params<B::Weight>,
        ids: &[i32],
        last: usize,
    ) -> OpResult<Vec<f32>> {
        let Some(cache) = self.cache.as_mut() else {
            return Err(OpError::Shape { op: "decode", message: NOT_STARTED.to_owned() });
        };
        ops.tensor_values(&network.decode(ops, weights, cache, ids, last)?)
    }

    /// Remembers where the one sequence stands.
    pub(super) fn mark(&mut self, network: &M, ops: &B) -> Result<()> {
        let cache = self.cache.as_ref().ok_or_else(not_started)?;
        self.marked = Some(network.fork(ops, cache, &[0]).map_err(op_error)?);
        Ok(())
    }

    /// Goes back to the mark, as `sequences` sequences that stand there.
    pub(super) fn rewind(&mut self, network: &M, ops: &B, sequences: usize) -> Result<()> {
        let marked = self.marked.as_ref().ok_or_else(|| Error::internal("decoding was not marked"))?;
        // Two are never held beside the marked one.
        self.cache = None;
        self.cache = Some(network.fork(ops, marked, &vec![0; sequences]).map_err(op_error)?);
        Ok(())
    }

    /// Goes on with these of the sequences alone, in this order.
    pub(super) fn keep(&mut self, network: &M, ops: &B, sequences: &[usize]) -> Result<()> {
        let cache = self.cache.as_ref().ok_or_else(not_started)?;
        self.cache = Some(network.fork(ops, cache, sequences).map_err(op_error)?);
        Ok(())
    }
}

const NOT_STARTED: &str = "decoding was not started";

fn not_started() -> Error {
    Error::internal(NOT_STARTED)
}
