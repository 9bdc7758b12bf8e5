//! The batches of several ranks on one device: first all that one rank gives in its turn, then all of the next.

use std::sync::Arc;

use super::cursor::{Cursor, RankCursor};
use super::loader_bytes::LoaderBytes;
use super::packing::{Batch, Packer};
use super::token_stream::DocumentBatches;
use crate::error::{Error, Result};

/// A packer for each rank.
pub(super) struct RankedPacker<D> {
    packers: Vec<Packer<D>>,
    /// Where each of them stands; none of one alone.
    cursors: Vec<Arc<RankCursor>>,
    /// Batches that a rank gives in its turn.
    turn: u64,
    /// Batches given since the first rank's turn began.
    given: u64,
}

impl<D: DocumentBatches> RankedPacker<D> {
    /// Of packers that stand where `cursor` says. A rank gives `turn` batches before the next has its turn: the
    /// micro-batches of its part of a step, or of an evaluation.
    ///
    /// # Errors
    /// A cursor of another number of ranks; no turn at all.
    pub(super) fn new(packers: Vec<Packer<D>>, cursor: &Cursor, turn: u64) -> Result<Self> {
        let (ranks, of) = (packers.len(), cursor.ranks().len());
        if ranks != of || turn == 0 {
            return Err(Error::input(format!(
                "the place where the data go on is one of {of} ranks, not of {ranks}"
            ))
            .key("run.ranks")
            .expected(of.to_string()));
        }
        // A rank alone tells its own place; kept here, the documents of its first would stay for good.
        let cursors = if ranks == 1 { Vec::new() } else { cursor.ranks().to_vec() };
        Ok(Self { packers, cursors, turn, given: cursor.given() })
    }

    /// The next batch, of whichever rank's turn it is.
    ///
    /// # Errors
    /// A shard that cannot be read, or a rank without documents.
    pub(super) fn next_batch(&mut self) -> Result<Batch> {
        let ranks = self.packers.len().max(1);
        let rank = (self.given / self.turn) as usize % ranks;
        let packer = self.packers.get_mut(rank).ok_or_else(|| Error::internal("a loader without ranks"))?;
        let mut batch = packer.next_batch()?;
        self.given = (self.given + 1) % self.turn.saturating_mul(ranks as u64);
        if ranks == 1 {
            return Ok(batch);
        }
        if let (Some(slot), [now]) = (self.cursors.get_mut(rank), batch.cursor_after.ranks()) {
            *slot = Arc::clone(now);
        }
        batch.cursor_after = Cursor::of_ranks(self.cursors.clone(), self.given);
        Ok(batch)
    }

    /// What the packers hold together.
    pub(super) fn held(&self) -> LoaderBytes {
        self.packers.iter().fold(LoaderBytes::default(), |sum, packer| sum + packer.held())
    }

    /// Bytes of the documents that left the packers' buffers since this was last asked.
    pub(super) fn take_released(&mut self) -> u64 {
        self.packers.iter_mut().map(Packer::take_released).sum()
    }
}
