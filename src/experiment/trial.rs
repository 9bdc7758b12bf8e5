//! One arm of an experiment against an arm of another: what an automated researcher asks again and again.

use std::collections::BTreeMap;

use super::ends::{Ends, RunEnd};
use super::tables::{self, run_row};
use super::{Experiment, judge};
use crate::error::{Error, Result};
use crate::hash::Digest;
use crate::ledger::{cost, try_id};
use crate::plan::key::{KeyChain, Links};
use crate::plan::run_config::RunConfig;
use crate::record::KeptDocuments;
use crate::scorecard::{Criteria, Quality, RunSummary, Scorecard, Verdict, judge as judge_runs};

/// What the arm that is tried is called where it is judged.
const TRIED: &str = "the try";

/// What its control is called there.
const CONTROL: &str = "the control";

/// An arm of an experiment.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// The arm, by its place in the plan.
    pub arm: usize,
}

/// A try and its control.
#[derive(Clone, Copy)]
pub struct Trial<'a> {
    /// What is tried.
    pub ours: Side<'a>,
    /// What it is compared with.
    pub control: Side<'a>,
}

/// How a try came out.
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// It in a sentence.
    pub answer: String,
    /// Wall seconds of the try's runs, without steps that were trained as part of others.
    pub seconds: f64,
    /// FLOPs of training them, likewise.
    pub flops: f64,
    /// Runs of the try that are finished, and all of them.
    pub finished: (usize, usize),
}

/// The confidence at which the i-th try against a control is judged, i from 1, so that over all tries, however many there
/// are going to be, the error stays at most `alpha`: `1 - alpha * 6 / (pi^2 i^2)`.
pub fn level(alpha: f64, number: u64) -> f64 {
    let number = number.max(1) as f64;
    1.0 - alpha * 6.0 / (std::f64::consts::PI * std::f64::consts::PI * number * number)
}

impl Side<'_> {
    /// What people call it.
    pub fn name(&self) -> String {
        let directory =
            self.experiment.dir.path().file_name().map(|name| name.to_string_lossy().into_owned());
        let directory = directory.unwrap_or_else(|| self.experiment.plan.name.clone());
        let label = self.label();
        if self.experiment.plan.arms.len() < 2 { directory } else { format!("{directory} {label}") }
    }

    /// The arm's own label.
    pub fn label(&self) -> String {
        self.experiment.plan.arms.get(self.arm).map_or_else(String::new, |arm| arm.label.clone())
    }

    /// Its seeds that the command is about, ascending.
    pub fn seeds(&self) -> Vec<u64> {
        let runs = self.experiment.selected_runs().filter(|run| run.arm == self.arm);
        let mut seeds: Vec<u64> = runs.map(|run| run.config.seed).collect();
        seeds.sort_unstable();
        seeds
    }

    /// The key that its runs would have with one seed: what it is, whatever the seeds.
    ///
    /// # Errors
    /// An arm without runs, or whose data are not here.
    pub fn identity(&self) -> Result<Digest> {
        let run = self.experiment.plan.runs.iter().find(|run| run.arm == self.arm);
        let run = run.ok_or_else(|| Error::internal("an arm has no runs"))?;
        if run.key.pending {
            self.experiment.require_present()?;
        }
        Ok(seedless(&run.config))
    }

    /// Its runs with where they stand.
    fn ends(&self) -> Result<Vec<(usize, RunEnd)>> {
        let mut found = Vec::new();
        for (index, run) in self.experiment.plan.runs.iter().enumerate() {
            if run.arm != self.arm || !self.experiment.is_selected(index) {
                continue;
            }
            let mut ends = Ends::default();
            ends.push_pending(&self.experiment.label(run), self.experiment.standing(run)?);
            found.extend(ends.runs.into_iter().map(|end| (index, end)));
        }
        Ok(found)
    }
}

/// The key of a run with seed 0.
fn seedless(config: &RunConfig) -> Digest {
    let mut config = config.clone();
    if config.row_order.seed == Some(config.seed) {
        config.row_order.seed = Some(0);
    }
    config.seed = 0;
    KeyChain::new(&config).run_key(&Links::of(&config).last()).run
}

impl Trial<'_> {
    /// Seeds that both have.
    pub fn seeds(&self) -> Vec<u64> {
        let control = self.control.seeds();
        self.ours.seeds().into_iter().filter(|seed| control.contains(seed)).collect()
    }

    /// What it is judged by, of the manifest that is tried: metric, margin and the confidence over all tries.
    pub fn asks(&self) -> (String, f64, f64) {
        let quality = judge::quality(self.ours.experiment);
        let (metric, margin) = quality
            .metrics
            .into_iter()
            .next()
            .map_or_else(|| (judge::metric(self.ours.experiment), 0.0), |first| (first.metric, first.margin));
        (metric, margin, quality.confidence)
    }

    /// What tells it from every other try.
    ///
    /// # Errors
    /// Data that are not here.
    pub fn id(&self) -> Result<Digest> {
        let (metric, margin, _) = self.asks();
        Ok(try_id(&self.control.identity()?, &self.ours.identity()?, &self.seeds(), &metric, margin))
    }

    /// Judges what is on disk, at a confidence.
    ///
    /// # Errors
    /// Directories that cannot be read.
    pub fn judge(&self, confidence: f64) -> Result<Outcome> {
        // A try is one question: about one metric, asked once.
        let mut quality = Quality {
            confidence,
            forks: BTreeMap::new(),
            looks: None,
            ..judge::quality(self.ours.experiment)
        };
        quality.metrics.truncate(1);
        let metrics: Vec<String> = quality.metrics.iter().map(|one| one.metric.clone()).collect();
        let seeds = self.seeds();
        let mut runs: Vec<RunSummary> = Vec::new();
        // Where each of them is, for what is kept beside its result.
        let mut places: Vec<(Side<'_>, usize, RunEnd)> = Vec::new();
        let (mut rows, mut finished) = (Vec::new(), (0, 0));
        for (side, name) in [(self.control, CONTROL), (self.ours, TRIED)] {
            let (indices, ends): (Vec<usize>, Vec<RunEnd>) = side.ends()?.into_iter().unzip();
            for (index, end) in indices.into_iter().zip(&ends) {
                let recorded = side.experiment.recorded_run(index, end);
                if name == TRIED {
                    finished.0 += usize::from(end.result().is_some());
                    finished.1 += 1;
                    rows.push(run_row(&recorded));
                }
                if seeds.contains(&recorded.config.seed) {
                    let summary = tables::summary(&recorded, &metrics);
                    runs.push(RunSummary { arm: name.to_owned(), ..summary });
                    places.push((side, index, end.clone()));
                }
            }
        }
        let (seconds, flops) = cost(&rows);
        let criteria = Criteria {
            controls: BTreeMap::from([(TRIED.to_owned(), CONTROL.to_owned())]),
            quality: Some(quality),
            ..Criteria::default()
        };
        let mut card: Scorecard = judge_runs(&self.ours.experiment.plan.name, None, &criteria, runs);
        card.tell_other_text(&mut |place| match places.get(place) {
            Some((side, index, end)) => side.experiment.documents(*index, end),
            None => Ok(KeptDocuments::Absent),
        })?;
        let answer = [card.answer(), card.other_text()].concat().join(" ");
        let verdict = card.verdicts.into_iter().next();
        let verdict = verdict.ok_or_else(|| Error::internal("a try has no verdict"))?;
        Ok(Outcome { verdict, answer, seconds, flops, finished })
    }
}

#[cfg(test)]
mod tests {
    use super::level;

    #[test]
    fn the_levels_of_all_tries_add_up_to_the_error_that_is_allowed() {
        let spent: f64 = (1..=200_000).map(|number| 1.0 - level(0.05, number)).sum();
        assert!(spent < 0.05 && spent > 0.04999, "{spent}");
        assert!((level(0.05, 1) - (1.0 - 0.05 * 0.6079271018540267)).abs() < 1e-12);
        assert_eq!(level(0.05, 0), level(0.05, 1));
    }
}
