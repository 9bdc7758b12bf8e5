//! The answer to an experiment's question, in sentences.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::judge::Scorecard;
use super::verdict::{Outcome, Verdict, VerdictKind};
use crate::math::decade;
use crate::text::printable;

/// Arms of which each has a sentence of its own.
const SPELLED_OUT: usize = 6;

impl Scorecard {
    /// What was found: a sentence for each arm that was to be compared, the clearest first; for many arms how many of
    /// them came out how, and the best.
    pub fn answer(&self) -> Vec<String> {
        self.answers().into_iter().map(|(_, sentence)| sentence).collect()
    }

    /// The same, each sentence with the finding that it tells; none where it tells of several or of none.
    pub fn answers(&self) -> Vec<(Option<Finding>, String)> {
        let verdicts: Vec<&Verdict> =
            self.verdicts.iter().filter(|verdict| verdict.kind == VerdictKind::Quality).collect();
        let finished = self.runs.iter().filter(|run| run.finished()).count();
        let needed = self.runs.iter().filter(|run| !run.not_needed).count();
        let interim = self.how_far(finished, needed);
        let targets = self.verdicts.iter().filter(|verdict| verdict.kind == VerdictKind::Target);
        let targets: Vec<(Option<Finding>, String)> =
            targets.map(|verdict| (finding_of_target(verdict), target_sentence(verdict))).collect();
        if verdicts.iter().all(|verdict| verdict.control.is_none()) {
            let count =
                |runs: usize| if runs == 1 { "1 run is".to_owned() } else { format!("{runs} runs are") };
            let mut sentences = targets;
            // Where arms are of many sizes, how the metric goes with size is what was asked.
            let laws =
                self.scaling.iter().flat_map(|scaling| scaling.laws.iter().map(|law| scaling.said(law)));
            sentences.extend(laws.map(|law| (None, format!("{law}."))));
            if sentences.is_empty() {
                let runs = if finished == needed {
                    count(needed)
                } else {
                    format!("{finished} of {}", count(needed))
                };
                sentences.push((None, format!("{runs} finished; there is no control to compare with.")));
            } else if let Some((_, first)) = sentences.first_mut() {
                first.insert_str(0, &interim);
            }
            return sentences;
        }
        let mut sorted = verdicts;
        // What the question is about first, then further metrics.
        let metrics: Vec<&str> = sorted.iter().map(|verdict| verdict.metric.as_str()).collect();
        let place = |verdict: &Verdict| metrics.iter().position(|metric| *metric == verdict.metric);
        let mut keyed: Vec<_> =
            sorted.iter().map(|verdict| (place(verdict), rank(verdict), *verdict)).collect();
        keyed.sort_by_key(|(place, rank, _)| (*place, *rank));
        sorted = keyed.into_iter().map(|(.., verdict)| verdict).collect();
        let summary = (sorted.len() > SPELLED_OUT).then(|| summary(&sorted));
        let each = if summary.is_none() { &sorted[..] } else { &sorted[..1] };
        let finding = |verdict: &Verdict| verdict.finding.filter(|_| verdict.outcome != Outcome::NotJudged);
        let each = each.iter().map(|verdict| (finding(verdict), sentence(verdict)));
        let sentences = summary.into_iter().map(|sentence| (None, sentence)).chain(each).chain(targets);
        sentences
            .enumerate()
            .map(|(at, (finding, sentence))| {
                (finding, if at == 0 { format!("{interim}{sentence}") } else { sentence })
            })
            .collect()
    }

    /// What is said before the answer: that it is interim, or that a look gave it.
    fn how_far(&self, finished: usize, needed: usize) -> String {
        let Some(sequence) = &self.sequence else {
            return if finished < needed {
                format!("Interim, {finished} of {needed} runs are finished: ")
            } else {
                String::new()
            };
        };
        let of = sequence.looks.seeds.len();
        match sequence.open() {
            Some(open) => {
                let next = sequence.looks.seeds_of(open).len();
                let taken = match sequence.seeds_taken() {
                    0 => "no look is taken".to_owned(),
                    seeds => format!("looked at after {seeds} of {of} seeds"),
                };
                format!(
                    "Interim, {finished} of {needed} runs are finished, {taken}, the next look is after {next}: "
                )
            }
            None if sequence.decided && sequence.seeds_taken() < of => {
                format!("Decided after {} of {of} seeds: ", sequence.seeds_taken())
            }
            None => String::new(),
        }
    }

    /// What its intervals are over, and what they say nothing of.
    pub fn not_covered(&self) -> &'static str {
        // One that goes with the seed takes as many values in an arm as there are seeds.
        let mut first: BTreeMap<&str, Option<u64>> = BTreeMap::new();
        let moves =
            self.runs.iter().any(|run| *first.entry(&run.arm).or_insert(run.data_seed) != run.data_seed);
        if moves {
            "Intervals are over seeds, which draw initial weights and the order of the data: other machines, budgets and \
             data are not in them."
        } else {
            "Intervals are over seeds, which draw initial weights: the order of the data is one and the same in all runs, \
             and other machines, budgets and data are not in them."
        }
    }
}

fn rank(verdict: &Verdict) -> u8 {
    match (verdict.outcome, verdict.finding) {
        (Outcome::NotJudged, _) | (_, None) => 6,
        (_, Some(Finding::Better)) => 0,
        (_, Some(Finding::NoWorse)) => 1,
        (_, Some(Finding::Equivalent)) => 2,
        (_, Some(Finding::WorseWithinMargin)) => 3,
        (_, Some(Finding::Worse)) => 4,
        (_, Some(Finding::Undecided)) => 5,
    }
}

/// "Of 9 arms 2 are better than their control, 6 undecided, 1 not judged."
fn summary(verdicts: &[&Verdict]) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for verdict in verdicts {
        let word = match verdict.finding {
            Some(finding) if verdict.outcome != Outcome::NotJudged => finding.to_string(),
            _ => "not judged".to_owned(),
        };
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let counts: Vec<String> = counts.into_iter().map(|(word, count)| format!("{count} {word}")).collect();
    format!("Of {} arms, against their control: {}.", verdicts.len(), counts.join("; "))
}

/// A target that is met is good news, one that is missed bad.
fn finding_of_target(verdict: &Verdict) -> Option<Finding> {
    match verdict.outcome {
        Outcome::Pass => Some(Finding::Better),
        Outcome::Fail => Some(Finding::Worse),
        Outcome::Undecided => Some(Finding::Undecided),
        _ => None,
    }
}

/// One arm.
fn sentence(verdict: &Verdict) -> String {
    let name = |arm: &str| if arm.is_empty() { "the arm".to_owned() } else { printable(arm).to_string() };
    let arm = name(&verdict.arm);
    let Some(control) = verdict.control.as_deref().map(name) else {
        return format!("{arm} is not judged: {}.", verdict.detail);
    };
    let (Some(finding), Some(difference)) = (verdict.finding, verdict.difference) else {
        let why = verdict.detail.trim_end_matches('.');
        let how = if verdict.outcome == Outcome::NotJudged { "is not judged" } else { "is undecided" };
        return format!("{arm} against {control} {how}: {why}.");
    };
    let metric = &verdict.metric;
    let margin = verdict.limit.unwrap_or_default();
    let percent = verdict.confidence.unwrap_or_default() * 100.0;
    let seeds = match verdict.pairs {
        1 => "1 seed".to_owned(),
        pairs => format!("{pairs} seeds"),
    };
    let digits = digits(verdict);
    let Some((lower, upper)) = verdict.interval else {
        return format!(
            "{arm} against {control} is undecided: {difference:+.digits$} {metric} with {seeds}, {}.",
            verdict.detail
        );
    };
    // Sizes where the direction is said, signs where it is not.
    let (low, high) = if difference < 0.0 { (-upper, -lower) } else { (lower, upper) };
    let size = format!("{:.digits$} {metric} ({low:.digits$} to {high:.digits$}", difference.abs());
    let signed = format!("{difference:+.digits$} {metric} ({lower:+.digits$} to {upper:+.digits$}");
    let close = format!(", {percent} % confidence, {seeds})");
    match finding {
        Finding::Better => format!("{arm} is better than {control} by {size}{close}."),
        Finding::Worse => {
            format!("{arm} is worse than {control} by {size}{close}, more than the margin of {margin}.")
        }
        Finding::WorseWithinMargin => {
            format!("{arm} is worse than {control} by {size}{close}, within the margin of {margin}.")
        }
        Finding::Equivalent => {
            format!("{arm} and {control} are equivalent within {margin}: {signed}{close}.")
        }
        Finding::NoWorse => {
            format!("{arm} is no worse than {control} by more than {margin}: {signed}{close}.")
        }
        Finding::Undecided => {
            let why = verdict.detail.split(';').next().unwrap_or_default();
            let more = verdict.seeds_needed.map(|seeds| format!("; about {seeds} seeds would tell"));
            format!(
                "{arm} against {control} is undecided: {signed}{close}, {why}{}.",
                more.unwrap_or_default()
            )
        }
    }
}

/// Decimals that show an interval with two figures of its width.
fn digits(verdict: &Verdict) -> usize {
    let width = verdict.interval.map_or(0.0, |(lower, upper)| upper - lower);
    digits_of(if width > 0.0 { width } else { verdict.difference.unwrap_or_default().abs() })
}

/// Decimals that show two figures of a width.
pub(super) fn digits_of(width: f64) -> usize {
    if !(width > 0.0 && width.is_finite()) {
        return 4;
    }
    1_i32.saturating_sub(decade(width)).clamp(1, 8) as usize
}

/// An arm against a target.
fn target_sentence(verdict: &Verdict) -> String {
    let arm = if verdict.arm.is_empty() || verdict.arm == "base" {
        "the mean".to_owned()
    } else {
        printable(&verdict.arm).to_string()
    };
    let bound = verdict.limit.unwrap_or_default();
    let side = if verdict.higher_is_better { "at least" } else { "at most" };
    let target = format!("{} {side} {bound}", verdict.metric);
    let (Some(mean), Some(p)) = (verdict.arm_mean, verdict.p) else {
        return format!("{arm} against {target} is undecided: {}.", verdict.detail);
    };
    let runs = if verdict.pairs == 1 { "1 run".to_owned() } else { format!("{} runs", verdict.pairs) };
    let digits = digits(verdict);
    let numbers = format!("{mean:.digits$} over {runs} (p {})", super::target::brief(p));
    let worth = verdict.worth.as_ref().map(|worth| {
        format!(", {} {}", worth.said(), if worth.steps < 0.0 { "missing" } else { "to spare" })
    });
    let worth = worth.unwrap_or_default();
    match verdict.outcome {
        Outcome::Pass => format!("{arm} meets {target}: {numbers}{worth}."),
        Outcome::Fail => format!("{arm} misses {target}: {numbers}{worth}."),
        _ => {
            let interim = verdict.detail.contains("interim");
            let how = if interim { "is interim" } else { "is undecided" };
            format!("{arm} against {target} {how}: {numbers}.")
        }
    }
}
