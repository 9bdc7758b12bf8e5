//! A summary in Markdown, for a pull request or a job's page.

use super::compare::Comparison;
use crate::scorecard::{OtherText, Outcome, Scorecard, Verdict, VerdictKind};

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
        lines.extend(verdicts(card));
        lines.extend(other_text(card));
    }
    lines.join("\n") + "\n"
}

/// What another validation text would do to the differences; nothing where that is not told.
fn other_text(card: &Scorecard) -> Option<String> {
    let sentences = card.other_text();
    (!sentences.is_empty()).then(|| format!("\n{}", escape(&sentences.join(" "))))
}

/// A scorecard as Markdown, for a pull request: the answer, what was asked, arms, verdicts, runs, and what intervals are not
/// over.
pub fn card_markdown(card: &Scorecard) -> String {
    let mut lines = vec![format!("### {}\n", escape(&card.name))];
    lines.extend(card.answer().iter().map(|sentence| format!("**{}**\n", escape(sentence))));
    lines.extend(card.question.as_ref().map(|question| format!("Question: {}\n", escape(question))));
    let mut metrics: Vec<&String> = card.arms.iter().flat_map(|arm| arm.metrics.keys()).collect();
    metrics.sort_by_key(|name| (name.as_str() != "val_bpb", *name));
    metrics.dedup();
    let names: Vec<String> = metrics.iter().map(|metric| escape(metric)).collect();
    let rule = |columns: usize| format!("|{}", "---|".repeat(columns));
    lines.push(format!("| arm | runs | {} | tokens/s |", names.join(" | ")).replace("|  |", "|"));
    lines.push(rule(3 + metrics.len()));
    let shown = |arm: &str| if arm.is_empty() { "(all)".to_owned() } else { escape(arm) };
    lines.extend(card.arms.iter().map(|arm| {
        let control = if arm.control { " (control)" } else { "" };
        let mut cells = vec![format!("{}{control}", shown(&arm.name))];
        cells.push(if arm.finished == arm.runs {
            arm.runs.to_string()
        } else {
            format!("{} of {}", arm.finished, arm.runs)
        });
        cells.extend(metrics.iter().map(|metric| match arm.metrics.get(*metric) {
            Some((mean, Some(deviation))) => format!("{mean:.5} ± {deviation:.5}"),
            Some((mean, None)) => format!("{mean:.5}"),
            None => "-".to_owned(),
        }));
        cells.push(arm.tokens_per_second.map_or("-".to_owned(), |rate| format!("{rate:.0}")));
        format!("| {} |", cells.join(" | "))
    }));
    if !card.verdicts.is_empty() {
        lines.extend(verdicts(card));
    }
    lines.push(
        "\n<details><summary>Runs</summary>\n\n| run | seed | val\\_bpb | result hash |\n|---|---|---|---|"
            .to_owned(),
    );
    lines.extend(card.runs.iter().map(|run| {
        let bpb = run.metrics.get("val_bpb").map_or("-".to_owned(), |value| format!("{value:.5}"));
        let hash = run.result_hash.map_or("unfinished".to_owned(), |hash| format!("`{}`", hash.short()));
        format!("| {} | {} | {bpb} | {hash} |", shown(&run.arm), run.seed)
    }));
    lines.push("\n</details>".to_owned());
    if card.verdicts.iter().any(|verdict| verdict.interval.is_some()) {
        lines.push(format!("\n{}", card.not_covered()));
    }
    lines.extend(other_text(card));
    lines.join("\n") + "\n"
}

/// The verdicts of a scorecard, as a table.
fn verdicts(card: &Scorecard) -> Vec<String> {
    let mut lines = vec![
        "\n| verdict | arm | result | difference | interval | of the arm alone | other text | p | seeds | |\n|---|---|---|---|---|---|---|---|---|---|"
            .to_owned(),
    ];
    lines.extend(card.verdicts.iter().map(row));
    lines
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
    let reach = verdict.other_text.as_ref().and_then(OtherText::reach);
    let cells = [
        escape(&what),
        escape(&verdict.arm),
        found,
        number(verdict.difference),
        range(verdict.interval),
        range(verdict.raw_interval.filter(|raw| Some(*raw) != verdict.interval)),
        reach.map_or(String::new(), |reach| format!("\u{b1}{reach:.5}")),
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
