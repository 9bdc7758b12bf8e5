//! From logits to the next token.

use crate::error::{Error, Result};
use crate::rng::SplitMix64;

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the largest, the lowest id among equals.
    pub temperature: f64,
    /// Only the k largest take part, the lowest ids among equals; none is all.
    pub top_k: Option<usize>,
}

impl Sampling {
    /// Always the most probable token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: None };

    /// Checks the numbers.
    ///
    /// # Errors
    /// A temperature that is negative or not a number, a `top_k` of 0; class `Input`.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::input(format!("a sampling temperature of {}", self.temperature))
                .expected("a number from 0 (the most probable token) up"));
        }
        if self.top_k == Some(0) {
            return Err(Error::input("a top-k of 0 leaves no token to choose").expected("1 or more"));
        }
        Ok(())
    }

    /// The next token, nanochat's way: the top k first, then a softmax of their logits over the temperature, then
    /// one draw. Greedy choice draws nothing.
    ///
    /// # Errors
    /// No logits, or one that is not a number; class `Run`.
    pub fn choose(&self, logits: &[f32], rng: &mut SplitMix64) -> Result<usize> {
        if let Some(id) = logits.iter().position(|logit| logit.is_nan()) {
            return Err(Error::run(format!("the logit of token {id} is not a number"))
                .help("the weights have diverged: sample from an earlier checkpoint"));
        }
        // The lowest id of the largest; -0 and 0 are equal.
        let larger = |best: usize, id: usize| if logits[id] > logits[best] { id } else { best };
        let Some(best) = (0..logits.len()).reduce(larger) else {
            return Err(Error::run("there are no logits to choose from"));
        };
        let keep = self.top_k.unwrap_or(logits.len()).min(logits.len());
        if self.temperature == 0.0 || keep == 1 {
            return Ok(best);
        }
        // Total order: descending logit, then ascending id.
        let descending = |a: &usize, b: &usize| {
            logits[*b].partial_cmp(&logits[*a]).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(b))
        };
        let mut order: Vec<usize> = (0..logits.len()).collect();
        if keep < order.len() {
            order.select_nth_unstable_by(keep, descending);
            order.truncate(keep);
        }
        let largest = f64::from(logits[best]);
        let weight = |id: &usize| libm::exp((f64::from(logits[*id]) - largest) / self.temperature);
        // Of the kept ones in the order of their ids, so that the sum does not depend on how they were selected.
        order.sort_unstable();
        let mut left = rng.next_f64() * order.iter().map(weight).sum::<f64>();
        // The likeliest come first, and are nearly always enough: the others are not put in order before they are
        // asked for.
        let mut done = 0;
        let mut last = best;
        while done < order.len() {
            let rest = order.get_mut(done..).unwrap_or_default();
            let count = (done * 8).max(FIRST_ORDERED).min(rest.len());
            if count < rest.len() {
                rest.select_nth_unstable_by(count, descending);
            }
            let next = rest.get_mut(..count).unwrap_or_default();
            next.sort_unstable_by(descending);
            for id in next {
                let weight = weight(id);
                // Rounding can leave a hair; then it is the last one that has any probability.
                if weight > 0.0 {
                    last = *id;
                }
                left -= weight;
                if left < 0.0 {
                    return Ok(*id);
                }
            }
            done += count;
        }
        Ok(last)
    }
}

/// So many of the likeliest tokens are put in order at first.
const FIRST_ORDERED: usize = 64;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what is only compared within a bound may be the system's")]
mod tests {
    use super::*;

    fn frequencies(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<f64> {
        let mut rng = SplitMix64::new(7);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..draws {
            counts[sampling.choose(logits, &mut rng).unwrap()] += 1.0 / draws as f64;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals_and_draws_nothing() {
        let mut rng = SplitMix64::new(0);
        let before = rng.clone();
        assert_eq!(Sampling::GREEDY.choose(&[1.0, 3.0, 3.0, 2.0], &mut rng).unwrap(), 1);
        assert_eq!(Sampling::GREEDY.choose(&[-0.0, 0.0], &mut rng).unwrap(), 0);
        assert_eq!(rng, before);
    }

    #[test]
    fn frequencies_follow_the_softmax_of_the_top_k() {
        let logits = [0.0, 2.0, 1.0, 2.0];
        let all = frequencies(Sampling { temperature: 2.0, top_k: None }, &logits, 20_000);
        let total: f64 = logits.iter().map(|l| f64::from(l / 2.0).exp()).sum();
        for (logit, found) in logits.iter().zip(all) {
            assert!((f64::from(logit / 2.0).exp() / total - found).abs() < 0.015);
        }
        let two = frequencies(Sampling { temperature: 1.0, top_k: Some(2) }, &logits, 20_000);
        assert_eq!((two[0], two[2]), (0.0, 0.0));
        assert!((two[1] - 0.5).abs() < 0.015);
        // Of equals at the boundary the lowest id stays.
        let one = frequencies(Sampling { temperature: 1.0, top_k: Some(1) }, &logits, 10);
        assert!((one[1] - 1.0).abs() < 1e-9);
    }

    /// However many of them are put in order, it is the token that the whole order gives.
    #[test]
    fn every_token_can_be_drawn() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 1e-3).collect();
        let sampling = Sampling { temperature: 1.0, top_k: None };
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).unwrap().then(a.cmp(b)));
        let weights: Vec<f64> = order.iter().map(|id| f64::from(logits[*id]).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut rng = SplitMix64::new(4);
        for _ in 0..500 {
            let mut left = rng.clone().next_f64() * total;
            let expected = order.iter().zip(&weights).find(|(_, weight)| {
                left -= **weight;
                left < 0.0
            });
            assert_eq!(sampling.choose(&logits, &mut rng).unwrap(), *expected.unwrap().0);
        }
    }

    #[test]
    fn equal_seeds_choose_equally() {
        let sampling = Sampling { temperature: 1.0, top_k: Some(50) };
        let logits: Vec<f32> = (0..64).map(|i| (i % 7) as f32).collect();
        let run = |seed| {
            let mut rng = SplitMix64::new(seed);
            (0..32).map(|_| sampling.choose(&logits, &mut rng).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn what_cannot_be_chosen_from_is_an_error() {
        let mut rng = SplitMix64::new(0);
        assert_eq!(Sampling::GREEDY.choose(&[1.0, f32::NAN], &mut rng).unwrap_err().class().exit_code(), 3);
        assert_eq!(Sampling::GREEDY.choose(&[], &mut rng).unwrap_err().class().exit_code(), 3);
        for sampling in [
            Sampling { temperature: -1.0, top_k: None },
            Sampling { temperature: f64::NAN, top_k: None },
            Sampling { temperature: 1.0, top_k: Some(0) },
        ] {
            assert_eq!(sampling.validate().unwrap_err().class().exit_code(), 2);
        }
    }

    #[test]
    fn infinite_logits_are_certain_or_impossible() {
        let sampling = Sampling { temperature: 1.0, top_k: None };
        let found = frequencies(sampling, &[0.0, f32::NEG_INFINITY, 0.0], 1000);
        assert_eq!(found[1], 0.0);
    }
}
