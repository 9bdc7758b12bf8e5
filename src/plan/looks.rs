//! Looks: after how many seeds quality is judged before all are trained.

use serde::Serialize;

use super::{Arm, PlannedRun};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::manifest::settings::LookSeeds;

/// The field.
const FIELD: &str = "scorecard.quality.looks";

/// Looks at an experiment, the last of them after all its seeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Looks {
    /// The experiment's seeds, in the order in which the matrix names them first: that in which they are trained.
    pub seeds: Vec<u64>,
    /// After how many of them each look is taken, rising; the last is after all.
    pub after: Vec<usize>,
}

impl Looks {
    /// The share of seeds at each look.
    pub fn information(&self) -> Vec<f64> {
        self.after.iter().map(|&seeds| seeds as f64 / self.seeds.len() as f64).collect()
    }

    /// The first seeds: those of a look, by its place.
    pub fn seeds_of(&self, look: usize) -> &[u64] {
        let count = self.after.get(look).copied().unwrap_or(self.seeds.len());
        self.seeds.get(..count).unwrap_or(&self.seeds)
    }

    /// The place of the first look that a seed counts for.
    pub fn look_of(&self, seed: u64) -> usize {
        let place = self.seeds.iter().position(|known| *known == seed).unwrap_or(self.seeds.len());
        self.after.iter().position(|&after| place < after).unwrap_or(self.after.len())
    }
}

/// The looks that the manifest asks for; none where it asks for none.
pub(super) fn looks(manifest: &Manifest, arms: &[Arm], runs: &[PlannedRun]) -> Result<Option<Looks>> {
    let LookSeeds::After(asked) = &manifest.head.scorecard.quality.looks else { return Ok(None) };
    let wrong = |what: String| manifest.locate_head(FIELD, Error::input(what));
    let shown = |looks: &[u32]| {
        let words: Vec<String> = looks.iter().map(u32::to_string).collect();
        format!("[{}]", words.join(", "))
    };
    let mut seeds: Vec<u64> = Vec::new();
    for run in runs {
        if !seeds.contains(&run.config.seed) {
            seeds.push(run.config.seed);
        }
    }
    if let Some(few) = asked.iter().find(|&&seeds| seeds < 2) {
        return Err(wrong(format!("a look after {few} of the seeds tells nothing: an interval needs two"))
            .expected("numbers of seeds of at least 2"));
    }
    if let Some(pair) = asked.windows(2).find(|pair| pair[0] >= pair[1]) {
        let (what, mut right) = match pair {
            [one, other] if one == other => {
                (format!("the look after {one} seeds is there twice"), asked.clone())
            }
            _ => (format!("the looks {} do not rise", shown(asked)), asked.clone()),
        };
        right.sort_unstable();
        right.dedup();
        return Err(wrong(what).expected("rising numbers of seeds").help(format!("write {}", shown(&right))));
    }
    if let Some(beyond) = asked.iter().find(|&&look| look as usize > seeds.len()) {
        let within: Vec<u32> = asked.iter().copied().filter(|&look| look as usize <= seeds.len()).collect();
        let instead = if within.is_empty() { "false".to_owned() } else { shown(&within) };
        let there = if seeds.len() == 1 {
            "there is 1 seed".to_owned()
        } else {
            format!("there are {} seeds", seeds.len())
        };
        return Err(wrong(format!("a look after {beyond} seeds is beyond the seeds: {there}"))
            .expected(format!("numbers of seeds up to {}", seeds.len()))
            .help(format!("give run.seed more values, or set {FIELD} = {instead}")));
    }
    if arms.iter().all(|arm| arm.control.is_none()) {
        return Err(wrong("looks judge arms against a control, and no arm has one".to_owned())
            .expected("scorecard.control beside it, and an arm besides the control"));
    }
    for arm in arms {
        let has = |seed: &&u64| {
            arm.runs.iter().filter_map(|&run| runs.get(run)).any(|run| run.config.seed == **seed)
        };
        if let Some(lacking) = seeds.iter().find(|seed| !has(seed)) {
            return Err(wrong(format!(
                "`{}` has no run of seed {lacking}: a look takes all arms over the same seeds",
                arm.label
            ))
            .expected("every seed in every arm"));
        }
    }
    let mut after: Vec<usize> = asked.iter().map(|&look| look as usize).collect();
    if after.last() != Some(&seeds.len()) {
        after.push(seeds.len());
    }
    Ok(Some(Looks { seeds, after }))
}
