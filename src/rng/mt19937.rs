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
        for i in 0..N {
            let mixed = (self.words[i] & UPPER_MASK) | (self.words[(i + 1) % N] & LOWER_MASK);
            let twisted = (mixed >> 1) ^ (if mixed & 1 == 0 { 0 } else { MATRIX_A });
            self.words[i] = self.words[(i + M) % N] ^ twisted;
        }
        self.used = 0;
    }

    /// 32 random bits.
    pub(super) fn next_u32(&mut self) -> u32 {
        if self.used >= N {
            self.next_block();
        }
        let mut y = self.words[self.used];
        self.used += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }
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
    fn high_seed_bits_do_not_count() {
        assert_eq!(Mt19937::new(7), Mt19937::new(7 | (9 << 32)));
        assert_ne!(Mt19937::new(7), Mt19937::new(8));
    }
}
