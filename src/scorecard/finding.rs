//! What an interval says of an arm.

use std::fmt;

/// How an arm is to its control, by the interval of its mean difference and the margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// All of the interval is better than the control.
    Better,
    /// All of the interval is inside the margin, to both sides, and reaches across 0.
    Equivalent,
    /// All of the interval is at most the margin worse; it may be better by more.
    NoWorse,
    /// All of the interval is worse than the control, and none of it by more than the margin.
    WorseWithinMargin,
    /// All of the interval is worse by more than the margin.
    Worse,
    /// The interval reaches across the margin.
    Undecided,
}

impl Finding {
    /// By the ends of the interval of the harm, arm - control of a metric of which less is better; `margin` >= 0.
    pub fn of(lower: f64, upper: f64, margin: f64) -> Self {
        if upper < 0.0 {
            Self::Better
        } else if lower > margin {
            Self::Worse
        } else if upper > margin || lower.is_nan() || upper.is_nan() {
            Self::Undecided
        } else if lower > 0.0 {
            Self::WorseWithinMargin
        } else if lower >= -margin {
            Self::Equivalent
        } else {
            Self::NoWorse
        }
    }

    /// Whether the arm is at most the margin worse.
    pub fn passes(self) -> bool {
        !matches!(self, Self::Worse | Self::Undecided)
    }

    /// It, in words that follow the numbers.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Equivalent => "equivalent within the margin",
            Self::NoWorse => "no worse than the margin allows",
            Self::WorseWithinMargin => "worse, within the margin",
            Self::Worse => "worse than the margin allows",
            Self::Undecided => "the interval reaches across the margin",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Better => "better",
            Self::Equivalent => "equivalent",
            Self::NoWorse => "no worse",
            Self::WorseWithinMargin => "worse, within the margin",
            Self::Worse => "worse",
            Self::Undecided => "undecided",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_interval_one_finding() {
        for (lower, upper, expected) in [
            (-3.0, -0.1, Finding::Better),
            (-0.5, -0.1, Finding::Better),
            (-0.5, 0.5, Finding::Equivalent),
            (-1.0, 1.0, Finding::Equivalent),
            (-1.1, 0.5, Finding::NoWorse),
            (0.1, 0.9, Finding::WorseWithinMargin),
            (0.1, 1.1, Finding::Undecided),
            (-5.0, 1.1, Finding::Undecided),
            (1.1, 2.0, Finding::Worse),
            (f64::NAN, f64::NAN, Finding::Undecided),
            (f64::NEG_INFINITY, f64::INFINITY, Finding::Undecided),
        ] {
            assert_eq!(Finding::of(lower, upper, 1.0), expected, "{lower} to {upper}");
        }
        // Without a margin nothing is equivalent but what is equal.
        assert_eq!(Finding::of(-0.1, 0.1, 0.0), Finding::Undecided);
        assert_eq!(Finding::of(-0.1, 0.0, 0.0), Finding::NoWorse);
    }
}
