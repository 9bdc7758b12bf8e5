//! Prompts from examples, as upstream's templates write them: solved examples, each followed by an empty line, then the
//! one that is asked.

use super::example::Example;
use crate::error::{Error, Result};

/// One prompt a choice; of language modelling the prompt without its continuation, and with it.
///
/// # Errors
/// Examples of two kinds; class `Internal`.
pub(super) fn prompts(example: &Example, shots: &[Example], delimiter: &str) -> Result<Vec<String>> {
    let mut before = String::new();
    for shot in shots {
        if shot.kind() != example.kind() {
            return Err(Error::internal("a prompt of examples of two kinds"));
        }
        let (context, continuation) = match shot {
            Example::MultipleChoice { query, choices, gold } => (query.as_str(), choices.get(*gold)),
            Example::Schema { contexts, continuation, gold } => {
                (contexts.get(*gold).map_or("", String::as_str), Some(continuation))
            }
            Example::LanguageModeling { context, continuation } => (strip(context), Some(continuation)),
        };
        let continuation = continuation.map_or("", String::as_str);
        before.extend([context, delimiter, continuation, "\n\n"]);
    }
    let prompt = |context: &str, continuation: &str| [&before, context, delimiter, continuation].concat();
    Ok(match example {
        Example::MultipleChoice { query, choices, .. } => {
            choices.iter().map(|choice| prompt(query, choice)).collect()
        }
        Example::Schema { contexts, continuation, .. } => {
            contexts.iter().map(|context| prompt(context, continuation)).collect()
        }
        // Without its continuation it must not end in a space, which would be part of the next token.
        Example::LanguageModeling { context, continuation } => {
            vec![strip(&prompt(strip(context), "")).to_owned(), prompt(strip(context), continuation)]
        }
    })
}

/// Python's `str.strip`: white space, and the four separators that Unicode does not count as such.
fn strip(text: &str) -> &str {
    text.trim_matches(|letter: char| letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_stripped_as_python_does() {
        assert_eq!(strip("\x1c\u{3000}\t a b\u{a0}\x1f\n"), "a b");
        assert_eq!(strip("\u{200b}a"), "\u{200b}a");
    }

    #[test]
    fn shots_come_first_each_with_an_empty_line() {
        let shot = Example::LanguageModeling { context: " a ".into(), continuation: " b".into() };
        let asked = Example::LanguageModeling { context: "c\n".into(), continuation: "d".into() };
        assert_eq!(prompts(&asked, &[shot], ": ").unwrap(), ["a:  b\n\nc:", "a:  b\n\nc: d"]);
        let choice =
            |gold| Example::MultipleChoice { query: "q".into(), choices: vec!["x".into(), "y".into()], gold };
        assert_eq!(prompts(&choice(0), &[choice(1)], " ").unwrap(), ["q y\n\nq x", "q y\n\nq y"]);
        let schema =
            Example::Schema { contexts: vec!["m".into(), "n".into()], continuation: "z".into(), gold: 1 };
        assert_eq!(
            prompts(&schema, std::slice::from_ref(&schema), "-").unwrap(),
            ["n-z\n\nm-z", "n-z\n\nn-z"]
        );
        assert!(prompts(&schema, &[choice(0)], "").is_err());
    }
}
