//! A manifest that is written for a person: its fields in sections, each with a word on what it is.

use std::fmt::Write as _;

use toml::Value;

use super::fields;
use super::vary::Condition;
use crate::error::{Error, Result};

/// Sections in the order in which people read them.
const SECTIONS: [&str; 9] =
    ["upstream", "run", "budget", "schedule", "train", "model", "optimizer", "data", "eval"];

/// Columns from which on what a field is stands behind it.
const COMMENT: usize = 34;

/// A manifest being put together.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Lines at its head.
    pub head: Vec<String>,
    entries: Vec<(String, Value, String)>,
    axes: Vec<(String, Vec<Value>)>,
    control: Vec<(String, Value)>,
}

impl Draft {
    /// Sets a field by its path, in place of what it was; `comment` says what it is, else the first sentence of the
    /// reference does.
    pub fn set(&mut self, path: &str, value: impl Into<Value>, comment: &str) {
        // Of those that exclude each other the last one stays.
        let group = fields::group_of(path).map_or(&[][..], |group| group.members);
        self.entries.retain(|(known, ..)| known != path && !group.contains(&known.as_str()));
        self.entries.push((path.to_owned(), value.into(), comment.to_owned()));
    }

    /// What a field is set to.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.entries.iter().find(|(known, ..)| known == path).map(|(_, value, _)| value)
    }

    /// Sets fields as `--set path=value` says.
    ///
    /// # Errors
    /// What is no field and value; class `Input`.
    pub fn set_text(&mut self, argument: &str) -> Result<()> {
        for (path, entry) in super::layers::from_sets(&[argument.to_owned()])? {
            self.set(&path, entry.value, "");
        }
        Ok(())
    }

    /// Adds an axis as `path=value,value` says; the first value is the control.
    ///
    /// # Errors
    /// What is no field with values of its kind; an axis of one value; class `Input`.
    pub fn axis_text(&mut self, argument: &str) -> Result<()> {
        let bad = |what: &str| {
            Error::input(format!("{what}: {argument}")).expected(
                "PATH=VALUE,VALUE,..., such as schedule.warmdown=linear,sqrt; the first value is the control",
            )
        };
        let (path, values) = argument.split_once('=').ok_or_else(|| bad("an axis has no `=`"))?;
        let (path, values) = (path.trim(), split(values));
        let mut parsed = Vec::new();
        for value in &values {
            let mut conditions = Condition::of(&[format!("{path}={value}")])
                .map_err(|error| error.file(format!("--axis {argument}")))?;
            let value = conditions.pop().and_then(|mut condition| condition.values.pop());
            parsed.extend(value);
        }
        if parsed.len() < 2 {
            return Err(bad("an axis needs two values or more"));
        }
        self.axis(path, parsed);
        Ok(())
    }

    /// Adds an axis; but of seeds, its first value is the control.
    pub fn axis(&mut self, path: &str, values: Vec<Value>) {
        if path != super::SEED
            && let Some(first) = values.first()
        {
            self.control.push((path.to_owned(), first.clone()));
        }
        // The base has the first: what stands there is no axis.
        self.entries.retain(|(known, ..)| known != path || path == super::SEED);
        self.axes.retain(|(known, _)| known != path);
        self.axes.push((path.to_owned(), values));
    }

    /// Whether anything is compared.
    pub fn compares(&self) -> bool {
        !self.control.is_empty()
    }

    /// The fields of a section: path, key, value, comment.
    fn of(&self, section: &str) -> Vec<(&str, &str, &Value, &str)> {
        let key_at = |path: &str| match path.split_once('.') {
            Some((first, _)) if first == section => Some(first.len() + 1),
            None if section.is_empty() => Some(0),
            _ => None,
        };
        let each = self.entries.iter().filter_map(|entry| Some((entry, key_at(&entry.0)?)));
        each.map(|((path, value, comment), at)| {
            (path.as_str(), path.get(at..).unwrap_or(path), value, comment.as_str())
        })
        .collect()
    }

    /// Its text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.head {
            let _ = writeln!(text, "{}", format!("# {line}").trim_end());
        }
        let write = |section: &str, text: &mut String| {
            for (path, key, value, comment) in self.of(section) {
                let line = format!("{key} = {value}");
                let said = if comment.is_empty() { first_sentence(path) } else { comment.to_owned() };
                if said.is_empty() || comment == "-" {
                    let _ = writeln!(text, "{line}");
                } else {
                    let _ =
                        writeln!(text, "{line:<width$} # {said}", width = COMMENT.max(line.len() + 1) - 1);
                }
            }
        };
        write("", &mut text);
        if self.get("hypothesis").is_none() {
            text.push_str("# hypothesis = \"What you expect, and why: `nanorun ledger` keeps it beside the outcome.\"\n");
        }
        for section in SECTIONS.into_iter().chain(["checkpoint"]) {
            if !self.of(section).is_empty() {
                let _ = writeln!(text, "\n[{section}]");
                write(section, &mut text);
            }
        }
        if !self.control.is_empty() || !self.of("scorecard").is_empty() {
            text.push_str("\n[scorecard]\n");
            if !self.control.is_empty() {
                let values: Vec<String> =
                    self.control.iter().map(|(path, value)| format!("\"{path}\" = {value}")).collect();
                let _ = writeln!(
                    text,
                    "control = {{ {} }}   # what the other arms are compared with",
                    values.join(", ")
                );
            }
            write("scorecard", &mut text);
        }
        if !self.axes.is_empty() {
            text.push_str(
                "\n[matrix]                           # every combination of these values is a run\n",
            );
            for (path, values) in &self.axes {
                let _ = writeln!(text, "\"{path}\" = {}", Value::Array(values.clone()));
            }
        }
        text
    }
}

/// What the reference says of a field, as far as a line holds it.
fn first_sentence(path: &str) -> String {
    let doc = fields::find(path).map_or("", |field| field.doc);
    let end = doc.find(['.', ';', ':']).unwrap_or(doc.len());
    let sentence = doc[..end].trim();
    if sentence.len() > 70 { String::new() } else { sentence.to_owned() }
}

/// Values apart at commas that are in no list, table or quotes.
fn split(text: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut parts) = (0_i32, false, vec![String::new()]);
    for letter in text.chars() {
        match letter {
            '"' | '\'' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(letter);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::{Manifest, Options};

    #[test]
    fn what_is_drafted_is_a_manifest() {
        let mut draft = Draft { head: vec!["A draft.".to_owned()], ..Draft::default() };
        draft.set("name", "a", "-");
        draft.set("question", "Does \"it\" help?\nReally?", "-");
        draft.set("upstream.commit", "92d63d4", "");
        draft.set("run.seed", 1, "");
        draft.set("run.backend", "cpu", "");
        draft.set("budget.steps", 10, "");
        draft.set("budget.tokens", 1000, "");
        draft.set("schedule.warmdown", "linear", "");
        draft.set("data.tokenizer.vocab_size", 300, "");
        draft.set_text("model.depth=2").unwrap();
        draft.axis_text("schedule.warmdown=linear,sqrt").unwrap();
        draft.axis_text("optimizer.embedding_betas=[0.8,0.9],[0.7,0.95]").unwrap();
        draft.axis("run.seed", vec![1.into(), 2.into()]);
        let text = draft.text();
        assert!(text.contains("tokens = 1000") && !text.contains("steps = 10"), "{text}");
        assert!(text.starts_with("# A draft.\nname = \"a\"\n"), "{text}");
        let manifest = Manifest::parse(Path::new("a.toml"), &text, &Options::default()).unwrap();
        assert_eq!(manifest.cells.len(), 8);
        assert_eq!(manifest.control.unwrap().len(), 2);
        assert_eq!(manifest.head.question.as_deref(), Some("Does \"it\" help?\nReally?"));
    }

    #[test]
    fn axes_that_are_none_are_said() {
        for bad in
            ["schedule.warmdown", "schedule.warmdown=linear", "schedule.warmdwn=linear,sqrt", "name=a,b"]
        {
            let error = Draft::default().axis_text(bad).unwrap_err();
            assert_eq!(error.class().exit_code(), 2, "{bad}: {error}");
        }
    }
}
