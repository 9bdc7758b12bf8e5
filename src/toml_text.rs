//! TOML, read within bounds: the one place where text that others wrote meets the parser.

#![allow(clippy::disallowed_methods, reason = "this is the place")]

use std::str::Utf8Error;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Inline tables and arrays of a document that may be open at once. The parser bounds how deep they stand in each
/// other, but loses count where a list stands in place of a key (`{ a = 1 [b] c = { ...`), and overflows the stack of a
/// thread (2 MiB), which ends the process, at about two thousand.
const MAX_OPEN: usize = 1000;

/// Why a text was not read.
#[derive(Debug, thiserror::Error)]
pub enum TomlError {
    /// It is no text.
    #[error("it is not UTF-8: {0}")]
    NotUtf8(#[from] Utf8Error),
    /// It could overflow the parser's stack.
    #[error("more than {MAX_OPEN} inline tables and arrays may be open at once")]
    TooManyInline,
    /// It is not TOML, or not of the form that is expected.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
}

/// A document as a `T`.
///
/// # Errors
/// See [`TomlError`].
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, TomlError> {
    check_open(text)?;
    Ok(toml::from_str(text)?)
}

/// The document in these bytes as a `T`.
///
/// # Errors
/// See [`TomlError`].
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, TomlError> {
    from_str(std::str::from_utf8(bytes)?)
}

/// A document with the places of its keys and values.
///
/// # Errors
/// See [`TomlError`].
pub(crate) fn document(text: &str) -> Result<Spanned<DeTable<'_>>, TomlError> {
    check_open(text)?;
    Ok(DeTable::parse(text)?)
}

/// A single value, as it stands after `=`.
///
/// # Errors
/// See [`TomlError`].
pub(crate) fn value(text: &str) -> Result<Spanned<DeValue<'_>>, TomlError> {
    check_open(text)?;
    Ok(DeValue::parse(text)?)
}

/// Counts brackets that may be open at once. A bracket counts as closed only where its end follows with nothing in
/// between that could hide it, as a string or a comment may; what stands in strings and comments counts too.
fn check_open(text: &str) -> Result<(), TomlError> {
    let mut unclosed = 0;
    // Those since the last character that may hide something.
    let mut open = Vec::new();
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => {
                open.push(byte);
                if unclosed + open.len() > MAX_OPEN {
                    return Err(TomlError::TooManyInline);
                }
            }
            // In ASCII a bracket's end is two after it.
            b']' | b'}' if open.last().is_some_and(|&bracket| bracket + 2 == byte) => drop(open.pop()),
            byte if byte.is_ascii_alphanumeric() || b" \t\r\n_-+.:,=".contains(&byte) => {}
            _ => {
                unclosed += open.len();
                open.clear();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::Table;

    use super::*;

    /// Reads on the stack of a thread, which is smaller than the process's.
    fn read(text: String) -> Result<Table, TomlError> {
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        thread.spawn(move || from_str(&text)).unwrap().join().unwrap()
    }

    const DEEP: usize = 100_000;

    #[test]
    fn what_is_open_without_end_is_refused() {
        for open in [
            "{b=1[c] a=",
            "{b=1\n[c]\na=",
            "{a=",
            "[",
            "{a=[",
            "[{a=",
            "[\n",
            "[[\n",
            "[#]\n",
            "[']",
            "[\"]\" ",
            "{a=\"\\\"}\",",
        ] {
            let text = open.repeat(DEEP);
            assert!(matches!(value(&text), Err(TomlError::TooManyInline)), "{open}");
            let line = format!("a = {text}");
            assert!(matches!(document(&line), Err(TomlError::TooManyInline)), "{open}");
            assert!(matches!(from_slice::<Table>(line.as_bytes()), Err(TomlError::TooManyInline)), "{open}");
            assert!(matches!(read(line), Err(TomlError::TooManyInline)), "{open}");
            assert!(matches!(read(text), Err(TomlError::TooManyInline)), "{open}");
        }
    }

    #[test]
    fn what_stands_deep_in_each_other_is_refused() {
        for [open, close] in [["[", "]"], ["{ a = ", " }"], ["{b=1[c] a=", "}"], ["{b=[1] a=[", "]}"]] {
            let deep = |levels| format!("a = {}1{}", open.repeat(levels), close.repeat(levels));
            assert!(matches!(read(deep(DEEP)), Err(TomlError::TooManyInline)), "{open}");
            assert!(matches!(read(deep(MAX_OPEN / 2)), Err(TomlError::Toml(_))), "{open}");
        }
    }

    #[test]
    fn the_parser_bounds_the_parts_of_a_key() {
        let key = "a.".repeat(DEEP);
        for text in [format!("{key}a = 1"), format!("[{key}a]"), format!("a = {{ {key}a = 1 }}")] {
            assert!(matches!(read(text), Err(TomlError::Toml(_))));
        }
    }

    #[test]
    fn many_headers_and_short_values_are_no_depth() {
        let text = "[[run]]\nlosses = [1, [2.5e-3, nan]]\nat = { step = 1, of = [\n2\n] }\n[run.\"a.b\"]\n";
        // The quotes of the last header could hide its end; two more are open at once before it.
        let runs = MAX_OPEN - 2;
        let mut text = text.repeat(runs);
        assert_eq!(read(text.clone()).unwrap()["run"].as_array().unwrap().len(), runs);
        text.push_str(&"[last.\"one\"]\n".repeat(3));
        assert!(matches!(read(text), Err(TomlError::TooManyInline)));
        // As many as may be open fit on the stack.
        let open = format!("a = {}", "{b=1\n[c]\na=".repeat(MAX_OPEN - 1));
        assert!(matches!(read(open), Err(TomlError::Toml(_))));
    }

    proptest! {
        /// Whatever is repeated, the stack is large enough: an overflow would end this process.
        #[test]
        fn no_repetition_overflows_the_stack(
            start in "(a = )?[\\[{]?",
            open in "([\\[\\]{}=,.a1 \n\"'#\\\\]|\\{a=|=1\\[b\\]){1,9}",
            close in "[\\]}= ,1]{0,3}",
        ) {
            let _ = read(start + &open.repeat(20_000) + &close.repeat(20_000));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_told() {
        let error = from_slice::<Table>(b"a = \"\xff\"").unwrap_err();
        assert!(matches!(error, TomlError::NotUtf8(_)), "{error}");
    }
}
