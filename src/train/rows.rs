//! Where a session's rows of tokens come from.

use crate::data::{Batch, Cursor, LoaderBytes};
use crate::error::Result;
use crate::ops::SequenceShape;

use super::engine::MicroBatch;

/// Rows of tokens, one micro-batch after another.
pub trait BatchSource {
    /// The next micro-batch.
    fn next_batch(&mut self) -> Result<Batch>;

    /// What it holds beside the micro-batches that it has given out, by its own count.
    fn held(&self) -> LoaderBytes {
        LoaderBytes::default()
    }
}

/// Where a session's rows come from.
pub trait Rows {
    /// The train split from `cursor` on, from its start without one.
    fn train(&self, cursor: Option<Cursor>) -> Result<Box<dyn BatchSource>>;
    /// The validation split from `cursor` on, from its start without one.
    fn validation(&self, cursor: Option<Cursor>) -> Result<Box<dyn BatchSource>>;
    /// Bytes of each token, for bits per byte.
    fn token_bytes(&self) -> &[u32];
}

/// A batch as engines take it.
pub(crate) fn micro_batch(batch: &Batch) -> MicroBatch<'_> {
    let sequence = SequenceShape { batch: batch.rows, len: batch.len };
    MicroBatch { inputs: &batch.inputs, targets: &batch.targets, sequence }
}
