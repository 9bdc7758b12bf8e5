//! An experiment divided into units, and how long each would take.

use std::collections::BTreeSet;

use super::units::{Unit, units};
use crate::experiment::Experiment;
use crate::plan::time::Speed;
use crate::run::task::evaluate_alike;

/// An experiment's units.
#[derive(Debug, Clone)]
pub struct Share {
    /// By number.
    pub units: Vec<Unit>,
}

/// Divides the runs that are `wanted`, by their place in the plan. Cells with one run key are one run.
pub fn divide(experiment: &Experiment, wanted: &[bool]) -> Share {
    let runs = &experiment.plan.runs;
    let mut taken = BTreeSet::new();
    let wanted: Vec<bool> = runs
        .iter()
        .zip(wanted)
        .map(|(run, wanted)| *wanted && (run.key.pending || taken.insert(run.key.run)))
        .collect();
    let alike = |a: usize, b: usize| match (runs.get(a), runs.get(b)) {
        (Some(a), Some(b)) => evaluate_alike(&a.config, &b.config),
        _ => false,
    };
    let steps: Vec<u64> = runs.iter().map(|run| run.sizes.steps).collect();
    let split = usize::try_from(experiment.manifest.head.cluster.split).unwrap_or(usize::MAX);
    Share { units: units(&experiment.plan.prefixes, &steps, &wanted, split, alike) }
}

impl Share {
    /// Seconds of each unit at that speed: steps that a run takes over from another are not counted.
    pub fn seconds(&self, experiment: &Experiment, speed: &Speed) -> Vec<f64> {
        let of_run = |&(run, own): &(usize, u64)| {
            experiment
                .plan
                .runs
                .get(run)
                .map_or(0.0, |run| speed.time(run).total() * own as f64 / run.sizes.steps.max(1) as f64)
        };
        self.units.iter().map(|unit| unit.runs.iter().map(of_run).sum()).collect()
    }

    /// How many there are of what, in words.
    pub fn words(&self) -> String {
        let count = |what: &str, number: usize| match number {
            1 => format!("1 {what}"),
            _ => format!("{number} {what}s"),
        };
        let runs: usize = self.units.iter().map(|unit| unit.runs.len()).sum();
        let waiting = self.units.iter().filter(|unit| unit.after.is_some()).count();
        let waits = match waiting {
            0 => String::new(),
            1 => ", 1 of which waits for its trunk".to_owned(),
            _ => format!(", {waiting} of which wait for their trunk"),
        };
        format!("{} for {}{waits}", count("job", self.units.len()), count("run", runs))
    }
}
