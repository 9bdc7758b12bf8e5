//! Tokenised documents as bytes: what the token cache and checkpoints keep.
//!
//! All numbers are little-endian:
//!
//! - bytes of an id, u32: 2, or 4 where an id needs more;
//! - number of documents, u32;
//! - length of each document in ids, u32;
//! - the ids, one document after the other.

use std::sync::Arc;

/// A document's ids, BOS first.
pub type Document = Arc<[u32]>;

/// Documents in the form that [`documents_from_bytes`] reads.
pub fn documents_to_bytes(documents: &[Document]) -> Vec<u8> {
    let ids = || documents.iter().flat_map(|document| document.iter());
    let width: u32 = if ids().all(|&id| u16::try_from(id).is_ok()) { 2 } else { 4 };
    let count: usize = documents.iter().map(|document| document.len()).sum();
    let mut bytes = Vec::with_capacity(8 + 4 * documents.len() + width as usize * count);
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

/// The documents in these bytes; none where they are not whole. Nothing is reserved by a number that the bytes do not
/// stand behind.
pub fn documents_from_bytes(bytes: &[u8]) -> Option<Vec<Document>> {
    let word = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize);
    let (head, rest) = bytes.split_at_checked(8)?;
    let (width, count) = (word(head.get(..4)?)?, word(head.get(4..)?)?);
    if !matches!(width, 2 | 4) {
        return None;
    }
    let (lengths, mut rest) = rest.split_at_checked(count.checked_mul(4)?)?;
    let mut documents = Vec::with_capacity(count);
    for length in lengths.chunks_exact(4) {
        let (ids, after) = rest.split_at_checked(word(length)?.checked_mul(width)?)?;
        rest = after;
        documents.push(if width == 2 {
            ids.as_chunks::<2>().0.iter().map(|&id| u32::from(u16::from_le_bytes(id))).collect()
        } else {
            ids.as_chunks::<4>().0.iter().map(|&id| u32::from_le_bytes(id)).collect()
        });
    }
    rest.is_empty().then_some(documents)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_take_two_bytes_where_they_fit() {
        let bytes = |ids: Vec<u32>| documents_to_bytes(&[ids.into(), vec![].into()]).len();
        assert_eq!(bytes(vec![1, 2, 65535]), 8 + 2 * 4 + 3 * 2);
        assert_eq!(bytes(vec![1, 2, 65536]), 8 + 2 * 4 + 3 * 4);
    }

    #[test]
    fn lengths_that_nothing_stands_behind_are_refused() {
        for [width, count, length] in
            [[2, u32::MAX, 0], [4, 1, u32::MAX], [4, 1, 1], [3, 0, 0], [0, 1, 1 << 31]]
        {
            let bytes: Vec<u8> = [width, count, length].into_iter().flat_map(u32::to_le_bytes).collect();
            assert_eq!(documents_from_bytes(&bytes), None, "{width} {count} {length}");
        }
    }

    proptest! {
        #[test]
        fn documents_come_back_and_another_length_is_refused(
            documents in prop::collection::vec(prop::collection::vec(0_u32..70_000, 0..9), 0..9),
        ) {
            let documents: Vec<Document> = documents.into_iter().map(Document::from).collect();
            let bytes = documents_to_bytes(&documents);
            prop_assert_eq!(documents_from_bytes(&bytes).unwrap(), documents);
            for cut in 0..bytes.len() {
                prop_assert_eq!(documents_from_bytes(&bytes[..cut]), None);
            }
            prop_assert_eq!(documents_from_bytes(&[bytes, vec![0]].concat()), None);
        }
    }
}
