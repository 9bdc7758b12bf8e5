//! What a loader holds in memory, by its own count.

/// Bytes that a loader holds, and the most that it should.
///
/// Counted are the batches made ahead with the documents that only their cursors still hold, the documents that wait
/// in the packing buffer, the tokens and texts of the part of a row group at hand, and the word caches and buffers of
/// the encoder's workers. Not counted is what a library holds while it decodes a row group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoaderBytes {
    /// Held now.
    pub held: u64,
    /// The most that its bounds allow with the documents it has seen so far: more is a leak.
    pub most: u64,
}

impl std::ops::Add for LoaderBytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { held: self.held + other.held, most: self.most + other.most }
    }
}

impl LoaderBytes {
    /// A part that never holds more than it does now.
    pub(super) fn exactly(bytes: u64) -> Self {
        Self { held: bytes, most: bytes }
    }
}

/// Memory of an id buffer behind an `Arc`: the ids and two counts.
pub(super) fn document_bytes(ids: usize) -> u64 {
    4 * ids as u64 + 16
}
