//! The pairs of runs that an arm and its control have.

use super::environments::Environments;
use super::judge::{Arm, RunSummary};
use super::variance::Variance;
use crate::hash::Digest;

/// Two runs of one seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) seed: u64,
    pub(super) ours: f64,
    pub(super) theirs: f64,
}

/// An arm beside its control, seed by seed.
pub(super) struct Pairing<'a> {
    pub(super) arm: Arm<'a>,
    pub(super) control: Arm<'a>,
    /// What counts, in the order of the arm's runs.
    pub(super) pairs: Vec<Pair>,
    pub(super) environments: Environments,
    /// Runs of the arm that have no value, or whose partner has none.
    pub(super) lost: usize,
    /// Seeds that repeat another one's run.
    repeated: Vec<u64>,
}

impl<'a> Pairing<'a> {
    pub(super) fn of(arm: Arm<'a>, control: Arm<'a>, metric: &str) -> Self {
        let value = |run: &RunSummary| run.metrics.get(metric).copied().filter(|value| value.is_finite());
        let partner = |run: &RunSummary| control.runs.iter().find(|other| other.seed == run.seed).copied();
        let mut counted: Vec<(Option<Digest>, Option<Digest>)> = Vec::new();
        let mut found = Self {
            arm,
            control,
            pairs: Vec::new(),
            environments: Environments::default(),
            lost: 0,
            repeated: Vec::new(),
        };
        for &run in arm.runs {
            let partner = partner(run);
            if value(run).is_none() || partner.is_some_and(|partner| value(partner).is_none()) {
                found.lost += 1;
            }
            let Some(partner) = partner else { continue };
            let Some((ours, theirs)) = value(run).zip(value(partner)) else { continue };
            if !found.environments.are_one(run, partner) {
                continue;
            }
            // Seeds that led to the same bits are one run: counting it twice would halve the interval for nothing.
            let bits = (run.result_hash, partner.result_hash);
            if counted.contains(&bits) {
                found.repeated.push(run.seed);
            } else {
                counted.push(bits);
                found.pairs.push(Pair { seed: run.seed, ours, theirs });
            }
        }
        found
    }

    /// The differences, arm - control.
    pub(super) fn differences(&self) -> Vec<f64> {
        self.pairs.iter().map(|pair| pair.ours - pair.theirs).collect()
    }

    /// Their mean; 0 without pairs.
    pub(super) fn mean_difference(&self) -> f64 {
        crate::stats::mean(&self.differences()).unwrap_or_default()
    }

    /// Whether there is an interval to be had: two seeds that scatter, or one where the spread is assumed.
    pub(super) fn has_interval(&self, variance: Variance) -> bool {
        match variance {
            Variance::Assumed(_) => !self.pairs.is_empty(),
            Variance::Pooled | Variance::PooledAsPlanned | Variance::Pair => {
                self.pairs.len() >= 2 && self.scatters()
            }
        }
    }

    /// Whether the differences differ, beyond what is left of equal ones after subtracting.
    fn scatters(&self) -> bool {
        let largest = self.pairs.iter().fold(0.0_f64, |most, p| most.max(p.ours.abs()).max(p.theirs.abs()));
        let differences = self.differences();
        let high = differences.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let low = differences.iter().copied().fold(f64::INFINITY, f64::min);
        high - low > 1e-12 * largest
    }

    /// Which seeds count with another one, for the verdict to say.
    pub(super) fn said_repeated(&self) -> String {
        match self.repeated.as_slice() {
            [] => String::new(),
            [seed] => format!("; seed {seed} repeats another one's run bit by bit and counts with it"),
            seeds => {
                format!("; {} seeds repeat another one's run bit by bit and count with it", seeds.len())
            }
        }
    }
}
