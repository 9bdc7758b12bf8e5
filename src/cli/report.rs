//! `nanorun report`: judge what is on disk again.

use crate::error::{Class, Result};

use super::args::ReportArgs;
use super::output::Output;
use super::{experiment, run};

/// Prints the scorecard of the runs that are finished.
pub(super) fn report(args: &ReportArgs) -> Result<Option<Class>> {
    let experiment = experiment(&args.manifest, &args.common)?;
    let report = experiment.read()?;
    run::tell(&experiment, &report, &args.common, Output::new(args.common.quiet));
    Ok(report.class())
}
