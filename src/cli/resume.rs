//! `nanorun resume`: carry on an experiment from its results directory alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Class, Error, Result};
use crate::plan::PlannedRun;
use crate::record::ExperimentDir;
use crate::run::state::Standing;
use crate::stop;

use super::args::{Common, ResumeArgs, RunArgs};
use super::naming::{absolute, at_home, results_of};
use super::output::Output;
use super::{environment, run, threads};

/// Trains what the recorded plan has left to train, with the arguments that were recorded.
pub(super) fn resume(args: &ResumeArgs) -> Result<Option<Class>> {
    stop::watch()?;
    // From here, wherever the experiment was started.
    let reuse = args.reuse.iter().map(|path| absolute(path)).collect::<Result<_>>()?;
    let (dir, _) = match results_of(&args.directory, Path::new("results")) {
        // What is named is no manifest that could be wrong: there is nothing.
        Err(_) if !args.directory.is_file() => (ExperimentDir::at(&args.directory), None),
        found => found?,
    };
    if !dir.file("plan.toml").exists() {
        return Err(nothing(&dir, "there is nothing to resume: the directory has no plan.toml")
            .expected("the results directory of an experiment that was begun, such as results/quickstart"));
    }
    let found = at_home(&dir)?;
    // What the environment sets now does not count: the experiment was begun without it.
    super::waiting::show_waiting(args.quiet);
    threads::start(args.threads.map(usize::from))?;
    let only = if args.only.is_empty() { found.record.only.clone() } else { args.only.clone() };
    let mut experiment = found.to_carry_on(&environment().collect::<Vec<_>>(), &only)?;
    let (dir, record) = (found.dir, found.record);
    let planned: BTreeSet<_> = experiment.plan.runs.iter().map(|run| run.key.run).collect();
    // A start that was about some of the cells may not have known the data of the others.
    let of_others = |run: &PlannedRun| !record.runs.iter().any(|then| then.key == run.key.run);
    if record.runs.iter().any(|run| !planned.contains(&run.key))
        || experiment.selected_runs().any(|run| of_others(run) && record.only.is_empty())
    {
        return Err(nothing(&dir, "the manifest or its data changed since this experiment was begun")
            .expected("the same runs as in plan.toml")
            .help(format!("run it as it is now: {}", experiment.command("run"))));
    }
    let ended = |standing: &Option<Standing>| standing.as_ref().is_some_and(Standing::has_ended);
    let standings = experiment.standings()?;
    let sequence = experiment.sequence_on_disk()?;
    let is_beyond = |run: usize| {
        let seed = experiment.plan.runs.get(run).map(|run| run.config.seed);
        sequence.as_ref().zip(seed).is_some_and(|(sequence, seed)| sequence.is_beyond(seed))
    };
    let mut selected = standings.iter().enumerate().filter(|(run, _)| experiment.is_selected(*run));
    if selected.all(|(run, standing)| ended(standing) || is_beyond(run)) {
        let (what, help) = if experiment.manifest.is_view() {
            let rest = format!("nanorun resume {} --only PATH=VALUE trains others", dir.path().display());
            ("every run that was selected is finished".to_owned(), rest)
        } else {
            let report = format!("nanorun report {} shows the scorecard", dir.path().display());
            match sequence.filter(|sequence| sequence.decided) {
                Some(sequence) => (sequence.why_not_needed(), report),
                None => ("every run is finished".to_owned(), report),
            }
        };
        return Err(nothing(&dir, &format!("there is nothing to resume: {what}")).help(help));
    }
    let args = RunArgs {
        manifest: PathBuf::from(&record.manifest),
        rerun: false,
        no_share: record.no_share,
        reuse,
        jobs: None,
        devices: Vec::new(),
        undecided: args.undecided,
        common: Common {
            profile: record.profile,
            sets: record.sets,
            only,
            results: dir.path().parent().map_or_else(PathBuf::new, Path::to_owned),
            threads: args.threads,
            json: args.json,
            quiet: args.quiet,
        },
    };
    let report = run::carry_out(&mut experiment, &args)?;
    run::tell(&experiment, &report, &args.common, Output::new(args.common.quiet));
    Ok(args.undecided.gravest(report.class(), &report.scorecard))
}

fn nothing(dir: &ExperimentDir, what: &str) -> Error {
    Error::input(what).file(dir.path())
}
