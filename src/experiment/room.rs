//! Whether an experiment has room in memory and on disk, before it starts.

use super::preflight::Memory;
use super::{DiskPlan, Experiment, MemoryPlan};
use crate::error::{Error, Result};

impl Experiment {
    /// What the runs that are `pending` need of memory, `jobs` of them at a time on `threads` threads each; `begun` says
    /// which go on from a checkpoint.
    ///
    /// # Errors
    /// A run that no network can be made of.
    pub fn memory(&self, jobs: (usize, usize), pending: &[bool], begun: &[bool]) -> Result<MemoryPlan> {
        let which = |flags: &[bool], index: usize| flags.get(index).copied().unwrap_or(false);
        let pending: Vec<usize> = (0..self.plan.runs.len()).filter(|&run| which(pending, run)).collect();
        let resumed = |run: usize| which(begun, run) || self.plan.prefixes.forks(run);
        MemoryPlan::of(&self.plan.runs, &pending, resumed, jobs, &Memory::here())
    }

    /// What the runs leave on disk that the command is about, `jobs` of them at a time.
    ///
    /// # Errors
    /// A run that no network can be made of.
    pub fn disk(&self, jobs: usize) -> Result<DiskPlan> {
        DiskPlan::of(&self.plan, self.dir.path(), jobs, &|run| self.is_selected(run))
    }

    /// Refuses runs that will not fit, unless the manifest has them started all the same. Returns what to warn of.
    pub(super) fn require_room(
        &self,
        jobs: (usize, usize),
        pending: &[bool],
        begun: &[bool],
    ) -> Result<Vec<String>> {
        let asked = self.manifest.selected_cells().all(|cell| cell.settings.run.preflight);
        if !asked || !pending.contains(&true) {
            return Ok(Vec::new());
        }
        let cell = self.manifest.cells.iter().zip(pending).find(|(_, pending)| **pending);
        let locate = |key: &str, error: Error| match cell {
            Some((cell, _)) => cell.locate(key, error),
            None => error.key(key).file(&self.manifest.file),
        };
        let memory = self.memory(jobs, pending, begun)?;
        let is_selected = |run| self.is_selected(run);
        let disk = DiskPlan::of_what_is_trained(&self.plan, self.dir.path(), jobs.0, &is_selected)?;
        if let Some((key, error)) = memory.refusal() {
            return Err(locate(key, error));
        }
        if let Some(error) = disk.refusal() {
            return Err(locate("checkpoint.keep", error));
        }
        Ok(memory.warning().into_iter().chain(disk.warning()).collect())
    }
}
