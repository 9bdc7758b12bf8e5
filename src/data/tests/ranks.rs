//! The rows of several ranks: upstream's own, each rank's documents over a round, and restarts from every cursor.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use serde::Deserialize;

use crate::data::config::{DocumentSplit, Packing};
use crate::data::row_order::{Turns, documents_by_rank};
use crate::data::{
    Batch, BatchShape, Cache, Corpus, Cursor, DocumentBatches, Loader, Position, RankTurns, RowOrder, Split,
    SplitSource, TokenStream, Tokenizer,
};

/// Documents of what stands for a row group of a text file.
const GROUP: usize = 1024;

#[derive(Deserialize)]
struct Case {
    ranks: usize,
    split: String,
    resumed: Option<(usize, usize, u64)>,
    by_rank: Vec<Vec<Golden>>,
}

#[derive(Deserialize)]
struct Golden {
    rows: Vec<String>,
    state: (usize, usize, u64),
}

/// A row of T + 1 ids, as tests/fixtures/generate/ranks.py writes them.
fn ids(row: &str) -> Vec<i32> {
    let digit =
        |letter: u8| i32::from(if letter.is_ascii_digit() { letter - b'0' } else { letter - b'a' + 10 });
    row.as_bytes().chunks(2).map(|pair| digit(pair[0]) * 32 + digit(pair[1]) - 1).collect()
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data").join(path)
}

/// Batches of 2 rows of 24 tokens, three from each rank in its turn, with and without a cache of tokens.
#[test]
fn rows_of_several_ranks_are_upstreams() {
    let text = std::fs::read(fixture("ranks/rows.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&text).unwrap();
    assert_eq!(cases.len(), 15);
    let corpus =
        Corpus::open(&[fixture("ranks/*.parquet").display().to_string()], DocumentSplit::Block).unwrap();
    let tokenizer = Arc::new(Tokenizer::load(&fixture("tokenizer_300")).unwrap());
    let directory = tempfile::tempdir().unwrap();
    for cache in [Cache::disabled(), Cache::at(directory.path()), Cache::at(directory.path())] {
        for case in &cases {
            let split = if case.split == "train" { Split::Train } else { Split::Val };
            let cursor = case.resumed.map(|(file, group, epoch)| {
                Cursor::resumed(Position { epoch, file, group: group + 1, batch: 0 }, case.ranks)
            });
            let shape = BatchShape { packing: Packing::BestFitBos, rows: 2, len: 24 };
            let turns = RankTurns { order: RowOrder { ranks: case.ranks, seed: None }, batches: 3 };
            let (source, tokenizer) = (corpus.split(split), Arc::clone(&tokenizer));
            let mut loader =
                Loader::of_ranks(source, tokenizer, cache.clone(), shape, turns, cursor).unwrap();
            for (rank, batches) in case.by_rank.iter().enumerate() {
                for golden in batches {
                    let Batch { inputs, targets, state, .. } = loader.next().unwrap();
                    for (row, golden) in golden.rows.iter().enumerate() {
                        let golden = ids(golden);
                        let at = row * 24..(row + 1) * 24;
                        let what = (case.ranks, &case.split, case.resumed, rank, row);
                        assert_eq!(inputs[at.clone()], golden[..24], "{what:?}");
                        assert_eq!(targets[at], golden[1..], "{what:?}");
                    }
                    assert_eq!((state.file, state.group, state.epoch), golden.state);
                }
            }
        }
    }
}

/// Text files of so many one-line documents, numbered through.
fn numbered(directory: &Path, files: &[usize]) -> Corpus {
    let mut number = 0..;
    for (name, count) in files.iter().enumerate() {
        let lines: Vec<String> = number.by_ref().take(*count).map(|n| n.to_string()).collect();
        std::fs::write(directory.join(format!("{name}.txt")), lines.join("\n")).unwrap();
    }
    let patterns = [directory.join("*.txt").to_str().unwrap().to_owned()];
    Corpus::open(&patterns, DocumentSplit::Line).unwrap()
}

/// The row groups that each rank reads in the first rounds, with their documents.
fn rounds(source: &SplitSource, order: RowOrder, rounds: u64) -> Vec<Vec<(Position, usize)>> {
    let tokenizer = Arc::new(Tokenizer::load(&fixture("tokenizer_300")).unwrap());
    let turns = Turns::of_ranks(source, order).unwrap();
    let starts: Vec<Position> = turns.iter().map(|turns| turns.start(source, 1).unwrap().unwrap()).collect();
    let (source, cache) = (source.clone(), Cache::disabled());
    let streams = TokenStream::of_ranks(source, tokenizer, cache, turns, starts.into_iter());
    let read = |mut stream: TokenStream| {
        let mut groups: Vec<(Position, usize)> = Vec::new();
        loop {
            let (documents, at) = stream.next_batch().unwrap();
            if at.epoch > rounds {
                return groups;
            }
            let place = Position { batch: 0, ..at };
            match groups.last_mut() {
                Some((last, count)) if *last == place => *count += documents.len(),
                _ => groups.push((place, documents.len())),
            }
        }
    };
    streams.into_iter().map(read).collect()
}

#[test]
fn ranks_divide_the_row_groups_of_each_file() {
    let directory = tempfile::tempdir().unwrap();
    let corpus = numbered(directory.path(), &[3 * GROUP + 5, 10, 2 * GROUP + 7, 2 * GROUP]);
    let read = rounds(&corpus.split(Split::Train), RowOrder { ranks: 2, seed: None }, 2);
    let place = |epoch, file, group, count| (Position { epoch, file, group, batch: 0 }, count);
    let expected = |epoch| {
        [
            vec![
                place(epoch, 0, 0, GROUP),
                place(epoch, 0, 2, GROUP),
                place(epoch, 1, 0, 10),
                place(epoch, 2, 0, GROUP),
                place(epoch, 2, 2, 7),
            ],
            // The second file has no row group for it.
            vec![place(epoch, 0, 1, GROUP), place(epoch, 0, 3, 5), place(epoch, 2, 1, GROUP)],
        ]
    };
    let [first, second] = [expected(1), expected(2)];
    for (read, (first, second)) in read.iter().zip(first.iter().zip(&second)) {
        assert_eq!(*read, [first.clone(), second.clone()].concat());
    }
}

/// Of a file that two splits share, the held-out part begins with a row group of its own.
#[test]
fn ranks_divide_the_held_out_part_of_a_lone_file() {
    let directory = tempfile::tempdir().unwrap();
    let corpus = numbered(directory.path(), &[20 * GROUP]);
    let order = RowOrder { ranks: 2, seed: None };
    let read = rounds(&corpus.split(Split::Val), order, 1);
    let groups: Vec<Vec<usize>> =
        read.iter().map(|rank| rank.iter().map(|(at, _)| at.group).collect()).collect();
    assert_eq!(groups, [[18], [19]]);
    assert_eq!(documents_by_rank(&corpus.split(Split::Val), order, "validation").unwrap(), [1024, 1024]);
    let error = documents_by_rank(&corpus.split(Split::Val), RowOrder { ranks: 3, seed: None }, "validation")
        .unwrap_err();
    insta::assert_snapshot!(error);
    let permuted = RowOrder { ranks: 40, seed: Some(1) };
    insta::assert_snapshot!(documents_by_rank(&corpus.split(Split::Train), permuted, "train").unwrap_err());
}

/// All row groups of all files, each once a round, in another order in each round; ranks divide that one order.
#[test]
fn a_seed_permutes_the_row_groups_of_all_files_before_ranks_divide_them() {
    let directory = tempfile::tempdir().unwrap();
    let corpus = numbered(directory.path(), &[3 * GROUP + 5, 10, 2 * GROUP + 7, 40]);
    let source = corpus.split(Split::Train);
    let lying = rounds(&source, RowOrder::default(), 1).remove(0);
    let of_round = |all: &[(Position, usize)], epoch| -> Vec<(usize, usize, usize)> {
        let of = all.iter().filter(|(at, _)| at.epoch == epoch);
        of.map(|(at, count)| (at.file, at.group, *count)).collect()
    };
    for seed in [0, 1] {
        let alone = rounds(&source, RowOrder { ranks: 1, seed: Some(seed) }, 2).remove(0);
        let (first, second) = (of_round(&alone, 1), of_round(&alone, 2));
        assert_ne!(first, second);
        for round in [&first, &second] {
            let mut sorted = round.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, of_round(&lying, 1));
            assert_ne!(*round, sorted);
        }
        let ranks = rounds(&source, RowOrder { ranks: 3, seed: Some(seed) }, 2);
        for (epoch, round) in [(1, first), (2, second)] {
            for (rank, read) in ranks.iter().enumerate() {
                let expected: Vec<_> = round.iter().skip(rank).step_by(3).copied().collect();
                assert_eq!(of_round(read, epoch), expected, "rank {rank}, round {epoch}");
            }
        }
    }
}

#[test]
fn a_place_that_the_permuted_order_does_not_have_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let corpus = numbered(directory.path(), &[GROUP, GROUP]);
    let source = corpus.split(Split::Train);
    let turns = Turns::of_ranks(&source, RowOrder { ranks: 1, seed: Some(3) }).unwrap().remove(0);
    let error = turns.after(&source, Position { file: 9, ..Position::START }).unwrap_err();
    assert_eq!(error.key_path(), Some("data.seed"));
}

#[test]
fn a_cursor_of_other_ranks_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let corpus = numbered(directory.path(), &[4 * GROUP, GROUP]);
    let tokenizer = Arc::new(Tokenizer::load(&fixture("tokenizer_300")).unwrap());
    let shape = BatchShape { packing: Packing::Document, rows: 1, len: 8 };
    let turns = RankTurns { order: RowOrder { ranks: 2, seed: None }, batches: 1 };
    let cursor = Some(Cursor::resumed(Position { group: 1, ..Position::START }, 3));
    let source = corpus.split(Split::Train);
    let error = Loader::of_ranks(source, tokenizer, Cache::disabled(), shape, turns, cursor).err().unwrap();
    insta::assert_snapshot!(error);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Micro-batches of all ranks, in any turns and packing: each rank's are those that it gives alone, and any cursor
    /// carries on with the same rows.
    #[test]
    fn ranks_take_turns_and_resume_anywhere(
        files in proptest::collection::vec(3 * GROUP..4 * GROUP, 1..3),
        ranks in 1_usize..5,
        turn in 1_u64..4,
        rows in 1_usize..3,
        len in 4_usize..24,
        seed in proptest::option::of(0_u64..9),
        documents in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let files: Vec<usize> = files.into_iter().chain([GROUP]).collect();
        let corpus = numbered(directory.path(), &files);
        let source = corpus.split(Split::Train);
        let order = RowOrder { ranks: ranks.min(3), seed };
        let tokenizer = Arc::new(Tokenizer::load(&fixture("tokenizer_300")).unwrap());
        let cache = Cache::at(directory.path().join("cache"));
        let packing = if documents { Packing::Document } else { Packing::BestFitBos };
        let start = |batches, cursor| {
            let shape = BatchShape { packing, rows, len };
            let turns = RankTurns { order, batches };
            Loader::of_ranks(source.clone(), Arc::clone(&tokenizer), cache.clone(), shape, turns, cursor).unwrap()
        };
        let take = |loader: &mut Loader, count: u64| -> Vec<Batch> {
            (0..count).map(|_| loader.next().unwrap()).collect()
        };
        let count = 2 * turn * order.ranks as u64;
        let straight = take(&mut start(turn, None), count);
        // One batch a turn: batch `at` of rank r stands at `at * ranks + r`.
        let by_ones = take(&mut start(1, None), count);
        for (at, batch) in straight.iter().enumerate() {
            let (at, turn) = (at as u64, turn);
            let (round, within) = (at / (turn * order.ranks as u64), at % (turn * order.ranks as u64));
            let of_rank = round * turn + within % turn;
            let other = &by_ones[(of_rank * order.ranks as u64 + within / turn) as usize];
            prop_assert_eq!((&batch.inputs, &batch.targets), (&other.inputs, &other.targets));
        }
        for done in [0, 1, turn as usize, straight.len() / 2, straight.len() - 2] {
            let Some(batch) = straight.get(done) else { continue };
            let cursor = batch.cursor_after.clone();
            let documents = cursor.documents().cloned().collect();
            let text = serde_json::to_string(&cursor.without_documents()).unwrap();
            let read: Cursor = serde_json::from_str(&text).unwrap();
            let read = read.with_documents(documents).unwrap();
            prop_assert_eq!(&read, &cursor);
            let rest = take(&mut start(turn, Some(read)), (straight.len() - done - 1) as u64);
            prop_assert!(rest[..] == straight[done + 1..], "resumed after batch {}", done);
        }
    }
}
