//! The part of YAML that bundles are written in, as a tree: mappings, sequences, scalars. Aliases are refused, for a few
//! bytes of them can stand for more than any memory holds.

use saphyr_parser::{Event, Parser};

use crate::caught_panics::caught;

/// Values inside one another at most.
const DEPTH: usize = 16;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Yaml {
    /// Any scalar, as written, quotes and escapes resolved.
    Scalar(String),
    Sequence(Vec<Yaml>),
    /// In the order of the file.
    Mapping(Vec<(String, Yaml)>),
}

impl Yaml {
    /// The value of a key in a mapping; none of another value.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Mapping(entries) = self else { return None };
        // As PyYAML does it, the last of several counts.
        entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Scalar(text) = self { Some(text) } else { None }
    }

    /// The items of a sequence.
    pub(super) fn items(&self) -> Option<&[Self]> {
        if let Self::Sequence(items) = self { Some(items) } else { None }
    }
}

/// A collection that is not yet whole.
enum Open {
    Sequence(Vec<Yaml>),
    Mapping(Vec<(String, Yaml)>, Option<String>),
}

/// Reads the first document of a text.
///
/// # Errors
/// What is wrong with it, in words, and the line where that is known.
pub(super) fn read(text: &str) -> Result<Yaml, (String, Option<usize>)> {
    // The parser is a library's: what it cannot take is an error, whatever it does about it.
    caught(|_| true, || tree(text)).unwrap_or_else(|_| Err(("no YAML that can be read".to_owned(), None)))
}

fn tree(text: &str) -> Result<Yaml, (String, Option<usize>)> {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| (error.info().to_owned(), Some(error.marker().line())))?;
        let bad = |what: &str| Err((what.to_owned(), Some(span.start.line())));
        let value = match event {
            Event::Scalar(text, ..) => Yaml::Scalar(text.into_owned()),
            Event::Alias(_) => return bad("an alias (`*name`), which bundles have none of"),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEPTH => {
                return bad("values inside one another too deep");
            }
            Event::SequenceStart(..) => {
                open.push(Open::Sequence(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Vec::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Sequence(items)) => Yaml::Sequence(items),
                Some(Open::Mapping(entries, _)) => Yaml::Mapping(entries),
                None => return bad("an end without a beginning"),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
        };
        match (open.last_mut(), value) {
            (None, value) => return Ok(value),
            (Some(Open::Sequence(items)), value) => items.push(value),
            (Some(Open::Mapping(entries, key)), value) => match (key.take(), value) {
                (Some(key), value) => entries.push((key, value)),
                (None, Yaml::Scalar(name)) => *key = Some(name),
                (None, _) => return bad("a key that is no text"),
            },
        }
    }
    Err(("no value".to_owned(), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bundles_are_written_in() {
        let text = "# a comment\nicl_tasks:\n-\n  label: a_b\n  num_fewshot: [10, 0]\n  \
                    continuation_delimiter: \"\\nAnswer: \"\n- label: 'it''s'\n  has_categories: true\n";
        let read = read(text).unwrap();
        let tasks = read.get("icl_tasks").unwrap().items().unwrap();
        assert_eq!(tasks[0].get("label").unwrap().text(), Some("a_b"));
        assert_eq!(tasks[0].get("num_fewshot").unwrap().items().unwrap()[0].text(), Some("10"));
        assert_eq!(tasks[0].get("continuation_delimiter").unwrap().text(), Some("\nAnswer: "));
        assert_eq!(tasks[1].get("label").unwrap().text(), Some("it's"));
        assert_eq!(tasks[1].get("none"), None);
    }

    #[test]
    fn what_is_refused() {
        for (text, told) in [
            ("a: &x [1]\nb: *x\n", "an alias"),
            (&"[".repeat(40), "too deep"),
            ("a: [1\n", ""),
            ("? [1]\n: 2\n", "no text"),
            ("", "no value"),
            ("a: b: c\n", ""),
        ] {
            let (what, _) = read(text).unwrap_err();
            assert!(what.contains(told), "{text:?}: {what}");
        }
    }
}
