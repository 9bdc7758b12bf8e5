//! A generator of our own, for what no other program has to draw alike: sampling, resampling, simulated results.

/// The step of the counter.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea and Flood 2014): a 64-bit counter through a mixing function. Its whole state is one
/// number, every seed is a good one, and it gives the same stream everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of the continuation `index` of a prompt. The first is the seed's own; the others are seeded with
    /// numbers of a stream that no seed nearby has, so that each is what it is however many there are.
    pub fn nth(seed: u64, index: usize) -> Self {
        if index == 0 {
            return Self(seed);
        }
        let mut seeds = Self((!seed).rotate_left(32).wrapping_add(GAMMA.wrapping_mul(index as u64)));
        Self(seeds.next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1): the upper 53 bits.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuations_have_streams_of_their_own() {
        let firsts = |seed: u64| (0..50).map(move |index| SplitMix64::nth(seed, index).next_u64());
        let mut all: Vec<u64> = (0..50).flat_map(firsts).collect();
        assert_eq!(all[0], SplitMix64::new(0).next_u64());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2500);
    }

    #[test]
    fn gives_the_published_stream() {
        // Reference values of the published splitmix64.c for seed 1234567.
        let mut rng = SplitMix64::new(1_234_567);
        let stream: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(stream, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }
}
