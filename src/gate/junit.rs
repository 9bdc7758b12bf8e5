//! JUnit XML, which every CI system shows: a test case a run, and one a verdict.

use super::compare::Comparison;
use crate::scorecard::{Outcome, Scorecard};

/// A comparison, and the verdicts of a scorecard where one is given, as JUnit XML.
pub fn junit(comparison: &Comparison, scorecard: Option<&Scorecard>) -> String {
    let suite = format!("nanorun.{}", comparison.experiment);
    let mut cases = Vec::new();
    for run in &comparison.runs {
        let lines = run.lines();
        let body = if run.outcome.passed() {
            // A comparison by tolerance passes, but must not look like equal bits.
            (!lines.is_empty()).then(|| element("system-out", None, &lines.join("\n")))
        } else {
            let message = format!("{}: {}", run.word(), lines.first().map_or("", String::as_str));
            Some(element("failure", Some(&message), &lines.join("\n")))
        };
        cases.push(Case { name: run.name(), failed: !run.outcome.passed(), skipped: false, body });
    }
    for verdict in scorecard.iter().flat_map(|card| &card.verdicts) {
        let name = match verdict.arm.as_str() {
            "" => verdict.kind.to_string(),
            arm => format!("{}, {arm}", verdict.kind),
        };
        let (failed, skipped) = match verdict.outcome {
            Outcome::Pass => (false, false),
            Outcome::Fail => (true, false),
            Outcome::Undecided | Outcome::NotJudged | Outcome::NoBaseline => (false, true),
        };
        let message = format!("{}: {}", verdict.outcome, verdict.detail);
        let body = match (failed, skipped) {
            (true, _) => Some(element("failure", Some(&message), &verdict.detail)),
            (_, true) => Some(element("skipped", Some(&message), "")),
            _ => None,
        };
        cases.push(Case { name, failed, skipped, body });
    }
    let tests = cases.len();
    let failures = cases.iter().filter(|case| case.failed).count();
    let skipped = cases.iter().filter(|case| case.skipped).count();
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"");
    let mut lines = vec![
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned(),
        format!("<testsuites name=\"nanorun\" {counts}>"),
        format!("  <testsuite name=\"{}\" {counts}>", escape(&suite)),
    ];
    lines.extend(cases.into_iter().map(|case| {
        let head = format!("    <testcase classname=\"{}\" name=\"{}\"", escape(&suite), escape(&case.name));
        match case.body {
            None => format!("{head}/>"),
            Some(body) => format!("{head}>\n      {body}\n    </testcase>"),
        }
    }));
    lines.push("  </testsuite>\n</testsuites>\n".to_owned());
    lines.join("\n")
}

struct Case {
    name: String,
    failed: bool,
    skipped: bool,
    body: Option<String>,
}

fn element(name: &str, message: Option<&str>, text: &str) -> String {
    let message = message.map_or(String::new(), |message| format!(" message=\"{}\"", escape(message)));
    if text.is_empty() {
        format!("<{name}{message}/>")
    } else {
        format!("<{name}{message}>{}</{name}>", escape(text))
    }
}

/// Text and attribute values of XML 1.0; characters it cannot hold become `?`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            other if other < ' ' => escaped.push('?'),
            other => escaped.push(other),
        }
    }
    escaped
}
