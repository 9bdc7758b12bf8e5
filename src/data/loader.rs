//! Batches made ahead of the training step, on a thread of their own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::cache::Cache;
use super::config::Packing;
use super::cursor::Cursor;
use super::loader_bytes::LoaderBytes;
use super::packing::{Batch, Packer};
use super::prefetch::{Maker, Prefetch};
use super::split::SplitSource;
use super::token_stream::TokenStream;
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

/// Endless batches of a split. Dropping it ends its thread.
pub struct Loader {
    batches: Arc<Prefetch>,
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

fn pack_ahead(mut packer: Packer<TokenStream>, batches: &Maker) {
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
