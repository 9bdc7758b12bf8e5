//! Which runs share which steps: a tree over runs whose chains begin with the same links.

use serde::Serialize;

use super::key::KeyChain;
use super::run_config::RunConfig;

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

    fn forks(&self, run: usize) -> bool {
        let follows = self.end > self.start && self.runs.first() != Some(&run);
        self.runs.contains(&run) && (follows || self.children.iter().any(|child| child.forks(run)))
    }
}

impl PrefixForest {
    /// The forest of these runs. Two runs are together up to step s exactly when their `k[s]` are equal.
    pub fn of(configs: &[&RunConfig]) -> Self {
        let chains: Vec<KeyChain<'_>> = configs.iter().map(|config| KeyChain::new(config)).collect();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (run, chain) in chains.iter().enumerate() {
            let same = |group: &&mut Vec<usize>| {
                group.first().and_then(|&first| chains.get(first)).is_some_and(|c| c.start() == chain.start())
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(run),
                None => groups.push(vec![run]),
            }
        }
        let roots: Vec<PrefixNode> = groups.into_iter().map(|runs| grow(&chains, runs, 0)).collect();
        // Within a root all steps cost the same; across roots a run counts as one, whatever its size.
        let work = roots.iter().map(|root| {
            let apart: u64 = root.runs.iter().filter_map(|&run| chains.get(run)).map(KeyChain::steps).sum();
            root.steps() as f64 / apart.max(1) as f64 * root.runs.len() as f64
        });
        Self { runs: configs.len(), runs_of_work: work.sum(), roots }
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

/// The stretch that begins at `start` for runs that are together up to there.
fn grow(chains: &[KeyChain<'_>], runs: Vec<usize>, start: u64) -> PrefixNode {
    let of = |run: usize| chains.get(run);
    let steps = |run: usize| of(run).map_or(start, KeyChain::steps);
    let shortest = runs.iter().map(|&run| steps(run)).min().unwrap_or(start);
    let mut end = shortest;
    if runs.len() > 1 {
        end = (start..shortest)
            .find(|&step| {
                let mut consumed = runs.iter().filter_map(|&run| of(run)).map(|chain| chain.consumed(step));
                let first = consumed.next();
                consumed.any(|other| Some(other) != first)
            })
            .unwrap_or(shortest);
    }
    let mut branches: Vec<([u64; 3], Vec<usize>)> = Vec::new();
    for &run in runs.iter().filter(|&&run| steps(run) > end) {
        let consumed = of(run).map_or([0; 3], |chain| chain.consumed(end));
        match branches.iter_mut().find(|(other, _)| *other == consumed) {
            Some((_, branch)) => branch.push(run),
            None => branches.push((consumed, vec![run])),
        }
    }
    let children = branches.into_iter().map(|(_, runs)| grow(chains, runs, end)).collect();
    PrefixNode { start, end, runs, children }
}
