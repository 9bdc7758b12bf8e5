//! The tables of an experiment, made from its plan and the results on disk; they can be made again at any time.

use std::path::Path;

use crate::backend::torch::peak::peak_flops;
use crate::error::Result;
use crate::files::Files;
use crate::optim::config::StepValues;
use crate::plan::evaluation::Evaluation;
use crate::plan::evaluation::{CORE, TRAIN_LOSS, VAL_BPB};
use crate::plan::run_config::{BackendChoice, BackendKind, RunConfig};
use crate::record::{EvalRow, ExperimentDir, RunResult, RunRow, StepRow, write_table, write_table_of};
use crate::scorecard::{RunSummary, Scorecard};
use crate::stats::slope;
use crate::text::word;
use crate::train::checkpoint::EvalPoint;

use super::ends::RunEnd;

/// A run of the plan and what is known of it.
pub struct Recorded<'a> {
    /// The experiment's name.
    pub experiment: &'a str,
    /// The arm's label.
    pub arm: &'a str,
    /// The run.
    pub config: &'a RunConfig,
    /// How often it reads its training text and an evaluation the validation split, by the plan; none where that is not
    /// known.
    pub epochs: [Option<f64>; 2],
    /// Its key.
    pub run_key: String,
    /// Parameters of the model.
    pub parameters: u64,
    /// FLOPs a token, by upstream's formula.
    pub flops_per_token: f64,
    /// Where it has come to.
    pub end: &'a RunEnd,
    /// Whether the plan no longer has it.
    pub retired: bool,
}

/// Writes `runs.parquet`, `steps.parquet` and `evals.parquet`.
pub(super) fn write_tables(files: &Files, dir: &ExperimentDir, runs: &[Recorded<'_>]) -> Result<()> {
    let of = |name: &str| dir.file(name);
    write(files, &of("runs.parquet"), &runs.iter().map(run_row).collect::<Vec<_>>())?;
    write_table_of(files, &of("steps.parquet"), runs.iter().map(step_rows))?;
    Ok(write_table_of(files, &of("evals.parquet"), runs.iter().map(eval_rows))?)
}

/// Writes `scorecard.parquet` and `scorecard.txt`.
pub(super) fn write_scorecard(files: &Files, dir: &ExperimentDir, scorecard: &Scorecard) -> Result<()> {
    write(files, &dir.file("scorecard.parquet"), &scorecard.rows())?;
    if let Some(scaling) = &scorecard.scaling {
        write(files, &dir.file("scaling.parquet"), &scaling.rows())?;
    }
    Ok(files.write(&dir.file("scorecard.txt"), scorecard.to_string().as_bytes())?)
}

fn write<R: crate::record::Row>(files: &Files, path: &Path, rows: &[R]) -> Result<()> {
    Ok(write_table(files, path, rows)?)
}

/// What the scorecard needs to know of a run.
pub(super) fn summary(run: &Recorded<'_>, metrics: &[String]) -> RunSummary {
    let evaluation = Evaluation::of(run.config);
    let mut summary = RunSummary {
        arm: run.arm.to_owned(),
        seed: run.config.seed,
        data_seed: run.config.row_order.seed,
        measured: metrics.iter().map(|metric| (metric.clone(), evaluation.definition(metric))).collect(),
        ended: !matches!(run.end, RunEnd::Open(..)),
        backend: backend_text(&run.config.backend),
        steps: run.config.schedule.num_iterations,
        tokens: run.config.schedule.num_iterations * run.config.batch.total_batch_size as u64,
        flops: run.flops_per_token
            * (run.config.schedule.num_iterations * run.config.batch.total_batch_size as u64) as f64,
        ..RunSummary::default()
    };
    let Some(result) = run.end.result() else { return summary };
    if let Some(last) = result.evals.last() {
        summary.metrics.extend(last.values.iter().map(|(name, value)| (name.clone(), value.0)));
    }
    let core = result.final_core(run.config.eval.core.as_ref().and_then(|core| core.sha256));
    summary.metrics.extend(core.map(|core| (CORE.to_owned(), core)));
    summary.metrics.extend(result.step_losses.last().map(|loss| (TRAIN_LOSS.to_owned(), f64::from(loss.0))));
    summary.slopes = slopes(result);
    summary.tokens_per_second = tokens_per_second(run.config, result);
    summary.alone = result.timings.alone;
    summary.shared_steps = result.timings.shared_steps;
    let device = result.host.accelerator.as_ref().unwrap_or(&result.host.cpu_model);
    summary.machines.clone_from(&result.timings.machines);
    if summary.machines.is_empty() {
        // An older version knows the process that finished it.
        summary.machines.push(format!("{device}, {} threads", result.host.threads));
    }
    summary.environment_class.clone_from(&result.environment_class);
    summary.result_hash = Some(result.result_hash);
    summary
}

/// By how much each metric changed with a step at the end of a run: of what is evaluated over the last stretch between
/// two evaluations, of the training loss by least squares over the last tenth of the steps.
fn slopes(result: &RunResult) -> std::collections::BTreeMap<String, f64> {
    let mut slopes = std::collections::BTreeMap::new();
    for points in [&result.evals, &result.core] {
        let Some((last, before)) = points.split_last() else { continue };
        let Some(before) = before.iter().rev().find(|point| point.step < last.step) else { continue };
        let steps = (last.step - before.step) as f64;
        for (metric, value) in &last.values {
            if let Some(then) = before.values.get(metric) {
                slopes.insert(metric.clone(), (value.0 - then.0) / steps);
            }
        }
    }
    let losses = &result.step_losses;
    let tail = losses.get(losses.len() - losses.len().div_ceil(10).max(10).min(losses.len())..);
    let tail: Vec<(f64, f64)> = tail
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(at, loss)| (at as f64, f64::from(loss.0)))
        .collect();
    slopes.extend(slope(&tail).map(|slope| (TRAIN_LOSS.to_owned(), slope)));
    slopes
}

/// `tch on cuda:0 in bf16`.
fn backend_text(backend: &BackendChoice) -> String {
    let (kind, precision) =
        (format!("{:?}", backend.kind).to_lowercase(), format!("{:?}", backend.precision).to_lowercase());
    match backend.kind {
        BackendKind::Tch => format!("{kind} on {} in {precision}", backend.device),
        BackendKind::Cpu | BackendKind::Scalar => format!("{kind} in {precision}"),
    }
}

/// Tokens a second by the median step after the first, which allocates.
pub fn tokens_per_second(config: &RunConfig, result: &RunResult) -> Option<f64> {
    let mut seconds: Vec<f64> = result.timings.step_seconds.iter().skip(1).copied().collect();
    seconds.sort_by(f64::total_cmp);
    let median = *seconds.get(seconds.len() / 2)?;
    (median > 0.0).then(|| config.batch.total_batch_size as f64 / median)
}

/// Model FLOPs utilisation: upstream's FLOPs a token at the median step, over the accelerator's peak. None without an
/// accelerator whose peak is known.
pub fn mfu(config: &RunConfig, flops_per_token: f64, result: &RunResult) -> Option<f64> {
    let peak = peak_flops(result.host.accelerator.as_deref()?, config.backend.precision)?;
    Some(tokens_per_second(config, result)? * flops_per_token / peak)
}

/// What every step consumes.
pub(super) fn schedule(config: &RunConfig) -> impl Iterator<Item = StepValues> + '_ {
    (0..config.schedule.num_iterations).map(|step| config.schedule.step_values(step))
}

/// Its row of `runs.parquet`.
pub(crate) fn run_row(run: &Recorded<'_>) -> RunRow {
    let Recorded { config, .. } = run;
    let result = run.end.result();
    let steps = config.schedule.num_iterations;
    let (status, reason, steps_done) = match run.end {
        RunEnd::Finished(result) => {
            let from = result.taken_over_from.as_ref();
            ("finished", from.map(|from| format!("taken over from {from}")), steps)
        }
        RunEnd::Diverged(divergence) => ("diverged", Some(divergence.what()), divergence.step),
        RunEnd::Open(status, reason, reached) => (*status, reason.clone(), *reached),
    };
    let (status, reason) = if run.retired {
        let before = reason.map_or_else(|| status.to_owned(), |reason| format!("{status}: {reason}"));
        ("retired", Some(format!("{before}; the manifest no longer has it")))
    } else {
        (status, reason)
    };
    let bpbs = || evals(run).iter().filter_map(|e| Some(e.values.get(VAL_BPB)?.0));
    let seconds = |of: fn(&RunResult) -> f64| result.map_or(0.0, of);
    let speed = result.and_then(|result| tokens_per_second(config, result));
    RunRow {
        experiment: run.experiment.to_owned(),
        arm: run.arm.to_owned(),
        seed: config.seed,
        run_key: run.run_key.clone(),
        status: status.to_owned(),
        reason,
        commit: config.commit.clone(),
        backend: word(&config.backend.kind),
        device: config.backend.device.clone(),
        precision: word(&config.backend.precision),
        environment_class: result.map_or_else(String::new, |r| r.environment_class.clone()),
        numerics_version: result.map_or(0, |r| u64::from(r.numerics_version)),
        parameters: run.parameters,
        steps,
        steps_done,
        tokens: steps_done * config.batch.total_batch_size as u64,
        flops_per_token: run.flops_per_token,
        train_epochs: run.epochs[0],
        eval_epochs: run.epochs[1],
        final_loss: result.and_then(|r| r.step_losses.last()).map(|loss| loss.0),
        val_bpb: result.and_then(|r| r.final_value(VAL_BPB)),
        best_val_bpb: bpbs().min_by(f64::total_cmp),
        train_hash: result.map(|r| r.train_hash.to_string()),
        eval_hash: result.map(|r| r.eval_hash.to_string()),
        result_hash: result.map(|r| r.result_hash.to_string()),
        shared_steps: result.map_or(0, |r| r.timings.shared_steps),
        resumes: result.map_or(0, |r| r.timings.resumes),
        alone: result.is_some_and(|r| r.timings.alone),
        threads: result.map_or(0, |r| r.host.threads as u64),
        train_seconds: seconds(|r| r.timings.step_seconds.iter().sum()),
        eval_seconds: seconds(|r| r.timings.eval_seconds),
        checkpoint_seconds: seconds(|r| r.timings.checkpoint_seconds),
        tokens_per_second: speed,
        mfu: result.and_then(|result| mfu(config, run.flops_per_token, result)),
        peak_rss_bytes: result.and_then(|r| r.timings.peak_rss_bytes),
        peak_device_bytes: result.and_then(|r| r.timings.peak_device_bytes),
        host: result.map_or_else(String::new, |r| r.host.host.clone()),
        cpu_model: result.map_or_else(String::new, |r| r.host.cpu_model.clone()),
        accelerator: result.and_then(|r| r.host.accelerator.clone()),
        started: result.map_or_else(String::new, |r| r.timings.started.clone()),
        finished: result.map_or_else(String::new, |r| r.timings.finished.clone()),
    }
}

fn step_rows(run: &Recorded<'_>) -> Vec<StepRow> {
    let (losses, seconds) = match run.end {
        RunEnd::Finished(result) => (&result.step_losses, &result.timings.step_seconds),
        RunEnd::Diverged(divergence) => (&divergence.step_losses, &divergence.timings.step_seconds),
        RunEnd::Open(..) => return Vec::new(),
    };
    let batch = run.config.batch.total_batch_size as u64;
    let values = schedule(run.config);
    let seconds = seconds.iter().copied().chain(std::iter::repeat(0.0));
    let each = losses.iter().zip(values).zip(seconds).enumerate();
    each.map(|(step, ((loss, values), seconds))| StepRow {
        arm: run.arm.to_owned(),
        seed: run.config.seed,
        run_key: run.run_key.clone(),
        step: step as u64,
        loss: loss.0,
        lr_multiplier: values.lr_multiplier,
        muon_momentum: values.muon_momentum,
        muon_weight_decay: values.muon_weight_decay,
        tokens: (step as u64 + 1) * batch,
        seconds,
    })
    .collect()
}

/// Evaluations of a run that has ended.
fn evals<'a>(run: &Recorded<'a>) -> &'a [EvalPoint] {
    match run.end {
        RunEnd::Finished(result) => &result.evals,
        RunEnd::Diverged(divergence) => &divergence.evals,
        RunEnd::Open(..) => &[],
    }
}

fn eval_rows(run: &Recorded<'_>) -> Vec<EvalRow> {
    let core = run.end.result().map_or(&[][..], |result| &result.core);
    evals(run)
        .iter()
        .chain(core)
        .flat_map(|eval| {
            let hash = eval.hash().to_string();
            eval.values.iter().map(move |(metric, value)| EvalRow {
                arm: run.arm.to_owned(),
                seed: run.config.seed,
                run_key: run.run_key.clone(),
                step: eval.step,
                metric: metric.clone(),
                value: value.0,
                eval_hash: hash.clone(),
            })
        })
        .collect()
}
