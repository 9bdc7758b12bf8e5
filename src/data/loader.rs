//! Batches made ahead of the training step, on a thread of their own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::cache::Cache;
use super::config::Packing;
use super::cursor::Cursor;
use super::packing::{Batch, Packer};
use super::shards::SplitSource;
use super::token_stream::TokenStream;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// Batches that wait ready at most.
const AHEAD: usize = 8;

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

/// Endless batches of a split. Dropping it ends its thread.
pub struct Loader {
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts to tokenise and pack, from `cursor` or from the beginning of the split.
    ///
    /// # Errors
    /// A shape that holds nothing, buffered documents of another vocabulary, or no thread to be had. What goes wrong with
    /// the data comes from [`Loader::next`].
    pub fn start(
        source: SplitSource,
        tokenizer: Arc<Tokenizer>,
        cache: Cache,
        shape: BatchShape,
        cursor: Option<Cursor>,
    ) -> Result<Self> {
        let cursor = cursor.unwrap_or_else(Cursor::start);
        let bos = tokenizer.bos();
        if !cursor.buffered.iter().all(|document| tokenizer.knows(document)) {
            return Err(Error::input("the buffered documents hold ids beyond the vocabulary")
                .expected(format!("ids below {}, the tokenizer's", tokenizer.vocab_size())));
        }
        let stream = TokenStream::new(source, tokenizer, cache, cursor.next);
        let packer = Packer::new(stream, shape.packing, shape.rows, shape.len, bos, cursor)?;
        let (sender, batches) = sync_channel(AHEAD);
        let thread = std::thread::Builder::new()
            .name("nanorun-loader".to_owned())
            .spawn(move || pack_ahead(packer, &sender))
            .map_err(|error| Error::run("cannot start the data thread").because(error))?;
        Ok(Self { batches: Some(batches), thread: Some(thread) })
    }

    /// The next batch.
    ///
    /// # Errors
    /// A shard that cannot be read, or a split without documents; then no batch follows.
    // Not an iterator: it never ends, and its errors must not be skipped over.
    #[expect(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Batch> {
        let batch = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        batch.unwrap_or_else(|| Err(Error::internal("the data thread has ended")))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it returns.
        drop(self.batches.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pack_ahead(mut packer: Packer<TokenStream>, batches: &SyncSender<Result<Batch>>) {
    loop {
        let batch = catch_unwind(AssertUnwindSafe(|| packer.next_batch()))
            .unwrap_or_else(|_| Err(Error::internal("the data thread panicked")));
        let last = batch.is_err();
        if batches.send(batch).is_err() || last {
            return;
        }
    }
}
