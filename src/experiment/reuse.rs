//! `--reuse`: the experiment's runs that other results have finished.

use std::path::PathBuf;

use super::ends::Ends;
use super::taking::had;
use super::{Experiment, HowToRun};
use crate::error::Result;
use crate::hash::Digest;
use crate::lease::Leases;
use crate::plan::PlannedRun;
use crate::run::reuse::{Elsewhere, Looked, find, places, take_over};
use crate::run::state::Standing;
use crate::run::task::Task;

/// A run that is going to be taken over, as the plan tells it.
#[derive(Debug, Clone, Default)]
pub struct Reusable {
    /// The attempt that it is taken over from; none where it is not.
    pub from: Option<PathBuf>,
    /// Why results that are there are not taken.
    pub notes: Vec<String>,
}

impl Experiment {
    /// What `--reuse` of these directories would take over, run by run.
    ///
    /// # Errors
    /// Directories without results; runs that cannot be read.
    pub fn reusable(&self, reuse: &[PathBuf], threads: usize) -> Result<Vec<Reusable>> {
        let places = places(reuse)?;
        let each = self.plan.runs.iter().enumerate().map(|(index, run)| {
            if places.is_empty()
                || run.key.pending
                || !self.is_selected(index)
                || self.standing(run)?.has_ended()
            {
                return Ok(Reusable::default());
            }
            let Looked { found, notes } =
                find(&self.files, &places, &self.dir, &run.config, &run.key.run, threads);
            let from = found.map(|found| found.attempt.path().to_owned());
            Ok(Reusable { from, notes })
        });
        each.collect()
    }

    /// Takes over what other results have finished of the runs that are still to be trained and nobody trains.
    pub(super) fn take_over(
        &self,
        how: &HowToRun<'_>,
        leases: &Leases,
        tasks: &[Task],
        ends: &mut Ends,
    ) -> Result<()> {
        let places = places(how.reuse)?;
        if places.is_empty() || how.rerun {
            return Ok(());
        }
        let mut seen: Vec<Digest> = Vec::new();
        for (index, (run, task)) in self.plan.runs.iter().zip(tasks).enumerate() {
            if !self.is_selected(index) || seen.contains(&run.key.run) || how.stop.is_raised() {
                continue;
            }
            seen.push(run.key.run);
            let standing = self.standing(run)?;
            if standing.has_ended() {
                continue;
            }
            let Looked { found, notes } =
                find(&self.files, &places, &self.dir, &run.config, &run.key.run, how.threads);
            let told = |note: String| format!("{}: {note}", task.label);
            ends.note(notes.into_iter().map(told));
            let Some(found) = found else { continue };
            let Some(lease) = had(self.lease(run, leases)?) else { continue };
            // Whoever had it may have ended it meanwhile.
            let standing = self.standing(run)?;
            if !standing.has_ended() {
                self.take(how, &standing, run, task, &found, ends)?;
            }
            drop(lease);
        }
        Ok(())
    }

    fn take(
        &self,
        how: &HowToRun<'_>,
        standing: &Standing,
        run: &PlannedRun,
        task: &Task,
        found: &Elsewhere,
        ends: &mut Ends,
    ) -> Result<()> {
        let notes = take_over(&self.files, standing, task, found)?;
        ends.note(notes.into_iter().map(|note| format!("{}: {note}", task.label)));
        let (from, hash) = (found.attempt.path().display(), found.result.result_hash.short());
        how.display.line(&format!("{}: taken over from {from}, result {hash}", self.label(run)));
        Ok(())
    }
}
