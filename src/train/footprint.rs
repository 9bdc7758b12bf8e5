//! What a run takes on disk, from its configuration alone.

use std::collections::{BTreeSet, VecDeque};

use serde::Serialize;

use crate::data::config::Packing;
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::param::ParamSpec;
use crate::model::specs::{bigram_specs, gpt_specs, microgpt_specs};
use crate::optim::optimizer::state_elements;
use crate::plan::run_config::{BackendKind, CheckpointEnd, RunConfig};

use super::cadence::retention;
use super::checkpoint::Retention;
use super::document_losses::GROUPS;

/// Bytes of a float32.
const FLOAT: u64 = 4;
/// Bytes of a tensor's entry in the header of a safetensors file, beside its name.
const HEADER: u64 = 80;
/// Documents that best-fit packing holds between two batches, on average, and the bytes of text of one: web pages and
/// plays are alike in that.
const BUFFERED: u64 = 1064;
const DOCUMENT_BYTES: f64 = 1600.0;
/// Bytes a step in `state.json` or `result.json`: a loss by its bits and seconds in decimal digits.
const STEP_BYTES: u64 = 36;
/// Bytes an evaluation there, and in the journal.
const EVALUATION_BYTES: u64 = 330;
/// Bytes a checkpoint in the journal.
const JOURNAL_BYTES: u64 = 70;
/// Bytes of files that do not grow: manifest, samples, hashes.
const FIXED_BYTES: u64 = 8 << 10;
/// Bytes a group of documents in `documents.parquet`, compressed.
const GROUP_BYTES: u64 = 26;
/// Saves that are gone through one by one; of more, an upper bound is told.
const MOST_SAVES: u64 = 1 << 20;

/// What a run takes on disk, in bytes: an estimate, for documents differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// One checkpoint.
    pub checkpoint: u64,
    /// The most at any moment: checkpoints that are kept, and one that is being written.
    pub most: u64,
    /// Once it has finished.
    pub end: u64,
}

impl Footprint {
    /// Of a run from whose checkpoints at `forks` others start.
    ///
    /// # Errors
    /// A network without an optimizer for one of its groups.
    pub fn of(config: &RunConfig, forks: &[u64]) -> Result<Self> {
        let (checkpoint, weights) = checkpoint_bytes(config)?;
        let steps = config.schedule.num_iterations;
        let evaluations = count(steps, config.eval.every) + 2;
        let saves = evaluations + count(steps, config.checkpoint.every) + forks.len() as u64;
        let records = FIXED_BYTES
            + steps * STEP_BYTES
            + evaluations * EVALUATION_BYTES
            + saves * JOURNAL_BYTES
            + GROUPS as u64 * GROUP_BYTES;
        let during = most_checkpoints(config, forks, saves);
        let stays = match config.checkpoint.at_end {
            CheckpointEnd::All => checkpoint,
            CheckpointEnd::Weights => weights,
            CheckpointEnd::None => 0,
        };
        let end = kept_checkpoints(config).saturating_mul(stays).saturating_add(records);
        Ok(Self { checkpoint, most: during.saturating_mul(checkpoint).saturating_add(records), end })
    }
}

/// The parameters of a model.
pub fn specs(model: &ModelConfig) -> Vec<ParamSpec> {
    match model {
        ModelConfig::Gpt(config) => gpt_specs(config),
        ModelConfig::Microgpt(config) => microgpt_specs(config),
        ModelConfig::Bigram(config) => bigram_specs(config),
    }
}

/// Bytes of a checkpoint, and of one of which the weights alone have stayed.
fn checkpoint_bytes(config: &RunConfig) -> Result<(u64, u64)> {
    let (mut bytes, mut kept) = (0_u64, 0_u64);
    // Every value once more, exactly: three floats each.
    let copies = if config.backend.kind == BackendKind::Scalar { 4 } else { 1 };
    for spec in specs(&config.model) {
        let weights = spec.shape.iter().fold(1_u64, |len, &size| len.saturating_mul(size as u64));
        let states = state_elements(&config.optimizer, &spec)?;
        let size = |elements: u64| elements.saturating_mul(copies).saturating_mul(FLOAT);
        let entry = HEADER + spec.name.len() as u64;
        bytes = bytes.saturating_add(size(weights.saturating_add(states))).saturating_add(3 * entry);
        kept = kept.saturating_add(size(weights)).saturating_add(entry);
    }
    let documents = match config.data.packing {
        Packing::BestFitBos => BUFFERED,
        Packing::Document => BUFFERED / 16,
    };
    let tokens = DOCUMENT_BYTES / bytes_of_a_token(config.model.vocab_size());
    let state = config.schedule.num_iterations * STEP_BYTES;
    let whole = bytes.saturating_add((documents as f64 * tokens) as u64 * FLOAT).saturating_add(state / 2);
    Ok((whole, kept.saturating_add(state / 2)))
}

/// Bytes of English that a token of a vocabulary of this size stands for, roughly.
fn bytes_of_a_token(vocab_size: usize) -> f64 {
    (libm::log2(vocab_size as f64) * 0.68 - 4.4).clamp(1.0, 4.8)
}

/// Multiples of `every` up to `steps`; of 0 there are none.
fn count(steps: u64, every: u64) -> u64 {
    steps.checked_div(every).unwrap_or(0)
}

/// Checkpoints once the run has finished, and nobody starts from one of its any more.
fn kept_checkpoints(config: &RunConfig) -> u64 {
    let (steps, every, keep) =
        (config.schedule.num_iterations, config.checkpoint.every, config.checkpoint.keep as u64);
    let kept = count(steps, every) + u64::from(every == 0 || !steps.is_multiple_of(every));
    if keep == 0 { kept } else { kept.min(keep) }
}

/// Checkpoints on disk at most, the one being written among them.
fn most_checkpoints(config: &RunConfig, forks: &[u64], saves: u64) -> u64 {
    if saves > MOST_SAVES {
        return kept_checkpoints(config) + forks.len() as u64 + 3;
    }
    let steps = config.schedule.num_iterations;
    let each = |every: u64| (1..=count(steps, every)).map(move |index| index * every);
    let saves: BTreeSet<u64> = [0, steps]
        .into_iter()
        .chain(each(config.eval.every))
        .chain(each(config.checkpoint.every))
        .chain(forks.iter().copied())
        .collect();
    most(saves, &retention(config, forks, 2))
}

/// The most that are there at once, if checkpoints are saved at these steps and pruned each time, as
/// `super::checkpoint::surplus` has it.
fn most(saves: impl IntoIterator<Item = u64>, retention: &Retention) -> u64 {
    let is_kept = |step: u64| {
        step == retention.last_step
            || (step > 0 && retention.every > 0 && step.is_multiple_of(retention.every))
    };
    let newest = retention.newest.max(1);
    let (mut there, mut recent, mut kept) = (BTreeSet::new(), VecDeque::new(), VecDeque::new());
    let mut most = 0;
    for step in saves {
        there.insert(step);
        most = most.max(there.len());
        recent.push_back(step);
        if is_kept(step) {
            kept.push_back(step);
        }
        // Only what just left one of the two windows can have become surplus.
        let mut left = Vec::new();
        while recent.len() > newest {
            left.extend(recent.pop_front());
        }
        while retention.keep > 0 && kept.len() > retention.keep {
            left.extend(kept.pop_front());
        }
        for step in left {
            let stays = recent.contains(&step) || kept.contains(&step) || retention.pinned.contains(&step);
            if !stays {
                there.remove(&step);
            }
        }
    }
    most as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::checkpoint::surplus;

    #[test]
    fn checkpoints_at_once_are_those_that_retention_leaves() {
        let slowly = |saves: &[u64], retention: &Retention| {
            let (mut there, mut most) = (Vec::new(), 0);
            for &step in saves {
                there.push(step);
                most = most.max(there.len());
                let gone = surplus(&there, retention);
                there.retain(|step| !gone.contains(step));
            }
            most as u64
        };
        for (every, eval, keep, newest, last) in [
            (0, 5, 0, 2, 30),
            (4, 5, 2, 2, 12),
            (4, 5, 0, 2, 33),
            (10, 1, 3, 2, 30),
            (7, 7, 1, 1, 29),
            (1, 3, 4, 2, 20),
            (50, 3, 1, 2, 20),
        ] {
            for pinned in [vec![], vec![6], vec![3, 7, 8]] {
                let saves: BTreeSet<u64> = (0..=last)
                    .filter(|step| {
                        let multiple = |every: u64| every > 0 && step % every == 0;
                        *step == last || multiple(every) || multiple(eval) || pinned.contains(step)
                    })
                    .collect();
                let pinned = pinned.into_iter().collect();
                let retention = Retention { newest, every, keep, last_step: last, pinned };
                let saves: Vec<u64> = saves.into_iter().collect();
                assert_eq!(most(saves.clone(), &retention), slowly(&saves, &retention), "{retention:?}");
            }
        }
    }
}
