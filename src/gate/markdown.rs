//! A summary in Markdown, for a pull request or a job's page.

use super::compare::Comparison;
use crate::scorecard::{Outcome, Scorecard, Verdict, VerdictKind};

/// A comparison, and the verdicts of a scorecard where one is given, as Markdown.
pub fn markdown(comparison: &Comparison, scorecard: Option<&Scorecard>) -> String {
    let (passing, all) = (comparison.passing(), comparison.runs.len());
    let verdict = if comparison.passed() { "reproduced" } else { "not reproduced" };
    let runs = if all == 1 { "run" } else { "runs" };
    let mut lines = vec![
        format!("### {}: {verdict}\n", escape(&comparison.experiment)),
        format!("{passing} of {all} {runs} as in `{}`.\n", comparison.reference),
        "| run | result | |\n|---|---|---|".to_owned(),
    ];
    lines.extend(comparison.runs.iter().map(|run| {
        let detail: Vec<_> = run.lines().iter().map(|line| escape(line)).collect();
        format!("| {} | {} | {} |", escape(&run.name()), run.word(), detail.join("<br>"))
    }));
    lines.extend(comparison.notes.iter().map(|note| format!("\n{}", escape(note))));
    if let Some(card) = scorecard.filter(|card| !card.verdicts.is_empty()) {
        lines.extend(card.answer().iter().map(|sentence| format!("\n{}", escape(sentence))));
        lines.push(
            "\n| verdict | arm | result | difference | interval | of the arm alone | p | seeds | |\n|---|---|---|---|---|---|---|---|---|"
                .to_owned(),
        );
        lines.extend(card.verdicts.iter().map(row));
    }
    lines.join("\n") + "\n"
}

/// A verdict with the numbers that it rests on.
fn row(verdict: &Verdict) -> String {
    let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:+.5}"));
    let range = |ends: Option<(f64, f64)>| {
        ends.map_or(String::new(), |(lower, upper)| format!("{lower:+.5} to {upper:+.5}"))
    };
    let what = match verdict.kind {
        VerdictKind::Quality | VerdictKind::Target => format!("{}, {}", verdict.kind, verdict.metric),
        kind => kind.to_string(),
    };
    let found = match verdict.finding {
        Some(finding) if verdict.outcome == Outcome::Pass => format!("pass: {finding}"),
        _ => verdict.outcome.to_string(),
    };
    let cells = [
        escape(&what),
        escape(&verdict.arm),
        found,
        number(verdict.difference),
        range(verdict.interval),
        range(verdict.raw_interval.filter(|raw| Some(*raw) != verdict.interval)),
        verdict.p_adjusted.map_or(String::new(), |p| format!("{p:.2e}")),
        if verdict.pairs > 0 { verdict.pairs.to_string() } else { String::new() },
        escape(&verdict.detail),
    ];
    format!("| {} |", cells.join(" | "))
}

/// Text that stays text inside a table.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '|' | '`' | '*' | '_' | '<' | '[' | '\\' => escaped.extend(['\\', character]),
            '\n' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
