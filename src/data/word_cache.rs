//! Pieces of text that were merged before, with their ids, in a fixed number of bytes.
//!
//! A table of two-way sets: a piece has two slots it may stand in, the one used last first, and a new piece takes the
//! other. So what text repeats stays however many new words come, nothing is ever cleared at once, and the table's
//! size is its bound. Nothing in it changes a result.

use std::hash::Hasher as _;

use super::fast_hash::FoldHasher;

/// Bytes of a piece that has a place here at most.
const PIECE: usize = 30;

/// Ids of a piece that has a place here at most.
const IDS: usize = 8;

/// Slots of a table that holds something at least; a power of two.
const FEWEST: usize = 256;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Slot {
    ids: [u32; IDS],
    piece: [u8; PIECE],
    /// Bytes of the piece; 0 is an empty slot.
    len: u8,
    /// Ids of it.
    count: u8,
}

const EMPTY: Slot = Slot { ids: [0; IDS], piece: [0; PIECE], len: 0, count: 0 };

impl Slot {
    fn piece(&self) -> &[u8] {
        self.piece.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn ids(&self) -> &[u32] {
        self.ids.get(..usize::from(self.count)).unwrap_or_default()
    }
}

/// The ids of pieces, as far as there is room.
pub(super) struct WordCache {
    /// None, or a power of two.
    slots: Vec<Slot>,
    /// Slots that hold a piece.
    filled: usize,
    /// Slots at most; below [`FEWEST`] nothing is kept.
    most: usize,
}

impl WordCache {
    /// A cache of at most this many bytes; it begins with none and grows as it fills.
    pub(super) fn of_bytes(bytes: usize) -> Self {
        let slots = bytes / size_of::<Slot>();
        let most = if slots == 0 { 0 } else { 1 << slots.ilog2() };
        Self { slots: Vec::new(), filled: 0, most }
    }

    /// Bytes it holds now.
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
    }

    fn set(&mut self, piece: &[u8]) -> Option<&mut [Slot; 2]> {
        let mut hasher = FoldHasher::default();
        hasher.write(piece);
        let sets = self.slots.len() / 2;
        let set = (hasher.finish() as usize) & sets.checked_sub(1)?;
        self.slots.get_mut(2 * set..2 * set + 2)?.try_into().ok()
    }

    /// The ids of `piece`, if it is here.
    pub(super) fn recall(&mut self, piece: &[u8]) -> Option<&[u32]> {
        if piece.len() > PIECE {
            return None;
        }
        let [first, second] = self.set(piece)?;
        if first.piece() != piece {
            if second.piece() != piece {
                return None;
            }
            std::mem::swap(first, second);
        }
        Some(first.ids())
    }

    /// Keeps the ids of `piece`, where it has a place here.
    pub(super) fn remember(&mut self, piece: &[u8], ids: &[u32]) {
        if piece.is_empty() || piece.len() > PIECE || ids.len() > IDS || self.most < FEWEST {
            return;
        }
        if 2 * self.filled >= self.slots.len() && self.slots.len() < self.most {
            self.grow();
        }
        let mut slot = Slot { len: piece.len() as u8, count: ids.len() as u8, ..EMPTY };
        slot.piece.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
        slot.ids.iter_mut().zip(ids).for_each(|(to, from)| *to = *from);
        self.place(slot);
    }

    fn place(&mut self, slot: Slot) {
        let Some([first, second]) = self.set(slot.piece()) else { return };
        let fresh = second.len == 0;
        if first.len > 0 {
            *second = *first;
        }
        *first = slot;
        self.filled += usize::from(fresh);
    }

    fn grow(&mut self) {
        let slots = (2 * self.slots.len()).clamp(FEWEST, self.most);
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        self.filled = 0;
        // The second of a set first, so that the one used last stays the first.
        for slot in old.into_iter().rev().filter(|slot| slot.len > 0) {
            self.place(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(number: u32) -> Vec<u8> {
        format!(" word{number}").into_bytes()
    }

    #[test]
    fn words_come_back_while_there_is_room() {
        let mut cache = WordCache::of_bytes(1 << 20);
        assert_eq!(cache.recall(b"a"), None);
        assert_eq!(cache.bytes(), 0);
        for number in 0..2000 {
            cache.remember(&word(number), &[number, 7]);
        }
        let found = (0..2000).filter(|&number| cache.recall(&word(number)) == Some(&[number, 7])).count();
        // Sets of two overflow here and there.
        assert!(found > 1600, "{found}");
        assert_eq!(cache.recall(b" word"), None);
        assert!(cache.bytes() <= 1 << 20);
    }

    #[test]
    fn what_repeats_stays_while_new_words_keep_coming() {
        let mut cache = WordCache::of_bytes(64 << 10);
        let mut missed = 0;
        for number in 0..1_000_000 {
            cache.remember(&word(number), &[number]);
            if number % 16 == 0 && cache.recall(b" the") != Some(&[5]) {
                missed += 1;
                cache.remember(b" the", &[5]);
            }
        }
        // Of 62,500 times; a cache that is cleared when it is full would miss more often than it has room for words.
        assert!(missed < 200, "{missed}");
        assert!(cache.bytes() <= 64 << 10, "{}", cache.bytes());
    }

    #[test]
    fn what_has_no_place_is_not_kept() {
        let mut cache = WordCache::of_bytes(1 << 16);
        let long = [b'a'; PIECE + 1];
        cache.remember(&long, &[1]);
        cache.remember(b"ids", &[1; IDS + 1]);
        cache.remember(&long[..PIECE], &[1; IDS]);
        assert_eq!(cache.recall(&long), None);
        assert_eq!(cache.recall(b"ids"), None);
        assert_eq!(cache.recall(&long[..PIECE]), Some(&[1; IDS][..]));
        let mut none = WordCache::of_bytes(FEWEST * 64 - 1);
        none.remember(b"word", &[1]);
        assert_eq!(none.recall(b"word"), None);
        assert_eq!(none.bytes(), 0);
    }
}
