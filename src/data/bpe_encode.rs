//! The byte-pair encoder: text to ids and back, equal to tiktoken's `encode_ordinary`.
//!
//! A piece that is a token is that token. Any other piece starts as its bytes; then the adjacent pair that makes the
//! token of lowest id merges, the leftmost where several do, until no pair makes a token.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

use super::fast_hash::FastMap;
use super::split_pattern::pieces;
use super::word_cache::WordCache;

/// Pieces longer than this merge one at a time, whatever the number of workers: each byte takes some thirty more.
const HUGE_PIECE: usize = 1 << 20;

/// Held by whoever merges a huge piece. Nothing waits for another worker under it.
static HUGE: Mutex<()> = Mutex::new(());

/// No token.
const NONE: u32 = u32::MAX;

/// The tokens of a text change when this does; cached ones of another version are not read.
pub(super) const ENCODER_VERSION: u64 = 1;

/// Pieces longer than this merge by a heap, whose time grows as n log n rather than n^2.
const LONG_PIECE: usize = 128;

/// A vocabulary made ready to encode with. Ids are ranks: a lower one merges first.
pub(super) struct BpeEncoder {
    tokens: Vec<Vec<u8>>,
    ids: FastMap<Box<[u8]>, u32>,
    /// Two adjacent tokens and the one they make.
    pairs: FastMap<u64, u32>,
    bytes: [u32; 256],
}

/// What a worker keeps between texts: buffers, and the ids of pieces it has merged before. Holds nothing that
/// changes a result.
pub(super) struct Scratch {
    words: WordCache,
    parts: Vec<u32>,
    made: Vec<u32>,
}

impl Scratch {
    /// Remembers pieces in at most this many bytes.
    pub(super) fn of_bytes(bytes: usize) -> Self {
        Self { words: WordCache::of_bytes(bytes), parts: Vec::new(), made: Vec::new() }
    }

    /// Bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.words.bytes() + 4 * (self.parts.capacity() + self.made.capacity())
    }
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl BpeEncoder {
    /// Makes ready the tokens, given by id.
    ///
    /// # Errors
    /// Says what is wrong: a byte without a token, an empty token, or two tokens that are the same.
    pub(super) fn new(tokens: Vec<Vec<u8>>) -> Result<Self, String> {
        let mut ids = FastMap::default();
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() {
                return Err(format!("token {id} is empty"));
            }
            if let Some(other) = ids.insert(token.clone().into_boxed_slice(), id as u32) {
                return Err(format!("tokens {other} and {id} are the same"));
            }
        }
        let mut bytes = [NONE; 256];
        for (byte, slot) in (0..=u8::MAX).zip(&mut bytes) {
            *slot = *ids.get([byte].as_slice()).ok_or_else(|| format!("byte {byte} has no token"))?;
        }
        let mut pairs = FastMap::default();
        for (id, token) in tokens.iter().enumerate() {
            for cut in 1..token.len() {
                let (left, right) = token.split_at(cut);
                if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                    pairs.insert(key(left, right), id as u32);
                }
            }
        }
        Ok(Self { tokens, ids, pairs, bytes })
    }

    /// The tokens by id.
    pub(super) fn tokens(&self) -> &[Vec<u8>] {
        &self.tokens
    }

    /// Appends the ids of `text` to `out`.
    pub(super) fn encode_into(&self, text: &str, scratch: &mut Scratch, out: &mut Vec<u32>) {
        for piece in pieces(text) {
            let piece = piece.as_bytes();
            if let Some(&id) = self.ids.get(piece) {
                out.push(id);
            } else if let Some(ids) = scratch.words.recall(piece) {
                out.extend_from_slice(ids);
            } else if piece.len() > LONG_PIECE {
                self.merge_long(piece, out);
            } else {
                self.merge_short(piece, scratch);
                out.extend_from_slice(&scratch.parts);
                scratch.words.remember(piece, &scratch.parts);
            }
        }
    }

    fn made_by(&self, left: u32, right: u32) -> u32 {
        self.pairs.get(&key(left, right)).copied().unwrap_or(NONE)
    }

    /// Merges `piece` into `scratch.parts`, looking through all pairs for each merge.
    fn merge_short(&self, piece: &[u8], scratch: &mut Scratch) {
        let Scratch { parts, made, .. } = scratch;
        parts.clear();
        parts.extend(piece.iter().map(|&byte| self.bytes[usize::from(byte)]));
        made.clear();
        made.extend(parts.iter().zip(parts.iter().skip(1)).map(|(&left, &right)| self.made_by(left, right)));
        while let Some((at, &token)) = made.iter().enumerate().min_by_key(|&(_, token)| token)
            && token != NONE
        {
            parts.remove(at + 1);
            made.remove(at);
            if let Some(slot) = parts.get_mut(at) {
                *slot = token;
            }
            if let (Some(slot), Some(&right)) = (made.get_mut(at), parts.get(at + 1)) {
                *slot = self.made_by(token, right);
            }
            if let Some(before) = at.checked_sub(1)
                && let (Some(slot), Some(&left)) = (made.get_mut(before), parts.get(before))
            {
                *slot = self.made_by(left, token);
            }
        }
    }

    /// The same for long pieces: a heap of candidate merges over a linked list of parts. A piece is shorter than
    /// 4 GiB, as texts are.
    fn merge_long(&self, piece: &[u8], out: &mut Vec<u32>) {
        struct Part {
            token: u32,
            before: u32,
            after: u32,
        }
        let _one_at_a_time =
            (piece.len() > HUGE_PIECE).then(|| HUGE.lock().unwrap_or_else(PoisonError::into_inner));
        let len = piece.len();
        let mut parts: Vec<Part> = piece
            .iter()
            .enumerate()
            .map(|(at, &byte)| Part {
                token: self.bytes[usize::from(byte)],
                before: (at as u32).wrapping_sub(1),
                after: at as u32 + 1,
            })
            .collect();
        // Token made, where its left part starts, and both parts as they were: stale once either has changed.
        let mut heap: BinaryHeap<Reverse<(u32, u32, u32, u32)>> = BinaryHeap::with_capacity(len);
        let push = |heap: &mut BinaryHeap<_>, parts: &[Part], at: u32| {
            let Some(left) = parts.get(at as usize) else { return };
            let Some(right) = parts.get(left.after as usize) else { return };
            let token = self.made_by(left.token, right.token);
            if token != NONE {
                heap.push(Reverse((token, at, left.token, right.token)));
            }
        };
        for at in 0..len as u32 {
            push(&mut heap, &parts, at);
        }
        while let Some(Reverse((token, at, left, right))) = heap.pop() {
            let Some(next) = parts.get(at as usize).filter(|part| part.token == left).map(|part| part.after)
            else {
                continue;
            };
            let Some(after) =
                parts.get(next as usize).filter(|part| part.token == right).map(|part| part.after)
            else {
                continue;
            };
            if let Some(part) = parts.get_mut(next as usize) {
                part.token = NONE;
            }
            if let Some(part) = parts.get_mut(after as usize) {
                part.before = at;
            }
            let mut before = u32::MAX;
            if let Some(part) = parts.get_mut(at as usize) {
                part.token = token;
                part.after = after;
                before = part.before;
            }
            push(&mut heap, &parts, at);
            push(&mut heap, &parts, before);
        }
        out.extend(parts.iter().map(|part| part.token).filter(|&token| token != NONE));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule as it is stated, by bytes.
    fn naive(tokens: &[Vec<u8>], piece: &[u8]) -> Vec<u32> {
        let id = |bytes: &[u8]| tokens.iter().position(|token| token == bytes).map(|id| id as u32);
        let mut parts: Vec<Vec<u8>> = piece.iter().map(|&byte| vec![byte]).collect();
        loop {
            let best = (1..parts.len())
                .filter_map(|at| id(&[parts[at - 1].as_slice(), &parts[at]].concat()).map(|id| (id, at)))
                .min();
            let Some((_, at)) = best else { break };
            let right = parts.remove(at);
            parts[at - 1].extend(right);
        }
        parts.iter().map(|part| id(part).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn short_and_long_merges_follow_the_rule(
            words in proptest::collection::vec("[ab]{2,6}", 0..20),
            piece in "[abc]{1,60}",
        ) {
            let mut tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
            for word in words {
                if !tokens.contains(&word.clone().into_bytes()) {
                    tokens.push(word.into_bytes());
                }
            }
            let expected = naive(&tokens, piece.as_bytes());
            let encoder = BpeEncoder::new(tokens).unwrap();
            let mut scratch = Scratch::of_bytes(0);
            encoder.merge_short(piece.as_bytes(), &mut scratch);
            prop_assert_eq!(&scratch.parts, &expected);
            let mut long = Vec::new();
            encoder.merge_long(piece.as_bytes(), &mut long);
            prop_assert_eq!(long, expected);
        }
    }

    #[test]
    fn bad_vocabularies_are_named() {
        let bytes = || (0..=u8::MAX).map(|byte| vec![byte]).collect::<Vec<_>>();
        let error = |tokens| BpeEncoder::new(tokens).err().unwrap();
        assert_eq!(error(bytes()[1..].to_vec()), "byte 0 has no token");
        assert_eq!(
            error([bytes(), vec![b"ab".to_vec(), b"ab".to_vec()]].concat()),
            "tokens 256 and 257 are the same"
        );
        assert_eq!(error([bytes(), vec![Vec::new()]].concat()), "token 256 is empty");
    }
}
