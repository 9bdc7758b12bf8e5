//! Comparing results: with a baseline that a team keeps beside its experiment, and with one another.
//!
//! Runs are matched by cell. Within an environment class the hashes decide; where they differ, the comparison
//! names the first step and the field. Between classes values are compared by tolerance, and the report says so.
//! One run key in one class with two result hashes is reported as a defect of nanorun.

mod baseline;
mod compare;
mod junit;
mod markdown;
mod records;
mod text;

#[cfg(test)]
mod tests;

pub use baseline::{Baseline, Blessed, bless};
pub use compare::{Comparison, Difference, FieldDifference, RunComparison, RunOutcome, Tolerance, compare};
pub use junit::junit;
pub use markdown::{card_markdown, markdown};
pub use records::{Candidate, Results, RunRecord, StepRecord, read_results};
