//! What one experiment is in the ledger.

use std::collections::BTreeSet;

use super::tries::{Judged, Tries};
use crate::error::Result;
use crate::files::Files;
use crate::record::{ExperimentDir, LedgerRow, PlanRecord, RunRow, ScorecardRow, read_table};

/// What the ledger calls an experiment.
pub(super) fn name_of(dir: &ExperimentDir) -> String {
    dir.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Share of a run's steps that it trained itself.
fn own_share(run: &RunRow) -> f64 {
    if run.steps_done == 0 {
        return 1.0;
    }
    run.steps_done.saturating_sub(run.shared_steps) as f64 / run.steps_done as f64
}

/// Wall seconds and FLOPs of some runs; steps that were trained as part of another run cost there.
pub fn cost<'a>(runs: impl IntoIterator<Item = &'a RunRow>) -> (f64, f64) {
    let mut cost = (0.0, 0.0);
    for run in runs {
        let share = own_share(run);
        cost.0 += share * run.train_seconds + run.eval_seconds + run.checkpoint_seconds;
        cost.1 += share * run.flops_per_token * run.tokens as f64;
    }
    cost
}

/// The rows of an experiment: one an arm that was judged, else one.
///
/// # Errors
/// A plan or tables that are there and cannot be read; class `Input`.
pub(super) fn of_experiment(files: &Files, dir: &ExperimentDir, tries: &Tries) -> Result<Vec<LedgerRow>> {
    let plan = PlanRecord::read(files, dir)?;
    let table = |name: &str| dir.file(name);
    let runs: Vec<RunRow> =
        if table("runs.parquet").is_file() { read_table(files, &table("runs.parquet"))? } else { Vec::new() };
    let card: Vec<ScorecardRow> = if table("scorecard.parquet").is_file() {
        read_table(files, &table("scorecard.parquet"))?
    } else {
        Vec::new()
    };
    let listed = |each: &dyn Fn(&RunRow) -> String| {
        let mut seen = Vec::new();
        for value in runs.iter().filter(|run| run.status != "retired").map(each) {
            if !value.is_empty() && !seen.contains(&value) {
                seen.push(value);
            }
        }
        seen.join(", ")
    };
    let times = |each: fn(&RunRow) -> &String| -> BTreeSet<&String> {
        runs.iter().map(each).filter(|time| !time.is_empty()).collect()
    };
    let planned = || runs.iter().filter(|run| run.status != "retired");
    let is_finished = |run: &&RunRow| run.status == "finished";
    let has_ended = |run: &RunRow| matches!(run.status.as_str(), "finished" | "diverged" | "not needed");
    let all = plan.runs.len().max(planned().count());
    let (seconds, flops) = cost(planned());
    let base = LedgerRow {
        experiment: name_of(dir),
        name: plan.name,
        question: plan.question,
        hypothesis: plan.hypothesis,
        varied: Some(plan.varied.join(", ")).filter(|varied| !varied.is_empty()),
        status: if planned().filter(|run| has_ended(run)).count() == all { "finished" } else { "unfinished" }
            .to_owned(),
        arms: listed(&|run| run.arm.clone()),
        runs: all as u64,
        finished_runs: planned().filter(is_finished).count() as u64,
        commits: listed(&|run| run.commit.get(..7).unwrap_or(&run.commit).to_owned()),
        backends: listed(&|run| match run.backend.as_str() {
            "tch" => format!("tch {} {}", run.device, run.precision),
            backend => format!("{backend} {}", run.precision),
        }),
        seconds,
        flops,
        started: times(|run| &run.started).first().map(|time| (*time).clone()).unwrap_or_default(),
        finished: times(|run| &run.finished).last().map(|time| (*time).clone()).unwrap_or_default(),
        ..LedgerRow::default()
    };
    let of_arm = |row: &LedgerRow, arm: &str| {
        let (arm_seconds, arm_flops) = cost(planned().filter(|run| run.arm == arm));
        LedgerRow { arm: arm.to_owned(), arm_seconds, arm_flops, ..row.clone() }
    };
    let mut rows: Vec<LedgerRow> = card
        .iter()
        .filter(|row| !matches!(row.verdict.as_str(), "speed" | "reproducibility" | "look"))
        .map(|verdict| LedgerRow {
            control: verdict.control.clone(),
            metric: verdict.metric.clone(),
            outcome: verdict.outcome.clone(),
            finding: verdict.finding.clone(),
            effect: verdict.difference,
            lower: verdict.lower,
            upper: verdict.upper,
            confidence: verdict.confidence,
            margin: verdict.limit,
            seeds: verdict.pairs,
            detail: verdict.detail.clone(),
            ..of_arm(&base, &verdict.arm)
        })
        .collect();
    rows.extend(tries.judged_in(&base.experiment).map(|judged: &Judged| {
        let mut row = LedgerRow {
            control: Some(judged.control_name.clone()),
            metric: judged.metric.clone(),
            outcome: judged.outcome.clone(),
            finding: judged.finding.clone(),
            effect: judged.difference,
            lower: judged.lower,
            upper: judged.upper,
            confidence: Some(judged.confidence),
            margin: judged.margin,
            seeds: judged.pairs,
            try_number: Some(judged.number),
            detail: judged.detail.clone(),
            ..of_arm(&base, &judged.arm)
        };
        if row.arm.is_empty() {
            row.arm = row.varied.clone().unwrap_or_default();
        }
        row
    }));
    if rows.is_empty() {
        rows.push(base);
    }
    Ok(rows)
}
