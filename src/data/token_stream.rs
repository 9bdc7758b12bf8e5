//! The documents of a split as tokens, batch by batch, round after round.
//!
//! Batches are upstream's: at most 128 documents, never across a row group. A row group is gone through in slices of
//! some batches, so that neither its tokens are held whole nor the first batch waits for all of it. The tokens of a
//! slice come from the cache on disk where they are there and whole, else from the text, and are then kept.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bpe_encode::ENCODER_VERSION;
use super::cache::{Cache, Shelf};
use super::documents::{Document, documents_from_bytes, documents_to_bytes};
use super::encode_pool::EncodePool;
use super::loader_bytes::{LoaderBytes, document_bytes};
use super::span_reader::SpanReader;
use super::split::SplitSource;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};

/// Documents that upstream tokenises at once: `tokenizer_batch_size`.
pub(super) const BATCH_DOCUMENTS: usize = 128;

/// Documents of a slice at most: those of one of upstream's row groups.
const SLICE_DOCUMENTS: usize = 8 * BATCH_DOCUMENTS;

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

    /// What is held to give them.
    fn held(&self) -> LoaderBytes {
        LoaderBytes::default()
    }
}

/// The documents of a split, tokenised.
pub struct TokenStream {
    source: SplitSource,
    tokenizer: Arc<Tokenizer>,
    cache: Cache,
    /// Where the tokens of each file are kept; none before the first is asked for.
    shelves: Vec<(Digest, Shelf)>,
    position: Position,
    pool: EncodePool,
    reader: Option<(usize, SpanReader)>,
    texts: Option<Texts>,
    slice: Option<Slice>,
}

/// A part of a row group: its documents of the split from `first` on, counted from the split's first in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    file: usize,
    group: usize,
    first: usize,
    count: usize,
}

/// The tokens of a part.
struct Slice {
    part: Part,
    documents: Vec<Document>,
    bytes: u64,
}

/// The texts of a row group from a document on; those before it have been encoded.
struct Texts {
    file: usize,
    group: usize,
    first: usize,
    documents: VecDeque<String>,
    /// Their memory.
    bytes: u64,
}

impl Texts {
    /// Takes out the next `count` texts.
    fn take(&mut self, count: usize) -> Vec<String> {
        let taken: Vec<String> = self.documents.drain(..count.min(self.documents.len())).collect();
        self.first += count;
        self.bytes = self.bytes.saturating_sub(taken.iter().map(text_bytes).sum());
        taken
    }
}

/// Memory of a text.
fn text_bytes(text: &String) -> u64 {
    (text.capacity() + size_of::<String>()) as u64
}

impl TokenStream {
    /// Starts at `position`.
    pub fn new(source: SplitSource, tokenizer: Arc<Tokenizer>, cache: Cache, position: Position) -> Self {
        Self {
            source,
            tokenizer,
            cache,
            shelves: Vec::new(),
            position,
            pool: EncodePool::default(),
            reader: None,
            texts: None,
            slice: None,
        }
    }

    /// The reader of a file.
    fn reader(&mut self, file: usize) -> Result<&SpanReader> {
        let open = self.reader.take().filter(|(open, _)| *open == file);
        let open = match open {
            Some(open) => open,
            None => (file, self.source.open(file)?),
        };
        Ok(&self.reader.insert(open).1)
    }

    /// The documents of the batch at `at`; none where the group has no such batch. `count` is the group's documents.
    fn batch(&mut self, at: Position, count: usize) -> Result<Option<Vec<Document>>> {
        let first = at.batch.saturating_mul(BATCH_DOCUMENTS);
        if first >= count {
            return Ok(None);
        }
        let start = first - first % SLICE_DOCUMENTS;
        let count = SLICE_DOCUMENTS.min(count - start);
        let part = Part { file: at.file, group: at.group, first: start, count };
        if self.slice.as_ref().is_none_or(|slice| slice.part != part) {
            // Two slices are never held at once.
            self.slice = None;
            let documents = self.tokens(part)?;
            let bytes = documents.iter().map(|document| document_bytes(document.len()) + 16).sum();
            self.slice = Some(Slice { part, documents, bytes });
        }
        let documents = self.slice.as_ref().map_or(&[][..], |slice| &slice.documents);
        Ok(documents
            .get(first - start..)
            .and_then(|rest| rest.chunks(BATCH_DOCUMENTS).next())
            .map(<[_]>::to_vec))
    }

    /// The tokens of a part.
    fn tokens(&mut self, part: Part) -> Result<Vec<Document>> {
        let tokenizer = Arc::clone(&self.tokenizer);
        let (family, shelf) = self.shelf(part.file)?;
        let (before, _) = self.reader(part.file)?.documents(part.group);
        let key = Canonical::new("nanorun tokens")
            .u64("encoder", ENCODER_VERSION)
            .digest("family", &family)
            .u64("group", part.group as u64)
            .u64("first", (before + part.first) as u64)
            .u64("documents", part.count as u64)
            .finish();
        let cached = shelf.get(&key).and_then(|bytes| documents_from_bytes(&bytes));
        if let Some(documents) = cached
            && documents.len() == part.count
            && documents.iter().all(|document| tokenizer.knows(document))
        {
            return Ok(documents);
        }
        let texts = self.texts(part)?;
        let documents = tokenizer.encode_documents(&texts, &mut self.pool)?;
        drop(texts);
        shelf.put(&key, &documents_to_bytes(&documents));
        Ok(documents)
    }

    /// Where the tokens of a file are kept, and what names them. All files of the split are in use from the first on:
    /// the next round comes to each of them.
    fn shelf(&mut self, file: usize) -> Result<(Digest, Shelf)> {
        if self.shelves.is_empty() {
            let tokenizer = self.tokenizer.digest();
            let family = |content: Digest| {
                let mut canonical = Canonical::new("nanorun token family");
                canonical.digest("shard", &content).digest("tokenizer", &tokenizer).finish()
            };
            let families = self.source.contents(&self.cache)?.into_iter().map(family);
            self.shelves = families.map(|family| (family, self.cache.shelf("tokens", &family))).collect();
        }
        let shelf = self.shelves.get(file).cloned();
        shelf.ok_or_else(|| Error::internal(format!("file {file} is beyond the split's")))
    }

    /// The texts of a part. Those of the group's later parts are kept for when they are asked for.
    fn texts(&mut self, part: Part) -> Result<Vec<String>> {
        let Part { file, group, first, count } = part;
        let known = |texts: &Texts| texts.file == file && texts.group == group && texts.first <= first;
        let mut texts = if let Some(texts) = self.texts.take().filter(known) {
            texts
        } else {
            let documents: VecDeque<String> = self.reader(file)?.read_split(group)?.into();
            let bytes = documents.iter().map(text_bytes).sum();
            Texts { file, group, first: 0, documents, bytes }
        };
        drop(texts.take(first - texts.first));
        let taken = texts.take(count);
        if !texts.documents.is_empty() {
            self.texts = Some(texts);
        }
        Ok(taken)
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
            let reader = self.reader(at.file)?;
            if at.group >= reader.groups() {
                self.position = Position { file: at.file + 1, group: 0, batch: 0, ..at };
                continue;
            }
            let (first, end) = reader.documents(at.group);
            let Some(batch) = self.batch(at, end - first)? else {
                self.position = Position { group: at.group + 1, batch: 0, ..at };
                continue;
            };
            self.position.batch += 1;
            return Ok((batch, at));
        }
    }

    fn position(&self) -> Position {
        self.position
    }

    fn held(&self) -> LoaderBytes {
        let texts = self.texts.as_ref().map_or(0, |texts| texts.bytes);
        let slice = self.slice.as_ref().map_or(0, |slice| slice.bytes);
        LoaderBytes::exactly(texts + slice) + self.pool.held()
    }
}
