//! Verdicts over the runs of an experiment: arms against a control over paired seeds.
//!
//! Works on plain summaries of runs; knows nothing of how they were trained. What it cannot decide it calls
//! undecided or not judged, never a pass.

mod answer;
mod environments;
mod finding;
mod judge;
mod pairing;
mod quality;
mod render;
mod reproducibility;
mod speed;
mod variance;
mod verdict;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use finding::Finding;
pub use judge::{Criteria, RunSummary, Scorecard, judge};
pub use quality::Quality;
pub use reproducibility::BaselineOutcome;
pub use speed::Speed;
pub use variance::Variance;
pub use verdict::{Outcome, Verdict, VerdictKind};
