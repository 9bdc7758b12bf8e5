//! What of an experiment a command is about, where it selects some of its runs.

use std::path::Path;

use super::{Experiment, judge};
use crate::error::{Error, Result};
use crate::gate::Comparison;
use crate::plan::PlannedRun;
use crate::scorecard::Scorecard;

impl Experiment {
    /// Whether the command is about the run at this place of the plan.
    pub fn is_selected(&self, run: usize) -> bool {
        self.manifest.cells.get(run).is_none_or(|cell| cell.selected)
    }

    /// The runs that the command is about.
    pub fn selected_runs(&self) -> impl Iterator<Item = &PlannedRun> {
        self.plan.runs.iter().enumerate().filter(|(index, _)| self.is_selected(*index)).map(|(_, run)| run)
    }

    /// Makes it about the runs of one arm alone that have one of these seeds, all of which are trained.
    pub fn only_arm(&mut self, arm: usize, seeds: &[u64]) {
        for (cell, run) in self.manifest.cells.iter_mut().zip(&self.plan.runs) {
            cell.selected = run.arm == arm && seeds.contains(&run.config.seed);
        }
        // Looks are for the experiment's own question; a try is asked once, over all of its seeds.
        self.plan.looks = None;
    }

    /// Whether runs that the command is about are still to be trained.
    ///
    /// # Errors
    /// Directories that cannot be read.
    pub fn has_work(&self) -> Result<bool> {
        let sequence = self.sequence_on_disk()?;
        let is_needed = |run: &&PlannedRun| {
            !sequence.as_ref().is_some_and(|sequence| sequence.is_beyond(run.config.seed))
        };
        for run in self.selected_runs().filter(is_needed) {
            if run.key.pending || !self.standing(run)?.has_ended() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The arm of the run whose key begins with these digits.
    ///
    /// # Errors
    /// No such run, or several; class `Input`.
    pub fn arm_of(&self, digits: &str) -> Result<usize> {
        let key = self.key_of(digits)?;
        let run = self.plan.runs.iter().find(|run| run.key.run == key);
        run.map(|run| run.arm).ok_or_else(|| Error::internal("a run that was found is gone"))
    }

    /// Makes sure of the data, as a run does.
    ///
    /// # Errors
    /// Data that are not here, or not those that are pinned.
    pub fn require_data_here(&self) -> Result<()> {
        self.require_data()
    }

    /// Leaves out of a comparison what the command is not about.
    pub(super) fn keep_selected(&self, comparison: &mut Comparison) {
        if self.manifest.is_view() {
            let picked =
                |run: &PlannedRun, arm: &str, seed: u64| self.arm(run) == arm && run.config.seed == seed;
            comparison.runs.retain(|one| self.selected_runs().any(|run| picked(run, &one.arm, one.seed)));
        }
    }

    /// What of a scorecard the command is about. The numbers of an arm and the verdicts on it stay those over all that
    /// is there: a view must not make another verdict.
    pub(super) fn view(&self, scorecard: &Scorecard) -> Result<Scorecard> {
        if !self.manifest.is_view() {
            return Ok(scorecard.clone());
        }
        let mut view = scorecard.view(&|run| self.is_selected(run));
        if let Some(path) = &self.manifest.head.scorecard.reproducibility.baseline {
            let baseline = judge::baseline(self, Path::new(path))?;
            view.judge_reproducibility(&baseline);
        }
        Ok(view)
    }
}
