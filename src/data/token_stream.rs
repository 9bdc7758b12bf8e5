//! The documents of a split as tokens, batch by batch, round after round.
//!
//! Batches are upstream's: at most 128 documents, never across a row group. Tokens of a row group come from the
//! cache on disk where they are there and whole, else from the text, and are then kept.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cache::Cache;
use super::documents::{Document, documents_from_bytes, documents_to_bytes};
use super::shards::{SpanReader, SplitSource};
use super::tokenizer::{EncodePool, Tokenizer};
use crate::error::{Error, Result};
use crate::hash::Canonical;

/// Documents that upstream tokenises at once: `tokenizer_batch_size`.
pub(super) const BATCH_DOCUMENTS: usize = 128;

/// The batch of documents that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Counts rounds through the split from 1.
    pub epoch: u64,
    /// File of the split.
    pub file: usize,
    /// Row group of the file.
    pub group: usize,
    /// Batch of the row group.
    pub batch: usize,
}

impl Position {
    /// Where a split begins.
    pub const START: Self = Self { epoch: 1, file: 0, group: 0, batch: 0 };
}

/// Something that gives batches of tokenised documents without end.
pub trait DocumentBatches {
    /// The next batch, never empty, and where it stood.
    ///
    /// # Errors
    /// A shard that cannot be read, or a split without documents.
    fn next_batch(&mut self) -> Result<(Vec<Document>, Position)>;

    /// The position of the batch after the last one given.
    fn position(&self) -> Position;
}

/// The documents of a split, tokenised.
pub struct TokenStream {
    source: SplitSource,
    tokenizer: Arc<Tokenizer>,
    cache: Cache,
    position: Position,
    pool: EncodePool,
    reader: Option<(usize, SpanReader)>,
    group: Option<((usize, usize), Vec<Document>)>,
}

impl TokenStream {
    /// Starts at `position`.
    pub fn new(source: SplitSource, tokenizer: Arc<Tokenizer>, cache: Cache, position: Position) -> Self {
        Self { source, tokenizer, cache, position, pool: EncodePool::default(), reader: None, group: None }
    }

    /// Makes `self.group` the tokens of this group; false where the file has no such group.
    fn load(&mut self, file: usize, group: usize) -> Result<bool> {
        if self.group.as_ref().is_some_and(|(at, _)| *at == (file, group)) {
            return Ok(true);
        }
        let reader = match &self.reader {
            Some((open, reader)) if *open == file => reader,
            _ => &self.reader.insert((file, self.source.open(file)?)).1,
        };
        if group >= reader.groups() {
            return Ok(false);
        }
        let (first, end) = reader.documents(group);
        let mut documents = if first == end {
            Vec::new()
        } else {
            tokens_of_group(reader, group, &self.tokenizer, &self.cache, &mut self.pool)?
        };
        documents.truncate(end);
        documents.drain(..first.min(documents.len()));
        self.group = Some(((file, group), documents));
        Ok(true)
    }
}

impl DocumentBatches for TokenStream {
    fn next_batch(&mut self) -> Result<(Vec<Document>, Position)> {
        let started = self.position.epoch;
        loop {
            let at = self.position;
            if at.file >= self.source.files() {
                if at.epoch > started {
                    return Err(Error::input("a split holds no documents").key("data.shards"));
                }
                self.position = Position { epoch: at.epoch + 1, ..Position::START };
                continue;
            }
            if !self.load(at.file, at.group)? {
                self.position = Position { file: at.file + 1, group: 0, batch: 0, ..at };
                continue;
            }
            let documents = self.group.as_ref().map_or(&[][..], |(_, documents)| documents);
            let Some(batch) = documents.chunks(BATCH_DOCUMENTS).nth(at.batch) else {
                self.position = Position { group: at.group + 1, batch: 0, ..at };
                continue;
            };
            let batch = batch.to_vec();
            self.position.batch += 1;
            return Ok((batch, at));
        }
    }

    fn position(&self) -> Position {
        self.position
    }
}

/// The tokens of all documents of a row group, those of the other split among them.
fn tokens_of_group(
    reader: &SpanReader,
    group: usize,
    tokenizer: &Tokenizer,
    cache: &Cache,
    pool: &mut EncodePool,
) -> Result<Vec<Document>> {
    let key = Canonical::new("nanorun tokens")
        .digest("shard", &reader.content(cache)?)
        .digest("tokenizer", &tokenizer.digest())
        .u64("group", group as u64)
        .finish();
    let cached = cache.get("tokens", &key).and_then(|bytes| documents_from_bytes(&bytes));
    if let Some(documents) = cached
        && documents.iter().all(|document| tokenizer.knows(document))
    {
        return Ok(documents);
    }
    let documents = tokenizer.encode_documents(&reader.read(group)?, pool)?;
    cache.put("tokens", &key, &documents_to_bytes(&documents));
    Ok(documents)
}
