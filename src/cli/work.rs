//! `nanorun work`: train what is left for this process, one of several.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cluster::{Allocation, SubmissionDir, Work, divide};
use crate::error::{Class, Error, Result};
use crate::experiment::{Experiment, HowToRun, Report};
use crate::files::Files;
use crate::hash::Digest;
use crate::run::engine::engine;
use crate::stop::{self, StopFlag};

use super::args::Common;
use super::output::Output;
use super::run::display;
use super::{environment, experiment, threads};

/// `nanorun work`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct WorkArgs {
    /// The experiment's manifest, or a submission: RESULTS/submit/TIME
    #[arg(value_name = "MANIFEST")]
    target: PathBuf,
    /// Only the runs of this unit; units are numbered as `nanorun plan --json` lists them, in a submission as it froze them
    #[arg(long, value_name = "N")]
    unit: Option<usize>,
    /// Common options
    #[command(flatten)]
    common: Common,
}

const HELP: &str = "\
Examples:
  nanorun work experiments/quickstart.toml                                a worker: start as many as you like, anywhere
  nanorun work experiments/quickstart.toml --unit 2                       the third unit alone, as job arrays do
  nanorun work results/quickstart/submit/20260131T235959 --unit 2         of a submission: what was frozen then

Exit codes are for schedulers:
  0    done: nothing is left for this worker
  2    never try again: something is wrong with manifest, submission or machine
  3    a run failed: once more, on another node
  130  saved: start it again";

/// Trains, and says to a scheduler how it went.
pub(super) fn work(args: &WorkArgs) -> Result<Option<Class>> {
    stop::watch()?;
    let files = Files::from_env()?;
    let frozen = if SubmissionDir::is(&args.target) {
        let Some(unit) = args.unit else {
            return Err(Error::input("a submission is worked on unit by unit")
                .file(&args.target)
                .expected("--unit N, as its jobs say it"));
        };
        let dir = SubmissionDir::at(super::naming::absolute(&args.target)?);
        Some(Work::open(&files, &dir, unit)?)
    } else {
        None
    };
    let (mut experiment, keys) = match &frozen {
        Some(work) => {
            super::waiting::show_waiting(args.common.quiet);
            threads::start(args.common.threads.map(usize::from))?;
            let here: Vec<_> = environment().collect();
            (work.experiment(&here)?, Some(work.keys()))
        }
        None => {
            let experiment = experiment(&args.target, &args.common)?;
            let keys = args.unit.map(|unit| keys_of(&experiment, unit)).transpose()?;
            (experiment, keys)
        }
    };
    let stop = StopFlag::default();
    let cluster = frozen.as_ref().map_or(&experiment.manifest.head.cluster, |work| &work.submission.cluster);
    let margin = cluster.signal_seconds.max(30);
    Allocation::read().stops(&stop, Duration::from_secs(margin.into()));
    let report = carry_out(&mut experiment, keys.as_ref(), args, &stop)?;
    let output = Output::new(args.common.quiet);
    for (label, error) in &report.failures {
        output.warn(&format!("{label} failed: {error}"));
    }
    report.notes.iter().for_each(|note| output.note(note));
    if let (Some(work), Some(keys)) = (&frozen, &keys)
        && !report.interrupted
        && have_ended(&experiment, keys)?
    {
        if report.failures.is_empty() {
            work.is_done(&files);
        } else {
            // A divergence is recorded: whoever trained it again would come to the same.
            work.is_final(&files, "its runs have ended, and not all of them well");
        }
    }
    if report.interrupted {
        output.note("saved: the same command carries on from here");
    }
    // Verdicts are whoever's that reports.
    let failed = report.failures.iter().map(|(_, error)| error.class());
    let interrupted = report.interrupted.then_some(Class::Interrupted);
    Ok(failed.chain(interrupted).max_by_key(|class| class.severity()))
}

fn carry_out(
    experiment: &mut Experiment,
    keys: Option<&BTreeSet<Digest>>,
    args: &WorkArgs,
    stop: &StopFlag,
) -> Result<Report> {
    let display = display(Output::new(args.common.quiet));
    let threads = super::threads(&args.common, experiment);
    experiment.search_batch(threads, &display)?;
    if let Some(keys) = keys {
        experiment.only_keys(keys);
    }
    experiment.run(&HowToRun {
        threads,
        jobs: None,
        share: true,
        rerun: false,
        reuse: &[],
        engine: &engine,
        display: &display,
        stop,
    })
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

/// Whether all of these runs have an end.
fn have_ended(experiment: &Experiment, keys: &BTreeSet<Digest>) -> Result<bool> {
    let standings = experiment.standings()?;
    let mut of_these =
        experiment.plan.runs.iter().zip(&standings).filter(|(run, _)| keys.contains(&run.key.run));
    Ok(of_these.all(|(_, standing)| standing.as_ref().is_some_and(crate::run::state::Standing::has_ended)))
}
