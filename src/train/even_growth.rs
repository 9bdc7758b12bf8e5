//! Whether a quantity grows evenly, from readings of it.
//!
//! A leak adds about the same with every batch, from the first to the last. A cache fills quickly and then ever more
//! slowly; a buffer that must be larger than before grows by a jump. So growth counts as even where the readings, cut
//! into eight parts of as many, grow in every part by at least two thirds of an eighth of the whole.

/// Parts that must each grow.
const PARTS: usize = 8;

/// Readings kept at most; then every second goes, and of those to come as many are passed over.
const KEPT: usize = 256;

/// Readings that say anything at least: eight a part.
const FEWEST: u64 = 64;

/// Readings of one quantity, taken at even distances.
#[derive(Debug, Clone)]
pub(super) struct EvenGrowth {
    kept: Vec<i64>,
    /// Every so many readings one is kept.
    stride: u64,
    readings: u64,
}

impl Default for EvenGrowth {
    fn default() -> Self {
        Self { kept: Vec::new(), stride: 1, readings: 0 }
    }
}

impl EvenGrowth {
    /// Takes a reading.
    pub(super) fn add(&mut self, reading: i64) {
        if self.readings.is_multiple_of(self.stride) {
            if self.kept.len() == KEPT {
                let mut at = 0;
                self.kept.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.stride *= 2;
            }
            if self.readings.is_multiple_of(self.stride) {
                self.kept.push(reading);
            }
        }
        self.readings += 1;
    }

    /// How much it grew from the first reading to the last one kept, where that went on evenly; else none.
    pub(super) fn evenly(&self) -> Option<u64> {
        if self.readings < FEWEST {
            return None;
        }
        let end = self.kept.len().checked_sub(1)?;
        let reading = |part: usize| self.kept.get(part * end / PARTS).copied();
        let grown = reading(PARTS)?.checked_sub(reading(0)?)?;
        let least = grown.saturating_mul(2) / (3 * PARTS as i64);
        let even = (0..PARTS).all(|part| {
            let grown = reading(part).zip(reading(part + 1)).map(|(from, to)| to.saturating_sub(from));
            grown.is_some_and(|grown| grown >= least)
        });
        u64::try_from(grown).ok().filter(|&grown| even && grown > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evenly(readings: impl IntoIterator<Item = i64>) -> Option<u64> {
        let mut growth = EvenGrowth::default();
        readings.into_iter().for_each(|reading| growth.add(reading));
        assert!(growth.kept.len() <= KEPT);
        growth.evenly()
    }

    #[test]
    fn a_straight_line_is_even_however_long() {
        for length in [64, 100, 256, 257, 1000, 100_000_i64] {
            let grown = evenly((0..length).map(|at| 10 * at)).unwrap() as i64;
            assert!(grown <= 10 * length && grown > 9 * length, "{length}: {grown}");
        }
        assert_eq!(evenly((0..63).map(|at| 10 * at)), None, "too few to tell");
    }

    #[test]
    fn what_stops_jumps_falls_or_saturates_is_not() {
        assert_eq!(evenly((0..1000).map(|at| 10 * at.min(800))), None);
        assert_eq!(evenly((0..1000).map(|at| 1000 * (at / 500))), None);
        assert_eq!(evenly((0..1000).map(|at| -at)), None);
        assert_eq!(evenly((0..1000).map(|_| 5)), None);
        assert_eq!(evenly((0..1000).map(|at| 1_000_000 - 1_000_000 / (at + 1))), None);
        assert_eq!(evenly((0..1000).map(|at| ((at as f64).sqrt() * 1000.0) as i64)), None);
    }

    #[test]
    fn noise_on_a_line_does_not_hide_it() {
        assert!(evenly((0..1000).map(|at| 100 * at + (at * 7919) % 3000)).is_some());
    }
}
