//! `nanorun verify`: run or read an experiment, then compare it with a baseline.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::backend::cpu::class_precision;
use crate::error::{Class, Error, Result};
use crate::experiment::{Experiment, Report};
use crate::files::Files;
use crate::gate::{Baseline, junit, markdown};
use crate::precision::Precision;
use crate::stop;

use super::args::{RunArgs, VerifyArgs};
use super::comparison::json as comparison_json;
use super::naming::{For, Found, find};
use super::output::Output;
use super::run;

/// Exits 4 where a hash or value differs.
pub(super) fn verify(args: &VerifyArgs) -> Result<Option<Class>> {
    if !args.read {
        stop::watch()?;
    }
    let here = std::env::current_dir().ok();
    let purpose = if args.read { For::Reading } else { For::Working };
    let Found { mut experiment, .. } = find(&args.manifest, &args.common, purpose)?;
    let output = Output::new(args.common.quiet);
    // Results take the process where they were started: what is named on the command line is named from here.
    let from_here = |path: &Path| match &here {
        Some(here) if std::env::current_dir().ok().as_ref() != Some(here) => here.join(path),
        _ => path.to_owned(),
    };
    let baseline = match &args.baseline {
        Some(path) => from_here(path),
        None => baseline(&experiment, args)?,
    };
    let files = Files::new();
    // Before anything is trained: blessing tells what changes, comparing needs something to compare with.
    if args.bless {
        Baseline::read(&files, &baseline)?;
    } else {
        check_precision(&experiment, &Baseline::require(&files, &baseline)?)
            .map_err(|error| error.file(&baseline))?;
    }
    let report = if args.read {
        experiment.read()?
    } else {
        let how = RunArgs {
            manifest: args.manifest.clone(),
            rerun: false,
            no_share: false,
            reuse: args.reuse.iter().map(|path| from_here(path)).collect(),
            jobs: None,
            devices: Vec::new(),
            undecided: args.undecided,
            common: args.common.clone(),
        };
        run::carry_out(&mut experiment, &how)?
    };
    for (label, error) in &report.failures {
        output.warn(&format!("{label} failed: {error}"));
    }
    if report.interrupted {
        output.warn("interrupted: the same command carries on from here");
        return Ok(Some(Class::Interrupted));
    }
    // What cannot be read is no result to be blessed or compared.
    let damaged = report.failures.iter().map(|(_, error)| error.class()).find(|class| *class == Class::Input);
    if args.bless && damaged.is_none() {
        return bless(&experiment, &report, &baseline, output, args.common.json);
    }
    if args.bless {
        return Ok(damaged);
    }
    let comparison = experiment.compare(&baseline)?;
    if let Some(path) = &args.junit {
        write(&files, &from_here(path), &junit(&comparison, Some(&report.scorecard)))?;
    }
    if let Some(path) = &args.markdown {
        write(&files, &from_here(path), &markdown(&comparison, Some(&report.scorecard)))?;
    }
    output.result(&if args.common.json {
        comparison_json(&comparison).to_string()
    } else {
        comparison.to_string()
    });
    // A gate is about bits, unless somebody says what verdicts are to it.
    let verdicts = args
        .undecided
        .undecided
        .and_then(|_| args.undecided.gravest(report.scorecard.failure(), &report.scorecard));
    let failed = report.failures.iter().map(|(_, error)| error.class());
    Ok(failed.chain(comparison.failure()).chain(verdicts).max_by_key(|class| class.severity()))
}

/// Writes a report, making its directory.
fn write(files: &Files, path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files.create_dir_all(parent)?;
    }
    Ok(files.write(path, text.as_bytes())?)
}

/// Fails where a baseline was made in a precision that no run computes in: its values lie in no tolerance of theirs.
fn check_precision(experiment: &Experiment, baseline: &Baseline) -> Result<()> {
    let name = |precision: Precision| if precision == Precision::Bf16 { "bf16" } else { "f32" };
    let ours: Vec<Precision> = experiment.selected_runs().map(|run| run.config.backend.precision).collect();
    let theirs = baseline.runs.iter().find_map(|run| {
        class_precision(&run.environment_class).filter(|precision| !ours.contains(precision))
    });
    let (Some(theirs), Some(&first)) = (theirs, ours.first()) else { return Ok(()) };
    Err(Error::input(format!(
        "the baseline was made in {}, the runs compute in {}",
        name(theirs),
        name(first)
    ))
    .expected(format!("a baseline made in {}", name(first)))
    .help("write one of their own with --baseline FILE --bless"))
}

fn baseline(experiment: &Experiment, args: &VerifyArgs) -> Result<PathBuf> {
    match &experiment.manifest.head.scorecard.reproducibility.baseline {
        Some(path) => Ok(PathBuf::from(path)),
        None => Err(Error::input("no baseline is named")
            .file(&args.manifest)
            .key("scorecard.reproducibility.baseline")
            .expected("--baseline FILE, or this field in the manifest (a profile inherits none)")),
    }
}

fn bless(
    experiment: &Experiment,
    report: &Report,
    baseline: &Path,
    output: Output,
    as_json: bool,
) -> Result<Option<Class>> {
    if report.results.iter().zip(&report.not_needed).any(|(result, needless)| result.is_none() && !needless) {
        let help = if experiment.manifest.is_view() {
            "a baseline is of all cells: bless without --only"
        } else {
            "look at the failures above, or run without --read"
        };
        return Err(Error::run("not every run is finished, so there is nothing to bless").help(help));
    }
    let blessed = experiment.bless(baseline)?;
    output.result(&if as_json {
        let changes = blessed.changes.as_ref().map(comparison_json);
        json!({ "baseline": blessed.path, "runs": blessed.runs, "changes": changes }).to_string()
    } else {
        blessed.to_string()
    });
    Ok(None)
}
