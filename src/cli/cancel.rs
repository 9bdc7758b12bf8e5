//! `nanorun cancel`: end what was submitted, for good.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cluster::{Jobs, SubmissionDir};
use crate::error::{Class, Error, Result};
use crate::experiment::quoted;
use crate::files::{Files, utc_now};

use super::args::Common;
use super::output::Output;
use super::submit::{Scheduler, results_dir};

/// `nanorun cancel`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct CancelArgs {
    /// A manifest, or a results directory
    #[arg(value_name = "EXPERIMENT")]
    experiment: PathBuf,
    /// Common options
    #[command(flatten)]
    common: Common,
}

const HELP: &str = "\
Examples:
  nanorun cancel experiments/quickstart.toml         waiting and running jobs end, and none of them is queued again
  nanorun cancel results/quickstart --json

What runs is saved first, as far as the scheduler gives it time; `nanorun submit` goes on from there.";

/// Cancels every submission that has jobs.
pub(super) fn cancel(args: &CancelArgs) -> Result<Option<Class>> {
    let dir = results_dir(&args.experiment, &args.common)?;
    let files = Files::from_env()?;
    let mut open: Vec<(SubmissionDir, Scheduler)> = Vec::new();
    for submission in SubmissionDir::all(&dir)? {
        let scheduler = Scheduler::at_hand(submission.read(&files)?.engine)?;
        // One that was cancelled before may have jobs all the same: the scheduler may have been away then.
        if !submission.is_cancelled() || !scheduler.live(&Jobs::of(&submission).ids())?.is_empty() {
            open.push((submission, scheduler));
        }
    }
    if open.is_empty() {
        return Err(Error::input("nothing of this experiment is submitted that could be cancelled")
            .file(dir.path())
            .expected("an experiment that `nanorun submit` submitted"));
    }
    let mut ended: Vec<String> = Vec::new();
    let mut failed = None;
    for (submission, scheduler) in &open {
        // First: a job that is about to queue itself again looks for it.
        files.write(&submission.file("cancelled"), format!("{}\n", utc_now()).as_bytes())?;
        // A job may have tried elsewhere just before that.
        let ids = Jobs::of(submission).ids();
        let cancelled = if ids.is_empty() { Ok(()) } else { scheduler.cancel(&ids) };
        match cancelled {
            Ok(()) => ended.extend(ids),
            // The others are cancelled all the same.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let output = Output::new(args.common.quiet);
    if args.common.json {
        let submissions: Vec<String> = open.iter().map(|(submission, _)| submission.name()).collect();
        output.result(&json!({ "format": 1, "submissions": submissions, "jobs": ended }).to_string());
    } else {
        output.result(&format!("cancelled {}", ended.join(", ")));
        let place = quoted(&dir.path().display().to_string());
        output.note(&format!("what was trained so far stays: nanorun status {place}"));
    }
    Ok(None)
}
