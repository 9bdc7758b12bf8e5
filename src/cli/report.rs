//! `nanorun report`: judge what is on disk again.

use crate::error::{Class, Result};

use super::args::ReportArgs;
use super::naming::{For, Found, find};
use super::output::Output;
use super::run;

/// Prints the scorecard of the runs that are finished.
pub(super) fn report(args: &ReportArgs) -> Result<Option<Class>> {
    let Found { mut experiment, key, .. } = find(&args.manifest, &args.common, For::Reading)?;
    if let Some(key) = key {
        experiment.only(&key)?;
    }
    let report = experiment.read()?;
    run::tell(&experiment, &report, &args.common, Output::new(args.common.quiet));
    Ok(report.class())
}
