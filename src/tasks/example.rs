//! One example of a task.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Which of several continuations of one context is the most probable.
    MultipleChoice,
    /// After which of several contexts one continuation is the most probable.
    Schema,
    /// Whether the most probable tokens are the continuation.
    LanguageModeling,
}

impl TaskKind {
    /// By upstream's name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "multiple_choice" => Self::MultipleChoice,
            "schema" => Self::Schema,
            "language_modeling" => Self::LanguageModeling,
            _ => return None,
        })
    }

    /// Upstream's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::MultipleChoice => "multiple_choice",
            Self::Schema => "schema",
            Self::LanguageModeling => "language_modeling",
        }
    }
}

/// Choices of an example at most: nobody has more than a dozen.
const MOST_CHOICES: usize = 1000;

/// One example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Example {
    MultipleChoice { query: String, choices: Vec<String>, gold: usize },
    Schema { contexts: Vec<String>, continuation: String, gold: usize },
    LanguageModeling { context: String, continuation: String },
}

#[derive(Deserialize)]
struct MultipleChoice {
    query: Text,
    choices: Vec<Text>,
    gold: usize,
}

#[derive(Deserialize)]
struct Schema {
    context_options: Vec<Text>,
    continuation: Text,
    gold: usize,
}

#[derive(Deserialize)]
struct LanguageModeling {
    context: Text,
    continuation: Text,
}

/// A text, or a whole number, which upstream's templates write as one.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;
            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("a text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Text, E> {
                Ok(Text(text.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> std::result::Result<Text, E> {
                Ok(Text(number.to_string()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> std::result::Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }
        from.deserialize_any(Any)
    }
}

impl Example {
    /// Of a line of a file of examples.
    ///
    /// # Errors
    /// What is no example of the kind; class `Input`.
    pub(super) fn of(line: &[u8], kind: TaskKind) -> Result<Self> {
        let bad = |error: serde_json::Error| {
            let what = format!("a line is no example of {}: {error}", kind.name());
            let expected = match kind {
                TaskKind::MultipleChoice => "an object of `query`, `choices` and `gold`",
                TaskKind::Schema => "an object of `context_options`, `continuation` and `gold`",
                TaskKind::LanguageModeling => "an object of `context` and `continuation`",
            };
            Error::input(what).expected(expected)
        };
        let texts = |texts: Vec<Text>| texts.into_iter().map(|text| text.0).collect::<Vec<_>>();
        let (example, of, gold) = match kind {
            TaskKind::MultipleChoice => {
                let MultipleChoice { query, choices, gold } = serde_json::from_slice(line).map_err(bad)?;
                let choices = texts(choices);
                let of = choices.len();
                (Self::MultipleChoice { query: query.0, choices, gold }, of, gold)
            }
            TaskKind::Schema => {
                let Schema { context_options, continuation, gold } =
                    serde_json::from_slice(line).map_err(bad)?;
                let contexts = texts(context_options);
                let of = contexts.len();
                (Self::Schema { contexts, continuation: continuation.0, gold }, of, gold)
            }
            TaskKind::LanguageModeling => {
                let LanguageModeling { context, continuation } = serde_json::from_slice(line).map_err(bad)?;
                return Ok(Self::LanguageModeling { context: context.0, continuation: continuation.0 });
            }
        };
        if !(1..=MOST_CHOICES).contains(&of) || gold >= of {
            return Err(Error::input(format!("an example has {of} choices, and {gold} is the right one"))
                .expected(format!("1 to {MOST_CHOICES} choices, counted from 0")));
        }
        Ok(example)
    }

    /// Its kind.
    pub(super) fn kind(&self) -> TaskKind {
        match self {
            Self::MultipleChoice { .. } => TaskKind::MultipleChoice,
            Self::Schema { .. } => TaskKind::Schema,
            Self::LanguageModeling { .. } => TaskKind::LanguageModeling,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_example_is_told() {
        use TaskKind::{LanguageModeling, MultipleChoice, Schema};
        for (line, kind, told) in [
            ("", LanguageModeling, "EOF"),
            ("{\"context\": \"a\"}", LanguageModeling, "continuation"),
            ("[]", LanguageModeling, "no example of language_modeling"),
            ("{\"query\": \"a\", \"choices\": [\"b\"], \"gold\": 1}", MultipleChoice, "1 choices, and 1"),
            ("{\"query\": \"a\", \"choices\": [], \"gold\": 0}", MultipleChoice, "0 choices"),
            ("{\"query\": \"a\", \"choices\": [null], \"gold\": 0}", MultipleChoice, "a text"),
            ("{\"query\": \"a\", \"choices\": [\"b\"], \"gold\": -1}", MultipleChoice, "-1"),
            ("{\"context_options\": [\"b\"], \"gold\": 0}", Schema, "continuation"),
        ] {
            let error = Example::of(line.as_bytes(), kind).unwrap_err();
            assert_eq!(error.class().exit_code(), 2);
            assert!(error.what().contains(told), "{error}");
        }
        let number = Example::of(
            b"{\"query\": 3, \"choices\": [-1, \"x\"], \"gold\": 1, \"more\": []}",
            MultipleChoice,
        );
        let (query, choices) = ("3".to_owned(), vec!["-1".to_owned(), "x".to_owned()]);
        assert_eq!(number.unwrap(), Example::MultipleChoice { query, choices, gold: 1 });
    }
}
