//! Where a loader stands, exactly: restarting from it gives the same rows as never having stopped.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::documents::Document;
use super::token_stream::Position;

/// State of a loader between two batches: that of the packer of each rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Cursor {
    /// By rank; at least one.
    ranks: Vec<Arc<RankCursor>>,
    /// Batches given since the turn of the first rank began: it says whose batch comes next. 0 with one rank.
    given: u64,
    /// Documents of each rank, where these are kept apart.
    apart: Vec<usize>,
}

/// State of one rank's packer between two batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankCursor {
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

impl RankCursor {
    /// Where a split begins.
    pub fn start() -> Self {
        Self::at(Position::START)
    }

    /// Before this batch of documents, with none taken in.
    pub fn at(next: Position) -> Self {
        Self { next, last: None, buffered: Vec::new(), cut: Vec::new() }
    }

    /// Whether no buffered document is empty: it has its BOS at least, and would never leave the buffer.
    fn is_whole(&self) -> bool {
        self.buffered.iter().all(|document| !document.is_empty())
    }
}

impl From<RankCursor> for Cursor {
    fn from(rank: RankCursor) -> Self {
        Self::of_ranks(vec![Arc::new(rank)], 0)
    }
}

impl Cursor {
    /// Where the first rank's turn has given so many batches.
    pub(super) fn of_ranks(ranks: Vec<Arc<RankCursor>>, given: u64) -> Self {
        let given = if ranks.len() > 1 { given } else { 0 };
        Self { ranks, given, apart: Vec::new() }
    }

    /// Where upstream's own resume goes on with so many ranks, after a checkpoint that calls for the row group `next` on
    /// one: each rank takes its next row group after the round of N row groups that `next` follows.
    pub fn resumed(next: Position, ranks: usize) -> Self {
        let ranks = ranks.max(1);
        let round = next.group.saturating_sub(1) / ranks + 1;
        let of_rank = |rank: usize| {
            let group =
                if ranks == 1 { next.group } else { round.saturating_mul(ranks).saturating_add(rank) };
            Arc::new(RankCursor::at(Position { group, ..next }))
        };
        Self::of_ranks((0..ranks).map(of_rank).collect(), 0)
    }

    /// Each rank's state; at least one.
    pub fn ranks(&self) -> &[Arc<RankCursor>] {
        &self.ranks
    }

    /// Batches given since the first rank's turn began.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// What upstream's checkpoints say of its loader, which is the first rank's alone: the batch of documents that was
    /// taken in last. None at the start.
    pub fn last(&self) -> Option<Position> {
        self.ranks.first().and_then(|rank| rank.last)
    }

    /// The buffered documents of all ranks, one rank's after the other's.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        self.ranks.iter().flat_map(|rank| &rank.buffered)
    }

    /// The same place without the buffered documents, for those who keep them apart.
    #[must_use]
    pub fn without_documents(&self) -> Self {
        let bare = |rank: &Arc<RankCursor>| {
            let RankCursor { next, last, cut, .. } = &**rank;
            Arc::new(RankCursor { next: *next, last: *last, buffered: Vec::new(), cut: cut.clone() })
        };
        let apart = match self.ranks.len() {
            // They are all one rank's.
            0 | 1 => Vec::new(),
            _ => self.ranks.iter().map(|rank| rank.buffered.len()).collect(),
        };
        Self { ranks: self.ranks.iter().map(bare).collect(), given: self.given, apart }
    }

    /// The place with these documents buffered, those of [`Cursor::documents`] in their order; none where they are not
    /// as many as it had, where it has some already, or where one is empty.
    pub fn with_documents(self, mut documents: Vec<Document>) -> Option<Self> {
        if self.documents().next().is_some() {
            return None;
        }
        let counts = if self.ranks.len() == 1 { vec![documents.len()] } else { self.apart };
        let sum = counts.iter().try_fold(0_usize, |sum, &count| sum.checked_add(count));
        if counts.len() != self.ranks.len() || sum != Some(documents.len()) {
            return None;
        }
        let ranks = self.ranks.iter().zip(counts).map(|(rank, count)| {
            let rest = documents.split_off(count);
            let buffered = std::mem::replace(&mut documents, rest);
            let rank = RankCursor { buffered, ..(**rank).clone() };
            rank.is_whole().then(|| Arc::new(rank))
        });
        let ranks = ranks.collect::<Option<_>>()?;
        Some(Self { ranks, given: self.given, apart: Vec::new() })
    }
}

/// The form that serde sees. Of one rank it is that rank's alone, as before there were several.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    One(Flat),
    Several {
        ranks: Vec<Flat>,
        #[serde(default)]
        given: u64,
        /// Documents of each rank that are kept apart.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        documents: Vec<usize>,
    },
}

/// One rank's.
#[derive(Serialize, Deserialize)]
struct Flat {
    next: Position,
    last: Option<Position>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    buffered: Vec<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cut: Vec<(u32, u32)>,
}

impl From<&RankCursor> for Flat {
    fn from(cursor: &RankCursor) -> Self {
        let buffered = cursor.buffered.iter().map(|document| document.to_vec()).collect();
        Self { next: cursor.next, last: cursor.last, buffered, cut: cursor.cut.clone() }
    }
}

impl From<Flat> for RankCursor {
    fn from(flat: Flat) -> Self {
        // A document has its BOS at least; an empty one would never leave the buffer.
        let documents = flat.buffered.into_iter().filter(|document| !document.is_empty());
        Self { next: flat.next, last: flat.last, buffered: documents.map(Arc::from).collect(), cut: flat.cut }
    }
}

impl From<Cursor> for Form {
    fn from(cursor: Cursor) -> Self {
        match cursor.ranks.as_slice() {
            [one] => Self::One(Flat::from(&**one)),
            ranks => Self::Several {
                ranks: ranks.iter().map(|rank| Flat::from(&**rank)).collect(),
                given: cursor.given,
                documents: cursor.apart,
            },
        }
    }
}

impl TryFrom<Form> for Cursor {
    type Error = &'static str;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        match form {
            Form::One(flat) => Ok(RankCursor::from(flat).into()),
            Form::Several { ranks, .. } if ranks.is_empty() => Err("a place in the data of no ranks"),
            Form::Several { ranks, given, documents } => {
                let ranks: Vec<_> = ranks.into_iter().map(|flat| Arc::new(flat.into())).collect();
                // Those of one rank need no counts.
                let apart = if ranks.len() > 1 { documents } else { Vec::new() };
                Ok(Self { apart, ..Self::of_ranks(ranks, given) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(documents: &[usize]) -> RankCursor {
        let buffered = documents.iter().map(|&length| vec![7; length].into()).collect();
        RankCursor {
            buffered,
            cut: vec![(0, 70_000)],
            ..RankCursor::at(Position { batch: 3, ..Position::START })
        }
    }

    #[test]
    fn documents_that_are_kept_apart_come_back_to_their_ranks() {
        for ranks in [vec![rank(&[2, 3])], vec![rank(&[2]), rank(&[]), rank(&[1, 4])]] {
            let cursor = Cursor::of_ranks(ranks.into_iter().map(Arc::new).collect(), 5);
            let documents: Vec<Document> = cursor.documents().cloned().collect();
            let text = serde_json::to_string(&cursor.without_documents()).unwrap();
            let apart: Cursor = serde_json::from_str(&text).unwrap();
            assert_eq!(apart.documents().count(), 0);
            assert_eq!(apart.clone().with_documents(documents.clone()).unwrap(), cursor);
            if cursor.ranks.len() > 1 {
                assert_eq!(apart.clone().with_documents(documents[1..].to_vec()), None);
                assert_eq!(apart.clone().with_documents([&documents[..], &documents[..1]].concat()), None);
            }
            let empty = documents.iter().map(|_| Document::from([])).collect();
            assert_eq!(apart.with_documents(empty), None);
            assert_eq!(cursor.clone().with_documents(documents), None);
            let whole: Cursor = serde_json::from_str(&serde_json::to_string(&cursor).unwrap()).unwrap();
            assert_eq!(whole, cursor);
        }
    }

    /// Checkpoints of one rank are what they were.
    #[test]
    fn one_rank_is_written_as_before_there_were_several() {
        let cursor = Cursor::from(rank(&[2]));
        assert_eq!(
            serde_json::to_string(&cursor.without_documents()).unwrap(),
            r#"{"next":{"epoch":1,"file":0,"group":0,"batch":3},"last":null,"cut":[[0,70000]]}"#
        );
        assert!(serde_json::from_str::<Cursor>(r#"{"ranks":[],"given":0}"#).is_err());
    }

    /// (row group of the state, ranks) and the row groups that upstream's loader goes on with.
    #[test]
    fn upstreams_resume_goes_on_after_the_round_of_row_groups() {
        for (state, ranks, expected) in [
            (0, 1, vec![1]),
            (5, 1, vec![6]),
            (0, 2, vec![2, 3]),
            (6, 2, vec![8, 9]),
            (8, 8, (16..24).collect()),
            (0, 8, (8..16).collect()),
        ] {
            let next = Position { file: 3, epoch: 2, group: state + 1, batch: 0 };
            let cursor = Cursor::resumed(next, ranks);
            let groups: Vec<usize> = cursor.ranks().iter().map(|rank| rank.next.group).collect();
            assert_eq!(groups, expected, "{state} of {ranks}");
        }
    }
}
