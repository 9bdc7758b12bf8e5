//! `nanorun run`: carry out an experiment.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Allocation;
use crate::console;
use crate::error::{Class, Result};
use crate::experiment::{Experiment, HowToRun, Report, mfu, tokens_per_second};
use crate::manifest::Condition;
use crate::run::engine::engine;
use crate::run::progress::Display;
use crate::scorecard::Verdict;
use crate::stop::{self, StopFlag};

use super::args::{Common, RunArgs};
use super::output::Output;
use super::{devices, experiment, threads};

/// Trains what is not done and prints the scorecard.
pub(super) fn run(args: &RunArgs) -> Result<Option<Class>> {
    stop::watch()?;
    let mut experiment = experiment(&args.manifest, &args.common)?;
    let output = Output::new(args.common.quiet);
    let (report, workers) = if args.devices.is_empty() {
        (carry_out(&mut experiment, args)?, None)
    } else {
        let (threads, display) = (threads(&args.common, &experiment), display(output));
        experiment.search_batch(threads, &display)?;
        devices::carry_out(&experiment, args, threads, &display)?
    };
    tell(&experiment, &report, &args.common, output);
    let class = report.class().into_iter().chain(workers).max_by_key(|class| class.severity());
    Ok(args.undecided.gravest(class, &report.scorecard))
}

/// How progress is shown on stderr.
pub(super) fn display(output: Output) -> Display {
    match (output.silent(), console::is_json(), output.fancy()) {
        (true, ..) => Display::silent(),
        (_, true, _) => Display::json(),
        (_, _, true) => Display::bars(),
        _ => Display::lines(),
    }
}

/// Trains what is not done, with progress on stderr.
pub(super) fn carry_out(experiment: &mut Experiment, args: &RunArgs) -> Result<Report> {
    let output = Output::new(args.common.quiet);
    let display = display(output);
    experiment.search_batch(threads(&args.common, experiment), &display)?;
    let stop = StopFlag::default();
    // In a job of a scheduler's, the end of its time is known.
    let margin = experiment.manifest.head.cluster.signal_seconds.max(30);
    Allocation::read().stops(&stop, Duration::from_secs(margin.into()));
    experiment.run(&HowToRun {
        threads: threads(&args.common, experiment),
        jobs: args.jobs.map(usize::from),
        share: !args.no_share,
        rerun: args.rerun,
        reuse: &args.reuse,
        among: None,
        unit: None,
        stay: true,
        engine: &engine,
        display: &display,
        stop: &stop,
    })
}

/// Prints what came out of it.
pub(super) fn tell(experiment: &Experiment, report: &Report, common: &Common, output: Output) {
    for (label, error) in &report.failures {
        output.warn(&format!("{label} failed: {error}"));
    }
    report.notes.iter().for_each(|note| output.note(note));
    if let Some(selection) = selection(experiment) {
        output.note(&format!("{selection}; what is said of arms is over all of their runs"));
    }
    if common.json {
        output.result(&json(experiment, report).to_string());
    } else if report.interrupted {
        // What is finished so far is no result of the experiment; `report` shows it.
        let selected = report.results.iter().enumerate().filter(|(run, _)| experiment.is_selected(*run));
        let finished = selected.clone().filter(|(_, result)| result.is_some()).count();
        output.note(&format!(
            "interrupted: {finished} of {} runs are finished; the same command carries on from here",
            selected.count()
        ));
    } else {
        output.prose(&report.scorecard.to_string());
        output.note(&format!("results are in {}", experiment.dir.path().display()));
    }
}

/// Which runs a command is about, in words; none where it is about all.
pub(super) fn selection(experiment: &Experiment) -> Option<String> {
    if !experiment.manifest.is_view() {
        return None;
    }
    let conditions: Vec<String> = experiment.manifest.selection.iter().map(Condition::text).collect();
    let by = if conditions.is_empty() { String::new() } else { format!(" by {}", conditions.join(", ")) };
    let (selected, all) = (experiment.selected_runs().count(), experiment.plan.runs.len());
    Some(format!("selected{by}: {selected} of {all} runs"))
}

/// The looks that were taken at the seeds so far; null where quality is judged once.
fn looks(report: &Report) -> Value {
    let Some(sequence) = &report.scorecard.sequence else { return Value::Null };
    let taken: Vec<Value> = sequence
        .taken
        .iter()
        .map(|look| {
            json!({
                "look": look.of.look,
                "seeds": look.of.seeds,
                "level": look.of.level,
                "decides": look.decides,
                "verdicts": look.verdicts.iter().map(verdict).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "after": sequence.looks.after,
        "of_seeds": sequence.looks.seeds.len(),
        "decided": sequence.decided,
        "taken": taken,
    })
}

fn verdict(verdict: &Verdict) -> Value {
    let row = verdict.row();
    json!({
        "verdict": row.verdict,
        "arm": row.arm,
        "control": row.control,
        "metric": row.metric,
        "outcome": row.outcome,
        "finding": row.finding,
        "pairs": row.pairs,
        "arm_mean": row.arm_mean,
        "control_mean": row.control_mean,
        "difference": row.difference,
        "lower": row.lower,
        "upper": row.upper,
        "raw_lower": row.raw_lower,
        "raw_upper": row.raw_upper,
        "p": row.p,
        "p_adjusted": row.p_adjusted,
        "look": row.look,
        "looks": row.looks,
        "look_seeds": row.look_seeds,
        "look_level": row.look_level,
        "worth_steps": row.worth_steps,
        "worth_tokens": row.worth_tokens,
        "tokens_ratio": row.tokens_ratio,
        "flops_ratio": row.flops_ratio,
        "per_token": row.per_token,
        "per_second": row.per_second,
        "deviation": row.deviation,
        "text_deviation": row.text_deviation,
        "text_reach": row.text_reach,
        "text_documents": row.text_documents,
        "text_detail": row.text_detail,
        "seeds_needed": row.seeds_needed,
        "limit": row.limit,
        "confidence": row.confidence,
        "detail": row.detail,
    })
}

fn json(experiment: &Experiment, report: &Report) -> Value {
    let sequence = report.scorecard.sequence.as_ref();
    let beyond = |seed: u64| sequence.is_some_and(|sequence| sequence.is_beyond(seed));
    let runs: Vec<Value> = experiment
        .plan
        .runs
        .iter()
        .zip(&report.results)
        .enumerate()
        .filter(|(index, _)| experiment.is_selected(*index))
        .map(|(_, (run, result))| {
            let steps = result.iter().flat_map(|result| {
                let each = result.step_losses.iter().zip(&result.timings.step_seconds).enumerate();
                each.map(|(step, (loss, seconds))| json!({ "step": step, "loss": loss.0, "seconds": seconds }))
            });
            let evals = result.iter().flat_map(|result| &result.evals).map(|eval| {
                let values: serde_json::Map<String, Value> =
                    eval.values.iter().map(|(name, value)| (name.clone(), json!(value.0))).collect();
                json!({ "step": eval.step, "values": values })
            });
            json!({
                "label": experiment.label(run),
                "run_key": run.key.run,
                "finished": result.is_some(),
                "not_needed": result.is_none() && beyond(run.config.seed),
                "taken_over_from": result.as_ref().and_then(|result| result.taken_over_from.as_ref()),
                "data": run.data,
                "result_hash": result.as_ref().map(|result| result.result_hash),
                "tokens_per_second": result.as_ref().and_then(|result| tokens_per_second(&run.config, result)),
                "backend": run.config.backend.kind,
                "device": run.config.backend.device,
                "precision": run.config.backend.precision,
                "environment_class": result.as_ref().map(|result| &result.environment_class),
                "mfu_percent": result
                    .as_ref()
                    .and_then(|result| mfu(&run.config, run.sizes.flops_per_token as f64, result))
                    .map(|mfu| mfu * 100.0),
                "peak_device_bytes": result.as_ref().and_then(|result| result.timings.peak_device_bytes),
                "peak_rss_bytes": result.as_ref().and_then(|result| result.timings.peak_rss_bytes),
                "steps": steps.collect::<Vec<_>>(),
                "evals": evals.collect::<Vec<_>>(),
            })
        })
        .collect();
    let verdicts: Vec<Value> = report.scorecard.verdicts.iter().map(verdict).collect();
    let retired: Vec<Value> = report
        .scorecard
        .retired
        .iter()
        .map(|run| json!({ "arm": run.arm, "seed": run.seed, "result_hash": run.result_hash }))
        .collect();
    let failures: Vec<Value> = report
        .failures
        .iter()
        .map(|(label, error)| json!({ "label": label, "error": error.to_string() }))
        .collect();
    json!({
        "format": 1,
        "experiment": experiment.plan.name,
        "directory": experiment.dir.path(),
        "varied": experiment.manifest.variation.departures(),
        "selected": selection(experiment),
        "interrupted": report.interrupted,
        "first_step_seconds": report.first_step_seconds,
        "runs": runs,
        "answer": report.scorecard.answer(),
        "verdicts": verdicts,
        "looks": looks(report),
        "scaling": report.scorecard.scaling,
        "retired": retired,
        "failures": failures,
    })
}
