//! `nanorun bench`: how fast a run trains, and where its time goes.

use crate::error::{Class, Error, Result};
use crate::host::HostFacts;

use super::args::BenchArgs;
use super::output::Output;
use super::{experiment, threads};

/// Measures the first run of a manifest. Writes nothing.
pub(super) fn bench(args: &BenchArgs) -> Result<Option<Class>> {
    let mut common = args.common.clone();
    common.sets.extend(args.precision.iter().map(|precision| format!("run.precision=\"{precision}\"")));
    let experiment = experiment(&args.manifest, &common)?;
    experiment.require_data()?;
    let run = experiment.selected_runs().next().ok_or_else(|| {
        Error::input("the manifest plans no run").file(&args.manifest).expected("at least one cell")
    })?;
    let threads = threads(&args.common, &experiment);
    let rows = experiment.library.rows(&run.config)?;
    let mut found = crate::bench::bench(&run.config, rows.as_ref(), threads, args.steps)?;
    if args.data {
        found.data = Some(crate::bench::measure_data(&run.config)?);
    }
    let output = Output::new(args.common.quiet);
    if args.common.json {
        let mut json = found.json();
        json["experiment"] = experiment.plan.name.clone().into();
        json["run"] = experiment.label(run).into();
        json["host"] = serde_json::to_value(HostFacts::collect(threads))
            .map_err(|cause| Error::internal("the host's facts cannot be written").because(cause))?;
        output.result(&json.to_string());
    } else {
        output.note(&format!("{}, {}", experiment.plan.name, experiment.label(run)));
        output.result(&found.to_string());
    }
    Ok(None)
}
