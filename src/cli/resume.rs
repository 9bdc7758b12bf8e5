//! `nanorun resume`: carry on an experiment from its results directory alone.

use std::path::{Path, PathBuf};

use crate::error::{Class, Error, Result};
use crate::experiment::Experiment;
use crate::files::Files;
use crate::manifest::Options;
use crate::record::{ExperimentDir, PlanRecord};
use crate::run::state::Standing;

use super::args::{Common, ResumeArgs, RunArgs};
use super::output::Output;
use super::{environment, run};

/// Trains what the recorded plan has left to train, with the arguments that were recorded.
pub(super) fn resume(args: &ResumeArgs) -> Result<Option<Class>> {
    let dir = &args.directory;
    if !dir.join("plan.toml").exists() {
        return Err(nothing(dir, "there is nothing to resume: the directory has no plan.toml")
            .expected("the results directory of an experiment that was begun, such as results/quickstart"));
    }
    let record = PlanRecord::read(&Files::new(), &ExperimentDir::at(dir))?;
    // What the environment sets now does not count: the experiment was begun without it.
    let fields = record.env.clone().into_iter();
    let rest = environment().filter(|(name, _)| !name.starts_with("NANORUN_"));
    let options = Options {
        profile: record.profile.clone(),
        sets: record.sets.clone(),
        env: rest.chain(fields).collect(),
    };
    let manifest = Path::new(&record.manifest);
    if !manifest.exists() {
        return Err(Error::input("the manifest of this experiment is not here")
            .file(manifest)
            .expected("the manifest that plan.toml names, from the working directory of the first start"));
    }
    // A copied or renamed directory is still this experiment's.
    let mut experiment = Experiment::load_in(dir, manifest, &options)?;
    let planned: Vec<_> = experiment.plan.runs.iter().map(|run| run.key.run).collect();
    let recorded: Vec<_> = record.runs.iter().map(|run| run.key).collect();
    if planned != recorded {
        return Err(nothing(dir, "the manifest or its data changed since this experiment was begun")
            .expected("the same runs as in plan.toml")
            .help(format!("run it as it is now: nanorun {}", record.manifest)));
    }
    let ended = |standing: &Option<Standing>| standing.as_ref().is_some_and(Standing::has_ended);
    if experiment.standings()?.iter().all(ended) {
        return Err(nothing(dir, "there is nothing to resume: every run is finished")
            .help(format!("nanorun report {} shows the scorecard", record.manifest)));
    }
    let args = RunArgs {
        manifest: manifest.to_owned(),
        rerun: false,
        no_share: record.no_share,
        jobs: None,
        common: Common {
            profile: record.profile,
            sets: record.sets,
            results: dir.parent().map_or_else(PathBuf::new, Path::to_owned),
            threads: args.threads,
            json: args.json,
            quiet: args.quiet,
        },
    };
    let report = run::carry_out(&mut experiment, &args)?;
    run::tell(&experiment, &report, &args.common, Output::new(args.common.quiet));
    Ok(report.class())
}

fn nothing(dir: &Path, what: &str) -> Error {
    Error::input(what).file(dir)
}
