//! Verdicts over the runs of an experiment: arms against a control over paired seeds.
//!
//! Works on plain summaries of runs; knows nothing of how they were trained. What it cannot decide it calls
//! undecided or not judged, never a pass.

mod answer;
mod budget;
mod environments;
mod families;
mod finding;
mod judge;
mod other_text;
mod pairing;
mod quality;
mod render;
mod reproducibility;
mod scaling;
mod sequence;
mod speed;
mod target;
mod variance;
mod verdict;
mod worth;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use finding::Finding;
pub use judge::{Criteria, RunSummary, Scorecard, judge, sequence_of};
pub use other_text::OtherText;
pub use quality::{Criterion, Quality};
pub use reproducibility::BaselineOutcome;
pub use scaling::{Axis, Budgeted, Optimum, Scaling, ScalingAsked, ScalingPoint, ScalingRun, scaling};
pub use sequence::{LookTaken, Sequence};
pub use speed::Speed;
pub use variance::Variance;
#[cfg(any(test, feature = "internals"))]
pub use verdict::{LookOf, Matched, Worth};
pub use verdict::{Outcome, Verdict, VerdictKind};
