//! What an evaluation comes to on each document of its text, bounded: how much its values owe to the very text they were
//! measured on is told from that.
//!
//! The unit is the document as far as its row takes it: documents are what a text is a sample of, while rows are put together
//! from whichever documents fit, and what a row cuts off is never read. A target belongs to the document that the token
//! before it is of, so the BOS of the next one counts with the one that it ends. Documents are gathered in groups by a hash of
//! what they are: one that is read again, in another epoch or row, falls into its own group, so it counts as the one draw
//! that it is, and every run that is evaluated on the same text has the same groups, whatever it is trained on. Of some
//! thousand documents nearly all have a group of their own; of millions a group is a random sample of some hundred.

use serde::{Deserialize, Serialize};

use crate::data::Batch;
use crate::files::ExactF64;

/// Groups at most: the standard deviation over so many random groups is known to 1.6 %, and they take 50 KB a run, however
/// long the evaluation.
pub const GROUPS: usize = 2048;

/// Sums over the documents of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupLosses {
    /// Documents, each time that one was read.
    pub documents: u64,
    /// Targets that a loss is taken of.
    pub targets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Losses of the targets that have bytes, nats.
    pub nats: ExactF64,
    /// Losses of all targets, nats.
    pub loss: ExactF64,
}

/// The losses of an evaluation by groups of documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u32, GroupLosses)>", into = "Vec<(u32, GroupLosses)>")]
pub struct DocumentLosses(Vec<GroupLosses>);

impl Default for DocumentLosses {
    fn default() -> Self {
        Self(vec![GroupLosses::default(); GROUPS])
    }
}

impl DocumentLosses {
    /// Adds a batch with the losses of its targets; `token_bytes` is indexed by target id.
    pub fn add(&mut self, batch: &Batch, losses: &[f32], token_bytes: &[u32]) {
        let mut starts = batch.documents.iter().peekable();
        // Nothing stands before the first document of a batch.
        let mut group = 0;
        for (at, (&loss, &target)) in losses.iter().zip(&batch.targets).enumerate() {
            if let Some(start) = starts.next_if(|start| start.at == at) {
                group = (start.document % GROUPS as u64) as usize;
                if let Some(sums) = self.0.get_mut(group) {
                    sums.documents += 1;
                }
            }
            let (Ok(id), Some(sums)) = (usize::try_from(target), self.0.get_mut(group)) else { continue };
            sums.loss.0 += f64::from(loss);
            sums.targets += 1;
            let bytes = token_bytes.get(id).copied().unwrap_or(0);
            if bytes > 0 {
                sums.nats.0 += f64::from(loss);
                sums.bytes += u64::from(bytes);
            }
        }
    }

    /// The groups that have documents, by their numbers.
    pub fn groups(&self) -> impl Iterator<Item = (u32, &GroupLosses)> {
        (0..).zip(&self.0).filter(|(_, sums)| sums.documents > 0)
    }

    /// The evaluation of these groups; none where a number is beyond [`GROUPS`], or not above the one before it, or a group
    /// is empty.
    pub fn of(groups: impl IntoIterator<Item = (u32, GroupLosses)>) -> Option<Self> {
        let mut found = Self::default();
        let mut least = 0;
        for (number, sums) in groups {
            if number < least || sums.documents == 0 {
                return None;
            }
            *found.0.get_mut(number as usize)? = sums;
            least = number.checked_add(1)?;
        }
        Some(found)
    }

    /// Bits a byte and the mean loss that these sums come to, but for the order in which they were added up; none without
    /// bytes.
    pub fn values(&self) -> Option<(f64, f64)> {
        let (mut bytes, mut targets, mut nats, mut loss) = (0, 0, 0.0, 0.0);
        for (_, sums) in self.groups() {
            bytes += sums.bytes;
            targets += sums.targets;
            nats += sums.nats.0;
            loss += sums.loss.0;
        }
        (bytes > 0).then(|| (nats / (std::f64::consts::LN_2 * bytes as f64), loss / targets as f64))
    }

    /// How many different documents there are: exact where none was read twice; else about as many as leave so many groups
    /// without any.
    pub fn different_documents(&self) -> u64 {
        let read: u64 = self.groups().map(|(_, sums)| sums.documents).sum();
        let empty = GROUPS - self.groups().count();
        if empty == 0 {
            return read;
        }
        // Each document leaves a group out with probability 1 - 1 / GROUPS.
        let left = libm::log(empty as f64 / GROUPS as f64) / libm::log(1.0 - 1.0 / GROUPS as f64);
        read.min(left.round() as u64)
    }

    /// Whether `other` is of the same documents, as far as their numbers and bytes tell.
    pub fn is_of_the_same_text(&self, other: &Self) -> bool {
        let text = |sums: &GroupLosses| (sums.documents, sums.targets, sums.bytes);
        self.0.iter().map(text).eq(other.0.iter().map(text))
    }
}

impl From<DocumentLosses> for Vec<(u32, GroupLosses)> {
    fn from(losses: DocumentLosses) -> Self {
        losses.groups().map(|(number, sums)| (number, *sums)).collect()
    }
}

impl TryFrom<Vec<(u32, GroupLosses)>> for DocumentLosses {
    type Error = &'static str;

    fn try_from(groups: Vec<(u32, GroupLosses)>) -> Result<Self, Self::Error> {
        Self::of(groups).ok_or("groups of documents that are none")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::{DocumentStart, Position, RankCursor};
    use crate::train::bpb::BitsPerByte;

    fn batch(targets: Vec<i32>, starts: &[(usize, u64)]) -> Batch {
        let len = targets.len();
        let documents = starts.iter().map(|&(at, document)| DocumentStart { at, document }).collect();
        let (state, cursor_after) = (Position::START, RankCursor::start().into());
        Batch { inputs: vec![0; len], targets, rows: 1, len, documents, state, cursor_after }
    }

    /// Two documents; the target that opens the second counts with the first and has no bytes. The first comes once more.
    #[test]
    fn a_target_belongs_to_the_document_that_the_token_before_it_is_of() {
        let mut found = DocumentLosses::default();
        let token_bytes = [0, 1, 5];
        found.add(&batch(vec![1, 2, 0, 1, -1], &[(0, 7), (3, 9)]), &[1.0, 2.0, 4.0, 8.0, 16.0], &token_bytes);
        found.add(&batch(vec![2], &[(0, 7 + GROUPS as u64)]), &[32.0], &token_bytes);
        let sums = |documents, targets, bytes, nats, loss| GroupLosses {
            documents,
            targets,
            bytes,
            nats: ExactF64(nats),
            loss: ExactF64(loss),
        };
        let expected = [(7, sums(2, 4, 11, 35.0, 39.0)), (9, sums(1, 1, 1, 8.0, 8.0))];
        assert_eq!(found.groups().map(|(number, sums)| (number, *sums)).collect::<Vec<_>>(), expected);
        assert_eq!(DocumentLosses::of(expected), Some(found.clone()));
        let (bpb, loss) = found.values().unwrap();
        assert!(
            (bpb - 43.0 / (std::f64::consts::LN_2 * 12.0)).abs() < 1e-12 && (loss - 47.0 / 5.0).abs() < 1e-12
        );
    }

    #[test]
    fn groups_that_are_none_are_refused() {
        let one = GroupLosses { documents: 1, ..GroupLosses::default() };
        assert!(DocumentLosses::of([(0, one), (GROUPS as u32 - 1, one)]).is_some());
        for groups in [
            vec![(GROUPS as u32, one)],
            vec![(u32::MAX, one)],
            vec![(3, one), (3, one)],
            vec![(3, one), (2, one)],
            vec![(3, GroupLosses::default())],
        ] {
            assert_eq!(DocumentLosses::of(groups.clone()), None, "{groups:?}");
        }
        assert_eq!(DocumentLosses::default().values(), None);
    }

    #[test]
    fn documents_that_are_read_again_are_not_others() {
        for (different, times) in [(0_u64, 1), (1, 1), (11, 6), (300, 2), (3000, 2)] {
            let mut found = DocumentLosses::default();
            for _ in 0..times {
                let known = |at: u64| crate::rng::SplitMix64::new(at).next_u64();
                let starts: Vec<(usize, u64)> = (0..different).map(|at| (at as usize, known(at))).collect();
                let count = different as usize;
                found.add(&batch(vec![1; count], &starts), &vec![1.0; count], &[1, 1]);
            }
            let told = found.different_documents();
            assert!(told.abs_diff(different) <= different / 10, "{told} of {different}");
        }
    }

    proptest! {
        /// All that is evaluated is in some group, once; the values are the evaluation's own; the form on disk loses nothing.
        #[test]
        fn groups_add_up_to_the_evaluation(
            rows in prop::collection::vec(
                prop::collection::vec((-1_i32..5, 0.0_f32..9.0, prop::option::weighted(0.3, 0_u64..9000)), 1..40),
                1..6,
            ),
        ) {
            let token_bytes = [0, 1, 2, 3, 9];
            let (mut found, mut sums) = (DocumentLosses::default(), BitsPerByte::default());
            let mut documents = 0;
            for row in rows {
                let starts: Vec<(usize, u64)> = row
                    .iter()
                    .enumerate()
                    .filter_map(|(at, (.., start))| Some((at, start.or((at == 0).then_some(1))?)))
                    .collect();
                let (targets, losses): (Vec<i32>, Vec<f32>) = row.iter().map(|(t, l, _)| (*t, *l)).unzip();
                found.add(&batch(targets.clone(), &starts), &losses, &token_bytes);
                sums.add(&losses, &targets, &token_bytes);
                documents += starts.len() as u64;
            }
            prop_assert_eq!(found.groups().map(|(_, sums)| sums.documents).sum::<u64>(), documents);
            prop_assert_eq!(found.groups().map(|(_, sums)| sums.bytes).sum::<u64>(), sums.bytes());
            if let (Some((bpb, loss)), Some(value), Some(mean)) = (found.values(), sums.value(), sums.mean_loss()) {
                prop_assert!((bpb - value).abs() <= 1e-12 * value && (loss - mean).abs() <= 1e-12 * mean);
            }
            let text = serde_json::to_string(&found).unwrap();
            prop_assert_eq!(&serde_json::from_str::<DocumentLosses>(&text).unwrap(), &found);
            prop_assert!(found.is_of_the_same_text(&found.clone()));
        }
    }
}
