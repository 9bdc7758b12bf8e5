//! Which runs share which steps: a tree over runs whose chains begin with the same links.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use super::key::{KeyChain, Links};
use super::run_config::RunConfig;
use crate::hash::Digest;

/// The trees of a plan, one for each distinct `k[0]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrefixForest {
    /// In the order of their first runs.
    pub roots: Vec<PrefixNode>,
    /// Runs in all.
    pub runs: usize,
    /// The work of training every shared step once, in runs: 2.95 for 4 runs.
    pub runs_of_work: f64,
}

/// A stretch of steps that some runs have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrefixNode {
    /// First step of the stretch.
    pub start: u64,
    /// One past its last step.
    pub end: u64,
    /// The runs that train it, by index.
    pub runs: Vec<usize>,
    /// What follows for those that go on; runs of `runs` in no child end here.
    pub children: Vec<PrefixNode>,
}

impl PrefixNode {
    /// Steps trained in this stretch and all below.
    pub fn steps(&self) -> u64 {
        self.end - self.start + self.children.iter().map(Self::steps).sum::<u64>()
    }

    /// Adds the ends of the stretches that others take from a run.
    fn forked_at(&self, run: usize, steps: &mut Vec<u64>) {
        if self.end > self.start && self.runs.len() > 1 && self.runs.first() == Some(&run) {
            steps.push(self.end);
        }
        self.children.iter().for_each(|child| child.forked_at(run, steps));
    }

    /// Adds the link at the end of every stretch for each of its runs; `link` is that at its beginning.
    fn hash(&self, chains: &[KeyChain<'_>], link: Option<Digest>, found: &mut Vec<(usize, u64, Digest)>) {
        let Some(chain) = self.runs.first().and_then(|&run| chains.get(run)) else { return };
        let link = chain.advance(link.unwrap_or_else(|| chain.start()), self.start, self.end);
        found.extend(self.runs.iter().map(|&run| (run, self.end, link)));
        self.children.iter().for_each(|child| child.hash(chains, Some(link), found));
    }

    fn forks(&self, run: usize) -> bool {
        let follows = self.end > self.start && self.runs.first() != Some(&run);
        self.runs.contains(&run) && (follows || self.children.iter().any(|child| child.forks(run)))
    }
}

impl PrefixForest {
    /// The forest of these runs. Two runs are together up to step s exactly when their `k[s]` are equal.
    pub fn of(configs: &[&RunConfig]) -> Self {
        let chains: Vec<KeyChain<'_>> = configs.par_iter().map(|config| KeyChain::new(config)).collect();
        Self::of_chains(&chains)
    }

    /// The same of runs whose `k[0]` are known.
    pub(super) fn of_chains(chains: &[KeyChain<'_>]) -> Self {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut of_start: BTreeMap<Digest, usize> = BTreeMap::new();
        for (run, chain) in chains.iter().enumerate() {
            let group = *of_start.entry(chain.start()).or_insert(groups.len());
            match groups.get_mut(group) {
                Some(group) => group.push(run),
                None => groups.push(vec![run]),
            }
        }
        let mut schedules = Schedules::of(chains);
        let roots: Vec<PrefixNode> = groups.into_iter().map(|runs| schedules.grow(runs, 0)).collect();
        // Within a root all steps cost the same; across roots a run counts as one, whatever its size.
        let work = roots.iter().map(|root| {
            let apart: u64 = root.runs.iter().filter_map(|&run| chains.get(run)).map(KeyChain::steps).sum();
            root.steps() as f64 / apart.max(1) as f64 * root.runs.len() as f64
        });
        Self { runs: chains.len(), runs_of_work: work.sum(), roots }
    }

    /// The links of each run at the first step, wherever runs of the forest part, and at its last: in one pass over the
    /// steps that are trained, so that shared ones are hashed once.
    pub(super) fn links(&self, chains: &[KeyChain<'_>]) -> Vec<Links> {
        let mut links: Vec<Links> = chains.iter().map(|chain| Links::start(chain.start())).collect();
        let found: Vec<(usize, u64, Digest)> = self
            .roots
            .par_iter()
            .flat_map_iter(|root| {
                let mut found = Vec::new();
                root.hash(chains, None, &mut found);
                found
            })
            .collect();
        for (run, step, link) in found {
            if let Some(links) = links.get_mut(run) {
                links.push(step, link);
            }
        }
        links
    }

    /// The earlier run with which each one shares most of its first steps, and how many; of several the first, so that
    /// one run donates to all. `alike` says whether two runs may share at all.
    pub fn donors(&self, alike: impl Fn(usize, usize) -> bool) -> Vec<Option<(usize, u64)>> {
        let mut donors = vec![None; self.runs];
        let mut open: Vec<&PrefixNode> = self.roots.iter().collect();
        // Children after their parents, so that the longest stretch speaks last.
        while let Some(node) = open.pop() {
            if node.end > 0 {
                for (at, &run) in node.runs.iter().enumerate() {
                    let donor = node.runs.iter().take(at).find(|&&donor| alike(donor, run));
                    if let (Some(&donor), Some(slot)) = (donor, donors.get_mut(run)) {
                        *slot = Some((donor, node.end));
                    }
                }
            }
            open.extend(&node.children);
        }
        donors
    }

    /// First steps that two runs, by index, have in common.
    pub fn together(&self, a: usize, b: usize) -> u64 {
        let mut nodes: &[PrefixNode] = &self.roots;
        let mut steps = 0;
        while let Some(node) = nodes.iter().find(|node| node.runs.contains(&a) && node.runs.contains(&b)) {
            steps = node.end;
            nodes = &node.children;
        }
        steps
    }

    /// Whether a run, by index, takes its first steps from an earlier one.
    pub fn forks(&self, run: usize) -> bool {
        self.roots.iter().any(|root| root.forks(run))
    }

    /// Steps of a run, by index, from whose checkpoints others start.
    pub fn forked_at(&self, run: usize) -> Vec<u64> {
        let mut steps = Vec::new();
        self.roots.iter().for_each(|root| root.forked_at(run, &mut steps));
        steps
    }

    /// What is saved, in words: "4 runs, 2.95 runs of work".
    pub fn saving(&self) -> String {
        let plural = if self.runs == 1 { "run" } else { "runs" };
        format!("{} {plural}, {:.2} runs of work", self.runs, self.runs_of_work)
    }
}

/// The schedules of some runs, and where they part.
struct Schedules<'a> {
    chains: &'a [KeyChain<'a>],
    /// For each run the first one that has its schedule.
    first: Vec<usize>,
    /// The first step at which two runs consume other values, at most the length of the shorter one.
    parts: BTreeMap<(usize, usize), u64>,
}

impl<'a> Schedules<'a> {
    fn of(chains: &'a [KeyChain<'a>]) -> Self {
        let mut distinct: Vec<(usize, &KeyChain<'_>)> = Vec::new();
        let first = chains.iter().enumerate().map(|(run, chain)| {
            let known =
                distinct.iter().find(|(_, known)| known.has_schedule_of(chain)).map(|(known, _)| *known);
            known.unwrap_or_else(|| {
                distinct.push((run, chain));
                run
            })
        });
        Self { chains, first: first.collect(), parts: BTreeMap::new() }
    }

    fn steps(&self, run: usize) -> u64 {
        self.chains.get(run).map_or(0, KeyChain::steps)
    }

    fn consumed(&self, run: usize, step: u64) -> [u64; 3] {
        self.chains.get(run).map_or([0; 3], |chain| chain.consumed(step))
    }

    /// The run that stands for all with the schedule of this one.
    fn first(&self, run: usize) -> usize {
        self.first.get(run).copied().unwrap_or(run)
    }

    fn parts(&mut self, a: usize, b: usize) -> u64 {
        if let Some(step) = self.parts.get(&(a, b)) {
            return *step;
        }
        let both = self.steps(a).min(self.steps(b));
        let step = (0..both).find(|&step| self.consumed(a, step) != self.consumed(b, step)).unwrap_or(both);
        self.parts.insert((a, b), step);
        step
    }

    /// The stretch that begins at `start` for runs that are together up to there.
    fn grow(&mut self, runs: Vec<usize>, start: u64) -> PrefixNode {
        let mut schedules: Vec<usize> = runs.iter().map(|&run| self.first(run)).collect();
        schedules.sort_unstable();
        schedules.dedup();
        let shortest = schedules.iter().map(|&run| self.steps(run)).min().unwrap_or(start);
        let together = |one: usize| schedules.iter().skip(1).map(|&other| self.parts(one, other)).min();
        let end = schedules.first().copied().and_then(together).unwrap_or(shortest).min(shortest).max(start);
        let mut branches: Vec<([u64; 3], Vec<usize>)> = Vec::new();
        for &run in runs.iter().filter(|&&run| self.steps(run) > end) {
            let consumed = self.consumed(run, end);
            match branches.iter_mut().find(|(other, _)| *other == consumed) {
                Some((_, branch)) => branch.push(run),
                None => branches.push((consumed, vec![run])),
            }
        }
        let children = branches.into_iter().map(|(_, runs)| self.grow(runs, end)).collect();
        PrefixNode { start, end, runs, children }
    }
}
