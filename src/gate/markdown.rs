//! A summary in Markdown, for a pull request or a job's page.

use super::compare::Comparison;
use crate::scorecard::Scorecard;

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
        lines.push("\n| verdict | arm | result | |\n|---|---|---|---|".to_owned());
        lines.extend(card.verdicts.iter().map(|verdict| {
            let (kind, outcome) = (verdict.kind, verdict.outcome);
            let (arm, detail) = (escape(&verdict.arm), escape(&verdict.detail));
            format!("| {kind} | {arm} | {outcome} | {detail} |")
        }));
    }
    lines.join("\n") + "\n"
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
