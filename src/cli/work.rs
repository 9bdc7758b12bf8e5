//! `nanorun work`: one of several processes, on one machine or many, that carry out an experiment together.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::error::{Class, Result};
use crate::experiment::{HowToRun, Worked};
use crate::run::engine::engine;
use crate::stop::{self, StopFlag};

use super::args::Common;
use super::output::Output;
use super::run::display;
use super::{experiment, threads};

/// `nanorun work`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct WorkArgs {
    /// The experiment's manifest
    #[arg(value_name = "MANIFEST")]
    pub(super) manifest: PathBuf,
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

Exit codes: 0 nothing is left for it; 3 a run failed here; 130 stopped, and whoever comes next carries on.";

/// Takes what is free and trains it.
pub(super) fn work(args: &WorkArgs) -> Result<Option<Class>> {
    stop::watch()?;
    let mut experiment = experiment(&args.manifest, &args.common)?;
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
        among: None,
        unit: None,
        stay: false,
        engine: &engine,
        display: &display,
        stop: &StopFlag::default(),
    })?;
    tell(&worked, args.common.json, output);
    Ok(worked.class())
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
