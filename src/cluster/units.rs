//! What one job of a scheduler does: the runs of a plan, divided so that whoever forks has its trunk.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::plan::prefix::PrefixForest;

/// What a unit is of its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitKind {
    /// All of it.
    Tree,
    /// The run from whose checkpoints others start.
    Trunk,
    /// A run that starts from another's checkpoint.
    Fork,
}

impl UnitKind {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Trunk => "trunk",
            Self::Fork => "fork",
        }
    }
}

/// Runs that one job trains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// What it is.
    pub kind: UnitKind,
    /// Its runs, by index in the plan, and how many steps each trains itself.
    pub runs: Vec<(usize, u64)>,
    /// The unit that it waits for; its number is lower.
    pub after: Option<usize>,
}

/// Units that wait for the same ones, or for none, by number: jobs that are submitted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The first.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// What they wait for, all of it.
    pub after: Vec<usize>,
}

/// Batches that the forks of many trees make, about: of more trunks than that, several have their forks in one batch, which
/// waits for all of those trunks. A call of the scheduler a trunk would take minutes of hundreds.
const FORK_BATCHES: usize = 32;

impl Batch {
    /// Whether the next unit, which waits for `after`, may be one of it. `trunks` may be waited for by one batch.
    fn takes(&self, after: Option<usize>, trunks: usize) -> bool {
        match after {
            None => self.after.is_empty(),
            Some(trunk) if self.after.last() == Some(&trunk) => true,
            // Nothing waits for a unit of its own batch.
            Some(trunk) => !self.after.is_empty() && self.after.len() < trunks && trunk < self.first,
        }
    }

    /// Whether a unit is one of it.
    pub fn has(&self, unit: usize) -> bool {
        (self.first..self.first + self.count).contains(&unit)
    }
}

/// The units of the runs that are `wanted`, numbered by their place: first those that wait for nothing, in the order of
/// the plan, then the forks of each, together. `steps` are those of each run; `alike` says whether two runs may share
/// steps. A tree of at least `split` runs is one unit a run; a fork whose trunk is not wanted has it on disk.
pub fn units(
    forest: &PrefixForest,
    steps: &[u64],
    wanted: &[bool],
    split: usize,
    alike: impl Fn(usize, usize) -> bool,
) -> Vec<Unit> {
    let is_wanted = |run: usize| wanted.get(run).copied().unwrap_or(false);
    let donors = forest.donors(alike);
    let donor = |run: usize| donors.get(run).copied().flatten();
    let own = |run: usize| {
        let all = steps.get(run).copied().unwrap_or(0);
        (run, all.saturating_sub(donor(run).map_or(0, |(_, shared)| shared)))
    };
    let mut units: Vec<Unit> = Vec::new();
    // Who waits for which run, and the unit of every run that others wait for.
    let mut waiting: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut of_run: Vec<(usize, usize)> = Vec::new();
    for root in &forest.roots {
        let runs: Vec<usize> = root.runs.iter().copied().filter(|&run| is_wanted(run)).collect();
        if runs.len() < split {
            if !runs.is_empty() {
                let runs = runs.into_iter().map(own).collect();
                units.push(Unit { kind: UnitKind::Tree, runs, after: None });
            }
            continue;
        }
        for run in runs {
            if let Some((donor, _)) = donor(run).filter(|(donor, _)| is_wanted(*donor)) {
                waiting.entry(donor).or_default().push(run);
            } else {
                of_run.push((units.len(), run));
                let kind = if donor(run).is_some() { UnitKind::Fork } else { UnitKind::Tree };
                units.push(Unit { kind, runs: vec![own(run)], after: None });
            }
        }
    }
    // Forks of forks wait for those.
    let mut next = 0;
    while let Some(&(unit, run)) = of_run.get(next) {
        next += 1;
        let Some(forks) = waiting.remove(&run) else { continue };
        if let Some(trunk) = units.get_mut(unit).filter(|trunk| trunk.kind == UnitKind::Tree) {
            trunk.kind = UnitKind::Trunk;
        }
        for fork in forks {
            of_run.push((units.len(), fork));
            units.push(Unit { kind: UnitKind::Fork, runs: vec![own(fork)], after: Some(unit) });
        }
    }
    units
}

/// What is submitted together: at most `most` units, all of which wait for the same. A fork waits for its own trunk, or of
/// many trees for those of some others too.
pub fn batches(after: &[Option<usize>], most: usize) -> Vec<Batch> {
    let waited_for: BTreeSet<usize> = after.iter().copied().flatten().collect();
    let trunks = waited_for.len().div_ceil(FORK_BATCHES).max(1);
    let mut batches: Vec<Batch> = Vec::new();
    for (number, &after) in after.iter().enumerate() {
        match batches.last_mut().filter(|last| last.count < most.max(1) && last.takes(after, trunks)) {
            Some(last) => {
                last.count += 1;
                last.after.extend(after.filter(|after| !last.after.contains(after)));
            }
            None => batches.push(Batch { first: number, count: 1, after: after.into_iter().collect() }),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::prefix::PrefixNode;

    fn node(start: u64, end: u64, runs: &[usize], children: Vec<PrefixNode>) -> PrefixNode {
        PrefixNode { start, end, runs: runs.to_vec(), children }
    }

    fn forest(roots: Vec<PrefixNode>) -> PrefixForest {
        let runs = roots.iter().map(|root| root.runs.len()).sum();
        PrefixForest { roots, runs, runs_of_work: 0.0 }
    }

    /// Two trees of two runs, as two arms over two seeds.
    fn two_trees() -> PrefixForest {
        let tree = |a: usize, b: usize| {
            node(0, 60, &[a, b], vec![node(60, 100, &[a], vec![]), node(60, 100, &[b], vec![])])
        };
        forest(vec![tree(0, 2), tree(1, 3)])
    }

    fn shown(units: &[Unit]) -> Vec<String> {
        let one = |unit: &Unit| {
            let runs: Vec<String> = unit.runs.iter().map(|(run, own)| format!("{run}:{own}")).collect();
            let after = unit.after.map_or_else(String::new, |after| format!(" after {after}"));
            format!("{} {}{after}", unit.kind.word(), runs.join(" "))
        };
        units.iter().map(one).collect()
    }

    #[test]
    fn a_small_tree_is_one_unit() {
        let units = units(&two_trees(), &[100; 4], &[true; 4], 3, |_, _| true);
        assert_eq!(shown(&units), ["tree 0:100 2:40", "tree 1:100 3:40"]);
    }

    #[test]
    fn what_is_not_wanted_is_in_no_unit() {
        let of = |wanted: &[bool]| shown(&units(&two_trees(), &[100; 4], wanted, 2, |_, _| true));
        assert_eq!(of(&[false, true, false, true]), ["trunk 1:100", "fork 3:40 after 0"]);
        // Its trunk is done: what it starts from is there.
        assert_eq!(of(&[false, false, true, true]), ["tree 2:40", "tree 3:40"]);
        assert_eq!(of(&[false; 4]), Vec::<String>::new());
    }

    #[test]
    fn a_large_tree_is_a_trunk_and_its_forks() {
        // 0 and 1 part at 40; 2 goes with 1 until 70; 3 is alone.
        let tree = node(
            0,
            40,
            &[0, 1, 2],
            vec![
                node(40, 100, &[0], vec![]),
                node(40, 70, &[1, 2], vec![node(70, 100, &[1], vec![]), node(70, 100, &[2], vec![])]),
            ],
        );
        let forest = forest(vec![tree, node(0, 100, &[3], vec![])]);
        let all = units(&forest, &[100; 4], &[true; 4], 2, |_, _| true);
        assert_eq!(
            shown(&all),
            ["trunk 0:100", "tree 3:100", "fork 1:60 after 0", "fork 2:30 after 2"],
            "a fork may be another's trunk"
        );
        let after: Vec<_> = all.iter().map(|unit| unit.after).collect();
        let batch = |first, count, after: &[usize]| Batch { first, count, after: after.to_vec() };
        assert_eq!(batches(&after, 1000), [batch(0, 2, &[]), batch(2, 1, &[0]), batch(3, 1, &[2])]);
        // A unit never waits for one that comes later.
        assert!(all.iter().enumerate().all(|(number, unit)| unit.after.is_none_or(|after| after < number)));
        // Runs that are evaluated otherwise do not start from each other's checkpoints.
        let apart = units(&forest, &[100; 4], &[true; 4], 2, |_, _| false);
        assert_eq!(shown(&apart), ["tree 0:100", "tree 1:100", "tree 2:100", "tree 3:100"]);
    }

    #[test]
    fn arrays_are_cut_where_they_are_too_long() {
        let counts = |after: &[Option<usize>], most| -> Vec<_> {
            batches(after, most).iter().map(|batch| (batch.first, batch.count)).collect()
        };
        assert_eq!(counts(&[None; 5], 2), [(0, 2), (2, 2), (4, 1)]);
        assert_eq!(counts(&[None; 5], 0), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(counts(&[], 2), []);
        assert_eq!(counts(&[None, None, Some(0), Some(0), Some(1)], 1001), [(0, 2), (2, 2), (4, 1)]);
    }

    #[test]
    fn forks_of_hundreds_of_trees_take_few_batches() {
        // 300 trunks, four forks of each, and a fork of every first one.
        let mut after: Vec<Option<usize>> = vec![None; 300];
        after.extend((0..300).flat_map(|trunk| [Some(trunk); 4]));
        after.extend((0..300).map(|trunk| Some(300 + 4 * trunk)));
        let batches = batches(&after, 1001);
        assert!(batches.len() <= 2 * FORK_BATCHES, "{}", batches.len());
        let mut units = 0;
        for batch in &batches {
            assert_eq!(batch.first, units);
            units += batch.count;
            for (number, after) in after.iter().enumerate().skip(batch.first).take(batch.count) {
                // Everybody waits for what they need, and for nothing that is submitted with them or later.
                assert!(after.is_none_or(|after| batch.after.contains(&after)), "{number}");
            }
            assert!(batch.after.iter().all(|after| *after < batch.first));
        }
        assert_eq!(units, after.len());
    }

    /// Every wanted run is in exactly one unit, whatever is wanted.
    #[test]
    fn every_run_has_its_unit() {
        let forest = two_trees();
        for bits in 0..16_u32 {
            let wanted: Vec<bool> = (0..4).map(|run| bits >> run & 1 == 1).collect();
            for split in [2, 3] {
                let units = units(&forest, &[100; 4], &wanted, split, |_, _| true);
                let mut runs: Vec<usize> =
                    units.iter().flat_map(|unit| &unit.runs).map(|(run, _)| *run).collect();
                runs.sort_unstable();
                let expected: Vec<usize> = (0..4).filter(|&run| wanted[run]).collect();
                assert_eq!(runs, expected);
            }
        }
    }
}
