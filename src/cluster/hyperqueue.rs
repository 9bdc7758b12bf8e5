//! HyperQueue: many small runs inside allocations that its own workers hold.

use std::fmt::Write as _;

use serde::Deserialize;

use super::call::{call, is_at_hand};
use super::jobs::{Job, Live};
use super::submission::{Submission, SubmissionDir};
use crate::error::{Error, Result};
use crate::experiment::quoted;
use crate::hash::Digest;

const START: &str = include_str!("scripts/hyperqueue_start.sh");
const WORK: &str = include_str!("scripts/hyperqueue_work.sh");
const REPORT: &str = include_str!("scripts/hyperqueue_report.sh");
/// Calls a script whose SHA-256 it is told.
const LOAD: &str = include_str!("scripts/hyperqueue_load.sh");

/// HyperQueue, as far as its program and its server are at hand.
#[derive(Debug, Clone, Copy)]
pub struct HyperQueue(());

// A value of it says that its programs are there.
#[allow(clippy::unused_self, reason = "only who has made sure of the programs may call them")]
impl HyperQueue {
    /// Makes sure of both.
    ///
    /// # Errors
    /// One is not here; class `Input`.
    pub fn at_hand() -> Result<Self> {
        if !is_at_hand("hq") {
            return Err(Error::input("there is no `hq` here")
                .expected("HyperQueue's program on the PATH")
                .help(
                    "install HyperQueue, or use --engine slurm; --dry-run prints what would be submitted",
                ));
        }
        let answer = call("hq", &["server", "info"])?;
        if answer.ok {
            return Ok(Self(()));
        }
        Err(Error::input(format!("no HyperQueue server answers: {}", answer.complaint()))
            .expected("a server that was started here")
            .help("start one with `hq server start`, and workers with `hq alloc add slurm` or `hq worker start`"))
    }

    /// Submits all units. Its arrays are not bounded, and its tasks wait for no others: a fork whose trunk is not there
    /// yet waits by itself.
    ///
    /// # Errors
    /// What it says against it.
    pub fn submit(self, submission: &Submission, dir: &SubmissionDir) -> Result<Job> {
        let answer = call("hq", &arguments(submission, dir))?;
        let id = answer.out.trim();
        if answer.ok && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Job { id: id.to_owned(), first: Some(0) });
        }
        Err(Error::input(format!("hq refused: {}", answer.complaint())))
    }

    /// Which tasks of these jobs still wait or run.
    ///
    /// # Errors
    /// A server that does not answer.
    pub fn live(self, ids: &[String]) -> Result<Vec<Live>> {
        let mut found = Vec::new();
        for id in ids {
            let answer = call("hq", &["--output-mode=json", "job", "info", id])?;
            // One that was forgotten has ended.
            if answer.ok {
                found.extend(live(id, &answer.out)?);
            }
        }
        Ok(found)
    }

    /// Cancels these jobs.
    ///
    /// # Errors
    /// What it says against it.
    pub fn cancel(self, ids: &[String]) -> Result<()> {
        let answer = call("hq", &["job", "cancel", &ids.join(",")])?;
        if answer.ok { Ok(()) } else { Err(Error::input(format!("hq refused: {}", answer.complaint()))) }
    }
}

/// The script of a task. `report` is the SHA-256 of the other one.
pub fn job_script(
    submission: &Submission,
    dir: &SubmissionDir,
    threads_are_written: bool,
    report: &Digest,
) -> String {
    let mut script = head(submission, dir);
    // A task has one CPU where nobody asks for more.
    let threads = format!("--threads {}", submission.cluster.cpus.unwrap_or(1));
    let _ = writeln!(script, "options=({})", if threads_are_written { "" } else { &threads });
    let asks: Vec<String> = asks(submission, dir).iter().map(|word| quoted(word)).collect();
    let _ = writeln!(script, "asks=({})", asks.join(" "));
    let _ = writeln!(script, "units={}", submission.units.len());
    let _ = writeln!(script, "report={report}");
    script.push_str(super::NOTE_JOB);
    script.push_str(START);
    script.push_str(&super::freeze::setup(&submission.cluster));
    script.push_str(WORK);
    script
}

/// The script of the job that reports.
pub fn report_script(submission: &Submission, dir: &SubmissionDir) -> String {
    let mut script = head(submission, dir);
    script.push_str(&super::freeze::setup(&submission.cluster));
    script.push_str(REPORT);
    script
}

/// What both scripts know.
fn head(submission: &Submission, dir: &SubmissionDir) -> String {
    let path = |path: &std::path::Path| quoted(&path.display().to_string());
    format!(
        "#!/bin/bash\n# Frozen by nanorun {} at {}. Do not edit it: nobody runs what is not what was submitted.\nsubmission={}\n\
         results={}\nnanorun={}\nname={}\nlogs={}\n",
        submission.nanorun,
        submission.created,
        path(dir.path()),
        path(&submission.results),
        path(&submission.binary.path),
        quoted(&name(submission)),
        path(&dir.file("logs")),
    )
}

fn name(submission: &Submission) -> String {
    let name = submission.results.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    format!("nanorun-{name}")
}

/// How it is submitted, in words of a shell.
pub fn command(submission: &Submission, dir: &SubmissionDir) -> String {
    let words: Vec<String> = arguments(submission, dir).iter().map(|word| quoted(word)).collect();
    format!("hq {}", words.join(" "))
}

fn arguments(submission: &Submission, dir: &SubmissionDir) -> Vec<String> {
    let mut arguments = vec![
        "--output-mode=quiet".to_owned(),
        "submit".to_owned(),
        format!("--array=0-{}", submission.units.len().saturating_sub(1)),
        format!("--cwd={}", submission.directory.display()),
    ];
    arguments.extend(asks(submission, dir));
    // HyperQueue keeps the words of a command, not what is in a file. So what it keeps is how the file is made sure of.
    arguments.extend(["--", "bash", "-c", LOAD, "nanorun"].map(str::to_owned));
    arguments.push(dir.file("job.sh").display().to_string());
    arguments.push(submission.script.to_string());
    arguments
}

/// What a task asks for, the first time and every other.
fn asks(submission: &Submission, dir: &SubmissionDir) -> Vec<String> {
    let cluster = &submission.cluster;
    let log = dir.file("logs").join("%{JOB_ID}_%{TASK_ID}.%{INSTANCE_ID}.log").display().to_string();
    let mut asks = vec![
        format!("--name={}", name(submission)),
        format!("--stdout={log}"),
        format!("--stderr={log}.err"),
    ];
    asks.extend(cluster.cpus.map(|cpus| format!("--cpus={cpus}")));
    asks.extend(cluster.gpus.filter(|gpus| *gpus > 0).map(|gpus| format!("--resource=gpus/nvidia={gpus}")));
    asks
}

/// The tasks in what `hq --output-mode=json job info` prints that have not ended.
fn live(id: &str, json: &str) -> Result<Vec<Live>> {
    #[derive(Deserialize)]
    struct Shown {
        tasks: Vec<Task>,
    }
    #[derive(Deserialize)]
    struct Task {
        id: usize,
        state: String,
    }
    // One job, or a list of them.
    let shown = serde_json::from_str::<Vec<Shown>>(json)
        .or_else(|_| serde_json::from_str(json).map(|shown| vec![shown]))
        .map_err(|error| Error::input("what hq shows of a job cannot be read").because(error))?;
    let tasks = shown.into_iter().flat_map(|shown| shown.tasks);
    let open = tasks.filter(|task| matches!(task.state.as_str(), "waiting" | "running"));
    Ok(open.map(|task| Live { id: id.to_owned(), index: Some(task.id), state: task.state }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_have_not_ended() {
        let json = r#"{ "info": { "id": 3 }, "tasks": [
            { "id": 0, "state": "finished" }, { "id": 1, "state": "running" }, { "id": 7, "state": "waiting" } ] }"#;
        let of =
            |index, state: &str| Live { id: "3".to_owned(), index: Some(index), state: state.to_owned() };
        assert_eq!(live("3", json).unwrap(), [of(1, "running"), of(7, "waiting")]);
        assert_eq!(live("3", &format!("[{json}]")).unwrap().len(), 2);
        assert!(live("3", "error").is_err());
    }
}
