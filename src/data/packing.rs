//! Rows from documents.
//!
//! Best-fit packing is upstream's (nanochat/dataloader.py): a row of T+1 tokens takes the longest buffered document
//! that still fits, the earliest of equals, until none fits; then the shortest, cut, fills it to the end and its rest
//! is dropped. Before each placement the buffer is filled to 1000 documents, a whole batch at a time.

use std::collections::VecDeque;

use super::config::Packing;
use super::cursor::{Cursor, RankCursor};
use super::documents::Document;
use super::loader_bytes::{LoaderBytes, document_bytes};
use super::token_stream::{BATCH_DOCUMENTS, DocumentBatches, Position};
use crate::error::{Error, Result};

/// Documents that best-fit packing chooses among at least: upstream's `buffer_size`.
const BUFFER_DOCUMENTS: usize = 1000;

/// A target that no loss is taken of.
pub const IGNORED: i32 = -1;

/// Where a document begins in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentStart {
    /// Place of its first id among the batch's inputs.
    pub at: usize,
    /// Tells it from other documents: a hash of what the buffer held of it and of its length, the same whenever the
    /// document is read again, and wherever a row cuts it.
    pub document: u64,
}

/// Rows of token ids and the ids that follow each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// (rows, len), row after row.
    pub inputs: Vec<i32>,
    /// (rows, len): `inputs` one step later; [`IGNORED`] where there is nothing to predict.
    pub targets: Vec<i32>,
    /// B.
    pub rows: usize,
    /// T.
    pub len: usize,
    /// The documents in the rows, in the order of their places; the first begins at 0.
    pub documents: Vec<DocumentStart>,
    /// Where the last document batch that was taken in stood; its epoch counts from 1.
    pub state: Position,
    /// Where the next batch begins.
    pub cursor_after: Cursor,
}

impl Batch {
    /// Memory of its rows and of the list of documents in its cursor, not of these documents.
    pub(super) fn bytes(&self) -> u64 {
        // Of several ranks, the lists of all but one are those of the batch before.
        let list = self.cursor_after.ranks().iter().map(|rank| rank.buffered.len()).max().unwrap_or(0);
        let list = list * size_of::<Document>();
        let rows = size_of_val(&*self.inputs) + size_of_val(&*self.targets) + size_of_val(&*self.documents);
        (rows + list) as u64
    }
}

/// Makes batches of rows out of document batches.
pub struct Packer<D> {
    documents: D,
    packing: Packing,
    rows: usize,
    len: usize,
    bos: u32,
    /// Of a document longer than a row only the beginning is kept: no row ever takes more of it.
    buffer: VecDeque<Document>,
    /// Whole lengths of the buffered documents: what is searched for each placement.
    lengths: VecDeque<u32>,
    last: Option<Position>,
    /// Bytes of the buffered documents.
    buffered: u64,
    /// Bytes of the documents that left the buffer since this was last asked for.
    released: u64,
}

impl<D: DocumentBatches> Packer<D> {
    /// A packer of (rows, len) batches that carries on from `cursor`, whose position `documents` must stand at.
    ///
    /// # Errors
    /// No rows, or rows of no tokens.
    pub fn new(
        documents: D,
        packing: Packing,
        rows: usize,
        len: usize,
        bos: u32,
        cursor: RankCursor,
    ) -> Result<Self> {
        if rows == 0 || len == 0 {
            return Err(Error::input(format!("a batch of {rows} rows of {len} tokens holds nothing")));
        }
        let mut packer = Self {
            documents,
            packing,
            rows,
            len,
            bos,
            buffer: VecDeque::new(),
            lengths: VecDeque::new(),
            last: cursor.last,
            buffered: 0,
            released: 0,
        };
        packer.keep(cursor.buffered);
        for (at, length) in cursor.cut {
            if let Some(known) = packer.lengths.get_mut(at as usize) {
                *known = length.max(*known);
            }
        }
        Ok(packer)
    }

    /// The next batch.
    ///
    /// # Errors
    /// A shard that cannot be read, or a split without documents.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let mut inputs = Vec::with_capacity(self.rows * self.len);
        let mut targets = Vec::with_capacity(self.rows * self.len);
        let mut documents = Vec::new();
        let mut row = Row { ids: Vec::with_capacity(self.len + 1), starts: Vec::new() };
        for _ in 0..self.rows {
            row.ids.clear();
            row.starts.clear();
            match self.packing {
                Packing::BestFitBos => self.fill_row(&mut row)?,
                Packing::Document => self.document_row(&mut row)?,
            }
            let (begin, end) = (inputs.len(), inputs.len() + self.len);
            // What is only ever a target begins no document here.
            let starts = row.starts.iter().filter(|start| start.at < self.len);
            documents.extend(starts.map(|start| DocumentStart { at: begin + start.at, ..*start }));
            let row = &row.ids;
            inputs.extend(row.iter().take(self.len).map(|&id| id as i32));
            targets.extend(row.iter().skip(1).map(|&id| id as i32));
            if self.packing == Packing::Document {
                // The last token of a document is only ever a target.
                inputs.truncate(end - self.len + row.len() - 1);
                inputs.resize(end, self.bos as i32);
                targets.resize(end, IGNORED);
            }
        }
        let cursor_after = self.cursor().into();
        let state = self.last.unwrap_or(Position::START);
        let (rows, len) = (self.rows, self.len);
        Ok(Batch { inputs, targets, rows, len, documents, state, cursor_after })
    }

    /// Where it stands between two batches.
    pub fn cursor(&self) -> RankCursor {
        RankCursor {
            next: self.documents.position(),
            last: self.last,
            buffered: self.buffer.iter().cloned().collect(),
            cut: (0..)
                .zip(&self.lengths)
                .zip(&self.buffer)
                .filter(|((_, length), document)| **length as usize > document.len())
                .map(|((at, length), _)| (at, *length))
                .collect(),
        }
    }

    /// What it holds: the buffered documents, and what gives it documents.
    pub(super) fn held(&self) -> LoaderBytes {
        let most = (BUFFER_DOCUMENTS + BATCH_DOCUMENTS) as u64 * document_bytes(self.len + 1);
        LoaderBytes { held: self.buffered, most } + self.documents.held()
    }

    /// Bytes of the documents that left the buffer since this was last asked: cursors of batches that wait still hold
    /// them.
    pub(super) fn take_released(&mut self) -> u64 {
        std::mem::take(&mut self.released)
    }

    fn take_in(&mut self) -> Result<()> {
        let (documents, at) = self.documents.next_batch()?;
        self.last = Some(at);
        self.keep(documents);
        Ok(())
    }

    fn keep(&mut self, documents: Vec<Document>) {
        for document in documents {
            self.lengths.push_back(document.len() as u32);
            let document = match document.get(..=self.len) {
                Some(beginning) if beginning.len() < document.len() => Document::from(beginning),
                _ => document,
            };
            self.buffered += document_bytes(document.len());
            self.buffer.push_back(document);
        }
    }

    /// Takes a document out of the buffer and says which it is.
    fn remove(&mut self, at: usize) -> Result<(Document, u64)> {
        let length = self.lengths.remove(at).unwrap_or_default();
        let document = self
            .buffer
            .remove(at)
            .ok_or_else(|| Error::internal("the packing buffer is empty after a refill"))?;
        let bytes = document_bytes(document.len());
        self.buffered -= bytes;
        self.released += bytes;
        let identity = identity(&document, length);
        Ok((document, identity))
    }

    /// Best fit: exactly T+1 tokens.
    fn fill_row(&mut self, row: &mut Row) -> Result<()> {
        let capacity = self.len + 1;
        while row.ids.len() < capacity {
            while self.buffer.len() < BUFFER_DOCUMENTS {
                self.take_in()?;
            }
            let room = capacity - row.ids.len();
            let (mut longest, mut at) = (0, None);
            for (index, &length) in self.lengths.iter().enumerate() {
                if length as usize <= room && length > longest {
                    longest = length;
                    at = Some(index);
                }
            }
            let at = match at {
                Some(at) => at,
                None => self.shortest(),
            };
            let (document, identity) = self.remove(at)?;
            row.starts.push(DocumentStart { at: row.ids.len(), document: identity });
            row.ids.extend(document.iter().take(room));
        }
        Ok(())
    }

    fn shortest(&self) -> usize {
        let shortest = self.lengths.iter().enumerate().min_by_key(|&(_, length)| length);
        shortest.map_or(0, |(at, _)| at)
    }

    /// One document: BOS, its tokens, BOS, at most T+1 in all.
    fn document_row(&mut self, row: &mut Row) -> Result<()> {
        while self.buffer.is_empty() {
            self.take_in()?;
        }
        let (document, identity) = self.remove(0)?;
        row.starts.push(DocumentStart { at: 0, document: identity });
        row.ids.extend(document.iter().copied().chain([self.bos]).take(self.len + 1));
        Ok(())
    }
}

/// A row as it is filled.
struct Row {
    ids: Vec<u32>,
    /// Documents in it, by their places in the row.
    starts: Vec<DocumentStart>,
}

/// The same number on every machine and in every version: results group documents by it.
fn identity(ids: &[u32], length: u32) -> u64 {
    let mix = |hash: u64, word: u32| {
        let hash = (hash ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ (hash >> 32)
    };
    ids.iter().fold(mix(0, length), |hash, &id| mix(hash, id))
}
