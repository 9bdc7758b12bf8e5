//! What runs leave behind: journals, results, tables, and the facts about where they were made.
//!
//! `result.json` is the truth about a finished run and is written last; the parquet tables are made from results
//! and can be made again. Hashes are computed in [`crate::train::result_hash`] over values alone; timings and host
//! facts stand beside them.

mod attempts;
pub mod column;
mod divergence;
pub mod journal;
pub mod layout;
mod looks;
mod naming;
pub mod plan_record;
pub mod result;
mod seal;
pub mod tables;

#[cfg(test)]
mod tests;

pub use crate::host::HostFacts;
pub use attempts::{Attempt, Attempts};
#[cfg(test)]
use column::schemas_markdown;
pub use column::{Row, TableError, read_table, write_table, write_table_of};
pub use divergence::Divergence;
pub use journal::{Conditions, Entry, Event, Journal};
pub use layout::{AttemptDir, ExperimentDir, LAYOUT, RunDir};
pub use looks::{LookRecord, LookVerdict, LookedAt, Looks};
pub use naming::{Named, experiments_in, key_of};
pub use plan_record::{NAME as PLAN_NAME, PlanRecord, PlannedRun};
pub use result::{RecordError, RunResult, Timings};
pub use tables::{EvalRow, LedgerRow, OwnStepRow, RunRow, ScalingRow, ScorecardRow, StepRow};
