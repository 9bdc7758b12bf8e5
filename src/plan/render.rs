//! The plan as a person reads it, and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::time::{RunTime, Speed};
use super::{Plan, PlannedRun, details};
use crate::text::{Table, shortened};

/// Columns that the table has for an arm's label.
const ROOM: usize = 40;

/// Whether a run is going to be trained, and why or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RunStatus {
    /// There is no result: it will be trained.
    ToDo,
    /// It was interrupted and carries on.
    Resumes {
        /// From this step.
        step: u64,
    },
    /// It failed; the next start tries again.
    Failed {
        /// After this many steps.
        at: u64,
        /// Why.
        reason: String,
        /// From this step, where there is a checkpoint.
        from: u64,
    },
    /// Its numbers were no longer finite; it stays as it is until somebody asks for another attempt.
    Diverged {
        /// After this many steps.
        at: u64,
        /// What.
        reason: String,
    },
    /// Its result cannot be read.
    Damaged {
        /// Why.
        reason: String,
    },
    /// Its result is there.
    Done,
    /// It cannot be trained yet.
    Blocked {
        /// What is missing, and how to get it.
        missing: String,
    },
    /// Other results have it finished, and the next start takes it over.
    TakenOver {
        /// The attempt there.
        from: String,
    },
    /// It is trained once the look before its seed has left something undecided.
    WaitsForLook {
        /// After this many seeds.
        seeds: u64,
    },
    /// A look decided before it was trained.
    NotNeeded {
        /// After this many seeds.
        seeds: u64,
    },
    /// The command is not about it.
    NotSelected {
        /// What there is of it, in words.
        stands: String,
    },
}

impl RunStatus {
    /// Whether the next start trains it, or would if it could.
    pub fn is_pending(&self) -> bool {
        !matches!(
            self,
            Self::Done
                | Self::TakenOver { .. }
                | Self::Diverged { .. }
                | Self::Damaged { .. }
                | Self::NotNeeded { .. }
                | Self::NotSelected { .. }
        )
    }

    /// That of a run that the command is not about.
    #[must_use]
    pub fn not_selected(of: &Self) -> Self {
        let stands = of.text();
        Self::NotSelected { stands: stands.split([':', ';']).next().unwrap_or_default().to_owned() }
    }

    fn text(&self) -> String {
        match self {
            Self::ToDo => "to do: no result yet".to_owned(),
            Self::Resumes { step } => format!("resumes at step {step}"),
            Self::Failed { at, reason, from } => {
                format!("failed at step {at}: {reason}; starts again from step {from}")
            }
            Self::Diverged { at, reason } => {
                format!("diverged at step {at}: {reason}; --rerun trains it again")
            }
            Self::Damaged { reason } => format!("damaged: {reason}; --rerun trains it again"),
            Self::Done => "done: its result is there".to_owned(),
            Self::Blocked { missing } => format!("blocked: {missing}"),
            Self::TakenOver { from } => format!("taken over from {from}"),
            Self::WaitsForLook { seeds } => format!("waits for the look after {seeds} seeds"),
            Self::NotNeeded { seeds } => format!("not needed: decided after {seeds} seeds"),
            Self::NotSelected { stands } => format!("not selected ({stands})"),
        }
    }
}

/// A plan with what only the caller knows.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// One a run; a run beyond the end is to do.
    pub statuses: &'a [RunStatus],
    /// For the estimate of time.
    pub speed: Option<&'a Speed>,
}

#[derive(Serialize)]
struct JsonRun<'a> {
    #[serde(flatten)]
    run: &'a PlannedRun,
    #[serde(flatten)]
    status: RunStatus,
    seconds: Option<f64>,
    time: Option<RunTime>,
}

#[derive(Serialize)]
struct JsonPlan<'a> {
    name: &'a str,
    question: Option<&'a str>,
    manifest: String,
    results_name: &'a str,
    threads: Option<usize>,
    arms: &'a [super::Arm],
    runs: Vec<JsonRun<'a>>,
    prefixes: &'a super::PrefixForest,
    looks: Option<&'a super::looks::Looks>,
    warnings: &'a [String],
    total: Totals,
    speed: Option<&'a Speed>,
}

#[derive(Serialize)]
struct Totals {
    tokens: u64,
    flops: f64,
    seconds: Option<f64>,
    time: Option<RunTime>,
}

impl View<'_> {
    fn status(&self, index: usize) -> RunStatus {
        self.statuses.get(index).cloned().unwrap_or(RunStatus::ToDo)
    }

    fn time(&self, run: &PlannedRun) -> Option<RunTime> {
        self.speed.map(|speed| speed.time(run))
    }

    /// The time of what is still to do, shared steps and their evaluations once: each root's share of its runs' time.
    fn time_to_do(&self) -> Option<RunTime> {
        let speed = self.speed?;
        let runs = &self.plan.runs;
        let mut sum = RunTime { training: 0.0, evaluations: 0.0, checkpoints: 0.0 };
        for root in &self.plan.prefixes.roots {
            let apart: f64 =
                root.runs.iter().filter_map(|&run| runs.get(run)).map(|run| run.sizes.steps as f64).sum();
            let share = root.steps() as f64 / apart.max(1.0);
            let open = root.runs.iter().filter(|&&run| {
                !matches!(
                    self.status(run),
                    RunStatus::Done
                        | RunStatus::TakenOver { .. }
                        | RunStatus::NotNeeded { .. }
                        | RunStatus::NotSelected { .. }
                )
            });
            for time in open.filter_map(|&run| runs.get(run)).map(|run| speed.time(run)) {
                sum.training += share * time.training;
                sum.evaluations += share * time.evaluations;
                sum.checkpoints += share * time.checkpoints;
            }
        }
        Some(sum)
    }

    /// The whole plan for machines.
    pub fn json(&self) -> serde_json::Value {
        let plan = self.plan;
        let runs = plan.runs.iter().enumerate().map(|(index, run)| JsonRun {
            run,
            status: self.status(index),
            seconds: self.time(run).map(RunTime::total),
            time: self.time(run),
        });
        let json = JsonPlan {
            name: &plan.name,
            question: plan.question.as_deref(),
            manifest: plan.manifest.display().to_string(),
            results_name: &plan.results_name,
            threads: plan.threads,
            arms: &plan.arms,
            runs: runs.collect(),
            prefixes: &plan.prefixes,
            looks: plan.looks.as_ref(),
            warnings: &plan.warnings,
            total: Totals {
                tokens: plan.runs.iter().map(|run| run.sizes.tokens).sum(),
                flops: plan.runs.iter().map(|run| run.sizes.flops).sum(),
                seconds: self.time_to_do().map(RunTime::total),
                time: self.time_to_do(),
            },
            speed: self.speed,
        };
        serde_json::to_value(json).unwrap_or_default()
    }

    /// The plan for a person.
    pub fn human(&self) -> String {
        let plan = self.plan;
        let mut text = format!("{}\n", plan.results_name);
        if let Some(question) = &plan.question {
            let _ = writeln!(text, "{question}");
        }
        text.push('\n');
        let mut table = Table::new([
            ">run", "arm", ">seed", ">params", ">tokens", ">steps", ">FLOPs", ">time", "key", "state",
        ]);
        for (index, run) in plan.runs.iter().enumerate() {
            let arm = plan.arms.get(run.arm).map_or("", |arm| &arm.label);
            let time = self.time(run).map_or_else(|| "?".to_owned(), |time| duration(time.total()));
            let key = if run.key.pending { "pending".to_owned() } else { run.key.short() };
            table.push(vec![
                (index + 1).to_string(),
                shortened(arm, ROOM).into_owned(),
                run.config.seed.to_string(),
                quantity(run.sizes.params.total as f64),
                quantity(run.sizes.tokens as f64),
                run.sizes.steps.to_string(),
                format!("{:.2e}", run.sizes.flops),
                time,
                key,
                self.status(index).text(),
            ]);
        }
        let _ = writeln!(text, "{table}");
        for arm in plan.arms.iter().filter(|arm| shortened(&arm.label, ROOM) != arm.label) {
            let _ = writeln!(text, "arm {} is {}", shortened(&arm.label, ROOM), arm.label);
        }
        let controls: Vec<&str> = plan
            .arms
            .iter()
            .filter_map(|arm| arm.control)
            .filter_map(|c| plan.arms.get(c))
            .map(|a| &*a.label)
            .collect();
        if let Some(first) = controls.first() {
            let all_same = controls.iter().all(|control| control == first);
            let names = if all_same { (*first).to_owned() } else { "one for each other axis".to_owned() };
            let _ = writeln!(text, "control: {names}");
        }
        let _ = writeln!(text, "work: {} (shared first steps are trained once)", plan.prefixes.saving());
        match self.speed.zip(self.time_to_do()) {
            Some((speed, time)) => {
                let _ = writeln!(
                    text,
                    "time: {}, of which evaluations {} and checkpoints {}; {} FLOP/s ({})",
                    duration(time.total()),
                    duration(time.evaluations),
                    duration(time.checkpoints),
                    quantity(speed.flops_per_second),
                    speed.source
                );
            }
            None => text.push_str("time: unknown until a run was measured here\n"),
        }
        if plan.runs.iter().any(|run| run.key.pending) {
            text.push_str("keys: pending until the data are here\n");
        }
        self.distinct(&mut text, "sizes", details::sizes);
        self.distinct(&mut text, "schedule", details::schedule);
        self.distinct(&mut text, "rates", details::rates);
        self.distinct(&mut text, "Muon", details::muon);
        self.distinct(&mut text, "data", |run| run.data.map_or_else(String::new, |data| data.line()));
        for warning in &plan.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        text
    }

    /// One line for each distinct text that `of` gives.
    fn distinct(&self, text: &mut String, title: &str, of: fn(&PlannedRun) -> String) {
        let mut seen: Vec<String> = Vec::new();
        for run in &self.plan.runs {
            let line = of(run);
            if !line.is_empty() && !seen.contains(&line) {
                let title = if seen.is_empty() { format!("{title}: ") } else { " ".repeat(title.len() + 2) };
                let _ = writeln!(text, "{title}{line}");
                seen.push(line);
            }
        }
    }
}

/// `110.1M`.
fn quantity(value: f64) -> String {
    for (limit, unit) in [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= limit {
            return format!("{:.1}{unit}", value / limit);
        }
    }
    format!("{value:.0}")
}

/// Seconds as `45 s`, `3 min 20 s`, `2 h 05 min` or `3 d 04 h`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round().clamp(0.0, 1e15) as u64;
    match whole {
        0 => "< 1 s".to_owned(),
        1..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {:02} h", whole / 86_400, whole / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_read_well() {
        let shown = [0.2, 59.4, 200.0, 3_725.0, 200_000.0, f64::NAN].map(duration);
        assert_eq!(shown, ["< 1 s", "59 s", "3 min 20 s", "1 h 02 min", "2 d 07 h", "< 1 s"]);
    }
}
