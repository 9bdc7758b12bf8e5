//! The documents of a split as tokens, batch by batch, round after round.
//!
//! Batches are upstream's: at most 128 documents, never across a row group. Tokens of a row group come from the
//! cache on disk where they are there and whole, else from the text, and are then kept.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cache::Cache;
use super::shards::{SpanReader, SplitSource};
use super::tokenizer::{EncodePool, Tokenizer};
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};

/// Documents that upstream tokenises at once: `tokenizer_batch_size`.
pub(super) const BATCH_DOCUMENTS: usize = 128;

/// A document's ids, BOS first.
pub type Document = Arc<[u32]>;

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
    if let Some(documents) = cached(cache, &key) {
        return Ok(documents);
    }
    let documents = tokenizer.encode_documents(&reader.read(group)?, pool)?;
    cache.put("tokens", &key, &to_bytes(&documents));
    Ok(documents)
}

fn cached(cache: &Cache, key: &Digest) -> Option<Vec<Document>> {
    from_bytes(&cache.get("tokens", key)?)
}

/// Bytes of an id (2 or 4), the number of documents, their lengths, then all ids, little-endian.
fn to_bytes(documents: &[Document]) -> Vec<u8> {
    let ids = || documents.iter().flat_map(|document| document.iter());
    let width: u32 = if ids().all(|&id| u16::try_from(id).is_ok()) { 2 } else { 4 };
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&width.to_le_bytes());
    bytes.extend_from_slice(&(documents.len() as u32).to_le_bytes());
    for document in documents {
        bytes.extend_from_slice(&(document.len() as u32).to_le_bytes());
    }
    for id in ids() {
        bytes.extend_from_slice(id.to_le_bytes().get(..width as usize).unwrap_or_default());
    }
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<Vec<Document>> {
    let word = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize);
    let (head, rest) = bytes.split_at_checked(8)?;
    let (width, count) = (word(head.get(..4)?)?, word(head.get(4..)?)?);
    let (lengths, mut rest) = rest.split_at_checked(count.checked_mul(4)?)?;
    let mut documents = Vec::with_capacity(count);
    for length in lengths.chunks_exact(4) {
        let (ids, after) = rest.split_at_checked(word(length)?.checked_mul(width)?)?;
        rest = after;
        documents.push(match width {
            2 => ids.chunks_exact(2).map(|id| u32::from(id[0]) | u32::from(id[1]) << 8).collect(),
            4 => ids.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect(),
            _ => return None,
        });
    }
    rest.is_empty().then_some(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_survive_and_wrong_lengths_do_not() {
        for documents in [vec![vec![1, 2, 65535], vec![7]], vec![vec![65536]], vec![]] {
            let documents: Vec<Document> = documents.into_iter().map(Document::from).collect();
            let bytes = to_bytes(&documents);
            assert_eq!(from_bytes(&bytes).unwrap(), documents);
            assert_eq!(from_bytes(&bytes[..bytes.len() - 1]), None);
            assert_eq!(from_bytes(&[bytes, vec![0]].concat()), None);
        }
    }
}
