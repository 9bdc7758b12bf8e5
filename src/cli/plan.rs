//! `nanorun plan`: show what would be run, and why, without doing it.

use std::fmt::Write as _;

use serde_json::json;

use crate::bench::products_rate;
use crate::cluster::{Share, divide};
use crate::error::{Class, Result};
use crate::experiment::{Experiment, ResultsOnDisk};
use crate::plan::render::{RunStatus, View, duration};
use crate::plan::run_config::BackendKind;
use crate::plan::time::Speed;
use crate::run::state::{Standing, Status};
use crate::scorecard::Sequence;

use super::args::PlanArgs;
use super::output::Output;
use super::run::selection;
use super::{experiment, threads};

/// Prints the plan; computes nothing and writes nothing.
pub(super) fn plan(args: &PlanArgs) -> Result<Option<Class>> {
    let experiment = experiment(&args.manifest, &args.common)?;
    let missing = experiment.missing_data()?;
    let standings = experiment.standings()?;
    let threads = threads(&args.common, &experiment);
    let speed = speed(&experiment, &standings, threads);
    let reusable = experiment.reusable(&args.reuse, threads)?;
    let output = Output::new(args.common.quiet);
    let mut class = None;
    for (index, (run, standing)) in experiment.plan.runs.iter().zip(&standings).enumerate() {
        if !experiment.is_selected(index) {
            continue;
        }
        if let Some(Status::Damaged(error)) = standing.as_ref().map(|standing| &standing.status) {
            output.warn(&format!("{}: {error}", experiment.label(run)));
            class = Some(Class::Input);
        }
    }
    let sequence = experiment.sequence_on_disk()?;
    let statuses: Vec<RunStatus> = experiment
        .plan
        .runs
        .iter()
        .zip(&standings)
        .enumerate()
        .map(|(index, (run, standing))| {
            let from = reusable.get(index).and_then(|reusable| reusable.from.as_ref());
            let status = match from {
                Some(from) => RunStatus::TakenOver { from: from.display().to_string() },
                None => run_status(standing.as_ref(), experiment.last_failure(run)),
            };
            let status = at_looks(status, sequence.as_ref(), run.config.seed);
            if experiment.is_selected(index) { status } else { RunStatus::not_selected(&status) }
        })
        .collect();
    let pending: Vec<bool> = statuses.iter().map(RunStatus::is_pending).collect();
    let jobs = experiment.jobs(threads, &pending, true);
    // On a cluster: numbered over all runs that the command is about, so that a number stays what it is; those that are left
    // to do are what is submitted.
    let selected: Vec<bool> = (0..pending.len()).map(|run| experiment.is_selected(run)).collect();
    let (all_units, units) = (divide(&experiment, &selected), divide(&experiment, &pending));
    let view = View { plan: &experiment.plan, statuses: &statuses, speed: speed.as_ref() };
    let not_taken: Vec<&String> = reusable.iter().flat_map(|reusable| &reusable.notes).collect();
    let not_comparable = experiment.not_comparable()?;
    let anew = experiment.no_longer_counts();
    let begun = |standing: &Option<Standing>| {
        standing.as_ref().is_some_and(|standing| matches!(standing.status, Status::Begun { .. }))
    };
    let begun: Vec<bool> = standings.iter().map(begun).collect();
    // Of a plan whose runs are all done people ask what it took.
    let shown = if pending.contains(&true) { pending.clone() } else { selected };
    let memory = experiment.memory((jobs.count, jobs.threads), &shown, &begun)?;
    let disk = experiment.disk(jobs.count)?;
    // Nothing is wrong with a plan without its data, so the error of running without them is only quoted.
    let required = experiment.require_present();
    if args.common.json {
        let mut json = view.json();
        let paths: Vec<&str> = missing.iter().map(|missing| missing.path.as_str()).collect();
        json["missing_data"] = json!(paths);
        json["help"] = json!(required.as_ref().err().and_then(|error| error.help_text()));
        json["jobs"] = json!({ "count": jobs.count, "threads": jobs.threads, "reason": jobs.reason });
        json["cluster"] = on_a_cluster(&experiment, &all_units, &units, speed.as_ref());
        json["no_longer_counts"] = json!(anew);
        json["not_taken_over"] = json!(not_taken);
        json["not_comparable"] = json!(not_comparable);
        json["power"] = json!(experiment.power());
        json["unmatched"] = json!(experiment.unmatched());
        json["targets"] = json!(experiment.plan.targets);
        json["memory"] = json!(memory.shapes);
        json["memory_at_once"] = json!({
            "needs": memory.at_once,
            "available": memory.available,
            "limit": memory.limit,
        });
        json["disk"] = json!(disk);
        json["awaits_batch_search"] = json!(experiment.awaits_batch_search());
        json["directory"] = json!(experiment.dir.path());
        json["varied"] = json!(experiment.manifest.variation.departures());
        json["selected"] = json!(selection(&experiment));
        json["not_its_own"] = json!(experiment.not_its_own());
        output.result(&json.to_string());
    } else {
        let mut text = view.human();
        if !experiment.manifest.variation.is_empty() {
            let departures = experiment.manifest.variation.departures().join(", ");
            let place = experiment.dir.path().display();
            let _ = writeln!(text, "varied: {departures}; results go to {place}");
        }
        if let Some(selection) = selection(&experiment) {
            let _ = writeln!(text, "{selection}");
        }
        if let Some(other) = experiment.not_its_own() {
            let _ = writeln!(text, "warning: {other}; it will not be run there");
        }
        if pending.contains(&true) {
            text.push_str("cores: ");
            text.push_str(&jobs.to_string());
            text.push('\n');
            let _ = writeln!(text, "cluster: {}", said_of_jobs(&experiment, &units, speed.as_ref()));
        }
        for (index, line) in memory.lines().iter().enumerate() {
            text.push_str(if index == 0 { "memory: " } else { "        " });
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("disk: ");
        text.push_str(&disk.line());
        text.push('\n');
        if let Some(power) = experiment.power() {
            text.push_str("verdicts: ");
            text.push_str(&power.words);
            text.push('\n');
            for look in &power.looks {
                let _ = writeln!(text, "          {}", look.words);
            }
        }
        for target in &experiment.plan.targets {
            let _ = writeln!(text, "target: {}", target.said());
        }
        if let Some(said) = experiment.said_scaling() {
            let _ = writeln!(text, "scaling: {said}");
        }
        for what in experiment.unmatched() {
            let _ = writeln!(text, "budget: {what}");
        }
        for what in anew.iter().chain(&not_comparable).chain(not_taken) {
            text.push_str(what);
            text.push('\n');
        }
        if experiment.awaits_batch_search() {
            text.push_str(
                "device batch size: auto; rows and keys are stand-ins until the first run has searched for it\n",
            );
        }
        if let Err(error) = required {
            // What is missing, then how to get it.
            text.push_str(error.what());
            text.push_str("\n  help: ");
            text.push_str(error.help_text().unwrap_or_default());
            text.push('\n');
        }
        output.prose(&text);
    }
    Ok(class)
}

fn run_status(standing: Option<&Standing>, failure: Option<(u64, String)>) -> RunStatus {
    let failed = |from| failure.map(|(at, reason)| RunStatus::Failed { at, reason, from });
    match standing.map(|standing| &standing.status) {
        Some(Status::Finished(_)) => RunStatus::Done,
        Some(Status::Diverged(divergence)) => {
            RunStatus::Diverged { at: divergence.step, reason: divergence.what() }
        }
        Some(Status::Damaged(error)) => RunStatus::Damaged { reason: error.what().to_owned() },
        Some(&Status::Begun { step }) => failed(step).unwrap_or(RunStatus::Resumes { step }),
        Some(Status::Fresh) => failed(0).unwrap_or(RunStatus::ToDo),
        None => RunStatus::Blocked { missing: "its data are not here".to_owned() },
    }
}

/// The status of a run whose seed is beyond the open look, or beyond the one that decided.
fn at_looks(status: RunStatus, sequence: Option<&Sequence>, seed: u64) -> RunStatus {
    let Some(sequence) = sequence.filter(|_| status.is_pending()) else { return status };
    if sequence.is_beyond(seed) {
        return RunStatus::NotNeeded { seeds: sequence.seeds_taken() as u64 };
    }
    match (&status, sequence.looks.look_of(seed).checked_sub(1)) {
        // What was begun, or failed, says more.
        (RunStatus::ToDo, Some(before)) if sequence.waits(seed) => {
            RunStatus::WaitsForLook { seeds: sequence.looks.seeds_of(before).len() as u64 }
        }
        _ => status,
    }
}

/// The speed of a finished run here; without one, what the cpu backend's kernels do now, or what is usual for a backend
/// that cannot be asked in a moment.
fn speed(experiment: &Experiment, standings: &[Option<Standing>], threads: usize) -> Option<Speed> {
    let config = &experiment.plan.runs.first()?.config;
    let measured = || match config.backend.kind {
        BackendKind::Cpu => products_rate(threads).ok().map(|rate| Speed::of_products(rate, threads)),
        BackendKind::Tch | BackendKind::Scalar => None,
    };
    let recorded = ResultsOnDisk::speed(experiment, standings);
    Some(recorded.or_else(measured).unwrap_or_else(|| Speed::usual(config, threads)))
}

/// What `nanorun submit` would make of it.
fn said_of_jobs(experiment: &Experiment, units: &Share, speed: Option<&Speed>) -> String {
    let Some(seconds) = speed.map(|speed| units.seconds(experiment, speed)) else { return units.words() };
    let longest = seconds.iter().copied().fold(0.0, f64::max);
    let hours = seconds.iter().sum::<f64>() / 3600.0;
    format!("{}, the longest {}, {hours:.2} node-hours at that speed", units.words(), duration(longest))
}

fn on_a_cluster(
    experiment: &Experiment,
    all: &Share,
    pending: &Share,
    speed: Option<&Speed>,
) -> serde_json::Value {
    let key = |run: usize| experiment.plan.runs.get(run).map(|run| run.key.run);
    let seconds = |share: &Share| speed.map(|speed| share.seconds(experiment, speed));
    let of_all = seconds(all);
    let unit = |(number, unit): (usize, &crate::cluster::Unit)| {
        json!({
            "unit": number,
            "kind": unit.kind,
            "after": unit.after,
            "runs": unit.runs.iter().map(|(run, _)| key(*run)).collect::<Vec<_>>(),
            "seconds": of_all.as_ref().and_then(|seconds| seconds.get(number)),
        })
    };
    json!({
        "units": all.units.iter().enumerate().map(unit).collect::<Vec<_>>(),
        "jobs_to_submit": pending.units.len(),
        "node_hours": seconds(pending).map(|seconds| seconds.iter().sum::<f64>() / 3600.0),
    })
}
