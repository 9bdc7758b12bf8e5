//! How far an evaluation has come, so that a long one need not begin again.

use serde::{Deserialize, Serialize};

use crate::data::Cursor;
use crate::hash::Digest;
use crate::train::bpb::BitsPerByte;
use crate::train::document_losses::DocumentLosses;

/// The evaluation of one step, under way or done. It belongs to the weights whose train hash it names, whichever
/// checkpoint they come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalProgress {
    /// Optimizer steps done before it.
    pub step: u64,
    /// Digest of its settings.
    pub settings: Digest,
    /// The train hash at its step.
    pub train_hash: Digest,
    /// The environment class that computed it.
    pub environment_class: String,
    /// Batches done.
    pub batches: u64,
    /// Their sums.
    pub sums: BitsPerByte,
    /// The same by documents; of the last evaluation of a run alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<DocumentLosses>,
    /// Where the validation split stands.
    pub cursor: Option<Cursor>,
}

impl EvalProgress {
    /// Nothing done yet.
    pub fn begin(step: u64, settings: Digest, train_hash: Digest, environment_class: String) -> Self {
        let (sums, documents, cursor) = (BitsPerByte::default(), None, None);
        Self { step, settings, train_hash, environment_class, batches: 0, sums, documents, cursor }
    }

    /// Whether `other` is the same evaluation, however far. One of a version that kept no documents is begun anew where
    /// they are kept.
    pub fn continues(&self, other: &Self) -> bool {
        (self.step, self.settings, self.train_hash) == (other.step, other.settings, other.train_hash)
            && self.environment_class == other.environment_class
            && (self.documents.is_none() || other.documents.is_some())
    }

    /// A line of JSON, and a line with its SHA-256.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Plain data: it always has a JSON form.
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{text}\n{}\n", Digest::of(text.as_bytes())).into_bytes()
    }

    /// What was written; none where a bit of it is another.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (text, digest) = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split_once('\n')?;
        (Digest::of(text.as_bytes()).to_string() == digest).then(|| serde_json::from_str(text).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::EvalProgress;
    use crate::data::RankCursor;
    use crate::hash::Digest;
    use crate::train::document_losses::{DocumentLosses, GroupLosses};

    #[test]
    fn progress_comes_back_and_every_flipped_bit_is_noticed() {
        let mut progress =
            EvalProgress::begin(3, Digest::of(b"settings"), Digest::of(b"train"), "cpu".to_owned());
        progress.sums.add(&[0.1, 2.5], &[1, 0], &[1, 3]);
        let group = GroupLosses { documents: 2, targets: 9, bytes: 31, ..GroupLosses::default() };
        progress.documents = DocumentLosses::of([(5, group), (2047, group)]);
        (progress.batches, progress.cursor) = (7, Some(RankCursor::start().into()));
        let bytes = progress.to_bytes();
        assert_eq!(EvalProgress::from_bytes(&bytes), Some(progress));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(EvalProgress::from_bytes(&bad), None, "byte {at}");
            assert_eq!(EvalProgress::from_bytes(&bytes[..at]), None, "cut to {at}");
        }
    }

    /// A version before wrote no documents: where they are wanted, its evaluation does not go on; elsewhere it does.
    #[test]
    fn an_evaluation_without_its_documents_goes_on_where_none_are_wanted() {
        let begin =
            || EvalProgress::begin(3, Digest::of(b"settings"), Digest::of(b"train"), "cpu".to_owned());
        let with = EvalProgress { documents: Some(DocumentLosses::default()), ..begin() };
        assert!(begin().continues(&begin()) && begin().continues(&with) && with.continues(&with));
        assert!(!with.continues(&begin()));
        let text = String::from_utf8(begin().to_bytes()).unwrap();
        assert!(!text.contains("documents"), "{text}");
    }
}
