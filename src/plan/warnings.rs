//! What is legal in a plan and most likely not meant: arms and seeds that cannot differ, phases that never come.

use std::collections::BTreeMap;

use super::run_config::{InitSource, RunConfig};
use super::{Arm, DataUse, PlannedRun};
use crate::manifest::{Cell, SEED};
use crate::optim::config::Warmdown;

/// Warnings about a plan, each a sentence. `cells` and `runs` stand in the same order.
pub(super) fn warnings(cells: &[Cell], arms: &[Arm], runs: &[PlannedRun]) -> Vec<String> {
    let mut warnings = one_run_arms(arms, runs);
    warnings.extend(one_run_seeds(arms, runs));
    for (cell, run) in cells.iter().zip(runs) {
        let label = arms.get(run.arm).map_or("base", |arm| arm.label.as_str());
        warnings.extend(run.data.iter().flat_map(DataUse::warnings));
        warnings.extend(phases(cell, &run.config).iter().map(|phase| format!("`{label}`: {phase}")));
    }
    let mut told = Vec::new();
    for warning in warnings {
        // Every seed of an arm would say it again.
        if !told.contains(&warning) {
            told.push(warning);
        }
    }
    told
}

/// Arms that train exactly what another arm trains: what sets them apart has no effect here.
fn one_run_arms(arms: &[Arm], runs: &[PlannedRun]) -> Vec<String> {
    let keys = |arm: &Arm| -> BTreeMap<u64, crate::hash::Digest> {
        arm.runs.iter().filter_map(|&run| runs.get(run)).map(|run| (run.config.seed, run.key.run)).collect()
    };
    let of: Vec<_> = arms.iter().map(keys).collect();
    let mut warnings = Vec::new();
    for (index, (arm, own)) in arms.iter().zip(&of).enumerate() {
        let earlier = arms.iter().zip(&of).take(index);
        let same = earlier.into_iter().find(|(_, other)| {
            let mut common = own.iter().filter_map(|(seed, key)| Some((key, other.get(seed)?))).peekable();
            common.peek().is_some() && common.all(|(key, other)| key == other)
        });
        if let Some((other, _)) = same {
            warnings.push(format!(
                "`{}` and `{}` are one run: what differs between them has no effect here, so no verdict compares them",
                other.label, arm.label
            ));
        }
    }
    warnings
}

/// Seeds of an arm from which the same weights follow: they are one run under several keys.
fn one_run_seeds(arms: &[Arm], runs: &[PlannedRun]) -> Vec<String> {
    let mut warnings = Vec::new();
    for arm in arms {
        let mut by_weights: BTreeMap<Option<u32>, Vec<u64>> = BTreeMap::new();
        for run in arm.runs.iter().filter_map(|&run| runs.get(run)) {
            let seeds = by_weights.entry(decisive_seed(&run.config)).or_default();
            if !seeds.contains(&run.config.seed) {
                seeds.push(run.config.seed);
            }
        }
        for (decisive, seeds) in by_weights.into_iter().filter(|(_, seeds)| seeds.len() > 1) {
            let why = match decisive {
                Some(_) => "torch's generator takes the lowest 32 bits of a seed, which are equal",
                None => "the initial weights come from a file, and nothing else is drawn",
            };
            let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
            warnings.push(format!(
                "`{}`: {SEED} {} are one run: {why}; they count as one seed",
                arm.label,
                seeds.join(" and ")
            ));
        }
    }
    warnings
}

/// What of the seed decides a run's numbers; none where nothing is drawn from it. torch seeds its Mersenne twister with
/// the lowest 32 bits (`at::mt19937`, aten/src/ATen/core/MT19937RNGEngine.h).
fn decisive_seed(config: &RunConfig) -> Option<u32> {
    match config.init {
        InitSource::Torch => Some(config.seed as u32),
        InitSource::File { .. } | InitSource::Checkpoint { .. } | InitSource::Resume { .. } => None,
    }
}

/// Phases of a run's schedule that never come or are cut short.
fn phases(cell: &Cell, config: &RunConfig) -> Vec<String> {
    let schedule = &config.schedule;
    let (steps, up) = (schedule.horizon(), schedule.warmup_steps);
    let down = if schedule.warmdown == Warmdown::Constant { 0 } else { schedule.warmdown_steps };
    let mut phases = Vec::new();
    if up > steps {
        phases.push(format!(
            "the warm-up takes {up} steps and the run has {steps}: the peak learning rate is never reached{}",
            if down > 0 { ", and nothing of the warm-down comes" } else { "" }
        ));
    } else if down > 0 && up + down > steps {
        let left = steps - up;
        phases.push(format!(
            "warm-up ({up}) and warm-down ({down}) overlap in {steps} steps; of the warm-down only the last {left} come"
        ));
    }
    // A recipe's own cadence is made for longer runs than most: only what somebody wrote was meant.
    let written = |path: &str, every: u64| cell.is_written(path) && every > steps;
    if written("schedule.momentum_warmup_steps", schedule.momentum.warmup_steps) {
        phases.push(format!(
            "momentum warms up over {} steps and the run has {steps}: its peak is never reached",
            schedule.momentum.warmup_steps
        ));
    }
    if written("eval.every", config.eval.every) {
        phases.push(format!(
            "eval.every = {} is beyond its {steps} steps: it is evaluated at the first and the last alone",
            config.eval.every
        ));
    }
    if written("checkpoint.every", config.checkpoint.every) {
        phases.push(format!(
            "checkpoint.every = {} is beyond its {steps} steps: no checkpoint is kept but the last",
            config.checkpoint.every
        ));
    }
    phases
}
