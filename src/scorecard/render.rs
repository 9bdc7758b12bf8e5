//! `scorecard.txt`.

use std::fmt;

use super::answer::digits_of;
use super::judge::{ArmSummary, RunSummary, Scorecard};
use super::other_text::OtherText;
use super::sequence::Sequence;
use super::verdict::{Outcome, Verdict, VerdictKind};
use crate::hash::Digest;
use crate::text::{Table, printable};

/// Metrics that have a column of their own, in this order; the rest follow by name.
const FIRST: [&str; 2] = ["val_bpb", "train_loss"];

impl fmt::Display for Scorecard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was found comes first: many read no further.
        for (at, sentence) in self.answer().into_iter().enumerate() {
            match at {
                0 => writeln!(f, "{}: {sentence}", self.name)?,
                _ => writeln!(f, "{sentence}")?,
            }
        }
        if let Some(question) = &self.question {
            writeln!(f, "Question: {}", printable(question))?;
        }
        writeln!(f)?;
        let retired = self.retired.iter().flat_map(|run| run.metrics.keys());
        let mut metrics: Vec<&String> =
            self.arms.iter().flat_map(|arm| arm.metrics.keys()).chain(retired).collect();
        let place = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
        metrics.sort_by_key(|name| (place(name), *name));
        metrics.dedup();
        writeln!(f, "{}", arm_table(&self.arms, &metrics))?;
        if let Some(table) = comparison_table(&self.verdicts) {
            writeln!(f, "{table}")?;
        }
        write!(f, "{}", run_table(&self.runs, &metrics))?;
        if !self.verdicts.is_empty() {
            write!(f, "\n{}", verdict_table(&self.verdicts))?;
        }
        if let Some(scaling) = &self.scaling {
            write!(f, "\nscaling\n{scaling}")?;
        }
        if let Some(sequence) = self.sequence.as_ref().filter(|sequence| !sequence.taken.is_empty()) {
            write!(f, "\n{}", look_table(sequence))?;
        }
        if self.verdicts.iter().any(|verdict| verdict.interval.is_some()) {
            writeln!(f, "\n{}", self.not_covered())?;
        }
        let other_text = self.other_text();
        if !other_text.is_empty() {
            if self.verdicts.iter().all(|verdict| verdict.interval.is_none()) {
                writeln!(f)?;
            }
            writeln!(f, "{}", other_text.join(" "))?;
        }
        if !self.retired.is_empty() {
            f.write_str("\nretired: the manifest no longer has these runs, nothing judges them\n")?;
            write!(f, "{}", run_table(&self.retired, &metrics))?;
        }
        Ok(())
    }
}

fn arm_table(arms: &[ArmSummary], metrics: &[&String]) -> Table {
    let mut headings = vec!["arm".to_owned(), ">runs".to_owned()];
    headings.extend(metrics.iter().map(|metric| format!(">{metric}")));
    headings.push(">tokens/s".to_owned());
    let mut table = Table::new(headings);
    for arm in arms {
        let mark = if arm.control { " (control)" } else { "" };
        let runs = if arm.finished == arm.runs {
            arm.runs.to_string()
        } else {
            format!("{} of {}", arm.finished, arm.runs)
        };
        let mut row = vec![format!("{}{mark}", shown(&arm.name)), runs];
        row.extend(metrics.iter().map(|metric| match arm.metrics.get(*metric) {
            Some((mean, Some(deviation))) => format!("{mean:.5} ± {deviation:.5}"),
            Some((mean, None)) => format!("{mean:.5}"),
            None => "-".to_owned(),
        }));
        row.push(rate(arm.tokens_per_second));
        table.push(row);
    }
    table
}

fn run_table(runs: &[RunSummary], metrics: &[&String]) -> Table {
    let mut headings = vec!["run".to_owned(), ">seed".to_owned()];
    headings.extend(metrics.iter().map(|metric| format!(">{metric}")));
    headings.extend([">tokens/s".to_owned(), "result hash".to_owned()]);
    let mut table = Table::new(headings);
    for run in runs {
        let mut row = vec![shown(&run.arm).to_owned(), run.seed.to_string()];
        row.extend(
            metrics
                .iter()
                .map(|metric| run.metrics.get(*metric).map_or("-".to_owned(), |value| format!("{value:.5}"))),
        );
        row.push(rate(run.tokens_per_second));
        let unfinished = if run.not_needed { "not needed" } else { "unfinished" };
        row.push(run.result_hash.as_ref().map_or(unfinished.to_owned(), Digest::short));
        table.push(row);
    }
    table
}

/// What each look said.
fn look_table(sequence: &Sequence) -> Table {
    let mut table = Table::new(["look", ">seeds", ">level", "arm", ">difference", "interval", "said"]);
    for look in &sequence.taken {
        for verdict in &look.verdicts {
            let said = match verdict.finding.filter(|_| verdict.outcome != Outcome::NotJudged) {
                Some(finding) => finding.to_string(),
                None => "not judged".to_owned(),
            };
            table.push(vec![
                format!("{} of {}", look.of.look, look.of.looks),
                format!("{} of {}", look.of.seeds, look.of.of_seeds),
                level(look.of.level),
                shown(&verdict.arm).to_owned(),
                verdict.difference.map_or_else(
                    || "-".to_owned(),
                    |difference| format!("{} {difference:+.5}", verdict.metric),
                ),
                verdict
                    .interval
                    .map_or_else(|| "-".to_owned(), |(lower, upper)| format!("[{lower:+.5}, {upper:+.5}]")),
                said,
            ]);
        }
    }
    table
}

/// A level, in two digits.
fn level(level: f64) -> String {
    if level < 1e-3 { format!("{level:.1e}") } else { format!("{level:.4}") }
}

fn verdict_table(verdicts: &[Verdict]) -> Table {
    let mut table = Table::new(["verdict", "", "arm", ""]);
    // With one control, the table of arms says which it is.
    let mut controls = verdicts.iter().filter_map(|verdict| verdict.control.as_deref());
    let first = controls.next();
    let several = controls.any(|control| Some(control) != first);
    for verdict in verdicts {
        let outcome = match verdict.finding {
            // A pass may be several things; the other outcomes say all there is.
            Some(finding) if verdict.outcome == Outcome::Pass => format!("pass: {finding}"),
            _ => verdict.outcome.to_string(),
        };
        let arm = match (verdict.kind, &verdict.control) {
            (VerdictKind::Reproducibility, _) => "all".to_owned(),
            (_, None) if verdict.arm.is_empty() => "all".to_owned(),
            (_, Some(control)) if several => format!("{} against {}", shown(&verdict.arm), shown(control)),
            _ => shown(&verdict.arm).to_owned(),
        };
        table.push(vec![verdict.kind.to_string(), outcome, arm, numbers(verdict)]);
    }
    table
}

/// What a verdict rests on, then what it means; the numbers of quality are in a table of their own.
fn numbers(verdict: &Verdict) -> String {
    let numbers = match (verdict.kind, verdict.difference) {
        (VerdictKind::Quality, Some(_)) => {
            let percent = verdict.confidence.unwrap_or_default() * 100.0;
            let margin = verdict.limit.unwrap_or_default();
            let look = verdict
                .look
                .filter(|look| look.looks > 1)
                .map_or_else(String::new, |look| format!(", look {} of {}", look.look, look.looks));
            format!("{}, margin {margin:+}, {percent} % confidence{look}: ", verdict.metric)
        }
        (VerdictKind::Speed, Some(ratio)) => {
            format!("ratio {ratio:.3}, at least {}: ", verdict.limit.unwrap_or_default())
        }
        (VerdictKind::Target, Some(difference)) => {
            let runs = verdict.pairs;
            let plural = if runs == 1 { "" } else { "s" };
            let mean = verdict.arm_mean.unwrap_or_default();
            let ends = verdict.interval;
            let ends = ends.map_or(String::new(), |(lower, upper)| format!(" [{lower:+.5}, {upper:+.5}]"));
            format!(
                "{} {mean:.5}, {difference:+.5}{ends} to the target, {runs} run{plural}: ",
                verdict.metric
            )
        }
        _ => String::new(),
    };
    format!("{numbers}{}", verdict.detail)
}

/// A column: its heading, and what it says of a verdict.
type Column<'a> = (&'static str, Box<dyn Fn(&Verdict) -> String + 'a>);

/// Every arm beside its control: what was found, the interval that decides, that of the arm alone, and what the
/// difference is at equal tokens and time. Columns of which nothing is known are left out.
fn comparison_table(verdicts: &[Verdict]) -> Option<Table> {
    let judged: Vec<&Verdict> = verdicts
        .iter()
        .filter(|verdict| verdict.kind == VerdictKind::Quality && verdict.difference.is_some())
        .collect();
    let several = judged.windows(2).any(|pair| pair[0].control != pair[1].control);
    let decimals = |verdict: &Verdict| verdict.interval.map_or(5, |(lower, upper)| digits_of(upper - lower));
    let signed = |verdict: &Verdict, value: Option<f64>| {
        value.map(|value| format!("{value:+.*}", decimals(verdict))).unwrap_or_default()
    };
    let range = |verdict: &Verdict, ends: Option<(f64, f64)>| {
        let digits = decimals(verdict);
        ends.map(|(lower, upper)| format!("[{lower:+.digits$}, {upper:+.digits$}]")).unwrap_or_default()
    };
    let columns: Vec<Column<'_>> = vec![
        (
            "against the control",
            Box::new(|verdict| match &verdict.control {
                Some(control) if several => format!("{} against {}", shown(&verdict.arm), shown(control)),
                _ => shown(&verdict.arm).to_owned(),
            }),
        ),
        ("metric", Box::new(|verdict| verdict.metric.clone())),
        ("found", Box::new(|verdict| verdict.finding.map(|finding| finding.to_string()).unwrap_or_default())),
        (">difference", Box::new(|verdict| signed(verdict, verdict.difference))),
        ("interval", Box::new(|verdict| range(verdict, verdict.interval))),
        (
            "alone",
            Box::new(|verdict| {
                let raw = verdict.raw_interval.filter(|_| verdict.raw_interval != verdict.interval);
                range(verdict, raw)
            }),
        ),
        (
            ">other text",
            Box::new(|verdict| {
                let reach = verdict.other_text.as_ref().and_then(OtherText::reach);
                reach.map(|reach| format!("\u{b1}{reach:.*}", decimals(verdict))).unwrap_or_default()
            }),
        ),
        (">p", Box::new(|verdict| verdict.p_adjusted.map(super::target::brief).unwrap_or_default())),
        (">seeds", Box::new(|verdict| verdict.pairs.to_string())),
        (
            ">needed",
            Box::new(|verdict| verdict.seeds_needed.map(|n| format!("about {n}")).unwrap_or_default()),
        ),
        (">at equal tokens", Box::new(|verdict| signed(verdict, verdict.matched.and_then(|m| m.per_token)))),
        (">at equal time", Box::new(|verdict| signed(verdict, verdict.matched.and_then(|m| m.per_second)))),
        (">worth", Box::new(|verdict| verdict.worth.map(|worth| worth.signed()).unwrap_or_default())),
    ];
    let cells: Vec<Vec<String>> =
        judged.iter().map(|verdict| columns.iter().map(|(_, of)| of(verdict)).collect()).collect();
    let one_metric = judged.windows(2).all(|pair| pair[0].metric == pair[1].metric);
    let shows = |at: usize| {
        (at != 1 || !one_metric) && cells.iter().any(|row| row.get(at).is_some_and(|cell| !cell.is_empty()))
    };
    let kept: Vec<usize> = (0..columns.len()).filter(|&at| shows(at)).collect();
    let mut table = Table::new(kept.iter().filter_map(|&at| columns.get(at)).map(|(heading, _)| *heading));
    for row in &cells {
        table.push(kept.iter().filter_map(|&at| row.get(at).cloned()).collect());
    }
    (!cells.is_empty()).then_some(table)
}

fn rate(tokens_per_second: Option<f64>) -> String {
    tokens_per_second.map_or("-".to_owned(), |rate| format!("{rate:.0}"))
}

/// An experiment without a matrix has one arm, which has no name.
fn shown(arm: &str) -> &str {
    if arm.is_empty() { "(all)" } else { arm }
}
