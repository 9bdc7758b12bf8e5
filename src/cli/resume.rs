//! `nanorun resume`: carry on an experiment from its results directory alone.

use std::path::{Path, PathBuf};

use crate::error::{Class, Error, Result};
use crate::record::ExperimentDir;
use crate::run::state::Standing;
use crate::stop;

use super::args::{Common, ResumeArgs, RunArgs};
use super::naming::{at_home, results_of};
use super::output::Output;
use super::{environment, run};

/// Trains what the recorded plan has left to train, with the arguments that were recorded.
pub(super) fn resume(args: &ResumeArgs) -> Result<Option<Class>> {
    stop::watch()?;
    let (dir, _) = results_of(&args.directory, Path::new("results"))?;
    if !dir.file("plan.toml").exists() {
        return Err(nothing(&dir, "there is nothing to resume: the directory has no plan.toml")
            .expected("the results directory of an experiment that was begun, such as results/quickstart"));
    }
    let found = at_home(&dir)?;
    // What the environment sets now does not count: the experiment was begun without it.
    let mut experiment = found.to_carry_on(&environment().collect::<Vec<_>>())?;
    let (dir, record) = (found.dir, found.record);
    let planned: Vec<_> = experiment.plan.runs.iter().map(|run| run.key.run).collect();
    let recorded: Vec<_> = record.runs.iter().map(|run| run.key).collect();
    if planned != recorded {
        return Err(nothing(&dir, "the manifest or its data changed since this experiment was begun")
            .expected("the same runs as in plan.toml")
            .help(format!("run it as it is now: nanorun {}", record.manifest)));
    }
    let ended = |standing: &Option<Standing>| standing.as_ref().is_some_and(Standing::has_ended);
    if experiment.standings()?.iter().all(ended) {
        return Err(nothing(&dir, "there is nothing to resume: every run is finished")
            .help(format!("nanorun report {} shows the scorecard", record.manifest)));
    }
    let args = RunArgs {
        manifest: PathBuf::from(&record.manifest),
        rerun: false,
        no_share: record.no_share,
        jobs: None,
        common: Common {
            profile: record.profile,
            sets: record.sets,
            results: dir.path().parent().map_or_else(PathBuf::new, Path::to_owned),
            threads: args.threads,
            json: args.json,
            quiet: args.quiet,
        },
    };
    let report = run::carry_out(&mut experiment, &args)?;
    run::tell(&experiment, &report, &args.common, Output::new(args.common.quiet));
    Ok(report.class())
}

fn nothing(dir: &ExperimentDir, what: &str) -> Error {
    Error::input(what).file(dir.path())
}
