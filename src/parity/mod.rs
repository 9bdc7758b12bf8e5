//! Parity: upstream's own numbers, case by case, against a backend of ours.
//!
//! A [`Case`] is a directory that upstream's code wrote: parameters, inputs, losses, logits, gradients, training
//! trajectories. [`run_case`] puts a [`ParitySubject`] through it and gives a [`Check`] for each kind of number, with
//! its largest deviation and the [`tolerance`] it is held to.

mod case;
mod check;
mod config;
mod engine;
mod forward;
mod report;
mod subject;
pub mod tolerance;
mod trajectory;

pub use case::{Batch, Case, CaseSchedule, CaseSizes, OptimizerValues, ReferenceStep, Trajectory, discover};
pub use check::Check;
pub use config::config_of;
pub use engine::EngineSubject;
pub use report::{CaseReport, markdown, text};
pub use subject::{ParityConfig, ParitySubject};

use crate::error::Result;
use crate::model::specs::gpt_specs;
use crate::precision::Precision;

/// Puts `subject`, built from `config`, through every check of a case. A deviation beyond tolerance is a failed
/// check, not an error; an error is a case that does not fit the configuration, or a failing op.
pub fn run_case(case: &Case, config: &ParityConfig, subject: &mut dyn ParitySubject) -> Result<CaseReport> {
    let specs = gpt_specs(&config.model);
    let mut checks = forward::configuration_checks(case, &specs)?;
    checks.extend(forward::forward_checks(case, &specs, subject)?);
    checks.extend(trajectory::warm_checks(case, &specs, subject)?);
    // From zero projections the first update is rounding made large, and in bf16 there is more of it than of anything else.
    if subject.precision() == Precision::F32 {
        checks.extend(trajectory::train_checks(case, config, &specs, subject)?);
    }
    Ok(CaseReport {
        case: case.name.clone(),
        commit: case.commit.clone(),
        backend: subject.backend(),
        checks,
    })
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
