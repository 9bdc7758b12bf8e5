//! Where a loader stands, exactly: restarting from it gives the same rows as never having stopped.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::token_stream::{Document, Position};

/// State of a packer between two batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Flat", into = "Flat")]
pub struct Cursor {
    /// The batch of documents that the buffer takes in next.
    pub next: Position,
    /// The one it took in last: what upstream's loader reports as its state. None at the start.
    pub last: Option<Position>,
    /// Documents taken in and not yet placed in a row, in order.
    pub buffered: Vec<Document>,
}

impl Cursor {
    /// Where a split begins.
    pub fn start() -> Self {
        Self { next: Position::START, last: None, buffered: Vec::new() }
    }

    /// The buffered documents as two arrays for a checkpoint: lengths, and all ids one after the other.
    pub fn flatten(&self) -> (Vec<u32>, Vec<u32>) {
        let lengths = self.buffered.iter().map(|document| document.len() as u32).collect();
        (lengths, self.buffered.iter().flat_map(|document| document.iter().copied()).collect())
    }

    /// The cursor whose parts these are; none where the lengths do not add up to the ids.
    pub fn from_flat(next: Position, last: Option<Position>, lengths: &[u32], ids: &[u32]) -> Option<Self> {
        let mut rest = ids;
        let mut buffered = Vec::with_capacity(lengths.len());
        for &length in lengths {
            let (document, after) = rest.split_at_checked(length as usize)?;
            if document.is_empty() {
                return None;
            }
            buffered.push(Arc::from(document));
            rest = after;
        }
        rest.is_empty().then_some(Self { next, last, buffered })
    }
}

/// The form that serde sees.
#[derive(Serialize, Deserialize)]
struct Flat {
    next: Position,
    last: Option<Position>,
    buffered: Vec<Vec<u32>>,
}

impl From<Cursor> for Flat {
    fn from(cursor: Cursor) -> Self {
        let buffered = cursor.buffered.iter().map(|document| document.to_vec()).collect();
        Self { next: cursor.next, last: cursor.last, buffered }
    }
}

impl From<Flat> for Cursor {
    fn from(flat: Flat) -> Self {
        // A document has its BOS at least; an empty one would never leave the buffer.
        let documents = flat.buffered.into_iter().filter(|document| !document.is_empty());
        Self { next: flat.next, last: flat.last, buffered: documents.map(Arc::from).collect() }
    }
}
