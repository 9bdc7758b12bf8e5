//! Python's `random.Random`: its seeding by integers, `shuffle` and `sample`, draw for draw.
//!
//! CPython 3.11, Lib/random.py and Modules/_randommodule.c; the generator is the 32-bit Mersenne twister.

use super::mt19937::{Mt19937, N};

/// A generator as `random.Random(seed)` makes it.
#[derive(Debug, Clone)]
pub struct PythonRandom(Mt19937);

impl PythonRandom {
    /// Of a seed that is no negative number.
    pub fn new(seed: u64) -> Self {
        // The words of the seed, low first, without zeros in front of the highest.
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let key: &[u32] = if high == 0 { &[low] } else { &[low, high] };
        let mut generator = Mt19937::new(19_650_218);
        let words = &mut generator.words;
        let (mut i, mut j) = (1, 0);
        let mix = |before: u32, word: u32, by: u32| word ^ (before ^ (before >> 30)).wrapping_mul(by);
        for _ in 0..N.max(key.len()) {
            words[i] = mix(words[i - 1], words[i], 1_664_525).wrapping_add(key[j]).wrapping_add(j as u32);
            (i, j) = (i + 1, (j + 1) % key.len());
            if i >= N {
                words[0] = words[N - 1];
                i = 1;
            }
        }
        for _ in 0..N - 1 {
            words[i] = mix(words[i - 1], words[i], 1_566_083_941).wrapping_sub(i as u32);
            i += 1;
            if i >= N {
                words[0] = words[N - 1];
                i = 1;
            }
        }
        words[0] = 0x8000_0000;
        Self(generator)
    }

    /// Uniform below `n`, which is at least 1 and below 2^32: `Random._randbelow`.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let drawn = (self.0.next_u32() >> 32_u32.saturating_sub(bits).min(31)) as usize;
            if drawn < n {
                return drawn;
            }
        }
    }

    /// `Random.shuffle`. At most 2^32 - 1 items.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }

    /// `Random.sample(range(n), k)`; all of them where k is more than n.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let k = k.min(n);
        // As Python does, by whichever way takes less memory: the draws are others.
        let mut set_size = 21;
        if k > 5 {
            let mut power = 1;
            while power < 3 * k {
                power *= 4;
            }
            set_size += power;
        }
        if n <= set_size {
            let mut pool: Vec<usize> = (0..n).collect();
            return (0..k)
                .map(|at| {
                    let drawn = self.below(n - at);
                    let chosen = pool[drawn];
                    pool[drawn] = pool[n - at - 1];
                    chosen
                })
                .collect();
        }
        let mut chosen: Vec<usize> = Vec::with_capacity(k);
        while chosen.len() < k {
            let drawn = self.below(n);
            if !chosen.contains(&drawn) {
                chosen.push(drawn);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by CPython 3.11: `r = random.Random(seed)`, then `r.shuffle(x)` of `list(range(10))` and
    /// `r.sample(range(n), k)`.
    #[test]
    fn draws_are_pythons() {
        for (seed, shuffled, samples) in PRINTED {
            let mut random = PythonRandom::new(*seed);
            let mut items: Vec<usize> = (0..10).collect();
            random.shuffle(&mut items);
            assert_eq!(items, *shuffled, "seed {seed}");
            for (n, k, expected) in *samples {
                assert_eq!(random.sample(*n, *k), *expected, "seed {seed}, {k} of {n}");
            }
        }
    }

    #[test]
    fn more_than_there_are_is_all() {
        let mut all = PythonRandom::new(3).sample(4, 9);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
        assert_eq!(PythonRandom::new(3).sample(0, 2), [0; 0]);
        PythonRandom::new(3).shuffle::<u8>(&mut []);
    }

    type Printed = (u64, [usize; 10], &'static [(usize, usize, &'static [usize])]);
    #[rustfmt::skip]
    const PRINTED: &[Printed] = &[
        (0, [7, 8, 1, 5, 3, 4, 2, 0, 9, 6], &[(5, 2, &[2, 1]), (21, 5, &[16, 4, 9, 19, 3]), (22, 5, &[19, 8, 17, 4, 9]), (100, 6, &[12, 93, 9, 87, 42, 60]), (85, 10, &[71, 12, 45, 55, 40, 78, 26, 70, 61, 56]), (86, 10, &[66, 33, 7, 70, 1, 11, 51, 85, 80, 0]), (1000, 3, &[626, 505, 847]), (70000, 4, &[43664, 31969, 42625, 8255])]),
        (1337, [0, 3, 7, 2, 1, 6, 4, 5, 8, 9], &[(5, 2, &[2, 3]), (21, 5, &[6, 11, 3, 13, 12]), (22, 5, &[2, 16, 21, 11, 12]), (100, 6, &[51, 94, 39, 84, 2, 45]), (85, 10, &[76, 15, 58, 31, 21, 40, 77, 82, 33, 25]), (86, 10, &[70, 8, 81, 67, 79, 73, 5, 9, 52, 83]), (1000, 3, &[923, 634, 55]), (70000, 4, &[2246, 25797, 25824, 13708])]),
        (1234, [2, 8, 3, 5, 6, 4, 9, 0, 1, 7], &[(5, 2, &[1, 0]), (21, 5, &[0, 20, 11, 15, 14]), (22, 5, &[4, 2, 5, 3, 0]), (100, 6, &[64, 62, 31, 8, 85, 69]), (85, 10, &[59, 8, 76, 11, 65, 74, 5, 34, 71, 83]), (86, 10, &[82, 38, 61, 45, 34, 31, 83, 25, 58, 67]), (1000, 3, &[681, 19, 964]), (70000, 4, &[66597, 9252, 757, 43713])]),
        (1311, [9, 7, 4, 1, 6, 3, 0, 8, 5, 2], &[(5, 2, &[1, 3]), (21, 5, &[13, 3, 20, 1, 14]), (22, 5, &[19, 21, 15, 11, 18]), (100, 6, &[68, 67, 42, 60, 57, 40]), (85, 10, &[40, 79, 46, 83, 50, 52, 82, 56, 37, 33]), (86, 10, &[10, 58, 52, 75, 76, 62, 20, 49, 0, 4]), (1000, 3, &[421, 197, 986]), (70000, 4, &[58201, 27629, 30329, 14936])]),
        (4294967295, [0, 7, 1, 5, 2, 6, 4, 8, 3, 9], &[(5, 2, &[2, 3]), (21, 5, &[13, 2, 6, 4, 15]), (22, 5, &[16, 11, 5, 1, 10]), (100, 6, &[4, 48, 92, 56, 72, 93]), (85, 10, &[32, 69, 75, 8, 0, 70, 57, 26, 81, 30]), (86, 10, &[81, 48, 60, 53, 21, 36, 64, 61, 83, 5]), (1000, 3, &[405, 326, 83]), (70000, 4, &[32335, 64800, 56642, 62412])]),
        (4294967301, [5, 3, 6, 1, 9, 0, 8, 4, 7, 2], &[(5, 2, &[2, 1]), (21, 5, &[10, 6, 16, 5, 12]), (22, 5, &[14, 19, 4, 13, 16]), (100, 6, &[2, 80, 14, 47, 24, 88]), (85, 10, &[79, 36, 73, 38, 55, 64, 31, 69, 80, 2]), (86, 10, &[75, 29, 21, 76, 31, 69, 3, 58, 46, 26]), (1000, 3, &[195, 160, 461]), (70000, 4, &[2045, 19610, 8934, 55981])]),
        (9223372036854775808, [5, 7, 9, 2, 0, 4, 1, 3, 6, 8], &[(5, 2, &[3, 1]), (21, 5, &[7, 0, 2, 11, 5]), (22, 5, &[5, 8, 19, 21, 12]), (100, 6, &[46, 42, 54, 88, 14, 44]), (85, 10, &[35, 5, 33, 71, 30, 38, 19, 75, 48, 50]), (86, 10, &[47, 24, 21, 16, 35, 82, 50, 31, 54, 49]), (1000, 3, &[900, 648, 731]), (70000, 4, &[16719, 25086, 29022, 54589])]),
    ];
}
