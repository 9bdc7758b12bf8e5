//! The byte-pair trainer: which pairs merge, in which order.
//!
//! The same greedy rule as rustbpe, which upstream trains with: count the pieces of all texts; then, again and
//! again, the adjacent pair of tokens with the largest count becomes a token, the smaller pair of ids where counts
//! tie. A pair's count only falls once it exists (a merge makes new pairs with the new token alone), so a heap of
//! counts at entry with a check on leaving gives the exact maximum. Nothing depends on the order in which pieces are
//! counted, so neither on the number of threads.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::hash_map::Entry;

use rayon::prelude::*;

use super::fast_hash::FastMap;
use super::split_pattern::pieces;
use crate::error::Result;

/// Merges between two words on how far it is.
const TELL_EVERY: usize = 64;

type Token = u32;
type Pair = (Token, Token);

/// How often each piece occurs, gathered text by text.
#[derive(Default)]
pub(super) struct PieceCounts {
    /// One map a worker, so that texts are counted in parallel without locks; merged at the end.
    shares: Vec<FastMap<Box<[u8]>, u64>>,
}

impl PieceCounts {
    /// Counts the pieces of `texts`, on all threads.
    pub(super) fn add(&mut self, texts: &[impl AsRef<str> + Sync]) {
        let workers = rayon::current_num_threads().max(1);
        if self.shares.len() < workers {
            self.shares.resize_with(workers, FastMap::default);
        }
        let share_len = texts.len().div_ceil(workers).max(1);
        self.shares.par_iter_mut().zip(texts.par_chunks(share_len)).for_each(|(counts, texts)| {
            for piece in texts.iter().flat_map(|text| pieces(text.as_ref())) {
                match counts.get_mut(piece.as_bytes()) {
                    Some(count) => *count += 1,
                    None => {
                        counts.insert(piece.as_bytes().into(), 1);
                    }
                }
            }
        });
    }

    fn merged(self) -> FastMap<Box<[u8]>, u64> {
        let mut shares = self.shares.into_iter();
        let mut all = shares.next().unwrap_or_default();
        for share in shares {
            for (piece, count) in share {
                *all.entry(piece).or_default() += count;
            }
        }
        all
    }
}

/// A pair of adjacent tokens: how often it occurs, and the words it may occur in.
#[derive(Default)]
struct PairInfo {
    count: i64,
    words: Vec<u32>,
}

/// The tokens of a vocabulary without special tokens, by id: the 256 bytes, then at most `merges` merged ones in
/// the order in which they merge. Fewer when the texts have no more pairs. `watch` is told the merges so far.
///
/// # Errors
/// A stop asked for meanwhile.
pub(super) fn train(counts: PieceCounts, merges: usize, watch: &dyn Fn(usize)) -> Result<Vec<Vec<u8>>> {
    let mut tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    let mut words: Vec<(Vec<Token>, i64)> = counts
        .merged()
        .into_iter()
        .filter(|(piece, _)| piece.len() > 1)
        .map(|(piece, count)| (piece.iter().map(|&byte| Token::from(byte)).collect(), count as i64))
        .collect();

    let mut pairs: FastMap<Pair, PairInfo> = FastMap::default();
    for (index, (word, count)) in words.iter().enumerate() {
        crate::stop::check()?;
        for (&left, &right) in word.iter().zip(word.iter().skip(1)) {
            let info = pairs.entry((left, right)).or_default();
            info.count += count;
            if info.words.last() != Some(&(index as u32)) {
                info.words.push(index as u32);
            }
        }
    }
    let mut heap: BinaryHeap<(i64, Reverse<Pair>)> =
        pairs.iter().map(|(&pair, info)| (info.count, Reverse(pair))).collect();

    let mut fresh = Vec::new();
    while tokens.len() < 256 + merges {
        crate::stop::check()?;
        let Some((count, Reverse(pair))) = heap.pop() else { break };
        let current = pairs.get(&pair).map_or(0, |info| info.count);
        if current <= 0 {
            continue;
        }
        if current < count {
            heap.push((current, Reverse(pair)));
            continue;
        }
        let Some(info) = pairs.remove(&pair) else { continue };
        let (Some(left), Some(right)) = (tokens.get(pair.0 as usize), tokens.get(pair.1 as usize)) else {
            continue;
        };
        let merged = [left.as_slice(), right].concat();
        let token = tokens.len() as Token;
        tokens.push(merged);
        if tokens.len().is_multiple_of(TELL_EVERY) {
            watch(tokens.len() - 256);
        }
        for index in info.words {
            if let Some((word, count)) = words.get_mut(index as usize) {
                merge_in_word(word, *count, index, pair, token, &mut pairs, &mut fresh);
            }
        }
        for pair in fresh.drain(..) {
            if let Some(info) = pairs.get(&pair)
                && info.count > 0
            {
                heap.push((info.count, Reverse(pair)));
            }
        }
    }
    Ok(tokens)
}

/// Merges `pair` into `token` wherever it stands in the word, left to right, and keeps the counts of the pairs
/// around it. Pairs seen for the first time go to `fresh`.
fn merge_in_word(
    word: &mut Vec<Token>,
    count: i64,
    index: u32,
    pair: Pair,
    token: Token,
    pairs: &mut FastMap<Pair, PairInfo>,
    fresh: &mut Vec<Pair>,
) {
    let mut lose = |lost: Pair| {
        // The merged pair itself has left the table.
        if lost != pair
            && let Some(info) = pairs.get_mut(&lost)
        {
            info.count -= count;
        }
    };
    let mut gains: Vec<Pair> = Vec::new();
    let mut kept = 0;
    let mut at = 0;
    while let Some(&first) = word.get(at) {
        let second = word.get(at + 1).copied();
        if first != pair.0 || second != Some(pair.1) {
            set(word, kept, first);
            kept += 1;
            at += 1;
            continue;
        }
        if let Some(&before) = kept.checked_sub(1).and_then(|last| word.get(last)) {
            if before == token {
                // The pair between this merge and the one before it was gained there with the old left half.
                gains.pop();
            } else {
                lose((before, pair.0));
            }
            gains.push((before, token));
        }
        if let Some(&after) = word.get(at + 2) {
            lose((pair.1, after));
            gains.push((token, after));
        }
        set(word, kept, token);
        kept += 1;
        at += 2;
    }
    word.truncate(kept);
    for pair in gains {
        let info = match pairs.entry(pair) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                fresh.push(pair);
                entry.insert(PairInfo::default())
            }
        };
        info.count += count;
        if info.words.last() != Some(&index) {
            info.words.push(index);
        }
    }
}

#[inline]
fn set(word: &mut [Token], at: usize, token: Token) {
    if let Some(slot) = word.get_mut(at) {
        *slot = token;
    }
}
