//! Cases and their checks as tables: for people, for machines, for a README.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::check::Check;

/// All checks of a case on one backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseReport {
    /// The case's name.
    pub case: String,
    /// The upstream commit.
    pub commit: String,
    /// The backend.
    pub backend: String,
    /// In the order in which they ran.
    pub checks: Vec<Check>,
}

impl CaseReport {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// A table a case, and beneath them why the tolerances are what they are.
pub fn text(reports: &[CaseReport]) -> String {
    let checks = || reports.iter().flat_map(|report| &report.checks);
    let name_width = checks().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for report in reports {
        let failed = report.checks.iter().filter(|check| !check.passed).count();
        let verdict = match failed {
            0 => "all within tolerance".to_owned(),
            failed => format!("{failed} of {} beyond tolerance", report.checks.len()),
        };
        let _ = writeln!(out, "{} on {}: {verdict}", report.case, report.backend);
        let _ = writeln!(out, "        {:name_width$}  deviation  tolerance  where", "");
        for check in &report.checks {
            let verdict = if check.passed { "ok" } else { "FAILED" };
            let (deviation, tolerance) = (number(check.deviation), number(check.tolerance));
            let (name, place) = (&check.name, &check.place);
            let _ = writeln!(out, "{verdict:6}  {name:name_width$}  {deviation:>9}  {tolerance:>9}  {place}");
        }
        out.push('\n');
    }
    out.push_str("Why these tolerances\n");
    let mut seen = BTreeSet::new();
    for check in checks() {
        if seen.insert((kind(check), &check.reason)) {
            let _ = writeln!(out, "  {}: {}", kind(check), check.reason);
        }
    }
    out
}

/// A Markdown table with a row a check and a column a case, of the largest deviations; those beyond tolerance are bold.
pub fn markdown(reports: &[CaseReport]) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for check in reports.iter().flat_map(|report| &report.checks) {
        if !kinds.contains(&kind(check)) {
            kinds.push(kind(check));
        }
    }
    let mut out = String::from("| check | tolerance |");
    for report in reports {
        let _ = write!(out, " {} |", report.case);
    }
    out.push_str("\n|---|---|");
    out.push_str(&"---|".repeat(reports.len()));
    out.push('\n');
    for name in kinds {
        let of_kind = |report: &CaseReport| report.checks.iter().find(|check| kind(check) == name).cloned();
        let tolerances = reports.iter().filter_map(of_kind).map(|check| check.tolerance);
        let (low, high) = tolerances.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), tolerance| {
            (low.min(tolerance), high.max(tolerance))
        });
        let range = if low == high { number(low) } else { format!("{} - {}", number(low), number(high)) };
        let _ = write!(out, "| {name} | {range} |");
        for report in reports {
            let cell = match of_kind(report) {
                None => "-".to_owned(),
                Some(check) if check.passed => number(check.deviation),
                Some(check) => format!("**{}**", number(check.deviation)),
            };
            let _ = write!(out, " {cell} |");
        }
        out.push('\n');
    }
    out
}

/// A check's name without what differs from case to case.
fn kind(check: &Check) -> &str {
    check.name.split(',').next().unwrap_or_default()
}

fn number(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e6 { format!("{value}") } else { format!("{value:.1e}") }
}
