//! Quality judged at looks: after some of the seeds, before all of them are trained.
//!
//! Each look judges all arms over its own seeds and nothing else, at a level of its own, so whoever stops or resumes
//! wherever comes to the same decisions. The first look at which every arm is decided is the last: its intervals are
//! among those that all looks together keep at the manifest's confidence (repeated confidence intervals: C. Jennison and
//! B. W. Turnbull, "Interim analyses: the repeated confidence interval approach", JRSS B 51 (1989)).

use super::finding::Finding;
use super::judge::{Arm, RunSummary};
use super::quality::{Compared, Levels, Quality};
use super::verdict::{LookOf, Outcome, Verdict};
use crate::plan::looks::Looks;
use crate::stats::look_levels;

/// Where an experiment that is judged at looks has come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// Its looks.
    pub looks: Looks,
    /// The looks whose seeds are finished, up to the one that decides.
    pub taken: Vec<LookTaken>,
    /// Whether the last of them decides every arm, so that no more seeds are begun.
    pub decided: bool,
}

/// A look.
#[derive(Debug, Clone, PartialEq)]
pub struct LookTaken {
    /// Which, and at which level.
    pub of: LookOf,
    /// Whether every arm is decided.
    pub decides: bool,
    /// What it says of each arm by each metric.
    pub verdicts: Vec<Verdict>,
}

impl Sequence {
    /// The place of the look whose seeds are next; none where nothing is to come.
    pub fn open(&self) -> Option<usize> {
        (!self.decided && self.taken.len() < self.looks.after.len()).then_some(self.taken.len())
    }

    /// Whether a run of this seed is needed no more, because an earlier look decided.
    pub fn is_beyond(&self, seed: u64) -> bool {
        self.decided && self.looks.look_of(seed) >= self.taken.len()
    }

    /// Whether a run of this seed waits for a look before it.
    pub fn waits(&self, seed: u64) -> bool {
        self.open().is_some_and(|open| self.looks.look_of(seed) > open)
    }

    /// The number of seeds of the look taken last.
    pub fn seeds_taken(&self) -> usize {
        self.taken.last().map_or(0, |look| look.of.seeds)
    }

    /// Why runs beyond the look that decided are not trained.
    pub fn why_not_needed(&self) -> String {
        format!("quality was decided after {} of {} seeds", self.seeds_taken(), self.looks.seeds.len())
    }
}

/// The level of each look at one family of `families`: in the order of the looks.
pub(super) fn levels(quality: &Quality, looks: &Looks, families: usize) -> Vec<Levels> {
    let alpha = 1.0 - quality.confidence;
    let of = |alpha: f64| look_levels(alpha, &looks.information());
    let each = of(alpha / families as f64).into_iter().zip(of(alpha));
    each.map(|(family, alone)| Levels { family, alone }).collect()
}

/// Takes the looks whose seeds are finished, and gives the verdicts of the last of them. Before the last look that is to
/// come none of them is final: they pass and fail nothing. `pairs` are the arms with their controls; `runs` all runs.
pub(super) fn judge(
    quality: &Quality,
    looks: &Looks,
    pairs: &[Compared<'_>],
    runs: &[RunSummary],
) -> (Vec<Verdict>, Sequence) {
    let levels = levels(quality, looks, quality.families(pairs));
    let mut sequence = Sequence { looks: looks.clone(), taken: Vec::new(), decided: false };
    let count = looks.after.len();
    let mut open = Vec::new();
    for (look, levels) in levels.into_iter().enumerate() {
        let seeds = looks.seeds_of(look);
        let of = LookOf {
            look: look + 1,
            looks: count,
            seeds: seeds.len(),
            of_seeds: looks.seeds.len(),
            level: levels.alone,
        };
        let mut verdicts = over(quality, pairs, seeds, levels);
        let missing = runs.iter().filter(|run| seeds.contains(&run.seed) && !run.ended).count();
        for verdict in &mut verdicts {
            verdict.look = Some(of);
        }
        if missing > 0 {
            open = verdicts;
            for verdict in open.iter_mut().filter(|verdict| verdict.outcome != Outcome::NotJudged) {
                let all = runs.iter().filter(|run| seeds.contains(&run.seed)).count();
                undecide(
                    verdict,
                    &format!(
                        "interim: of the look after {} seeds {missing} of {all} runs have no result",
                        of.seeds
                    ),
                );
            }
            break;
        }
        let judged = || verdicts.iter().filter(|verdict| verdict.outcome != Outcome::NotJudged);
        let decides =
            judged().next().is_some() && judged().all(|verdict| verdict.finding != Some(Finding::Undecided));
        sequence.taken.push(LookTaken { of, decides, verdicts });
        if decides {
            sequence.decided = true;
            break;
        }
    }
    let verdicts = match sequence.taken.last() {
        None => open,
        Some(last) => {
            let mut verdicts = last.verdicts.clone();
            if let Some(open) = sequence.open() {
                let next = looks.seeds_of(open).len();
                for verdict in verdicts.iter_mut().filter(|v| v.outcome != Outcome::NotJudged) {
                    let so_far = verdict.finding.unwrap_or(Finding::Undecided);
                    let why = format!(
                        "interim: {so_far} after {} seeds, the look after {next} is open",
                        last.of.seeds
                    );
                    undecide(verdict, &why);
                }
            }
            verdicts
        }
    };
    (verdicts, sequence)
}

/// The verdicts over the runs of some seeds.
fn over(quality: &Quality, pairs: &[Compared<'_>], seeds: &[u64], levels: Levels) -> Vec<Verdict> {
    let runs: Vec<(Vec<&RunSummary>, Vec<&RunSummary>)> =
        pairs.iter().map(|&(arm, control)| (picked(arm, seeds), picked(control, seeds))).collect();
    let compared: Vec<Compared<'_>> = pairs
        .iter()
        .zip(&runs)
        .map(|((arm, control), (ours, theirs))| {
            (Arm { name: arm.name, runs: ours }, Arm { name: control.name, runs: theirs })
        })
        .collect();
    quality.judge(&compared, levels)
}

/// The runs of an arm whose seeds are among these.
fn picked<'a>(arm: Arm<'a>, seeds: &[u64]) -> Vec<&'a RunSummary> {
    arm.runs.iter().copied().filter(|run| seeds.contains(&run.seed)).collect()
}

/// Makes of a verdict one that neither passes nor fails.
fn undecide(verdict: &mut Verdict, why: &str) {
    verdict.outcome = Outcome::Undecided;
    verdict.finding = Some(Finding::Undecided);
    verdict.seeds_needed = None;
    why.clone_into(&mut verdict.detail);
}
