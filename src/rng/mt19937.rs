//! The 32-bit Mersenne twister (Matsumoto and Nishimura 1998), seeded as torch seeds it.

/// Words of state.
pub(super) const N: usize = 624;
const M: usize = 397;
const MATRIX_A: u32 = 0x9908_b0df;
const UPPER_MASK: u32 = 0x8000_0000;
const LOWER_MASK: u32 = 0x7fff_ffff;

/// The engine: its words and the place of the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mt19937 {
    pub(super) words: [u32; N],
    /// Words of the present block already given out, at most [`N`].
    pub(super) used: usize,
}

impl Mt19937 {
    /// Only the low 32 bits of the seed count, as in torch.
    pub(super) fn new(seed: u64) -> Self {
        let mut words = [0; N];
        let mut word = seed as u32;
        for (index, slot) in words.iter_mut().enumerate() {
            if index > 0 {
                word = 1_812_433_253_u32.wrapping_mul(word ^ (word >> 30)).wrapping_add(index as u32);
            }
            *slot = word;
        }
        Self { words, used: N }
    }

    fn next_block(&mut self) {
        let words = &mut self.words;
        // Without the remainder of an index, so that several words go at once.
        for i in 0..N - M {
            words[i] = words[i + M] ^ twist(words[i], words[i + 1]);
        }
        for i in N - M..N - 1 {
            words[i] = words[i + M - N] ^ twist(words[i], words[i + 1]);
        }
        words[N - 1] = words[M - 1] ^ twist(words[N - 1], words[0]);
        self.used = 0;
    }

    /// 32 random bits.
    pub(super) fn next_u32(&mut self) -> u32 {
        if self.used >= N {
            self.next_block();
        }
        let word = self.words[self.used];
        self.used += 1;
        temper(word)
    }

    /// As many times [`Self::next_u32`] as there are values, each made from its bits.
    pub(super) fn fill(&mut self, mut values: &mut [f32], make: impl Fn(u32) -> f32) {
        while !values.is_empty() {
            if self.used >= N {
                self.next_block();
            }
            let words = &self.words[self.used..];
            let (now, later) = values.split_at_mut(values.len().min(words.len()));
            for (value, &word) in now.iter_mut().zip(words) {
                *value = make(temper(word));
            }
            self.used += now.len();
            values = later;
        }
    }
}

#[inline(always)]
fn twist(word: u32, next: u32) -> u32 {
    let mixed = (word & UPPER_MASK) | (next & LOWER_MASK);
    (mixed >> 1) ^ ((mixed & 1).wrapping_neg() & MATRIX_A)
}

#[inline(always)]
fn temper(mut y: u32) -> u32 {
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c_5680;
    y ^= (y << 15) & 0xefc6_0000;
    y ^ (y >> 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ten-thousandth number of seed 5489 is fixed by the C++ standard ([rand.predef]).
    #[test]
    fn ten_thousandth_number_of_the_default_seed() {
        let mut engine = Mt19937::new(5489);
        let last = (0..10_000).map(|_| engine.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn filling_gives_the_words_that_come_one_by_one() {
        let (mut filled, mut single) = (Mt19937::new(3), Mt19937::new(3));
        for len in [0, 1, 623, 1, 700, 2000, 5] {
            let mut values = vec![0.0; len];
            filled.fill(&mut values, |bits| (bits >> 8) as f32);
            let expected: Vec<f32> = (0..len).map(|_| (single.next_u32() >> 8) as f32).collect();
            assert_eq!(values, expected);
        }
        assert_eq!(filled.next_u32(), single.next_u32());
    }

    #[test]
    fn high_seed_bits_do_not_count() {
        assert_eq!(Mt19937::new(7), Mt19937::new(7 | (9 << 32)));
        assert_ne!(Mt19937::new(7), Mt19937::new(8));
    }
}
