//! `scorecard.txt`.

use std::fmt;

use super::judge::{ArmSummary, RunSummary, Scorecard};
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
        write!(f, "{}", run_table(&self.runs, &metrics))?;
        if !self.verdicts.is_empty() {
            write!(f, "\n{}", verdict_table(&self.verdicts))?;
        }
        if self.verdicts.iter().any(|verdict| verdict.interval.is_some()) {
            writeln!(f, "\n{}", self.not_covered())?;
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
        row.push(run.result_hash.as_ref().map_or("unfinished".to_owned(), Digest::short));
        table.push(row);
    }
    table
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

/// What a verdict rests on, then what it means.
fn numbers(verdict: &Verdict) -> String {
    let numbers = match (verdict.kind, verdict.difference, verdict.interval) {
        (VerdictKind::Quality, Some(difference), interval) => {
            let interval =
                interval.map_or(String::new(), |(lower, upper)| format!(" [{lower:+.5}, {upper:+.5}]"));
            let percent = verdict.confidence.unwrap_or_default() * 100.0;
            let margin = verdict.limit.unwrap_or_default();
            let pairs = verdict.pairs;
            let plural = if pairs == 1 { "" } else { "s" };
            let alone = match verdict.raw_interval {
                Some((lower, upper)) if verdict.interval != verdict.raw_interval => {
                    format!(" of {} arms together, [{lower:+.5}, {upper:+.5}] alone", verdict.arms_together)
                }
                _ => String::new(),
            };
            format!(
                "{} {difference:+.5}{interval}{alone}, margin {margin:+}, {percent} % confidence, {pairs} seed{plural}: ",
                verdict.metric
            )
        }
        (VerdictKind::Speed, Some(ratio), _) => {
            format!("ratio {ratio:.3}, at least {}: ", verdict.limit.unwrap_or_default())
        }
        _ => String::new(),
    };
    format!("{numbers}{}", verdict.detail)
}

fn rate(tokens_per_second: Option<f64>) -> String {
    tokens_per_second.map_or("-".to_owned(), |rate| format!("{rate:.0}"))
}

/// An experiment without a matrix has one arm, which has no name.
fn shown(arm: &str) -> &str {
    if arm.is_empty() { "(all)" } else { arm }
}
