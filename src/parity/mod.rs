//! Parity: upstream's own numbers, case by case, against a backend of ours.
//!
//! A [`Case`] is a directory that upstream's code wrote: parameters, inputs, losses, logits, gradients, training
//! trajectories. [`run_case`] puts a [`ParitySubject`] through it and gives a `Check` for each kind of number, with
//! its largest deviation and the [`tolerance`] it is held to.

mod case;
mod check;
mod compared;
mod config;
mod engine;
mod forward;
mod idle;
mod report;
mod subject;
pub mod tolerance;
mod trajectory;

pub use case::{Case, ReferenceStep, Trajectory, discover};
pub use compared::Compared;
pub use config::config_of;
pub use engine::EngineSubject;
pub use report::{CaseReport, markdown, text};
pub use subject::{ParityConfig, ParitySubject};

use crate::error::{Class, Error, Result};
use crate::model::specs::gpt_specs;

/// Puts `subject`, built from `config`, through every check that a case has numbers for. A deviation beyond tolerance
/// is a failed check, not an error, and a backend that fails on the way leaves the checks made so far and its words.
///
/// # Errors
/// A case that does not fit the configuration, or that has nothing to compare.
pub fn run_case(case: &Case, config: &ParityConfig, subject: &mut dyn ParitySubject) -> Result<CaseReport> {
    let mut report = CaseReport::new(case, subject.backend());
    match checks(case, config, subject, &mut report) {
        Err(error) if error.class() == Class::Run => report.error = Some(error.to_string()),
        outcome => outcome?,
    }
    if report.checks.is_empty() && report.error.is_none() {
        return Err(Error::input("the parity case has nothing to compare").file(&case.directory));
    }
    report.passed = report.error.is_none() && !report.beyond_tolerance();
    Ok(report)
}

fn checks(
    case: &Case,
    config: &ParityConfig,
    subject: &mut dyn ParitySubject,
    report: &mut CaseReport,
) -> Result<()> {
    let specs = gpt_specs(&config.model);
    let compared = Compared::of(subject.precision(), case)?;
    forward::configuration_checks(case, config, &specs, report)?;
    forward::forward_checks(case, &specs, compared, subject, report)?;
    trajectory::warm_checks(case, config, &specs, compared, subject, report)?;
    trajectory::continued_checks(case, &specs, compared, subject, report)?;
    // From zero projections the first update is rounding made large, and in bf16 there is more of it than of anything
    // else.
    if compared.is_f32() {
        trajectory::train_checks(case, config, &specs, subject, report)?;
    } else {
        report.skip("train", "not in bf16: the first update from zero projections is rounding made large");
    }
    Ok(())
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
