//! Are the results those of the baseline?

use super::verdict::{Outcome, Verdict, VerdictKind};
use crate::error::Class;

/// How a comparison with a baseline came out, in brief; the comparison itself is the gate's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaselineOutcome {
    /// None is given, or the file is not there.
    NoBaseline,
    /// Every hash is equal.
    Equal {
        /// How many runs were compared.
        runs: usize,
    },
    /// Some hash or value differs.
    Differs {
        /// Which, at which step, by how much.
        detail: String,
    },
    /// The baseline is of another environment class: values were compared by tolerance.
    OtherClass {
        /// Whether they agree.
        within: bool,
        /// Which classes, and the largest deviation.
        detail: String,
    },
}

impl BaselineOutcome {
    pub(super) fn verdict(&self) -> Verdict {
        let verdict = |outcome, metric, detail: &str| {
            Verdict::new(VerdictKind::Reproducibility, outcome, "", metric, detail.to_owned())
        };
        match self {
            Self::NoBaseline => {
                verdict(Outcome::NoBaseline, "result hash", "write one with `nanorun verify --bless`")
            }
            Self::Equal { runs } => {
                verdict(Outcome::Pass, "result hash", &format!("{runs} result hashes equal the baseline's"))
            }
            Self::Differs { detail } => {
                let mut verdict = verdict(Outcome::Fail, "result hash", detail);
                verdict.failure = Class::HashMismatch;
                verdict
            }
            Self::OtherClass { within, detail } => {
                verdict(if *within { Outcome::Pass } else { Outcome::Fail }, "values by tolerance", detail)
            }
        }
    }
}
