//! `nanorun submit`: freeze an experiment and give it to a scheduler.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::cluster::{
    self, Batch, Draft, Engine, HyperQueue, Job, Jobs, Live, Share, Slurm, SubmissionDir, USUAL_ARRAY,
    batches, divide, freeze, still_there,
};
use crate::error::{Class, Error, Result};
use crate::experiment::{Experiment, quoted};
use crate::files::{DirLock, Files, LockHolder};
use crate::hash::Digest;
use crate::host::host_name;
use crate::manifest::Manifest;
use crate::record::ExperimentDir;
use crate::run::state::Standing;
use crate::stop;

use super::args::Common;
use super::naming::{absolute, results_of};
use super::output::Output;
use super::{experiment, options};

/// `nanorun submit`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct SubmitArgs {
    /// The experiment's manifest; its `[cluster]` says what each job asks for
    #[arg(value_name = "MANIFEST")]
    manifest: PathBuf,
    /// Who runs the jobs
    #[arg(long, value_name = "ENGINE", default_value = "slurm")]
    engine: Engine,
    /// Print what would be submitted, and submit nothing
    #[arg(long)]
    dry_run: bool,
    /// Common options
    #[command(flatten)]
    common: Common,
}

const HELP: &str = "\
Examples:
  nanorun submit experiments/quickstart.toml --dry-run         the script, and how it would be submitted
  nanorun submit experiments/quickstart.toml                   a job array, a job a tree of runs, and one that reports
  nanorun submit m.toml --set cluster.partition=gpu --set cluster.time=12:00:00
  nanorun status experiments/quickstart.toml                   then: how it stands
  nanorun cancel experiments/quickstart.toml                   ends it

Nothing is submitted where something is wrong: no scheduler here, a partition that is not there, units that still wait or run.";

/// Submits what is not done.
pub(super) fn submit(args: &SubmitArgs) -> Result<Option<Class>> {
    stop::watch()?;
    let experiment = experiment(&args.manifest, &args.common)?;
    experiment.require_data_here()?;
    if let Some(other) = experiment.not_its_own() {
        return Err(Error::input(other)
            .file(experiment.dir.path())
            .expected("a directory of its own")
            .help("give it another name, as with --set name=NAME, or another place with --results DIR"));
    }
    if experiment.awaits_batch_search() {
        return Err(Error::input("the device batch size is still to be searched for")
            .key("train.device_batch_size")
            .expected("a number of rows: every job has to train the same")
            .help("start the experiment once on such a node, or write the number"));
    }
    let standings = experiment.standings()?;
    let share = divide(&experiment, &wanted(&experiment, &standings)?);
    if share.units.is_empty() {
        let report = format!("nanorun report {}", quoted(&experiment.dir.path().display().to_string()));
        return Err(Error::input("there is nothing to submit: every run has ended")
            .file(experiment.dir.path())
            .help(format!("{report} shows the scorecard")));
    }
    let draft = freeze(&experiment, &standings, &share, args.engine)?;
    let output = Output::new(args.common.quiet);
    if args.dry_run {
        show(&draft, &share, args, output);
        return Ok(None);
    }
    let files = Files::from_env()?;
    let scheduler = Scheduler::at_hand(args.engine)?;
    let most = scheduler.check(&draft)?;
    // Two at once would both find that nothing is submitted.
    let place = experiment.dir.turn();
    files.create_dir_all(&place)?;
    let _lock = DirLock::acquire(&place, &LockHolder::this_process(&host_name()))?;
    refuse_twice(&files, &experiment, scheduler, &draft)?;
    draft.write(&files)?;
    let submitted = submit_all(&files, scheduler, &draft, most);
    let jobs = match submitted {
        Ok(jobs) => jobs,
        Err(error) => {
            draft.take_back(&files);
            return Err(error);
        }
    };
    tell(&draft, &share, &jobs, args, output);
    Ok(None)
}

/// Who runs the jobs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scheduler {
    Slurm(Slurm),
    HyperQueue(HyperQueue),
}

impl Scheduler {
    /// Makes sure of its programs.
    pub(super) fn at_hand(engine: Engine) -> Result<Self> {
        Ok(match engine {
            Engine::Slurm => Self::Slurm(Slurm::at_hand()?),
            Engine::Hyperqueue => Self::HyperQueue(HyperQueue::at_hand()?),
        })
    }

    /// Checks what can be checked before anything is written. -> jobs that an array may have
    fn check(self, draft: &Draft) -> Result<usize> {
        match self {
            Self::Slurm(slurm) => {
                slurm.check_partition(&draft.submission.cluster)?;
                slurm.most_of_an_array()
            }
            Self::HyperQueue(_) => Ok(usize::MAX),
        }
    }

    pub(super) fn live(self, ids: &[String]) -> Result<Vec<Live>> {
        match self {
            Self::Slurm(slurm) => slurm.live(ids),
            Self::HyperQueue(hq) => hq.live(ids),
        }
    }

    /// Cancels these jobs.
    pub(super) fn cancel(self, ids: &[String]) -> Result<()> {
        match self {
            Self::Slurm(slurm) => slurm.cancel(ids),
            Self::HyperQueue(hq) => hq.cancel(ids),
        }
    }
}

/// Which runs are to be submitted: what has not ended, and what no look made needless.
fn wanted(experiment: &Experiment, standings: &[Option<Standing>]) -> Result<Vec<bool>> {
    let sequence = experiment.sequence_on_disk()?;
    let runs = experiment.plan.runs.iter().zip(standings).enumerate();
    Ok(runs
        .map(|(index, (run, standing))| {
            let needed = !sequence.as_ref().is_some_and(|sequence| sequence.is_beyond(run.config.seed));
            let open = standing.as_ref().is_some_and(|standing| !standing.has_ended());
            experiment.is_selected(index) && needed && open
        })
        .collect())
}

/// Refuses to submit runs that other jobs still have.
fn refuse_twice(files: &Files, experiment: &Experiment, scheduler: Scheduler, draft: &Draft) -> Result<()> {
    let asked: BTreeSet<Digest> =
        draft.submission.units.iter().flat_map(|unit| &unit.runs).map(|run| run.key).collect();
    for dir in SubmissionDir::all(&experiment.dir)? {
        let before = dir.read(files)?;
        if before.engine != draft.submission.engine {
            continue;
        }
        let jobs = Jobs::of(&dir);
        let there = still_there(&jobs, &scheduler.live(&jobs.ids())?);
        let taken: Vec<String> = there
            .into_iter()
            .filter(|(unit, _)| {
                let runs = before.units.get(*unit).into_iter().flat_map(|unit| &unit.runs);
                runs.into_iter().any(|run| asked.contains(&run.key))
            })
            .map(|(unit, job)| format!("unit {unit}: {job}"))
            .collect();
        if !taken.is_empty() {
            const SHOWN: usize = 8;
            let more = taken.len().saturating_sub(SHOWN);
            let shown = taken.get(..SHOWN).unwrap_or(&taken).join(", ");
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(Error::input(format!("jobs of these runs still wait or run: {shown}{more}"))
                .file(dir.path())
                .expected("no jobs of these runs")
                .help(format!(
                    "wait for them (`nanorun status {place}`), or end them: nanorun cancel {place}",
                    place = quoted(&experiment.dir.path().display().to_string())
                )));
        }
    }
    Ok(())
}

/// Submits every unit and the report, or nothing. -> the jobs, and what was said against the report where there is none
fn submit_all(files: &Files, scheduler: Scheduler, draft: &Draft, most: usize) -> Result<Submitted> {
    let Draft { submission, dir, .. } = draft;
    let mut jobs: Vec<(Job, usize)> = Vec::new();
    let mut each = || -> Result<Option<Error>> {
        draft.verify(files)?;
        let slurm = match scheduler {
            Scheduler::Slurm(slurm) => slurm,
            Scheduler::HyperQueue(hq) => {
                note(files, dir, &mut jobs, hq.submit(submission, dir)?, submission.units.len())?;
                return Ok(None);
            }
        };
        let after: Vec<_> = submission.units.iter().map(|unit| unit.after).collect();
        for batch in batches(&after, most) {
            stop::check()?;
            let waits_for: Vec<String> =
                batch.after.iter().filter_map(|after| job_of(&jobs, *after)).collect();
            let job = slurm.submit(submission, dir, &batch, &waits_for)?;
            note(files, dir, &mut jobs, job, batch.count)?;
        }
        let arrays: Vec<Job> = jobs.iter().map(|(job, _)| job.clone()).collect();
        Ok(match slurm.submit_report(submission, dir, &arrays) {
            Ok(job) => note(files, dir, &mut jobs, job, 0).err(),
            // Whoever waits for the runs can ask for the report; the runs are what was asked for.
            Err(error) => Some(error),
        })
    };
    match each() {
        Ok(without_report) => Ok(Submitted { jobs, without_report }),
        Err(error) => {
            let ids: Vec<String> = jobs.iter().map(|(job, _)| job.id.clone()).collect();
            if !ids.is_empty()
                && let Err(left) = scheduler.cancel(&ids)
            {
                return Err(error.help(format!(
                    "jobs {} could not be taken back: {}",
                    ids.join(", "),
                    left.what()
                )));
            }
            Err(error)
        }
    }
}

struct Submitted {
    /// With how many units each has.
    jobs: Vec<(Job, usize)>,
    without_report: Option<Error>,
}

fn note(
    files: &Files,
    dir: &SubmissionDir,
    jobs: &mut Vec<(Job, usize)>,
    job: Job,
    units: usize,
) -> Result<()> {
    let noted = job.note(files, dir);
    jobs.push((job, units));
    Ok(noted?)
}

/// The job that has a unit, as others wait for it.
fn job_of(jobs: &[(Job, usize)], unit: usize) -> Option<String> {
    jobs.iter().find_map(|(job, count)| {
        let first = job.first?;
        (first..first + count).contains(&unit).then(|| format!("{}_{}", job.id, unit - first))
    })
}

/// What would be submitted.
fn show(draft: &Draft, share: &Share, args: &SubmitArgs, output: Output) {
    // The scheduler's own bound where it is at hand.
    let most = match args.engine {
        Engine::Slurm => Slurm::at_hand().and_then(Slurm::most_of_an_array).unwrap_or(USUAL_ARRAY),
        Engine::Hyperqueue => usize::MAX,
    };
    let after: Vec<_> = draft.submission.units.iter().map(|unit| unit.after).collect();
    let batches: Vec<Batch> = batches(&after, most);
    let commands = cluster::commands(draft, &batches);
    if args.common.json {
        let json = json!({
            "format": 1,
            "engine": draft.submission.engine,
            "submission": draft.dir.path(),
            "dry_run": true,
            "commands": commands,
            "script": draft.script,
            "report": draft.report,
            "units": units(draft),
        });
        output.result(&json.to_string());
        return;
    }
    output.result(&draft.script);
    output.result(&format!("# {}\n{}", "-".repeat(20), draft.report));
    let lines: Vec<String> =
        commands.iter().map(|command| format!("# {}", command.replace('\n', "\n# "))).collect();
    output.result(&format!("# {}\n{}", "-".repeat(20), lines.join("\n")));
    output.note(&format!("{}; nothing was submitted and nothing was written", share.words()));
}

fn tell(draft: &Draft, share: &Share, submitted: &Submitted, args: &SubmitArgs, output: Output) {
    let Submitted { jobs, without_report } = submitted;
    let place = quoted(&draft.submission.results.display().to_string());
    if let Some(error) = without_report {
        output.warn(&format!(
            "no job reports at the end: {}; once the others have ended: nanorun report {place}",
            error.what()
        ));
    }
    if args.common.json {
        let all: Vec<Value> = jobs
            .iter()
            .map(|(job, units)| json!({ "id": job.id, "first": job.first, "units": units }))
            .collect();
        let json = json!({
            "format": 1,
            "engine": draft.submission.engine,
            "submission": draft.dir.path(),
            "dry_run": false,
            "jobs": all,
            "units": units(draft),
        });
        output.result(&json.to_string());
        return;
    }
    let names: Vec<String> = jobs
        .iter()
        .map(|(job, units)| match job.first {
            None => format!("{} reports", job.id),
            Some(_) => format!("{}_0-{}", job.id, units.saturating_sub(1)),
        })
        .collect();
    output.result(&format!("submitted {}: {}", share.words(), names.join(", ")));
    output.note(&format!("logs are in {}", draft.dir.file("logs").display()));
    output.note(&format!("how it stands: nanorun status {place}"));
}

fn units(draft: &Draft) -> Vec<Value> {
    let unit = |(number, unit): (usize, &cluster::FrozenUnit)| {
        let runs: Vec<Value> =
            unit.runs.iter().map(|run| json!({ "key": run.key, "label": run.label })).collect();
        json!({ "unit": number, "kind": unit.kind, "after": unit.after, "runs": runs })
    };
    draft.submission.units.iter().enumerate().map(unit).collect()
}

/// The results directory that a command on submissions names: of a manifest, or the directory itself, begun or not.
pub(super) fn results_dir(name: &Path, common: &Common) -> Result<ExperimentDir> {
    for place in [name.to_owned(), common.results.join(name)] {
        if place.join("submit").is_dir() {
            return Ok(ExperimentDir::at(absolute(&place)?));
        }
    }
    let varied = common.profile.is_some() || !common.sets.is_empty();
    let dir = if varied && name.is_file() {
        let manifest = Manifest::load(name, &options(common))?;
        ExperimentDir::at(common.results.join(manifest.results_name()))
    } else {
        results_of(name, &common.results)?.0
    };
    Ok(ExperimentDir::at(absolute(dir.path())?))
}
