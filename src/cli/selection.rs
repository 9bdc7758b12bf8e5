//! Runs of results that `--only` picks, by what their plan says of them.

use toml::Value;

use crate::error::Result;
use crate::manifest::{Condition, SEED};
use crate::record::{PlanRecord, PlannedRun};

/// The runs of a plan that `only` picks, all where it is empty. A recorded plan knows what its matrix set.
///
/// # Errors
/// What is no field and value; conditions that pick nothing.
pub(super) fn picked<'a>(record: &'a PlanRecord, only: &[String]) -> Result<Vec<&'a PlannedRun>> {
    let mut runs: Vec<&PlannedRun> = record.runs.iter().collect();
    for condition in Condition::of(only)? {
        let value = |run: &PlannedRun| match run.cell.get(&condition.path) {
            None if condition.path == SEED => i64::try_from(run.seed).ok().map(Value::Integer),
            value => value.cloned(),
        };
        let mut there: Vec<Value> = Vec::new();
        for value in runs.iter().filter_map(|run| value(run)) {
            if !there.contains(&value) {
                there.push(value);
            }
        }
        runs.retain(|run| condition.picks(value(run).as_ref()));
        if runs.is_empty() {
            return Err(condition.picks_nothing(&there));
        }
    }
    Ok(runs)
}
