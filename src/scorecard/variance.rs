//! How much differences between seeds scatter.

use std::collections::BTreeMap;

use super::pairing::{Pair, Pairing};
use crate::stats::{f_upper_quantile, mean, standard_deviation};

/// Where the spread of an arm's differences is taken from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Variance {
    /// From all arms that share a control, where they scatter alike: few seeds then tell much more.
    Pooled,
    /// From all arms that share a control, whatever the data say of it: where there are looks before the end, nothing of
    /// how they are judged may be for the data to choose.
    PooledAsPlanned,
    /// From the arm's own differences alone.
    Pair,
    /// Nowhere: one run's standard deviation is assumed.
    Assumed(f64),
}

/// The tail of the F distribution beyond which arms do not scatter alike, on either side.
const UNLIKE: f64 = 0.005;

/// What is known of a spread.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spread {
    /// Standard deviation of one difference.
    pub(super) deviation: f64,
    /// Degrees of freedom with which it is known.
    pub(super) dof: f64,
    /// Whether it is assumed.
    pub(super) assumed: bool,
    /// How many arms it was taken from together; none where from one.
    pub(super) pooled: Option<usize>,
    /// Where it is from, where that is not the arm alone.
    pub(super) said: String,
}

/// The spread of each arm of a family: those that share a control. Seeds are blocks: what a seed does to all arms is no
/// part of it.
pub(super) fn spreads(
    variance: Variance,
    family: &[&Pairing<'_>],
    forks: &BTreeMap<String, u64>,
) -> Vec<Spread> {
    let fork = |pairing: &Pairing<'_>| forks.get(pairing.arm.name).copied().unwrap_or_default();
    let of = |pairing: &&Pairing<'_>| match variance {
        Variance::Assumed(sigma) => Spread {
            deviation: std::f64::consts::SQRT_2 * sigma,
            dof: f64::INFINITY,
            assumed: true,
            pooled: None,
            said: format!("a standard deviation of {sigma} is assumed"),
        },
        Variance::Pair => own(pairing),
        Variance::Pooled | Variance::PooledAsPlanned => {
            // Runs that part later differ less: only those that part at the same step scatter alike.
            let group: Vec<&Pairing<'_>> =
                family.iter().copied().filter(|other| fork(other) == fork(pairing)).collect();
            pooled(&group, variance == Variance::Pooled).unwrap_or_else(|| own(pairing))
        }
    };
    family.iter().map(of).collect()
}

fn own(pairing: &Pairing<'_>) -> Spread {
    let differences = pairing.differences();
    Spread {
        deviation: standard_deviation(&differences).unwrap_or_default(),
        dof: differences.len().saturating_sub(1) as f64,
        assumed: false,
        pooled: None,
        said: String::new(),
    }
}

/// The spread of several arms together, over the seeds that all have; none of one arm, of one seed, or of arms that do
/// not scatter alike, where that is `tested`.
fn pooled(group: &[&Pairing<'_>], tested: bool) -> Option<Spread> {
    let (first, others) = group.split_first().filter(|(_, others)| !others.is_empty())?;
    let pair = |pairing: &Pairing<'_>, seed: u64| -> Option<Pair> {
        pairing.pairs.iter().find(|pair| pair.seed == seed).copied()
    };
    let seeds: Vec<u64> = first
        .pairs
        .iter()
        .map(|pair| pair.seed)
        .filter(|&seed| others.iter().all(|other| pair(other, seed).is_some()))
        .collect();
    // A row an arm, the control first; a column a seed.
    let row =
        |of: &dyn Fn(u64) -> Option<f64>| seeds.iter().map(|&seed| of(seed)).collect::<Option<Vec<_>>>();
    let mut rows = vec![row(&|seed| Some(pair(first, seed)?.theirs))?];
    for pairing in group {
        rows.push(row(&|seed| Some(pair(pairing, seed)?.ours))?);
    }
    let control = rows.first()?;
    let variances: Vec<f64> = rows
        .iter()
        .skip(1)
        .map(|row| {
            let differences: Vec<f64> = row.iter().zip(control).map(|(ours, theirs)| ours - theirs).collect();
            standard_deviation(&differences).map(|deviation| deviation * deviation)
        })
        .collect::<Option<_>>()?;
    let largest = variances.iter().copied().fold(0.0, f64::max);
    let smallest = variances.iter().copied().fold(f64::INFINITY, f64::min);
    let (arms, blocks) = (rows.len(), seeds.len());
    if blocks < 2 {
        return None;
    }
    let between = (blocks - 1) as f64;
    // As many ratios as pairs of arms could have been the largest.
    let looks = (group.len() * (group.len() - 1) / 2) as f64;
    if tested && largest > smallest * f_upper_quantile(UNLIKE / looks, between, between) {
        return None;
    }
    let dof = ((arms - 1) * (blocks - 1)) as f64;
    let whole = mean(&rows.concat())?;
    let of_seed: Vec<f64> =
        (0..blocks).map(|at| rows.iter().filter_map(|row| row.get(at)).sum::<f64>() / arms as f64).collect();
    let mut squares = 0.0;
    for row in &rows {
        let of_arm = mean(row)?;
        squares += row
            .iter()
            .zip(&of_seed)
            .map(|(value, seed)| value - of_arm - seed + whole)
            .map(|residual| residual * residual)
            .sum::<f64>();
    }
    let planned = if tested { "" } else { ", as planned" };
    Some(Spread {
        deviation: (2.0 * squares / dof).sqrt(),
        dof,
        assumed: false,
        pooled: Some(group.len()),
        said: format!("spread pooled over {} arms and their control{planned}", group.len()),
    })
}
