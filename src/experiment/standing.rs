//! Where the runs of an experiment stand.

use std::collections::BTreeSet;

use super::Experiment;
use crate::error::Result;
use crate::hash::Digest;
use crate::plan::PlannedRun;
use crate::record::{Event, Journal, PlanRecord};
use crate::run::state::Standing;

impl Experiment {
    /// Where each run stands; none while its key is pending.
    ///
    /// # Errors
    /// Results of a later layout; directories that cannot be read. A damaged result is a status.
    pub fn standings(&self) -> Result<Vec<Option<Standing>>> {
        PlanRecord::check_layout(&self.files, &self.dir)?;
        let standing = |run: &PlannedRun| {
            if run.key.pending {
                return Ok(None);
            }
            self.standing(run).map(Some)
        };
        self.plan.runs.iter().map(standing).collect()
    }

    /// Whether all of these runs have an end; only they are looked at.
    ///
    /// # Errors
    /// Directories that cannot be read.
    pub fn have_ended(&self, keys: &BTreeSet<Digest>) -> Result<bool> {
        for run in self.plan.runs.iter().filter(|run| keys.contains(&run.key.run)) {
            if !self.standing(run)?.has_ended() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn standing(&self, run: &PlannedRun) -> Result<Standing> {
        Standing::read(&self.files, &self.dir.run(&run.key.run), &run.config, &run.key.run)
    }

    /// How the last attempt at a run failed: at which step, and why; none where it did not.
    pub fn last_failure(&self, run: &PlannedRun) -> Option<(u64, String)> {
        let attempt = self.dir.run(&run.key.run).attempts().ok()?.pop()?;
        let journal = Journal::new(self.files.clone(), attempt.journal());
        // The journal is for people: one that cannot be read leaves the reason untold.
        match journal.read().ok()?.entries.pop()?.event {
            Event::Failed { step, reason, .. } => {
                Some((step, reason.lines().next().unwrap_or_default().to_owned()))
            }
            _ => None,
        }
    }
}
