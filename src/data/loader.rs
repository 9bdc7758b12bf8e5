//! Batches made ahead of the training step, on a thread of their own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::cache::Cache;
use super::config::Packing;
use super::cursor::{Cursor, RankCursor};
use super::loader_bytes::LoaderBytes;
use super::packing::{Batch, Packer};
use super::prefetch::{Maker, Prefetch};
use super::ranks::RankedPacker;
use super::row_order::{RowOrder, Turns};
use super::split::SplitSource;
use super::token_stream::{Position, TokenStream};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::stop;

/// How a loader makes batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    /// How rows are made.
    pub packing: Packing,
    /// B, rows of a batch.
    pub rows: usize,
    /// T, tokens of a row.
    pub len: usize,
}

/// How several ranks take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankTurns {
    /// How many there are, and what each reads.
    pub order: RowOrder,
    /// Batches that one gives before the next has its turn.
    pub batches: u64,
}

impl Default for RankTurns {
    fn default() -> Self {
        Self { order: RowOrder::default(), batches: 1 }
    }
}

/// Endless batches of a split. Dropping it ends its thread.
pub struct Loader {
    batches: Arc<Prefetch>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts to tokenise and pack, from `cursor` or from the beginning of the split, as one device does it.
    ///
    /// # Errors
    /// As [`Loader::of_ranks`].
    #[cfg(any(test, feature = "internals"))]
    pub fn start(
        source: SplitSource,
        tokenizer: Arc<Tokenizer>,
        cache: Cache,
        shape: BatchShape,
        cursor: Option<Cursor>,
    ) -> Result<Self> {
        Self::of_ranks(source, tokenizer, cache, shape, RankTurns::default(), cursor)
    }

    /// The same as several ranks do it, each with row groups and packing of its own.
    ///
    /// # Errors
    /// A shape that holds nothing, a cursor of other ranks, buffered documents of another vocabulary, or no thread to be
    /// had. What goes wrong with the data comes from [`Loader::next`].
    pub fn of_ranks(
        source: SplitSource,
        tokenizer: Arc<Tokenizer>,
        cache: Cache,
        shape: BatchShape,
        RankTurns { order, batches: turn }: RankTurns,
        cursor: Option<Cursor>,
    ) -> Result<Self> {
        let bos = tokenizer.bos();
        let turns = Turns::of_ranks(&source, order)?;
        let cursor = if let Some(cursor) = cursor {
            cursor
        } else {
            let starts = turns.iter().map(|turns| {
                let start = turns.start(&source, 1)?.unwrap_or(Position::START);
                Ok(Arc::new(RankCursor::at(start)))
            });
            Cursor::of_ranks(starts.collect::<Result<_>>()?, 0)
        };
        if !cursor.documents().all(|document| tokenizer.knows(document)) {
            return Err(Error::input("the buffered documents hold ids beyond the vocabulary")
                .expected(format!("ids below {}, the tokenizer's", tokenizer.vocab_size())));
        }
        let positions = cursor.ranks().iter().map(|rank| rank.next);
        let streams = TokenStream::of_ranks(source, tokenizer, cache, turns, positions);
        let packers = streams.into_iter().zip(cursor.ranks()).map(|(stream, rank)| {
            Packer::new(stream, shape.packing, shape.rows, shape.len, bos, (**rank).clone())
        });
        let packer = RankedPacker::new(packers.collect::<Result<_>>()?, &cursor, turn)?;
        drop(cursor);
        let batches = Arc::new(Prefetch::default());
        let maker = batches.maker();
        let thread = std::thread::Builder::new()
            .name("nanorun-loader".to_owned())
            .spawn(move || pack_ahead(packer, &maker))
            .map_err(|error| Error::run("cannot start the data thread").because(error))?;
        Ok(Self { batches, thread: Some(thread) })
    }

    /// The next batch.
    ///
    /// # Errors
    /// A shard that cannot be read, or a split without documents; a stop asked for while it is not ready. Then no batch
    /// follows.
    // Not an iterator: it never ends, and its errors must not be skipped over.
    #[allow(clippy::should_implement_trait, reason = "it can fail; the lint sees exported types alone")]
    pub fn next(&mut self) -> Result<Batch> {
        self.batches.take(stop::check)?.unwrap_or_else(|| Err(Error::internal("the data thread has ended")))
    }

    /// What it holds beside the batches that it has given out, by its own count at the last batch it made.
    pub fn held(&self) -> LoaderBytes {
        self.batches.held()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // The thread's next put tells it to return.
        self.batches.close();
        // Where the process ends, nobody waits for a large group to be read: what the thread writes is whole or absent.
        if let Some(thread) = self.thread.take().filter(|_| !stop::signalled()) {
            let _ = thread.join();
        }
    }
}

fn pack_ahead(mut packer: RankedPacker<TokenStream>, batches: &Maker) {
    crate::control_word::set();
    loop {
        let batch = catch_unwind(AssertUnwindSafe(|| packer.next_batch()))
            .unwrap_or_else(|_| Err(Error::internal("the data thread panicked")));
        let last = batch.is_err();
        let bytes = batch.as_ref().map_or(0, Batch::bytes) + packer.take_released();
        if !batches.put(batch, bytes, packer.held()) || last {
            return;
        }
    }
}
