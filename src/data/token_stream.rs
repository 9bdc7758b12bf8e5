//! The documents of a split as tokens, batch by batch, round after round.
//!
//! Batches are upstream's: at most 128 documents, never across a row group. A row group is gone through in slices of
//! some batches, so that neither its tokens are held whole nor the first batch waits for all of it. The tokens of a
//! slice come from the cache on disk where they are there and whole, else from the text, and are then kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::bpe_encode::ENCODER_VERSION;
use super::cache::{Cache, Shelf};
use super::documents::{Document, documents_from_bytes, documents_to_bytes};
use super::encode_pool::EncodePool;
use super::loader_bytes::{LoaderBytes, document_bytes};
use super::row_order::Turns;
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
    /// Whose row groups it reads.
    turns: Turns,
    pool: SharedPool,
    /// Whether what the pool holds is counted here: once over all streams that share it.
    counts_pool: bool,
    reader: Option<(usize, SpanReader)>,
    texts: Option<Texts>,
    slice: Option<Slice>,
}

/// An encoder's workers, shared by the streams of several ranks, of which one works at a time.
type SharedPool = Arc<Mutex<EncodePool>>;

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
    /// Starts at `position`, on one device alone, through the row groups as they lie.
    pub fn new(source: SplitSource, tokenizer: Arc<Tokenizer>, cache: Cache, position: Position) -> Self {
        let pool = SharedPool::default();
        Self::of_rank(source, tokenizer, cache, Turns::alone(), position, (pool, true))
    }

    /// One a rank, each at its place in `positions`.
    pub(super) fn of_ranks(
        source: SplitSource,
        tokenizer: Arc<Tokenizer>,
        cache: Cache,
        turns: Vec<Turns>,
        positions: impl Iterator<Item = Position>,
    ) -> Vec<Self> {
        let pool = SharedPool::default();
        let of_rank = move |(rank, (turns, position))| {
            let (source, tokenizer, cache) = (source.clone(), Arc::clone(&tokenizer), cache.clone());
            Self::of_rank(source, tokenizer, cache, turns, position, (Arc::clone(&pool), rank == 0))
        };
        turns.into_iter().zip(positions).enumerate().map(of_rank).collect()
    }

    fn of_rank(
        source: SplitSource,
        tokenizer: Arc<Tokenizer>,
        cache: Cache,
        turns: Turns,
        position: Position,
        (pool, counts_pool): (SharedPool, bool),
    ) -> Self {
        Self {
            source,
            tokenizer,
            cache,
            shelves: Vec::new(),
            position,
            turns,
            pool,
            counts_pool,
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
        let cached = || {
            let documents = documents_from_bytes(&shelf.get(&key)?)?;
            let fits =
                documents.len() == part.count && documents.iter().all(|document| tokenizer.knows(document));
            fits.then_some(documents)
        };
        if let Some(documents) = cached() {
            return Ok(documents);
        }
        let _filling = self.cache.filling("tokens", &key, || cached().is_some());
        if let Some(documents) = cached() {
            return Ok(documents);
        }
        let texts = self.texts(part)?;
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let documents = tokenizer.encode_documents(&texts, &mut pool)?;
        drop(pool);
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
            let is_there = at.file < self.source.files() && at.group < self.source.group_count(at.file)?;
            if is_there {
                let (first, end) = self.reader(at.file)?.documents(at.group);
                if let Some(batch) = self.batch(at, end - first)? {
                    self.position.batch += 1;
                    return Ok((batch, at));
                }
            }
            if let Some(next) = self.turns.after(&self.source, at)? {
                self.position = next;
                continue;
            }
            let epoch = at.epoch.saturating_add(1);
            // A whole round has gone by without a document.
            let next = self.turns.start(&self.source, epoch)?.filter(|_| at.epoch <= started);
            self.position =
                next.ok_or_else(|| Error::input("a split holds no documents").key("data.shards"))?;
        }
    }

    fn position(&self) -> Position {
        self.position
    }

    fn held(&self) -> LoaderBytes {
        let texts = self.texts.as_ref().map_or(0, |texts| texts.bytes);
        let slice = self.slice.as_ref().map_or(0, |slice| slice.bytes);
        let own = LoaderBytes::exactly(texts + slice);
        if self.counts_pool {
            own + self.pool.lock().unwrap_or_else(PoisonError::into_inner).held()
        } else {
            own
        }
    }
}
