//! A summary in Markdown, for a pull request or a job's page.

use super::compare::Comparison;
use crate::scorecard::Scorecard;

/// A comparison, and the verdicts of a scorecard where one is given, as Markdown.
pub fn markdown(comparison: &Comparison, scorecard: Option<&Scorecard>) -> String {
    let (passing, all) = (comparison.passing(), comparison.runs.len());
    let verdict = if comparison.passed() { "reproduced" } else { "not reproduced" };
    let mut text = format!("### {}: {verdict}\n\n", escape(&comparison.experiment));
    let runs = if all == 1 { "run" } else { "runs" };
    text += &format!("{passing} of {all} {runs} as in `{}`.\n\n", comparison.reference);
    text += "| run | result | |\n|---|---|---|\n";
    for run in &comparison.runs {
        let detail: Vec<_> = run.lines().iter().map(|line| escape(line)).collect();
        text += &format!("| {} | {} | {} |\n", escape(&run.name()), run.word(), detail.join("<br>"));
    }
    for note in &comparison.notes {
        text += &format!("\n{}\n", escape(note));
    }
    if let Some(card) = scorecard.filter(|card| !card.verdicts.is_empty()) {
        text += "\n| verdict | arm | result | |\n|---|---|---|---|\n";
        for verdict in &card.verdicts {
            let (kind, outcome) = (verdict.kind, verdict.outcome);
            let (arm, detail) = (escape(&verdict.arm), escape(&verdict.detail));
            text += &format!("| {kind} | {arm} | {outcome} | {detail} |\n");
        }
    }
    text
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
