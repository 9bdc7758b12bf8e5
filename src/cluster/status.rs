//! How an experiment stands, by what is on disk of it alone: no scheduler is asked, which would have to answer everybody.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::submission::{Submission, SubmissionDir};
use crate::error::Result;
use crate::experiment::{Classes, RunEnd, quoted};
use crate::files::{FileError, Files};
use crate::hash::Digest;
use crate::host::Life;
use crate::lease::{Worker, at_work, worked_by};
use crate::record::{ExperimentDir, PlanRecord, RunDir};
use crate::survey::end_of;

/// How a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitState {
    /// All of its runs have ended.
    Done,
    /// Somebody trains one of its runs, or is about to.
    Running,
    /// No job of it has started yet.
    Waiting,
    /// It was saved and waits for another start.
    Queued,
    /// It was saved, and nobody starts it again.
    Stopped,
    /// Its last job failed.
    Failed,
    /// Somebody cancelled it before it was done.
    Cancelled,
}

impl UnitState {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Queued => "queued again",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Who trains a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The host.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Since when, UTC.
    pub since: String,
}

/// How a run stands.
#[derive(Debug, Clone, Serialize)]
pub struct RunView {
    /// Its key.
    pub key: Digest,
    /// What people call it.
    pub label: String,
    /// `finished`, `diverged`, `running`, `interrupted`, `failed`, `damaged` or `planned`.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Steps that are on disk.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The environment class it was finished in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Who trains it.
    pub owner: Option<Owner>,
}

/// How a unit stands.
#[derive(Debug, Clone, Serialize)]
pub struct UnitView {
    /// Its submission's name.
    pub submission: String,
    /// Its number there.
    pub unit: usize,
    /// Its part of a tree.
    pub kind: &'static str,
    /// How it stands.
    pub state: UnitState,
    /// Its last job, and where that ran.
    pub job: Option<String>,
    /// The node of that.
    pub node: Option<String>,
    /// Since when it stands so, UTC.
    pub since: Option<String>,
    /// How often a job of it started.
    pub starts: usize,
    /// The unit that it waits for.
    pub after: Option<usize>,
    /// Its runs.
    pub runs: Vec<RunView>,
}

/// How an experiment stands.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Version of this form.
    pub format: u32,
    /// Its results.
    pub directory: String,
    /// Of the newest submission of each run.
    pub units: Vec<UnitView>,
    /// Runs that no submission has.
    pub runs: Vec<RunView>,
    /// The environment classes of what is finished, and how many runs are of each.
    pub classes: BTreeMap<String, usize>,
    /// The class that the newest submission expects of its workers, by backend.
    pub expected_classes: Classes,
    /// What to do about what does not go on by itself.
    pub help: Vec<String>,
}

impl Overview {
    /// Reads it.
    ///
    /// # Errors
    /// Submissions or a plan that cannot be read.
    pub fn read(files: &Files, dir: &ExperimentDir) -> Result<Self> {
        let reading = |error| FileError::new("read the workers of", dir.path(), error);
        let workers = at_work(dir.path()).map_err(reading)?;
        let mut units: Vec<UnitView> = Vec::new();
        let mut taken: BTreeSet<Digest> = BTreeSet::new();
        let mut newest: Option<Submission> = None;
        for place in SubmissionDir::all(dir)?.into_iter().rev() {
            let submission = place.read(files)?;
            let mut of_this: Vec<UnitView> = Vec::new();
            for (number, unit) in submission.units.iter().enumerate() {
                let runs: Vec<_> = unit.runs.iter().filter(|run| !taken.contains(&run.key)).collect();
                if runs.is_empty() {
                    continue;
                }
                let runs: Vec<RunView> = runs
                    .into_iter()
                    .map(|run| {
                        view(files, dir, &workers, &run.key, &run.label, run.steps, Some(&run.evaluation))
                    })
                    .collect();
                let events = place.events(number);
                let last = Last::of(&events);
                of_this.push(UnitView {
                    submission: place.name(),
                    unit: number,
                    kind: unit.kind.word(),
                    state: state(&runs, &last, place.is_cancelled()),
                    starts: events.iter().filter(|line| line.contains(" start ")).count(),
                    job: last.job,
                    node: last.node,
                    since: last.at,
                    after: unit.after,
                    runs,
                });
            }
            taken.extend(of_this.iter().flat_map(|unit| &unit.runs).map(|run| run.key));
            // The newest first, its units in their order.
            units.extend(of_this);
            newest.get_or_insert(submission);
        }
        let plan = if dir.file("plan.toml").is_file() { Some(PlanRecord::read(files, dir)?) } else { None };
        let planned = plan.into_iter().flat_map(|plan| plan.runs);
        let runs: Vec<RunView> = planned
            .filter(|run| !taken.contains(&run.key))
            .map(|run| {
                let label = format!("{} seed={}", run.arm, run.seed);
                view(files, dir, &workers, &run.key, &label, run.steps, run.evaluation.as_ref())
            })
            .collect();
        let help = help(dir, newest.as_ref(), &units, &runs);
        let mut classes: BTreeMap<String, usize> = BTreeMap::new();
        for class in
            units.iter().flat_map(|unit| &unit.runs).chain(&runs).filter_map(|run| run.class.as_ref())
        {
            *classes.entry(class.clone()).or_default() += 1;
        }
        let expected_classes = newest.map(|newest| newest.classes).unwrap_or_default();
        let directory = dir.path().display().to_string();
        Ok(Self { format: 1, directory, units, runs, classes, expected_classes, help })
    }

    /// How many units stand how, in words.
    pub fn counts(&self) -> String {
        let mut counts: BTreeMap<UnitState, usize> = BTreeMap::new();
        for unit in &self.units {
            *counts.entry(unit.state).or_default() += 1;
        }
        let words: Vec<String> =
            counts.into_iter().map(|(state, count)| format!("{count} {}", state.word())).collect();
        words.join(", ")
    }

    /// All runs.
    pub fn all_runs(&self) -> impl Iterator<Item = &RunView> {
        self.units.iter().flat_map(|unit| &unit.runs).chain(&self.runs)
    }
}

fn view(
    files: &Files,
    dir: &ExperimentDir,
    workers: &[Worker],
    key: &Digest,
    label: &str,
    steps: u64,
    evaluation: Option<&Digest>,
) -> RunView {
    let place = dir.run(key);
    let owner = owner(&place, workers);
    let (status, reason, step, class) = match end_of(files, &place, key, evaluation) {
        RunEnd::Finished(result) => ("finished", None, steps, Some(result.environment_class.clone())),
        RunEnd::Diverged(divergence) => ("diverged", Some(divergence.what()), divergence.step, None),
        RunEnd::Open(status, reason, step) => (status, reason, step, None),
    };
    RunView {
        key: *key,
        label: label.to_owned(),
        status: status.to_owned(),
        reason,
        step,
        steps,
        class,
        owner,
    }
}

/// Who has the lease of a run and lives, as far as can be told: of elsewhere, by its beats.
fn owner(run: &RunDir, workers: &[Worker]) -> Option<Owner> {
    let holder = worked_by(&run.lease())?;
    let is_at_work = || workers.iter().any(|worker| worker.holder.process == holder.process);
    if holder.life() != Life::Alive && !is_at_work() {
        return None;
    }
    Some(Owner { host: holder.host, pid: holder.pid, since: holder.since })
}

/// What the last lines of a unit's events say.
#[derive(Debug, Default, PartialEq)]
struct Last {
    event: String,
    at: Option<String>,
    job: Option<String>,
    node: Option<String>,
}

impl Last {
    fn of(events: &[String]) -> Self {
        let mut last = Self::default();
        for line in events {
            let words: Vec<&str> = line.split(' ').collect();
            let &[at, event, ..] = words.as_slice() else { continue };
            let after = |word: &str| {
                words.windows(2).find(|pair| pair.first() == Some(&word)).and_then(|pair| pair.get(1))
            };
            event.clone_into(&mut last.event);
            last.at = Some(at.to_owned());
            if let Some(job) = after("job") {
                last.job = Some((*job).to_owned());
            }
            if let Some(node) = after("on") {
                last.node = Some((*node).to_owned());
            }
        }
        last
    }
}

fn state(runs: &[RunView], last: &Last, cancelled: bool) -> UnitState {
    let has_ended = |run: &RunView| matches!(run.status.as_str(), "finished" | "diverged" | "damaged");
    if runs.iter().all(|run| run.status == "finished") {
        return UnitState::Done;
    }
    if runs.iter().any(|run| run.owner.is_some() && !has_ended(run)) {
        return UnitState::Running;
    }
    if runs.iter().all(has_ended) {
        return UnitState::Failed;
    }
    if cancelled {
        return UnitState::Cancelled;
    }
    match last.event.as_str() {
        "" => UnitState::Waiting,
        "start" | "final" => UnitState::Running,
        "requeue" | "retry" => UnitState::Queued,
        "saved" | "stopped" | "done" => UnitState::Stopped,
        _ => UnitState::Failed,
    }
}

/// What does not go on by itself, with the commands that mend it.
fn help(
    dir: &ExperimentDir,
    newest: Option<&Submission>,
    units: &[UnitView],
    runs: &[RunView],
) -> Vec<String> {
    let mut help = Vec::new();
    let place = quoted(&dir.path().display().to_string());
    let of_state = |states: &[UnitState]| units.iter().any(|unit| states.contains(&unit.state));
    let ended_badly: Vec<&RunView> = units
        .iter()
        .flat_map(|unit| &unit.runs)
        .chain(runs)
        .filter(|run| matches!(run.status.as_str(), "diverged" | "damaged"))
        .collect();
    let goes_on = units
        .iter()
        .any(|unit| matches!(unit.state, UnitState::Running | UnitState::Waiting | UnitState::Queued));
    let open = units.iter().any(|unit| {
        matches!(unit.state, UnitState::Stopped | UnitState::Failed | UnitState::Cancelled)
            && unit.runs.iter().any(|run| !matches!(run.status.as_str(), "finished" | "diverged" | "damaged"))
    });
    if let Some(submission) = newest.filter(|_| open) {
        let first = if goes_on { "once the other jobs have ended, " } else { "" };
        let what =
            if of_state(&[UnitState::Failed]) { "what failed or was stopped" } else { "what was stopped" };
        help.push(format!("{what}: {first}submit it again: {}", submission.command()));
    }
    if let Some(run) = ended_badly.first() {
        let experiment = dir.path().file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        help.push(format!(
            "{} stays as it is: `nanorun show {}` tells why, and running its manifest with --rerun trains it once more",
            run.label,
            quoted(&format!("{experiment}/{}", run.key.short()))
        ));
    }
    if goes_on {
        help.push(format!("to end all of it: nanorun cancel {place}"));
    } else if newest.is_some() && !open {
        help.push(format!("all jobs have ended: nanorun report {place}"));
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(status: &str, owned: bool) -> RunView {
        RunView {
            key: Digest::of(status.as_bytes()),
            label: "a seed=1".to_owned(),
            status: status.to_owned(),
            reason: None,
            step: 3,
            steps: 10,
            class: None,
            owner: owned.then(|| Owner { host: "n1".to_owned(), pid: 7, since: String::new() }),
        }
    }

    #[test]
    fn events_say_how_a_unit_stands() {
        let of = |lines: &[&str], runs: &[RunView], cancelled| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            state(runs, &Last::of(&lines), cancelled)
        };
        let start = "2026-01-31T00:00:00Z start job 12_3 on n1 restart 0";
        let open = || vec![run("finished", false), run("interrupted", false)];
        assert_eq!(of(&[], &open(), false), UnitState::Waiting);
        assert_eq!(of(&[], &open(), true), UnitState::Cancelled);
        assert_eq!(of(&[start], &open(), false), UnitState::Running);
        assert_eq!(
            of(&[start, "t requeue job 12_3 because of the time limit"], &open(), false),
            UnitState::Queued
        );
        assert_eq!(of(&[start, "t saved job 12_3 on n1"], &open(), false), UnitState::Stopped);
        assert_eq!(of(&[start, "t failed job 12_3 on n1"], &open(), false), UnitState::Failed);
        assert_eq!(of(&["torn"], &open(), false), UnitState::Waiting);
        // What is on disk says more than what jobs wrote.
        assert_eq!(
            of(&[start, "t failed job 12_3 on n1"], &[run("running", true)], true),
            UnitState::Running
        );
        assert_eq!(of(&[start], &[run("finished", false)], true), UnitState::Done);
        assert_eq!(of(&[start], &[run("finished", false), run("diverged", false)], false), UnitState::Failed);
        let last = Last::of(&[start.to_owned(), "t requeue job 12_3 because of the time limit".to_owned()]);
        assert_eq!(
            (last.job.as_deref(), last.node.as_deref(), last.at.as_deref()),
            (Some("12_3"), Some("n1"), Some("t"))
        );
    }
}
