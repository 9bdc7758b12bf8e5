//! At which steps a run is evaluated and saved, and what of it stays.

use crate::plan::run_config::{EvalConfig, RunConfig};

use super::checkpoint::Retention;

/// Whether a run is evaluated after so many steps.
pub(super) fn evaluates_at(config: &RunConfig, step: u64) -> bool {
    let EvalConfig { every, .. } = config.eval;
    step == 0 || step == config.schedule.num_iterations || (every > 0 && step.is_multiple_of(every))
}

/// Whether the CORE metric of a run is measured after so many steps.
pub(super) fn measures_core_at(config: &RunConfig, step: u64) -> bool {
    let Some(core) = &config.eval.core else { return false };
    let due = core.every > 0 && step > 0 && step.is_multiple_of(core.every);
    due || step == config.schedule.num_iterations
}

/// Whether `checkpoint.every` keeps the checkpoint of this step.
fn is_kept(config: &RunConfig, step: u64) -> bool {
    let every = config.checkpoint.every;
    step > 0 && every > 0 && step.is_multiple_of(every)
}

/// Whether a run that gets as far as this step always has had a checkpoint there: what time alone saved is not among
/// these.
pub fn is_scheduled(config: &RunConfig, step: u64) -> bool {
    evaluates_at(config, step) || measures_core_at(config, step) || is_kept(config, step)
}

/// Whether a run is saved after so many steps, whatever the clock says; `forks` are steps that other runs start from.
pub(super) fn is_saved(config: &RunConfig, forks: &[u64], step: u64) -> bool {
    step == config.schedule.num_iterations || is_kept(config, step) || forks.contains(&step)
}

/// Which of a run's checkpoints stay: of the newest this many, those at `forks`, and what its configuration keeps.
pub fn retention(config: &RunConfig, forks: &[u64], newest: usize) -> Retention {
    Retention {
        newest,
        every: config.checkpoint.every,
        keep: config.checkpoint.keep,
        last_step: config.schedule.num_iterations,
        pinned: forks.iter().copied().collect(),
    }
}
