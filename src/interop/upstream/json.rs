//! JSON as Python writes it: numbers that are not finite stand there by name, which JSON has not.

/// The same text with `null` where Python wrote `NaN`, `Infinity` or `-Infinity`.
pub(super) fn without_infinities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some(character) = rest.chars().next() {
        let word =
            ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !quoted && rest.starts_with(word));
        if let Some(word) = word {
            out.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        let mut len = character.len_utf8();
        match character {
            '"' => quoted = !quoted,
            // What it escapes may be a quote.
            '\\' if quoted => len += rest[len..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::without_infinities;

    #[test]
    fn names_of_numbers_are_told_from_text() {
        let text = r#"{"a": NaN, "b\"NaN": [-Infinity, Infinity, "Infinity \\"], "c": "é\\\"NaN"}"#;
        let expected = r#"{"a": null, "b\"NaN": [null, null, "Infinity \\"], "c": "é\\\"NaN"}"#;
        assert_eq!(without_infinities(text), expected);
        assert_eq!(without_infinities("\"cut\\"), "\"cut\\");
    }
}
