//! How a run is had by one process of several: who takes it, who finds it ended, who leaves it to another.

use std::time::{Duration, SystemTime};

use super::carry_out::as_a_run;
use super::post::Post;
use super::{Experiment, HowToRun};
use crate::error::{Error, Result};
use crate::files::FileError;
use crate::host::host_name;
use crate::lease::{Claimed, Lease, Leases, left_at};
use crate::plan::PlannedRun;
use crate::record::{Event, Journal};
use crate::run::execute::Taken;
use crate::run::single::Outcome;
use crate::run::state::{Standing, Status, restore_table};
use crate::train::checkpoint::CheckpointStore;

/// How often a run may fail while others of the same start still try it: once more, and on another machine.
const FAILURES: usize = 2;

/// How often a lease is asked for again after an error, and how long after the first.
const CLAIMS: u32 = 3;
const CLAIM_PAUSE: Duration = Duration::from_millis(200);

/// How often a run failed, and on which host the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Failures {
    count: usize,
    last_host: Option<String>,
}

impl Experiment {
    /// Asks for a run.
    pub(super) fn take_run(&self, run: &PlannedRun, post: &Post, how: &HowToRun<'_>) -> Result<Taken> {
        if !how.rerun {
            let standing = self.standing(run)?;
            self.restore(run, &standing)?;
            if let Some(outcome) = ended(standing) {
                return Ok(Taken::Ended(outcome));
            }
        }
        let lease = match self.lease(run, &post.leases)? {
            Claimed::Mine(lease) => lease,
            Claimed::Theirs { holder, heard } => return Ok(Taken::Theirs { holder, heard }),
        };
        // Whoever had it before may have ended it between the look and the lease.
        let standing = self.standing(run)?;
        let start = standing.next_beside(how.rerun, lease.occupied());
        let Some(start) = start else {
            return match ended(standing) {
                Some(outcome) => Ok(Taken::Ended(outcome)),
                None => Err(Error::internal("a run has neither an end nor a start")),
            };
        };
        // What failed before this process began is tried again.
        let failures = self.failures_since(run, post.since())?;
        let elsewhere = failures.last_host.filter(|host| *host != host_name());
        if failures.count >= FAILURES || failures.count > 0 && elsewhere.is_none() {
            let (step, reason) = self.last_failure(run).unwrap_or_default();
            let error = Error::run(format!("it failed after step {step} in another process: {reason}")).help(
                "mend that and start again; a worker that is there already tries no run twice on one machine",
            );
            return Ok(Taken::Ended(Outcome::Failed(error)));
        }
        let dir = self.dir.run(&run.key.run);
        self.files.recover_beside_others(dir.path())?;
        let signing = |error| FileError::new("sign the lease in", &dir.lease(), error);
        lease.works_on(start.attempt.number()).map_err(signing)?;
        Ok(Taken::Start(start, lease))
    }

    /// Claims a run.
    pub(super) fn lease(&self, run: &PlannedRun, leases: &Leases) -> Result<Claimed> {
        let root = self.dir.run(&run.key.run).lease();
        // A file server that is away for a moment costs no run.
        let mut tries = 0;
        loop {
            match leases.claim(&root) {
                Ok(claimed) => return Ok(claimed),
                Err(_) if tries < CLAIMS => {
                    tries += 1;
                    std::thread::sleep(CLAIM_PAUSE * tries);
                }
                Err(error) => return Err(FileError::new("take the lease in", &root, error).into()),
            }
        }
    }

    /// Whether nobody works on a run, as far as can be told by now.
    pub(super) fn is_nobodys(&self, run: &PlannedRun, leases: &Leases) -> bool {
        leases.is_free(&self.dir.run(&run.key.run).lease()).unwrap_or(false)
    }

    /// How a run ended that another process trains; none while it has not.
    pub(super) fn look_at(&self, run: &PlannedRun) -> Result<Option<Outcome>> {
        self.standing(run).map(ended)
    }

    /// Whether some attempt at a run has a checkpoint of this step.
    pub(super) fn has_step(&self, run: &PlannedRun, step: u64) -> bool {
        let attempts = self.dir.run(&run.key.run).attempts().unwrap_or_default();
        attempts.into_iter().any(|attempt| {
            let store = CheckpointStore::new(self.files.clone(), attempt.checkpoints());
            store.steps().is_ok_and(|steps| steps.contains(&step))
        })
    }

    /// How often the last attempt at a run failed since then. When a process failed its lease tells: it let go of it then,
    /// by the clock of the file server, as `since` is. Where it does not, that is long ago.
    fn failures_since(&self, run: &PlannedRun, since: Option<SystemTime>) -> Result<Failures> {
        let dir = self.dir.run(&run.key.run);
        let Some(attempt) = dir.attempts()?.pop() else { return Ok(Failures::default()) };
        let is_since = |generation: Option<u64>| {
            let left = generation.and_then(|generation| left_at(&dir.lease(), generation));
            left.zip(since).is_some_and(|(left, since)| left >= since)
        };
        let mut failures = Failures::default();
        let (mut host, mut generation) = (None, None);
        for entry in Journal::new(self.files.clone(), attempt.journal()).read()?.entries {
            let (by, conditions) = match entry.event {
                Event::Started { host, conditions, .. }
                | Event::TakenUp { host, conditions, .. }
                | Event::Resumed { host, conditions, .. } => (Some(host), conditions),
                Event::Forked { host, conditions, .. } => (host, conditions),
                Event::Failed { .. } => {
                    if is_since(generation) {
                        failures = Failures { count: failures.count + 1, last_host: host.clone() };
                    }
                    continue;
                }
                _ => continue,
            };
            host = by;
            generation = conditions.and_then(|conditions| conditions.generation);
        }
        Ok(failures)
    }

    /// Writes the table of a finished run anew where it is gone.
    pub(super) fn restore(&self, run: &PlannedRun, standing: &Standing) -> Result<()> {
        let (Status::Finished(result), Some(attempt)) = (&standing.status, &standing.attempt) else {
            return Ok(());
        };
        restore_table(&self.files, &self.dir.run(&run.key.run), attempt, &run.config, result)
            .map_err(as_a_run)
    }
}

/// How a run ended that stands so; none of one that is still to be trained.
fn ended(standing: Standing) -> Option<Outcome> {
    match (standing.status, standing.attempt) {
        (Status::Finished(result), _) => Some(Outcome::Finished(std::sync::Arc::from(result))),
        (Status::Diverged(divergence), Some(attempt)) => Some(Outcome::Diverged(attempt, divergence)),
        (Status::Damaged(error), _) => Some(Outcome::Failed(error)),
        _ => None,
    }
}

/// Whether a lease is had, for what is done at once; else somebody has it.
pub(super) fn had(claimed: Claimed) -> Option<Lease> {
    match claimed {
        Claimed::Mine(lease) => Some(lease),
        Claimed::Theirs { .. } => None,
    }
}
