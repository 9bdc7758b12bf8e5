//! Comparisons as a person reads them on a terminal.

use std::fmt;

use super::compare::{Comparison, Difference, FieldDifference, RunComparison, RunOutcome};
use super::records::cell_name;

impl RunComparison {
    /// The cell in words.
    pub fn name(&self) -> String {
        cell_name(&self.arm, self.seed)
    }

    /// The outcome in a word or two.
    pub fn word(&self) -> &'static str {
        match &self.outcome {
            RunOutcome::Equal => "equal",
            RunOutcome::Differs(difference) if difference.defect => "DEFECT",
            RunOutcome::Differs(_) => "DIFFERS",
            RunOutcome::Within(_) => "within tolerance",
            RunOutcome::Outside(_) => "OUTSIDE TOLERANCE",
            RunOutcome::Unfinished => "UNFINISHED",
            RunOutcome::NotNeeded => "not needed",
            RunOutcome::Missing => "MISSING",
            RunOutcome::New => "NEW",
        }
    }

    /// The outcome in one line.
    pub fn in_brief(&self) -> String {
        format!("{}: {}", self.name(), self.lines().first().map_or(self.word(), String::as_str))
    }

    /// All there is to say, the most telling first.
    pub fn lines(&self) -> Vec<String> {
        match &self.outcome {
            RunOutcome::Equal => Vec::new(),
            RunOutcome::NotNeeded => vec!["a look decided before it was trained".to_owned()],
            RunOutcome::Differs(difference) => difference.lines(),
            RunOutcome::Within(difference) | RunOutcome::Outside(difference) => across_classes(difference),
            RunOutcome::Unfinished => vec!["the run has no result".to_owned()],
            RunOutcome::Missing => vec!["the reference has this run, the results do not".to_owned()],
            RunOutcome::New => vec!["the reference does not have this run".to_owned()],
        }
    }
}

impl Difference {
    /// All there is to say, the most telling first.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some((step, fields)) = &self.first {
            let fields: Vec<_> = fields.iter().map(FieldDifference::to_string).collect();
            lines.push(format!("first at step {step}: {}", fields.join("; ")));
        }
        match (&self.first, &self.first_loss) {
            (Some((first, _)), Some((step, loss))) if step > first => {
                lines.push(format!("first other loss at step {step}: {loss}"));
            }
            _ => {}
        }
        lines.extend(self.metrics.iter().map(FieldDifference::to_string));
        lines.extend(self.notes.iter().cloned());
        let (found, expected) = (self.found.result_hash.short(), self.expected.result_hash.short());
        lines.push(format!("result hash {found}, expected {expected}"));
        if self.defect {
            lines.push(
                "run key and environment class are equal: this is a defect of nanorun or of a machine"
                    .to_owned(),
            );
            lines.push(format!("here: {}", self.found.made_on));
            lines.push(format!("reference: {}", self.expected.made_on));
        }
        lines
    }
}

/// Where bits need not be equal, the largest deviation tells more than the first.
fn across_classes(difference: &Difference) -> Vec<String> {
    let mut lines: Vec<_> = difference.metrics.iter().map(FieldDifference::to_string).collect();
    if let Some((step, loss)) = &difference.largest_loss {
        lines.push(format!("largest deviation of a loss at step {step}: {loss}"));
    }
    lines.extend(difference.notes.iter().cloned());
    lines
}

impl fmt::Display for FieldDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, expected {} ({:+.3e})", self.field, self.found, self.expected, self.by)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passing, all) = (self.passing(), self.runs.len());
        let runs = if all == 1 { "run" } else { "runs" };
        writeln!(f, "{}: {passing} of {all} {runs} as in {}\n", self.experiment, self.reference)?;
        let width = self.runs.iter().map(|run| run.word().len()).max().unwrap_or(0);
        for run in &self.runs {
            writeln!(f, "{:<width$}  {}", run.word(), run.name())?;
            for line in run.lines() {
                writeln!(f, "{:<width$}    {line}", "")?;
            }
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}
