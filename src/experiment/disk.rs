//! Whether what an experiment leaves will fit on disk, before any of it is written.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::files::free_bytes;
use crate::plan::Plan;
use crate::plan::run_config::RunConfig;
use crate::text::size;
use crate::train::footprint::Footprint;

/// Bytes of the experiment's tables that do not grow.
const TABLES: u64 = 32 << 10;
/// Bytes a step there, compressed.
const STEP_ROW: u64 = 40;
/// Tenths of what is free from which a warning is given.
const NEAR: u64 = 9;

/// What the runs of an experiment need on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskPlan {
    /// One checkpoint of the largest run, bytes.
    pub checkpoint: u64,
    /// The most that one run takes at any moment, bytes.
    pub run_most: u64,
    /// The most that all of them take at any moment, with the tables, bytes.
    pub most: u64,
    /// What is left once all have finished, bytes.
    pub end: u64,
    /// What of it is there already, bytes.
    pub there: u64,
    /// What the file system has left, bytes; none where it does not tell.
    pub free: Option<u64>,
    /// The largest `checkpoint.keep` that fits, where the manifest's does not; none where it fits or none does.
    pub fitting_keep: Option<usize>,
}

impl DiskPlan {
    /// Of the runs of a plan that `counts` picks, whose results go to `dir`, `jobs` runs at a time.
    pub(super) fn of(plan: &Plan, dir: &Path, jobs: usize, counts: &dyn Fn(usize) -> bool) -> Result<Self> {
        Self::with(plan, jobs, bytes_in(dir), free_bytes(dir), counts)
    }

    /// The same for who is about to train, and wants to know of what does not fit or nearly so. Where there is room for all
    /// of it nobody asks what is there already: of ten thousand runs that is half a million files, and hundreds of workers
    /// would look at them.
    pub(super) fn of_what_is_trained(
        plan: &Plan,
        dir: &Path,
        jobs: usize,
        counts: &dyn Fn(usize) -> bool,
    ) -> Result<Self> {
        let found = Self {
            free: free_bytes(dir),
            ..Self::needs(plan, jobs, counts, |config| config.checkpoint.keep)?
        };
        if found.fits() && found.warning().is_none() { Ok(found) } else { Self::of(plan, dir, jobs, counts) }
    }

    fn with(
        plan: &Plan,
        jobs: usize,
        there: u64,
        free: Option<u64>,
        counts: &dyn Fn(usize) -> bool,
    ) -> Result<Self> {
        let mut found = Self::needs(plan, jobs, counts, |config| config.checkpoint.keep)?;
        (found.there, found.free) = (there, free);
        if !found.fits() {
            let most = plan.runs.iter().map(|run| most_kept(&run.config)).max().unwrap_or(1);
            // Fewer never take more.
            let (mut low, mut high) = (0, most);
            while low < high {
                let keep = (low + high).div_ceil(2);
                let mut fewer = Self::needs(plan, jobs, counts, |_| keep)?;
                (fewer.there, fewer.free) = (there, free);
                if fewer.fits() {
                    low = keep;
                } else {
                    high = keep - 1;
                }
            }
            found.fitting_keep = Some(low).filter(|&keep| keep > 0);
        }
        Ok(found)
    }

    fn needs(
        plan: &Plan,
        jobs: usize,
        counts: &dyn Fn(usize) -> bool,
        keep: impl Fn(&RunConfig) -> usize,
    ) -> Result<Self> {
        let (mut checkpoint, mut run_most, mut end, mut steps) = (0, 0, 0_u64, 0_u64);
        let (mut more, mut seen) = (Vec::new(), BTreeSet::new());
        for (index, run) in plan.runs.iter().enumerate().filter(|(index, _)| counts(*index)) {
            // Cells with one run key are one run.
            if !seen.insert(run.key.run) && !run.key.pending {
                continue;
            }
            let mut config = run.config.clone();
            config.checkpoint.keep = keep(&config);
            let forks = plan.prefixes.forked_at(index);
            let footprint = Footprint::of(&config, &forks)?;
            checkpoint = footprint.checkpoint.max(checkpoint);
            run_most = footprint.most.max(run_most);
            end = end.saturating_add(footprint.end);
            steps = steps.saturating_add(config.schedule.num_iterations);
            // What others start from stays until all have finished.
            let pinned = footprint.checkpoint.saturating_mul(forks.len() as u64);
            more.push((footprint.most.saturating_sub(footprint.end), pinned));
        }
        more.sort_unstable_by(|a, b| b.cmp(a));
        let passing: u64 = more
            .iter()
            .enumerate()
            .map(|(index, (passing, pinned))| if index < jobs.max(1) { *passing } else { *pinned })
            .fold(0, u64::saturating_add);
        let tables = TABLES.saturating_add(steps.saturating_mul(STEP_ROW));
        let end = end.saturating_add(tables);
        let most = end.saturating_add(passing);
        Ok(Self { checkpoint, run_most, most, end, there: 0, free: None, fitting_keep: None })
    }

    /// What is still to be written, at the fullest moment.
    fn missing(&self) -> u64 {
        self.most.saturating_sub(self.there)
    }

    fn fits(&self) -> bool {
        self.free.is_none_or(|free| self.missing() <= free)
    }

    /// Why the runs cannot be started; none where they can.
    pub(super) fn refusal(&self) -> Option<Error> {
        let free = self.free.filter(|_| !self.fits())?;
        let what = format!("the results need {} on disk, and {} are free", size(self.missing()), size(free));
        let keep = match self.fitting_keep {
            Some(keep) => format!("--set checkpoint.keep={keep} fits"),
            None => format!("no checkpoint.keep fits, one checkpoint is {}", size(self.checkpoint)),
        };
        let help = format!(
            "{keep}; or make room, or choose another place with --results DIR; --set run.preflight=false starts it \
             all the same"
        );
        Some(Error::input(what).expected(format!("{} free", size(self.missing()))).help(help))
    }

    /// That it will be close; none where it will not.
    pub(super) fn warning(&self) -> Option<String> {
        let close = self.free.is_some_and(|free| self.missing() > free / 10 * NEAR);
        close.then(|| format!("the disk will be nearly full: {}", self.line()))
    }

    /// The plan for a person.
    pub fn line(&self) -> String {
        let free = self.free.map(|free| format!(", of {} free", size(free.saturating_add(self.there))));
        let misfit = match (self.fits(), self.fitting_keep) {
            (true, _) => String::new(),
            (false, Some(keep)) => format!("; does not fit: --set checkpoint.keep={keep} would"),
            (false, None) => "; does not fit".to_owned(),
        };
        format!(
            "about {} a checkpoint, {} at most a run; {} at most in all, {} in the end{}{misfit}",
            size(self.checkpoint),
            size(self.run_most),
            size(self.most),
            size(self.end),
            free.unwrap_or_default()
        )
    }
}

/// The most checkpoints that a run may keep.
fn most_kept(config: &RunConfig) -> usize {
    let steps = config.schedule.num_iterations;
    let all = steps.checked_div(config.checkpoint.every).unwrap_or(0) as usize + 1;
    if config.checkpoint.keep == 0 { all } else { all.min(config.checkpoint.keep) }
}

/// Bytes of the files below a directory; what cannot be read counts as nothing.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_in(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::{Manifest, Options};
    use crate::plan::{NoData, plan};

    fn d12() -> Plan {
        let text = include_str!("../../experiments/d12_sqrt.toml");
        let env = vec![("HOME".to_owned(), "/home/somebody".to_owned())];
        let options = Options { env, ..Options::default() };
        plan(&Manifest::parse(Path::new("d12_sqrt.toml"), text, &options).unwrap(), &NoData).unwrap()
    }

    /// A row of the faults: 3.1 GB a checkpoint and over 100 GB in all, unsaid.
    #[test]
    fn disk() {
        let plan = d12();
        let with = |gib: u64| DiskPlan::with(&plan, 1, 0, Some(gib << 30), &|_| true).unwrap();
        let found = with(1000);
        assert!((3_000_000_000..3_300_000_000).contains(&found.checkpoint), "{found:?}");
        assert!(found.refusal().is_none() && found.warning().is_none());
        insta::assert_snapshot!("d12_on_disk", found.line());
        let refused = with(40).refusal().unwrap();
        assert_eq!(refused.class().exit_code(), 2);
        insta::assert_snapshot!("d12_on_a_small_disk", refused);
        // The advice helps.
        let mut fewer = plan.clone();
        for run in &mut fewer.runs {
            run.config.checkpoint.keep = with(40).fitting_keep.unwrap();
        }
        assert!(DiskPlan::with(&fewer, 1, 0, Some(40 << 30), &|_| true).unwrap().refusal().is_none());
        assert_eq!(with(4).fitting_keep, None);
        // What is there already need not be written again.
        assert!(DiskPlan::with(&plan, 1, 100 << 30, Some(40 << 30), &|_| true).unwrap().refusal().is_none());
    }
}
