//! Where a loader stands, exactly: restarting from it gives the same rows as never having stopped.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::documents::Document;
use super::token_stream::Position;

/// State of a packer between two batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Flat", into = "Flat")]
pub struct Cursor {
    /// The batch of documents that the buffer takes in next.
    pub next: Position,
    /// The one it took in last: what upstream's loader reports as its state. None at the start.
    pub last: Option<Position>,
    /// Documents taken in and not yet placed in a row, in order; of those longer than a row as much as one can take.
    pub buffered: Vec<Document>,
    /// Of the documents that are not there to their end: place in `buffered`, and length of the whole in ids. It
    /// decides which of them a row takes.
    pub cut: Vec<(u32, u32)>,
}

impl Cursor {
    /// Where a split begins.
    pub fn start() -> Self {
        Self { next: Position::START, last: None, buffered: Vec::new(), cut: Vec::new() }
    }

    /// The same place without the buffered documents, for those who keep them apart.
    #[must_use]
    pub fn without_documents(&self) -> Self {
        Self { next: self.next, last: self.last, buffered: Vec::new(), cut: self.cut.clone() }
    }

    /// The place with these documents buffered; none where one of them is empty: it has its BOS at least, and would
    /// never leave the buffer.
    pub fn with_documents(self, buffered: Vec<Document>) -> Option<Self> {
        let whole = buffered.iter().all(|document| !document.is_empty());
        whole.then_some(Self { buffered, ..self })
    }
}

/// The form that serde sees.
#[derive(Serialize, Deserialize)]
struct Flat {
    next: Position,
    last: Option<Position>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    buffered: Vec<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cut: Vec<(u32, u32)>,
}

impl From<Cursor> for Flat {
    fn from(cursor: Cursor) -> Self {
        let buffered = cursor.buffered.iter().map(|document| document.to_vec()).collect();
        Self { next: cursor.next, last: cursor.last, buffered, cut: cursor.cut }
    }
}

impl From<Flat> for Cursor {
    fn from(flat: Flat) -> Self {
        // A document has its BOS at least; an empty one would never leave the buffer.
        let documents = flat.buffered.into_iter().filter(|document| !document.is_empty());
        Self { next: flat.next, last: flat.last, buffered: documents.map(Arc::from).collect(), cut: flat.cut }
    }
}
