//! Cases and their checks as tables: for people, for machines, for a README.
//!
//! The JSON is an array with an object a case:
//!
//! ```json
//! {
//!   "case": "92d63d4_d3", "commit": "92d63d4", "backend": "cpu", "passed": true,
//!   "checks": [{
//!     "name": "token loss", "place": "row 0, position 35, evaluation", "deviation": 9.5e-7, "tolerance": 4e-6,
//!     "reason": "why the tolerance is what it is", "passed": true
//!   }],
//!   "skipped": [{ "name": "warm", "reason": "case.json has no warm" }],
//!   "error": null
//! }
//! ```
//!
//! `deviation` is the one that is largest in proportion to the tolerance at its place, null if it is not finite.
//! `skipped` is what the case has no numbers for. `error` is why a case could not be finished; its checks are those
//! made before.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::Case;
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
    /// Whether every check that the case allows was made and passed.
    pub passed: bool,
    /// In the order in which they ran.
    pub checks: Vec<Check>,
    /// What the case has no numbers for.
    pub skipped: Vec<Skipped>,
    /// Why the case was not finished: memory, a backend that failed.
    pub error: Option<String>,
}

/// A check that was not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The check, or the group of checks that start with this.
    pub name: String,
    /// What the case lacks for it.
    pub reason: String,
}

impl CaseReport {
    /// Of a case, before its checks.
    pub(super) fn new(case: &Case, backend: String) -> Self {
        let (name, commit) = (case.name.clone(), case.commit.clone());
        Self {
            case: name,
            commit,
            backend,
            passed: true,
            checks: Vec::new(),
            skipped: Vec::new(),
            error: None,
        }
    }

    pub(super) fn skip(&mut self, name: &str, reason: &str) {
        self.skipped.push(Skipped { name: name.to_owned(), reason: reason.to_owned() });
    }

    /// Whether a deviation is beyond its tolerance.
    pub fn beyond_tolerance(&self) -> bool {
        self.checks.iter().any(|check| !check.passed)
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
            0 if report.error.is_some() => "not finished".to_owned(),
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
        for Skipped { name, reason } in &report.skipped {
            let _ = writeln!(out, "-       {name:name_width$}  not checked: {reason}");
        }
        if let Some(error) = &report.error {
            let _ = writeln!(out, "FAILED  {error}");
        }
        out.push('\n');
    }
    out.push_str("Why these tolerances\n");
    let mut seen = BTreeSet::new();
    for check in checks() {
        if seen.insert((&check.name, &check.reason)) {
            let _ = writeln!(out, "  {}: {}", check.name, check.reason);
        }
    }
    out
}

/// A Markdown table with a row a check and a column a case, of the largest deviations; those beyond tolerance are bold.
pub fn markdown(reports: &[CaseReport]) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for check in reports.iter().flat_map(|report| &report.checks) {
        if !kinds.contains(&check.name.as_str()) {
            kinds.push(&check.name);
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
        let of_kind = |report: &CaseReport| report.checks.iter().find(|check| check.name == name).cloned();
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

fn number(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e6 { format!("{value}") } else { format!("{value:.1e}") }
}
