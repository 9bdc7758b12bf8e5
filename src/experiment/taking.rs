//! How a run is had by one process of several: who takes it, who finds it ended, who leaves it to another.

use std::time::Duration;

use super::{Experiment, HowToRun};
use crate::error::{Error, Result};
use crate::files::FileError;
use crate::history::{Ended, History};
use crate::host::host_name;
use crate::lease::{Claimed, Lease, Leases};
use crate::plan::PlannedRun;
use crate::record::Journal;
use crate::run::execute::Taken;
use crate::run::single::Outcome;
use crate::run::state::{Standing, Status};
use crate::train::checkpoint::CheckpointStore;

/// How often a run may fail while others of the same start still try it: once more, and on another machine.
const FAILURES: usize = 2;

/// How often a lease is asked for again after an error, and how long after the first.
const CLAIMS: u32 = 3;
const CLAIM_PAUSE: Duration = Duration::from_millis(200);

/// How often a run failed in its processes, and on which host the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Failures {
    count: usize,
    last_host: Option<String>,
}

impl Experiment {
    /// Asks for a run. `before` is how often it had failed when this process began.
    pub(super) fn take_run(
        &self,
        run: &PlannedRun,
        leases: &Leases,
        how: &HowToRun<'_>,
        before: &Failures,
    ) -> Result<Taken> {
        if !how.rerun
            && let Some(outcome) = ended(self.standing(run)?)
        {
            return Ok(Taken::Ended(outcome));
        }
        let lease = match self.lease(run, leases)? {
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
        let failures = self.failures(run)?;
        let since = failures.count.saturating_sub(before.count);
        let elsewhere = failures.last_host.filter(|host| *host != host_name());
        if since >= FAILURES || since > 0 && elsewhere.is_none() {
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

    /// How often the last attempt at a run failed.
    pub(super) fn failures(&self, run: &PlannedRun) -> Result<Failures> {
        let Some(attempt) = self.dir.run(&run.key.run).attempts()?.pop() else {
            return Ok(Failures::default());
        };
        let entries = Journal::new(self.files.clone(), attempt.journal()).read()?.entries;
        let lives = History::fold(&entries).lives;
        let mut failed = lives.iter().filter(|life| life.ended == Ended::Failed);
        Ok(Failures {
            count: failed.clone().count(),
            last_host: failed.next_back().and_then(|life| life.host.clone()),
        })
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
