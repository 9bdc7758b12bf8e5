//! In which order the row groups of a split are read, and by which rank.
//!
//! Upstream's rank r of N reads row groups r, r + N, ... of every file (nanochat/dataloader.py) and packs rows for itself.
//! `run.ranks` makes one device read as N do. `data.seed` permutes the row groups of the train split before the ranks
//! divide them; it is no part of upstream.
//!
//! Row groups are those of parquet; of text and JSON lines, groups of 1024 documents stand for them. Of a file that two
//! splits share, a split's first row group is the first that holds documents of it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::split::SplitSource;
use super::token_stream::Position;
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};

/// What decides the order of a run's rows beside shards, tokenizer and packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowOrder {
    /// N, at least 1: `run.ranks`.
    pub ranks: usize,
    /// Permutes the row groups of the train split, anew in each round: `data.seed`. None leaves them as they lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Default for RowOrder {
    fn default() -> Self {
        Self { ranks: 1, seed: None }
    }
}

impl RowOrder {
    /// Whether it is that of upstream on one device, which every run had before there was a choice.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The order of the validation split, which no seed permutes: all arms are judged by the same rows.
    #[must_use]
    pub fn unpermuted(self) -> Self {
        Self { seed: None, ..self }
    }
}

/// The row groups of a split that hold documents of it, in the order of one round.
type Round = Arc<[(usize, usize)]>;

/// A split's row groups in the permutation of a seed. One is shared by all ranks, for a round is long.
pub(super) struct Permutation {
    seed: u64,
    /// File and row group of those that hold documents, as they lie.
    groups: Vec<(usize, usize)>,
    /// The round that was asked for last.
    last: Mutex<Option<(u64, Round)>>,
}

impl Permutation {
    /// Of a split.
    ///
    /// # Errors
    /// A shard that was not examined.
    pub(super) fn of(source: &SplitSource, seed: u64) -> Result<Self> {
        let mut groups = Vec::new();
        for file in 0..source.files() {
            let held = source.groups(file)?;
            let filled = held.iter().enumerate().filter(|(_, (first, end))| first < end);
            groups.extend(filled.map(|(group, _)| (file, group)));
        }
        Ok(Self { seed, groups, last: Mutex::default() })
    }

    /// The row groups of a round: sorted by a hash of seed, round and place, which anybody can compute.
    fn round(&self, epoch: u64) -> Round {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, round)) = &*last
            && *of == epoch
        {
            return Arc::clone(round);
        }
        let mut sorted: Vec<(Digest, (usize, usize))> =
            self.groups.iter().map(|&place| (sort_key(self.seed, epoch, place), place)).collect();
        sorted.sort_unstable_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
        let round: Round = sorted.into_iter().map(|(_, place)| place).collect();
        *last = Some((epoch, Arc::clone(&round)));
        round
    }
}

/// What row groups are sorted by. The order is part of what a run key promises: these bytes stay.
fn sort_key(seed: u64, epoch: u64, (file, group): (usize, usize)) -> Digest {
    let mut canonical = Canonical::new("nanorun row order");
    canonical.u64("seed", seed).u64("epoch", epoch);
    canonical.u64("file", file as u64).u64("group", group as u64).finish()
}

/// The row groups that a rank reads, in turn.
#[derive(Clone)]
pub(super) struct Turns {
    /// r, below N.
    rank: usize,
    /// N.
    ranks: usize,
    permutation: Option<Arc<Permutation>>,
}

impl Turns {
    /// Of each rank of `order` over a split.
    ///
    /// # Errors
    /// A shard that was not examined.
    pub(super) fn of_ranks(source: &SplitSource, order: RowOrder) -> Result<Vec<Self>> {
        let permutation = order.seed.map(|seed| Permutation::of(source, seed)).transpose()?.map(Arc::new);
        let ranks = order.ranks.max(1);
        Ok((0..ranks).map(|rank| Self { rank, ranks, permutation: permutation.clone() }).collect())
    }

    /// Of one device alone, as the row groups lie.
    pub(super) fn alone() -> Self {
        Self { rank: 0, ranks: 1, permutation: None }
    }

    /// Where the rank begins a round; none in which it has no row group. There may be no documents at that place, nor a
    /// row group: then [`Turns::after`] leads on.
    pub(super) fn start(&self, source: &SplitSource, epoch: u64) -> Result<Option<Position>> {
        let at = |(file, group)| Position { epoch, file, group, batch: 0 };
        match &self.permutation {
            Some(permutation) => Ok(permutation.round(epoch).get(self.rank).copied().map(at)),
            None if source.files() == 0 => Ok(None),
            None => Ok(Some(at((0, self.first(source, 0)?)))),
        }
    }

    /// The place of its next row group after that of `at`, in the same round; none where the round is over.
    ///
    /// # Errors
    /// A place that the permuted order does not have.
    pub(super) fn after(&self, source: &SplitSource, at: Position) -> Result<Option<Position>> {
        let to = |(file, group)| Position { file, group, batch: 0, ..at };
        if let Some(permutation) = &self.permutation {
            let round = permutation.round(at.epoch);
            let Some(turn) = round.iter().position(|&place| place == (at.file, at.group)) else {
                return Err(Error::input("the place where the data go on is not one of these shards")
                    .key("data.seed")
                    .expected("the shards, and the seed, that the place was noted with"));
            };
            return Ok(round.get(turn.saturating_add(self.ranks)).copied().map(to));
        }
        let group = at.group.saturating_add(self.ranks);
        if at.file < source.files() && group < source.group_count(at.file)? {
            return Ok(Some(to((at.file, group))));
        }
        for file in at.file.saturating_add(1)..source.files() {
            let group = self.first(source, file)?;
            if group < source.group_count(file)? {
                return Ok(Some(to((file, group))));
            }
        }
        Ok(None)
    }

    /// Its first row group of a file, which may be beyond the file's last.
    fn first(&self, source: &SplitSource, file: usize) -> Result<usize> {
        Ok(source.first_group(file)?.saturating_add(self.rank))
    }
}

/// Documents of a split that each rank reads in the first round.
///
/// # Errors
/// A shard that was not examined; a rank without any, which upstream would wait for without end (class `Input`, key
/// `run.ranks`). `split` is what messages call it.
pub(crate) fn documents_by_rank(source: &SplitSource, order: RowOrder, split: &str) -> Result<Vec<u64>> {
    let mut documents = vec![0_u64; order.ranks.max(1)];
    let ranks = documents.len();
    let mut count = |turn: usize, (first, end): (usize, usize)| {
        if let Some(sum) = documents.get_mut(turn % ranks) {
            *sum += end.saturating_sub(first) as u64;
        }
    };
    let mut most = 0;
    match order.seed {
        Some(seed) => {
            let permutation = Permutation::of(source, seed)?;
            let round = permutation.round(1);
            most = round.len();
            for (turn, &(file, group)) in round.iter().enumerate() {
                count(turn, source.groups(file)?.get(group).copied().unwrap_or_default());
            }
        }
        None => {
            for file in 0..source.files() {
                let groups = source.groups(file)?;
                let first = source.first_group(file)?;
                most = most.max(groups.len().saturating_sub(first));
                for (turn, &held) in groups.iter().skip(first).enumerate() {
                    count(turn, held);
                }
            }
        }
    }
    let Some(empty) = documents.iter().position(|&documents| documents == 0) else { return Ok(documents) };
    if ranks == 1 {
        return Ok(documents);
    }
    let (what, of) = match order.seed {
        Some(_) => (format!("the {split} split has {most} row groups"), "in all its shards together"),
        None => {
            (format!("no shard of the {split} split has more than {most} row groups"), "in one of its shards")
        }
    };
    Err(Error::input(format!("rank {empty} of {ranks} has no text: {what}"))
        .key("run.ranks")
        .expected(format!(
            "as many row groups as ranks {of} (of text and JSON lines, 1024 documents stand for a row group)"
        ))
        .help(format!("run.ranks = {} or less, or more text", most.clamp(1, ranks - 1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_permutation_is_what_it_was() {
        let permutation = Permutation {
            seed: 7,
            groups: (0..2).flat_map(|file| (0..4).map(move |group| (file, group))).collect(),
            last: Mutex::default(),
        };
        let round = |epoch| permutation.round(epoch).to_vec();
        insta::assert_snapshot!(format!("{:?}\n{:?}", round(1), round(2)));
        assert_eq!(round(1), round(1));
        let mut sorted = round(1);
        sorted.sort_unstable();
        assert_eq!(sorted, permutation.groups);
    }
}
