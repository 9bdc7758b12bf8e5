//! `nanorun work`: one of several processes, on one machine or many, that carry out an experiment together.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cluster::{Allocation, SubmissionDir, Work, divide};
use crate::error::{Class, Error, Result};
use crate::experiment::{Experiment, HowToRun, Worked};
use crate::files::Files;
use crate::hash::Digest;
use crate::run::engine::engine;
use crate::stop::{self, StopFlag};

use super::args::Common;
use super::naming::absolute;
use super::output::Output;
use super::run::display;
use super::{environment, experiment, threads};

/// `nanorun work`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct WorkArgs {
    /// The experiment's manifest, or a submission: RESULTS/submit/TIME
    #[arg(value_name = "MANIFEST")]
    pub(super) manifest: PathBuf,
    /// Only the runs of this unit, as `nanorun plan --json` numbers them, in a submission as it froze them
    #[arg(long, value_name = "N")]
    pub(super) unit: Option<usize>,
    /// Train every run from its first step, sharing no prefix
    #[arg(long)]
    pub(super) no_share: bool,
    /// Take finished runs over from these results instead of training them; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(super) reuse: Vec<PathBuf>,
    /// Runs trained at the same time (default: the plan's choice)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    /// Common options
    #[command(flatten)]
    pub(super) common: Common,
}

const HELP: &str = "\
Any number of these may run at the same time, on one machine or on many that share the results directory: each takes
runs that nobody has, and leaves with 0 once nothing is left for it. What a killed one had is taken over. Tables and
scorecard are written by the last, and by `nanorun report`.

Examples:
  nanorun work experiments/d12_sqrt.toml                      take what is free, until nothing is
  for i in 1 2 3 4; do nanorun work m.toml --threads 4 & done; wait; nanorun report m.toml
  nanorun work experiments/d12_sqrt.toml --unit 2             the third unit alone, for schedulers that count

Exit codes: 0 nothing is left for it; 2 never try again; 3 a run failed here: once more, elsewhere; 130 stopped, and whoever
comes next carries on.";

/// Takes what is free and trains it.
pub(super) fn work(args: &WorkArgs) -> Result<Option<Class>> {
    stop::watch()?;
    let files = Files::from_env()?;
    let frozen = frozen(&files, args)?;
    let (mut experiment, keys) = if let Some(work) = &frozen {
        super::waiting::show_waiting(args.common.quiet);
        threads::start(args.common.threads.map(usize::from))?;
        let here: Vec<_> = environment().collect();
        (work.experiment(&here)?, Some(work.keys()))
    } else {
        let experiment = experiment(&args.manifest, &args.common)?;
        let keys = args.unit.map(|unit| keys_of(&experiment, unit)).transpose()?;
        (experiment, keys)
    };
    let stop = StopFlag::default();
    let cluster = frozen.as_ref().map_or(&experiment.manifest.head.cluster, |work| &work.submission.cluster);
    // A signal may say it too, where one was asked for; either is enough.
    Allocation::read().stops(&stop, Duration::from_secs(cluster.signal_seconds.max(30).into()));
    let output = Output::new(args.common.quiet);
    let display = display(output);
    let threads = threads(&args.common, &experiment);
    experiment.search_batch(threads, &display)?;
    let worked = experiment.work(&HowToRun {
        threads,
        jobs: args.jobs.map(usize::from),
        share: !args.no_share,
        rerun: false,
        reuse: &args.reuse,
        among: keys.as_ref(),
        unit: args.unit.map(|unit| unit.to_string()),
        stay: false,
        engine: &engine,
        display: &display,
        stop: &stop,
    })?;
    if let (Some(work), Some(keys)) = (&frozen, &keys)
        && !worked.interrupted
        && experiment.have_ended(keys)?
    {
        if worked.failures.is_empty() {
            work.is_done();
        } else {
            // A divergence is recorded: whoever trained it again would come to the same.
            work.is_final("its runs have ended, and not all of them well");
        }
    }
    tell(&worked, args.common.json, output);
    Ok(worked.class())
}

/// The unit of a submission, where one is named.
fn frozen(files: &Files, args: &WorkArgs) -> Result<Option<Work>> {
    if !SubmissionDir::is(&args.manifest) {
        return Ok(None);
    }
    let Some(unit) = args.unit else {
        return Err(Error::input("a submission is worked on unit by unit")
            .file(&args.manifest)
            .expected("--unit N, as its jobs say it"));
    };
    Work::open(files, &SubmissionDir::at(absolute(&args.manifest)?), unit).map(Some)
}

/// The keys of a unit of the manifest's runs, all of which are divided, whatever is done.
fn keys_of(experiment: &Experiment, unit: usize) -> Result<BTreeSet<Digest>> {
    experiment.require_data_here()?;
    let selected: Vec<bool> =
        (0..experiment.plan.runs.len()).map(|run| experiment.is_selected(run)).collect();
    let units = divide(experiment, &selected).units;
    let Some(found) = units.get(unit) else {
        let last = units.len().saturating_sub(1);
        return Err(Error::input(format!("this experiment has no unit {unit}"))
            .file(&experiment.manifest.file)
            .expected(format!("a unit from 0 to {last}")));
    };
    let key = |&(run, _): &(usize, u64)| experiment.plan.runs.get(run).map(|run| run.key.run);
    Ok(found.runs.iter().filter_map(key).collect())
}

/// Prints what came of it.
pub(super) fn tell(worked: &Worked, as_json: bool, output: Output) {
    for (label, error) in &worked.failures {
        output.warn(&format!("{label} failed: {error}"));
    }
    worked.notes.iter().for_each(|note| output.note(note));
    if as_json {
        let failures: Vec<_> = worked
            .failures
            .iter()
            .map(|(label, error)| json!({ "label": label, "error": error.to_string() }))
            .collect();
        let told = json!({
            "format": 1,
            "trained": worked.trained,
            "complete": worked.complete,
            "interrupted": worked.interrupted,
            "failures": failures,
        });
        output.result(&told.to_string());
        return;
    }
    let runs = if worked.trained == 1 { "1 run".to_owned() } else { format!("{} runs", worked.trained) };
    let rest = if worked.interrupted {
        "stopped; whoever comes next carries on from here"
    } else if worked.complete {
        "every run has ended"
    } else {
        "nothing is left to take; others still work, or a run failed"
    };
    output.note(&format!("{runs} trained here; {rest}"));
}
