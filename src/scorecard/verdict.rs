//! What a verdict is.

use std::fmt;

use super::finding::Finding;
use super::other_text::OtherText;
use crate::error::Class;
use crate::record::ScorecardRow;

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictKind {
    /// Is the arm no worse than the control?
    Quality,
    /// Is the arm as fast as the control?
    Speed,
    /// Does the mean of the arm meet a number?
    Target,
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
    /// Their seeds, in the order of the arm's runs; of quality alone.
    pub seeds: Vec<u64>,
    /// Mean of the arm.
    pub arm_mean: Option<f64>,
    /// Mean of the control.
    pub control_mean: Option<f64>,
    /// Mean of arm - control over the pairs; for speed the ratio arm / control; for a target mean of arm - target.
    pub difference: Option<f64>,
    /// Confidence interval of the difference, wide enough for all arms together: it decides.
    pub interval: Option<(f64, f64)>,
    /// The interval of this arm as if there were no other.
    pub raw_interval: Option<(f64, f64)>,
    /// Two-sided p of no difference, as if there were no other arm.
    pub p: Option<f64>,
    /// The same adjusted for all arms, controls and metrics of the experiment (Dunnett and Holm); looks are not in it.
    pub p_adjusted: Option<f64>,
    /// The look that says so, where it is judged at looks.
    pub look: Option<LookOf>,
    /// What the difference is worth by the slope of the arm's own curve: what it has to spare, below 0 what it lacks.
    pub worth: Option<Worth>,
    /// What of the control's budget the arm had, and what the difference is at the same; of quality alone.
    pub matched: Option<Matched>,
    /// What another validation text would do to the difference; none where that says nothing: of other metrics than
    /// those of the validation text, and where nobody has looked.
    pub other_text: Option<OtherText>,
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

/// A difference in what it takes to train for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    /// Optimizer steps.
    pub steps: f64,
    /// Tokens.
    pub tokens: f64,
}

/// An arm's budget beside its control's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matched {
    /// Tokens, arm over control.
    pub tokens: f64,
    /// FLOPs, arm over control.
    pub flops: f64,
    /// The difference at equal tokens, of the metric: as measured where they are equal, else corrected by the slope of
    /// the arm's own curve.
    pub per_token: Option<f64>,
    /// The difference at equal time, corrected so; none where speed may not be judged.
    pub per_second: Option<f64>,
}

/// A look at an experiment before its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LookOf {
    /// Which it is, from 1.
    pub look: usize,
    /// How many there are.
    pub looks: usize,
    /// Seeds that it is over.
    pub seeds: usize,
    /// Seeds of the experiment.
    pub of_seeds: usize,
    /// Its nominal two-sided level, of one arm as if there were no other.
    pub level: f64,
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Quality => "quality",
            Self::Speed => "speed",
            Self::Target => "target",
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
            seeds: Vec::new(),
            arm_mean: None,
            control_mean: None,
            difference: None,
            interval: None,
            raw_interval: None,
            p: None,
            p_adjusted: None,
            look: None,
            worth: None,
            matched: None,
            other_text: None,
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
            p: self.p,
            p_adjusted: self.p_adjusted,
            look: self.look.map(|look| look.look as u64),
            looks: self.look.map(|look| look.looks as u64),
            look_seeds: self.look.map(|look| look.seeds as u64),
            look_level: self.look.map(|look| look.level),
            worth_steps: self.worth.map(|worth| worth.steps),
            worth_tokens: self.worth.map(|worth| worth.tokens),
            tokens_ratio: self.matched.map(|matched| matched.tokens),
            flops_ratio: self.matched.map(|matched| matched.flops),
            per_token: self.matched.and_then(|matched| matched.per_token),
            per_second: self.matched.and_then(|matched| matched.per_second),
            deviation: self.deviation,
            text_deviation: self.other_text.as_ref().and_then(OtherText::deviation),
            text_reach: self.other_text.as_ref().and_then(OtherText::reach),
            text_documents: self.other_text.as_ref().and_then(OtherText::documents),
            text_detail: self.other_text.as_ref().map(|text| text.said(self)),
            seeds_needed: self.seeds_needed.map(u64::from),
            limit: self.limit,
            confidence: self.confidence,
            detail: self.detail.clone(),
        }
    }
}
