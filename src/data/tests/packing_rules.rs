//! Packing against a plain transcription of its rules, and restarts from every cursor.

use std::sync::Arc;

use proptest::prelude::*;

use crate::data::config::Packing;
use crate::data::{Batch, Cursor, Document, DocumentBatches, IGNORED, Packer, Position, RankCursor};
use crate::error::Result;

const BOS: u32 = 999_999;

/// Documents of given lengths in batches of 128, round after round, as one row group; each token is unique in its
/// round, so that rows tell which document they came from.
#[derive(Clone)]
struct Lengths {
    lengths: Arc<Vec<usize>>,
    position: Position,
}

impl Lengths {
    fn new(lengths: &[usize], position: Position) -> Self {
        Self { lengths: Arc::new(lengths.to_vec()), position }
    }

    fn document(&self, index: usize) -> Document {
        (0..self.lengths[index]).map(|at| if at == 0 { BOS } else { (index * 100 + at) as u32 }).collect()
    }
}

impl DocumentBatches for Lengths {
    fn next_batch(&mut self) -> Result<(Vec<Document>, Position)> {
        if self.position.batch * 128 >= self.lengths.len() {
            self.position = Position { epoch: self.position.epoch + 1, ..Position::START };
        }
        let at = self.position;
        let end = self.lengths.len().min((at.batch + 1) * 128);
        let batch = (at.batch * 128..end).map(|index| self.document(index)).collect();
        self.position.batch += 1;
        Ok((batch, at))
    }

    fn position(&self) -> Position {
        self.position
    }
}

/// The rules of best-fit packing, one by one and without care for speed.
struct Naive {
    documents: Lengths,
    buffer: Vec<Vec<u32>>,
}

impl Naive {
    fn row(&mut self, capacity: usize) -> Vec<u32> {
        let mut row: Vec<u32> = Vec::new();
        while row.len() < capacity {
            while self.buffer.len() < 1000 {
                let (batch, _) = self.documents.next_batch().unwrap();
                self.buffer.extend(batch.iter().map(|document| document.to_vec()));
            }
            let room = capacity - row.len();
            let fitting = self.buffer.iter().map(Vec::len).filter(|&len| len <= room).max();
            let wanted = fitting.unwrap_or_else(|| self.buffer.iter().map(Vec::len).min().unwrap());
            let index = self.buffer.iter().position(|document| document.len() == wanted).unwrap();
            let document = self.buffer.remove(index);
            row.extend(&document[..document.len().min(room)]);
        }
        row
    }
}

fn packer(
    lengths: &[usize],
    packing: Packing,
    rows: usize,
    len: usize,
    cursor: RankCursor,
) -> Packer<Lengths> {
    Packer::new(Lengths::new(lengths, cursor.next), packing, rows, len, BOS, cursor).unwrap()
}

fn batches(packer: &mut Packer<Lengths>, count: usize) -> Vec<Batch> {
    (0..count).map(|_| packer.next_batch().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn best_fit_follows_the_rules(
        lengths in proptest::collection::vec(1_usize..60, 1..300),
        rows in 1_usize..4,
        len in 1_usize..40,
    ) {
        let mut naive = Naive { documents: Lengths::new(&lengths, Position::START), buffer: Vec::new() };
        let ours = batches(&mut packer(&lengths, Packing::BestFitBos, rows, len, RankCursor::start()), 6);
        for batch in &ours {
            prop_assert_eq!(batch.inputs.len(), rows * len);
            prop_assert_eq!(batch.targets.len(), rows * len);
            for (inputs, targets) in batch.inputs.chunks(len).zip(batch.targets.chunks(len)) {
                let row: Vec<i32> = naive.row(len + 1).into_iter().map(|id| id as i32).collect();
                prop_assert_eq!(inputs, &row[..len]);
                prop_assert_eq!(targets, &row[1..]);
                prop_assert_eq!(inputs[0], BOS as i32);
            }
        }
    }

    #[test]
    fn any_cursor_carries_on_with_the_same_rows(
        lengths in proptest::collection::vec(1_usize..60, 1..300),
        rows in 1_usize..4,
        len in 1_usize..40,
        documents in any::<bool>(),
    ) {
        let packing = if documents { Packing::Document } else { Packing::BestFitBos };
        let straight = batches(&mut packer(&lengths, packing, rows, len, RankCursor::start()), 8);
        for (done, batch) in straight.iter().enumerate() {
            let cursor = batch.cursor_after.clone();
            let apart = cursor.without_documents();
            prop_assert_eq!(apart.documents().count(), 0);
            prop_assert_eq!(apart.with_documents(cursor.documents().cloned().collect()), Some(cursor.clone()));
            let text = serde_json::to_string(&cursor).unwrap();
            let read: Cursor = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &cursor);
            let rest = batches(&mut packer(&lengths, packing, rows, len, (*read.ranks()[0]).clone()), straight.len() - done - 1);
            prop_assert_eq!(&rest[..], &straight[done + 1..]);
        }
    }

    /// A document begins wherever a BOS is among the inputs; which it is does not depend on round, row, cut or restart.
    #[test]
    fn documents_are_known_wherever_they_are(
        lengths in proptest::collection::vec(2_usize..60, 1..300),
        rows in 1_usize..4,
        len in 2_usize..40,
        documents in any::<bool>(),
    ) {
        let packing = if documents { Packing::Document } else { Packing::BestFitBos };
        let mut known: std::collections::BTreeMap<i32, u64> = std::collections::BTreeMap::new();
        for batch in batches(&mut packer(&lengths, packing, rows, len, RankCursor::start()), 400 / (rows * len) + 2) {
            let at: Vec<usize> = batch.documents.iter().map(|start| start.at).collect();
            let begins = |at: &usize| if documents { at.is_multiple_of(len) } else { batch.inputs[*at] == BOS as i32 };
            prop_assert_eq!(&at, &(0..batch.inputs.len()).filter(begins).collect::<Vec<_>>());
            for start in &batch.documents {
                // Its second token says which it is; a row may cut it before that.
                if let Some(&second) = batch.inputs.get(start.at + 1).filter(|id| (start.at + 1) % len != 0 && **id != BOS as i32) {
                    prop_assert_eq!(*known.entry(second).or_insert(start.document), start.document);
                }
            }
        }
        let distinct: std::collections::BTreeSet<&u64> = known.values().collect();
        prop_assert_eq!(distinct.len(), known.len());
    }

    #[test]
    fn document_rows_hold_one_document(
        lengths in proptest::collection::vec(1_usize..20, 1..200),
        len in 1_usize..24,
    ) {
        let mut all = packer(&lengths, Packing::Document, 1, len, RankCursor::start());
        let documents = Lengths::new(&lengths, Position::START);
        for index in (0..lengths.len()).chain([0]) {
            let batch = all.next_batch().unwrap();
            let mut tokens: Vec<i32> = documents.document(index).iter().map(|&id| id as i32).collect();
            tokens.push(BOS as i32);
            tokens.truncate(len + 1);
            let pairs = tokens.len() - 1;
            prop_assert_eq!(&batch.inputs[..pairs], &tokens[..pairs]);
            prop_assert_eq!(&batch.targets[..pairs], &tokens[1..]);
            prop_assert!(batch.inputs[pairs..].iter().all(|&id| id == BOS as i32));
            prop_assert!(batch.targets[pairs..].iter().all(|&id| id == IGNORED));
            prop_assert_eq!(batch.inputs.len(), len);
            prop_assert_eq!(batch.targets.len(), len);
        }
    }
}

/// Of documents that no row holds whole, no more is kept than a row can take, in memory and in checkpoints.
#[test]
fn long_documents_are_kept_as_far_as_a_row_reaches() {
    let lengths: Vec<usize> = (0..300).map(|at| if at % 3 == 0 { 5000 + at } else { 1 + at % 7 }).collect();
    let mut packer = packer(&lengths, Packing::BestFitBos, 2, 15, RankCursor::start());
    packer.next_batch().unwrap();
    let cursor = packer.cursor();
    assert!(cursor.buffered.len() >= 900 && cursor.buffered.iter().all(|document| document.len() <= 16));
    assert!(cursor.cut.len() > 300 && cursor.cut.iter().all(|&(_, length)| length >= 5000));
    let held = packer.held();
    assert!(held.held <= held.most, "{held:?}");
    assert!(held.most < 100_000, "{held:?}");
}

#[test]
fn a_cursor_takes_no_empty_document() {
    let cursor = |lengths: &[usize]| {
        Cursor::from(RankCursor::start())
            .with_documents(lengths.iter().map(|&len| vec![1; len].into()).collect())
    };
    assert!(cursor(&[1, 2]).is_some());
    assert!(cursor(&[]).is_some());
    for lengths in [&[0][..], &[1, 0, 2]] {
        assert_eq!(cursor(lengths), None, "{lengths:?}");
    }
}
