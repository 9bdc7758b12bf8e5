//! What a verdict is.

use std::fmt;

use super::finding::Finding;
use crate::error::Class;
use crate::record::ScorecardRow;

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictKind {
    /// Is the arm no worse than the control?
    Quality,
    /// Is the arm as fast as the control?
    Speed,
    /// Are the results those of the baseline?
    Reproducibility,
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It does not hold.
    Fail,
    /// The runs do not tell. No failure, and no pass.
    Undecided,
    /// The runs are not of the kind that could tell. No failure, and no pass.
    NotJudged,
    /// There is nothing to compare with. No failure, and no pass.
    NoBaseline,
}

/// One line of a scorecard.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What is judged.
    pub kind: VerdictKind,
    /// How it came out.
    pub outcome: Outcome,
    /// How the arm is to its control; of quality alone.
    pub finding: Option<Finding>,
    /// Whether more of the metric is better.
    pub higher_is_better: bool,
    /// The class of failure a [`Outcome::Fail`] is.
    pub failure: Class,
    /// The arm that is judged; empty where it is all of them.
    pub arm: String,
    /// The arm it is compared with.
    pub control: Option<String>,
    /// What is compared.
    pub metric: String,
    /// Pairs of runs with equal seeds.
    pub pairs: usize,
    /// Mean of the arm.
    pub arm_mean: Option<f64>,
    /// Mean of the control.
    pub control_mean: Option<f64>,
    /// Mean of arm - control over the pairs; for speed the ratio arm / control.
    pub difference: Option<f64>,
    /// Confidence interval of the difference, wide enough for all arms together: it decides.
    pub interval: Option<(f64, f64)>,
    /// The interval of this arm as if there were no other.
    pub raw_interval: Option<(f64, f64)>,
    /// Arms that are judged against the same control, this one included.
    pub arms_together: usize,
    /// Standard deviation of the differences between seeds.
    pub deviation: Option<f64>,
    /// About how many seeds would decide what is undecided.
    pub seeds_needed: Option<u32>,
    /// The margin or the smallest ratio.
    pub limit: Option<f64>,
    /// Confidence of the interval.
    pub confidence: Option<f64>,
    /// The verdict in words.
    pub detail: String,
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Quality => "quality",
            Self::Speed => "speed",
            Self::Reproducibility => "reproducibility",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Undecided => "undecided",
            Self::NotJudged => "not judged",
            Self::NoBaseline => "no baseline",
        })
    }
}

impl Verdict {
    /// A verdict without numbers; its failure, if it is one, is of class [`Class::Verdict`].
    pub fn new(kind: VerdictKind, outcome: Outcome, arm: &str, metric: &str, detail: String) -> Self {
        Self {
            kind,
            outcome,
            finding: None,
            higher_is_better: false,
            failure: Class::Verdict,
            arm: arm.to_owned(),
            control: None,
            metric: metric.to_owned(),
            pairs: 0,
            arm_mean: None,
            control_mean: None,
            difference: None,
            interval: None,
            raw_interval: None,
            arms_together: 1,
            deviation: None,
            seeds_needed: None,
            limit: None,
            confidence: None,
            detail,
        }
    }

    /// Its row of `scorecard.parquet`.
    pub fn row(&self) -> ScorecardRow {
        ScorecardRow {
            verdict: self.kind.to_string(),
            arm: self.arm.clone(),
            control: self.control.clone(),
            metric: self.metric.clone(),
            outcome: self.outcome.to_string().to_lowercase(),
            finding: self.finding.map(|finding| finding.to_string()),
            pairs: self.pairs as u64,
            arm_mean: self.arm_mean,
            control_mean: self.control_mean,
            difference: self.difference,
            lower: self.interval.map(|(lower, _)| lower),
            upper: self.interval.map(|(_, upper)| upper),
            raw_lower: self.raw_interval.map(|(lower, _)| lower),
            raw_upper: self.raw_interval.map(|(_, upper)| upper),
            deviation: self.deviation,
            seeds_needed: self.seeds_needed.map(u64::from),
            limit: self.limit,
            confidence: self.confidence,
            detail: self.detail.clone(),
        }
    }
}
