//! An experiment on a cluster: what one job does, what is frozen when jobs are submitted, the scripts that schedulers run, and
//! how all of it stands.
//!
//! Nothing here schedules: a scheduler does, and calls workers. What a job is to do is frozen as a submission
//! (`submission`), so that neither an edited manifest nor a new binary changes what the third job of an array is.

mod allocation;
mod call;
mod freeze;
mod hyperqueue;
mod jobs;
mod share;
mod slurm;
mod status;
mod submission;
mod units;
mod verify;

pub use allocation::Allocation;
pub use freeze::{Draft, freeze};
pub use hyperqueue::HyperQueue;
pub use jobs::{Job, Jobs, Live, still_there};
pub use share::{Share, divide};
pub use slurm::{Slurm, USUAL_ARRAY};
pub use status::{Overview, RunView, UnitState, UnitView};
pub use submission::{Engine, FrozenUnit, SubmissionDir};
pub use units::{Batch, Unit, batches};
pub use verify::Work;

/// How a job's script notes a job that it submits.
const NOTE_JOB: &str = include_str!("scripts/note_job.sh");

/// How a draft would be submitted, in words of a shell: the arrays, then the report. What is not known before is said in
/// place of it.
pub fn commands(draft: &Draft, batches: &[Batch]) -> Vec<String> {
    let Draft { submission, dir, .. } = draft;
    match submission.engine {
        Engine::Hyperqueue => vec![hyperqueue::command(submission, dir)],
        Engine::Slurm => {
            let name = |at: usize| format!("JOB{at}");
            let mut words: Vec<String> = batches
                .iter()
                .map(|batch| {
                    let job = |after: &usize| {
                        let at = batches.iter().position(|one| one.has(*after))?;
                        Some(format!("{}_{}", name(at), after - batches.get(at)?.first))
                    };
                    let after: Vec<String> = batch.after.iter().filter_map(job).collect();
                    slurm::array_command(submission, dir, batch, &after)
                })
                .collect();
            let ids: Vec<String> = (0..batches.len()).map(name).collect();
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            words.push(slurm::report_command(submission, dir, &ids));
            words
        }
    }
}
