//! Which seeds may be begun where quality is judged at looks, and the record of the looks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ends::RunEnd;
use super::judge;
use super::tables;
use super::{Experiment, HowToRun};
use crate::error::Result;
use crate::lease::Leases;
use crate::plan::PlannedRun;
use crate::record::{LookRecord, LookVerdict, LookedAt, Looks as LookLog};
use crate::run::execute::Gate;
use crate::run::state::{Standing, Status};
use crate::scorecard::{LookTaken, Sequence};

/// How far the looks of an experiment that is being carried out have come.
pub(super) struct Pace(Mutex<Option<Sequence>>);

impl Pace {
    pub(super) fn new(sequence: Option<Sequence>) -> Self {
        Self(Mutex::new(sequence))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sequence>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why runs that were to be trained were not begun, though nothing stopped it; none where none were left.
    pub(super) fn said_waiting(&self, left: &[usize]) -> Option<String> {
        let known = self.lock();
        let sequence = known.as_ref().filter(|_| !left.is_empty())?;
        let seeds = sequence.looks.seeds_of(sequence.open()?);
        let runs =
            if left.len() == 1 { "1 run waits".to_owned() } else { format!("{} runs wait", left.len()) };
        Some(format!(
            "{runs} for the look after {} seeds, of which not every run has ended: seeds beyond it are not begun",
            seeds.len()
        ))
    }

    /// Whether a run may be taken.
    pub(super) fn gate(&self, run: &PlannedRun) -> Gate {
        let seed = run.config.seed;
        match &*self.lock() {
            Some(sequence) if sequence.is_beyond(seed) => Gate::Never,
            Some(sequence) if sequence.waits(seed) => Gate::Waits,
            _ => Gate::Open,
        }
    }
}

impl Experiment {
    /// Where the looks have come to, by how the runs ended; none where quality is judged once.
    pub(super) fn sequence(&self, ends: &[RunEnd]) -> Option<Sequence> {
        self.plan.looks.as_ref()?;
        let metrics = judge::metrics(self);
        let runs: Vec<_> = self.recorded(ends).iter().map(|run| tables::summary(run, &metrics)).collect();
        judge::sequence(self, &runs)
    }

    /// The same by where they stand on disk.
    ///
    /// # Errors
    /// Directories that cannot be read.
    pub fn sequence_on_disk(&self) -> Result<Option<Sequence>> {
        if self.plan.looks.is_none() {
            return Ok(None);
        }
        let end = |standing: Option<Standing>| match standing.map(|standing| standing.status) {
            Some(Status::Finished(result)) => RunEnd::Finished(std::sync::Arc::from(result)),
            Some(Status::Diverged(divergence)) => RunEnd::Diverged(divergence),
            _ => RunEnd::Open("planned", None, 0),
        };
        let ends: Vec<RunEnd> = self.standings()?.into_iter().map(end).collect();
        Ok(self.sequence(&ends))
    }

    /// Says of the runs that a look made needless that they are.
    pub(super) fn mark_not_needed(&self, ends: &mut [RunEnd], sequence: Option<&Sequence>) {
        let Some(sequence) = sequence else { return };
        for (run, end) in self.plan.runs.iter().zip(ends) {
            if let RunEnd::Open("planned" | "interrupted", _, reached) = end
                && sequence.is_beyond(run.config.seed)
            {
                *end = RunEnd::Open("not needed", Some(sequence.why_not_needed()), *reached);
            }
        }
    }

    /// Takes the looks whose seeds are finished, and records those that are not recorded as they are.
    pub(super) fn take_looks(
        &self,
        ends: &[RunEnd],
        pace: &Pace,
        leases: &Leases,
        how: &HowToRun<'_>,
    ) -> Result<()> {
        let open = {
            let known = pace.lock();
            match &*known {
                Some(sequence) => sequence.open().map(|open| sequence.looks.seeds_of(open).to_vec()),
                None => None,
            }
        };
        // Nothing of what a look says changes before its last run ends.
        let Some(seeds) = open else { return Ok(()) };
        let is_open = |(run, end): (&PlannedRun, &RunEnd)| {
            seeds.contains(&run.config.seed) && matches!(end, RunEnd::Open(..))
        };
        if self.plan.runs.iter().zip(ends).any(is_open) {
            return Ok(());
        }
        let sequence = self.sequence(ends);
        if let Some(sequence) = &sequence {
            let _turn = self.turn(leases, how)?;
            self.record_looks(ends, sequence)?;
        }
        *pace.lock() = sequence;
        Ok(())
    }

    /// Writes the looks that were taken to the log, but those that stand there last as they are.
    pub(super) fn record_looks(&self, ends: &[RunEnd], sequence: &Sequence) -> Result<()> {
        let log = LookLog::of(&self.dir);
        let known = log.read(&self.files)?;
        for look in &sequence.taken {
            let record = self.look_record(ends, sequence, look);
            let last = known.iter().rev().find(|known| known.look == record.look);
            if !last.is_some_and(|last| last.says_the_same(&record)) {
                log.append(&self.files, &record)?;
            }
        }
        Ok(())
    }

    /// What is to be known of looks that were taken when the manifest had others, or other seeds; none where there were none.
    pub(super) fn said_other_looks(&self, sequence: &Sequence) -> Result<Option<String>> {
        let known = LookLog::of(&self.dir).read(&self.files)?;
        let now = (sequence.looks.after.len() as u64, sequence.looks.seeds.len() as u64);
        let other = known.iter().rev().find(|look| (look.looks, look.of_seeds) != now);
        Ok(other.map(|look| {
            format!(
                "{} looks at {} seeds were registered before, and are {} at {} now: what was seen then is not in the \
                 levels of these",
                look.looks, look.of_seeds, now.0, now.1
            )
        }))
    }

    fn look_record(&self, ends: &[RunEnd], sequence: &Sequence, look: &LookTaken) -> LookRecord {
        let seeds = sequence.looks.seeds_of(look.of.look.saturating_sub(1));
        let each = || self.plan.runs.iter().zip(ends);
        let runs = each().filter(|(run, _)| seeds.contains(&run.config.seed)).map(|(run, end)| LookedAt {
            key: run.key.run,
            result_hash: end.result().map(|result| result.result_hash),
        });
        let beyond = each().filter(|(run, _)| look.decides && !seeds.contains(&run.config.seed));
        let verdicts = look.verdicts.iter().map(|verdict| {
            let row = verdict.row();
            LookVerdict {
                arm: row.arm,
                control: row.control,
                metric: row.metric,
                outcome: row.outcome,
                finding: row.finding,
                difference: row.difference,
                lower: row.lower,
                upper: row.upper,
                deviation: row.deviation,
            }
        });
        LookRecord {
            at: crate::files::utc_now(),
            look: look.of.look as u64,
            looks: look.of.looks as u64,
            seeds: seeds.to_vec(),
            of_seeds: look.of.of_seeds as u64,
            level: look.of.level,
            decides: look.decides,
            runs: runs.collect(),
            not_needed: beyond.map(|(run, _)| run.key.run).collect(),
            verdicts: verdicts.collect(),
        }
    }
}
