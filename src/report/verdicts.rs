//! The answers of scorecards as pages show them: in a sentence, and as rows of the forest plot. This is the one place
//! that knows how verdicts are made.

use super::forest::{Forest, Row};
use super::view::{View, shown};
use crate::scorecard::{Finding, Outcome, RunSummary, Verdict, VerdictKind};

/// Whether an answer is good news; decides a colour, never a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
    Open,
    Plain,
}

/// One sentence of the answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) tone: Tone,
    pub(super) text: String,
}

impl Tone {
    /// The class of a paragraph.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "answer good",
            Self::Bad => "answer bad",
            Self::Open => "answer open",
            Self::Plain => "answer",
        }
    }

    /// The class of a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Good => "good-word",
            Self::Bad => "bad-word",
            Self::Open => "open-word",
            Self::Plain => "plain-word",
        }
    }
}

/// The tone of a verdict: colour where an arm is better or worse, or where nobody knows.
pub(super) fn tone(verdict: &Verdict) -> Tone {
    match (verdict.outcome, verdict.finding) {
        (Outcome::NotJudged | Outcome::NoBaseline, _) => Tone::Plain,
        (_, Some(finding)) => tone_of(finding),
        (Outcome::Pass, None) => Tone::Good,
        (Outcome::Fail, None) => Tone::Bad,
        (Outcome::Undecided, None) => Tone::Open,
    }
}

fn tone_of(finding: Finding) -> Tone {
    match finding {
        Finding::Better => Tone::Good,
        Finding::Equivalent | Finding::NoWorse => Tone::Plain,
        Finding::WorseWithinMargin | Finding::Undecided => Tone::Open,
        Finding::Worse => Tone::Bad,
    }
}

/// How a verdict came out, in a word or a few.
pub(super) fn outcome(verdict: &Verdict) -> String {
    match verdict.finding.filter(|_| verdict.outcome != Outcome::NotJudged) {
        Some(finding) => finding.to_string(),
        None => verdict.outcome.to_string().to_lowercase(),
    }
}

/// What was found in the experiment at that place, in sentences.
pub(super) fn answers(view: &View<'_>, subject: usize) -> Vec<Answer> {
    let Some(subject) = view.subjects.get(subject) else { return Vec::new() };
    let answers = subject.scorecard.answers().into_iter();
    answers.map(|(finding, text)| Answer { tone: finding.map_or(Tone::Plain, tone_of), text }).collect()
}

/// A forest plot for every metric and margin that arms were judged by, over all experiments of the page.
pub(super) fn forests(view: &View<'_>) -> Vec<Forest> {
    let mut forests: Vec<Forest> = Vec::new();
    for (place, subject) in view.subjects.iter().enumerate() {
        let card = &subject.scorecard;
        for verdict in card.verdicts.iter().filter(|verdict| verdict.kind == VerdictKind::Quality) {
            let Some(control) = verdict.control.as_deref() else { continue };
            let prefix = if view.is_comparison() { format!("{}: ", subject.name) } else { String::new() };
            let row = Row {
                name: format!("{prefix}{}", shown(&verdict.arm)),
                control: shown(control).to_owned(),
                look: view.look(place, &verdict.arm),
                mean: verdict.difference,
                interval: verdict.interval.filter(|(lower, upper)| lower.is_finite() && upper.is_finite()),
                alone: verdict.raw_interval.filter(|_| verdict.arms_together > 1),
                seeds: seeds(&card.runs, &verdict.arm, control, &verdict.metric),
                outcome: outcome(verdict),
            };
            let lower_is_better = !verdict.higher_is_better;
            let same = |forest: &&mut Forest| {
                (&forest.metric, forest.margin) == (&verdict.metric, verdict.limit)
                    && forest.lower_is_better == lower_is_better
            };
            match forests.iter_mut().find(same) {
                Some(forest) => forest.rows.push(row),
                None => forests.push(Forest {
                    metric: verdict.metric.clone(),
                    margin: verdict.limit,
                    lower_is_better,
                    rows: vec![row],
                }),
            }
        }
    }
    forests
}

/// The difference of every seed that both arms finished.
fn seeds(runs: &[RunSummary], arm: &str, control: &str, metric: &str) -> Vec<(u64, f64)> {
    let of = |arm: &str, seed: u64| {
        runs.iter().find(|run| run.arm == arm && run.seed == seed)?.metrics.get(metric).copied()
    };
    let own = runs.iter().filter(|run| run.arm == arm);
    own.filter_map(|run| Some((run.seed, of(arm, run.seed)? - of(control, run.seed)?))).collect()
}
