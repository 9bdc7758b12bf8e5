//! What all runs of an experiment together give: tables and verdicts.

use super::ends::RunEnd;
use super::retired::Retired;
use super::tables::{self, Recorded};
use super::{Experiment, judge};
use crate::error::Result;
use crate::plan::PlannedRun;
use crate::record::KeptDocuments;
use crate::scorecard::Scorecard;

impl Experiment {
    pub(super) fn recorded<'a>(&'a self, ends: &'a [RunEnd]) -> Vec<Recorded<'a>> {
        self.plan.runs.iter().zip(ends).map(|(run, end)| self.recorded_as(run, end)).collect()
    }

    fn recorded_as<'a>(&'a self, run: &'a PlannedRun, end: &'a RunEnd) -> Recorded<'a> {
        Recorded {
            experiment: &self.plan.name,
            arm: self.arm(run),
            config: &run.config,
            epochs: [run.data.map(|data| data.train.epochs), run.data.map(|data| data.validation.epochs)],
            run_key: run.key.run.to_string(),
            parameters: run.sizes.params.total,
            flops_per_token: run.sizes.flops_per_token as f64,
            end,
            retired: false,
        }
    }

    /// One run of the plan, by its place, that stands so.
    pub(super) fn recorded_run<'a>(&'a self, index: usize, end: &'a RunEnd) -> Recorded<'a> {
        self.recorded_as(&self.plan.runs[index], end)
    }

    /// Over all that is there: the runs of the plan, whether the command is about them or not, then the retired ones.
    pub(super) fn write_tables(&self, ends: &[RunEnd], retired: &[Retired]) -> Result<()> {
        let mut runs = self.recorded(ends);
        runs.extend(retired.iter().map(|run| run.recorded(&self.plan.name)));
        tables::write_tables(&self.files, &self.dir, &runs)
    }

    /// Judges the runs of the plan and lists the retired ones.
    pub(super) fn judge(&self, ends: &[RunEnd], retired: &[Retired]) -> Result<Scorecard> {
        let metrics = judge::metrics(self);
        let runs = self.recorded(ends).iter().map(|run| tables::summary(run, &metrics)).collect();
        let mut scorecard = judge::scorecard(&self.files, self, runs)?;
        scorecard.tell_other_text(&mut |index| match ends.get(index) {
            Some(end) => self.documents(index, end),
            None => Ok(KeptDocuments::Absent),
        })?;
        scorecard.scaling = self.scaling(ends, scorecard.sequence.as_ref());
        let summary = |run: &Retired| tables::summary(&run.recorded(&self.plan.name), &metrics);
        scorecard.retired = retired.iter().map(summary).collect();
        Ok(scorecard)
    }

    /// What is kept of the documents of a run's last evaluation, of a run at this place of the plan that stands so.
    pub(super) fn documents(&self, index: usize, end: &RunEnd) -> Result<KeptDocuments> {
        let (Some(result), Some(run)) = (end.result(), self.plan.runs.get(index)) else {
            return Ok(KeptDocuments::Absent);
        };
        Ok(KeptDocuments::of_result(&self.files, &self.dir.run(&run.key.run), result)?)
    }
}
