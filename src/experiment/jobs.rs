//! How many runs train at the same time.

use std::fmt;

use super::Experiment;
use crate::plan::Arm;

/// Parameters up to which runs side by side are faster than one after another.
///
/// Two runs of a GPT on two cores, wall time of one after another on both over that of side by side on one each, in
/// quiet moments of a two-core x86-64 server; the hashes were equal every time:
///
/// | model | parameters | tokens a micro-batch | times as fast |
/// |---|---|---|---|
/// | microgpt, 16 wide | 4 k | a document | 2.50 |
/// | depth 1, 64 wide, V 512 | 0.15 M | 256 | 1.93 |
/// | depth 2, 128 wide, V 1024 | 0.8 M | 512 | 1.85 |
/// | depth 2, 128 wide, V 4096 | 2.0 M | 1024, 4096 | 1.21, 1.08 |
/// | depth 3, 192 wide, V 4096 | 4.4 M | 1024 | 1.19 |
/// | depth 4, 256 wide, V 4096 | 7.3 M | 1024, 4096 | 1.13, 1.15 |
/// | depth 6, 384 wide, V 4096 | 17 M | 4096 | 1.16; the steps alone 1.04 |
///
/// What is gained is the waiting at the end of each op, and what one thread does alone: checkpoints and hashes, which
/// weigh less the longer a run is. The steps alone gain 1.9 at depth 2 and 1.09 at depth 4; the 1.04 at depth 6 is
/// less than the machine's drift, and every further run takes its memory.
const SMALL: u64 = 8_000_000;

/// Runs at the same time, and why so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jobs {
    /// How many.
    pub count: usize,
    /// Threads of each.
    pub threads: usize,
    /// Why.
    pub reason: &'static str,
}

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, threads, reason } = self;
        let s = if *threads == 1 { "" } else { "s" };
        match count {
            1 => write!(f, "one run at a time ({reason})"),
            _ => write!(f, "{count} runs side by side, {threads} thread{s} each ({reason})"),
        }
    }
}

impl Experiment {
    /// How many runs to train at the same time on that many threads; `pending` says for each run whether it is still
    /// to train, `share` whether runs share their first steps. Never changes a result.
    pub fn jobs(&self, threads: usize, pending: &[bool], share: bool) -> Jobs {
        let waiting = pending.iter().filter(|&&pending| pending).count();
        let runs = &self.plan.runs;
        // libtorch's threads are part of its environment class, and a GPU is one.
        let on_cores = !self.shares_a_device();
        let small = runs.iter().all(|run| run.sizes.params.total <= SMALL);
        let one = |reason| Jobs { count: 1, threads: threads.max(1), reason };
        if waiting < 2 {
            one("no other is waiting")
        } else if !on_cores {
            one("on tch, threads are part of the environment class")
        } else if self.asks_for_speed(share) {
            one("speed is judged, which needs the machine alone")
        } else if !small {
            one("models this large keep all threads busy")
        } else if threads < 2 {
            one("there is one thread")
        } else {
            let wished = waiting.min(threads);
            let fits = |&count: &usize| {
                let memory = self.memory((count, threads / count), pending, &[]);
                // What cannot be planned is refused elsewhere.
                memory.is_ok_and(|memory| memory.fits())
            };
            match (2..=wished).rev().find(fits) {
                None => one("memory has no room for two at a time"),
                Some(count) => {
                    let idle = "small models leave threads idle";
                    let reason = if count == wished { idle } else { "memory has room for no more" };
                    Jobs { count, threads: threads / count, reason }
                }
            }
        }
    }

    /// Whether the speeds of some arm and its control can be compared: both have runs that train all their steps.
    fn asks_for_speed(&self, share: bool) -> bool {
        let arms = &self.plan.arms;
        let whole = |arm: &Arm| arm.runs.iter().any(|&run| !(share && self.plan.prefixes.forks(run)));
        arms.iter().any(|arm| {
            let control = arm.control.and_then(|control| arms.get(control));
            control.is_some_and(|control| whole(arm) && whole(control))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::Options;

    const SEEDS: &str = "matrix = { 'run.seed' = [1, 2, 3] }";

    /// Of a manifest that ends with `matrix`.
    fn jobs_of(matrix: &str, sets: &[&str], threads: usize, share: bool) -> Jobs {
        let experiment = load(matrix, sets);
        experiment.jobs(threads, &vec![true; experiment.plan.runs.len()], share)
    }

    fn load(matrix: &str, sets: &[&str]) -> Experiment {
        let text = r#"
            name = "jobs"
            upstream.commit = "92d63d4"
            run = { seed = 1, backend = "cpu" }
            budget.steps = 2
            schedule.warmdown = "linear"
            model = { depth = 2, sequence_len = 64 }
            train = { device_batch_size = 2, total_batch_size = 128 }
            data.vocab_size = 512
            data.tokenizer.path = "not/here"
        "#;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("jobs.toml");
        std::fs::write(&path, format!("{text}\n{matrix}\n")).unwrap();
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        let options = Options { sets, ..Options::default() };
        Experiment::load(&path, &options, Path::new("results")).unwrap()
    }

    fn jobs(sets: &[&str], threads: usize) -> Jobs {
        jobs_of(SEEDS, sets, threads, true)
    }

    #[test]
    fn small_runs_share_the_threads() {
        let of = |jobs: Jobs| (jobs.count, jobs.threads);
        assert_eq!(of(jobs(&[], 2)), (2, 1));
        assert_eq!(of(jobs(&[], 8)), (3, 2));
        assert_eq!(of(jobs(&[], 1)), (1, 1));
        assert_eq!(of(jobs_of("", &[], 2, true)), (1, 2));
        assert_eq!(of(jobs(&["model.depth=8"], 2)), (1, 2));
        assert_eq!(of(jobs(&["run.backend=\"tch\""], 2)), (1, 2));
        // An arm with a control is judged for speed too, where its runs are not parts of a tree anyway.
        let arms = |field: &str, values: &str, control: &str| {
            format!(
                "matrix = {{ 'run.seed' = [1, 2], '{field}' = [{values}] }}
                scorecard.control = {{ '{field}' = {control} }}"
            )
        };
        let widths = arms("model.aspect_ratio", "64, 32", "64");
        assert_eq!(of(jobs_of(&widths, &[], 2, true)), (1, 2));
        let shapes = arms("schedule.warmdown", "'linear', 'sqrt'", "'linear'");
        assert_eq!(of(jobs_of(&shapes, &["budget.steps=20"], 2, true)), (2, 1));
        assert_eq!(of(jobs_of(&shapes, &["budget.steps=20"], 2, false)), (1, 2));
    }

    #[test]
    fn what_will_not_fit_is_started_all_the_same_where_the_manifest_says_so() {
        let room = |preflight: &str| {
            let sets = ["model.depth=1000", "model.aspect_ratio=1024", preflight];
            let experiment = load("", &sets);
            experiment.require_room((1, 2), &[true], &[])
        };
        let error = room("run.preflight=true").unwrap_err();
        assert_eq!(error.class().exit_code(), 2);
        assert!(error.help_text().unwrap().contains("run.preflight=false"), "{error}");
        assert_eq!(room("run.preflight=false").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn people_are_told_why() {
        assert_eq!(
            jobs(&[], 2).to_string(),
            "2 runs side by side, 1 thread each (small models leave threads idle)"
        );
        assert_eq!(
            jobs(&["model.depth=8"], 2).to_string(),
            "one run at a time (models this large keep all threads busy)"
        );
    }
}
