//! Writes `[data.sha256]` into a manifest's text; every other line stays as it is.

use std::fmt::Write as _;
use std::path::Path;

use toml::{Table, Value};

use super::document;
use crate::error::{Error, Result};
use crate::toml_text;

const HEADER: &str = "[data.sha256]";

/// `text` with these pins in place of those it had.
///
/// # Errors
/// A manifest whose `data` is written in a way that cannot be added to.
pub fn with_pins(file: &Path, text: &str, pins: &[(String, String)]) -> Result<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let header = |line: &str| line.trim_start().starts_with('[');
    let is = |line: &str, name: &str| line.split('#').next().unwrap_or_default().trim() == name;
    // From a header to the line before the next one.
    let extent = |name: &str| {
        let start = lines.iter().position(|line| is(line, name))?;
        let length = lines.iter().skip(start + 1).take_while(|line| !header(line)).count();
        Some((start, start + 1 + length))
    };
    let end_of_line = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut new = String::new();
    if let Some((start, end)) = extent(HEADER) {
        let mut missing: Vec<_> = pins.iter().collect();
        let old: Vec<Option<(String, String)>> = lines.iter().map(|line| pin_of(line)).collect();
        let within = |index: usize| index > start && index < end;
        // New pins follow the last old one.
        let last =
            (start..end).rev().find(|&index| within(index) && old.get(index).is_some_and(Option::is_some));
        for (name, _) in old.iter().take(end).skip(start + 1).flatten() {
            missing.retain(|(pin, _)| pin != name);
        }
        for (index, line) in lines.iter().enumerate() {
            match old.get(index).and_then(Option::as_ref).filter(|_| within(index)) {
                None => push_line(&mut new, line),
                // A line of a pin keeps its place, its comment and its alignment.
                Some((name, digest)) => {
                    if let Some((_, pin)) = pins.iter().find(|(pin, _)| pin == name) {
                        push_line(&mut new, &line.replacen(digest.as_str(), pin, 1));
                    }
                }
            }
            if index == last.unwrap_or(start) {
                for (name, digest) in &missing {
                    push_pin(&mut new, name, digest, end_of_line);
                }
            }
        }
    } else {
        let section = |new: &mut String| {
            let _ = write!(new, "{end_of_line}{HEADER}{end_of_line}");
            for (name, digest) in pins {
                push_pin(new, name, digest, end_of_line);
            }
        };
        // After [data] without the blank lines and comments that lead to the next section, else at the end.
        let after = extent("[data]").map_or(lines.len(), |(start, end)| {
            let body = lines.iter().take(end).skip(start);
            let space = |line: &&&str| line.trim().is_empty() || line.trim().starts_with('#');
            end - body.rev().take_while(space).count()
        });
        let inline = extent("[data]").map_or(0..0, |(start, end)| start..end);
        for (index, line) in lines.iter().enumerate() {
            if index == after {
                section(&mut new);
            }
            let old = inline.contains(&index)
                && line
                    .trim_start()
                    .strip_prefix("sha256")
                    .is_some_and(|rest| rest.trim_start().starts_with('='));
            if !old {
                push_line(&mut new, line);
            }
        }
        if after >= lines.len() {
            section(&mut new);
        }
    }
    check(file, text, &new, pins)?;
    Ok(new)
}

/// Name and digest of a line that is one pin.
fn pin_of(line: &str) -> Option<(String, String)> {
    let table: Table = toml_text::from_str(line).ok()?;
    let mut pins = table.into_iter();
    match (pins.next(), pins.next()) {
        (Some((name, Value::String(digest))), None) if line.contains(&digest) => Some((name, digest)),
        _ => None,
    }
}

fn push_pin(text: &mut String, name: &str, digest: &str, end_of_line: &str) {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    // A TOML basic string is written as TOML writes it.
    let key = if bare { name.to_owned() } else { Value::String(name.to_owned()).to_string() };
    let _ = write!(text, "{key} = \"{digest}\"{end_of_line}");
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    if !line.ends_with('\n') {
        text.push('\n');
    }
}

/// The new text must say what the old one said, and the pins.
fn check(file: &Path, old: &str, new: &str, pins: &[(String, String)]) -> Result<()> {
    let refuse = || {
        Error::input("the pins cannot be added to this manifest")
            .file(file)
            .key("data.sha256")
            .expected("`data` as a section of its own")
            .help("write it as [data] with one field a line")
    };
    let pins: Table =
        pins.iter().map(|(name, digest)| (name.clone(), Value::String(digest.clone()))).collect();
    let mut wanted = document::parse(file, old)?.value();
    let data =
        wanted.as_table_mut().map(|root| root.entry("data").or_insert_with(|| Value::Table(Table::new())));
    data.and_then(Value::as_table_mut).ok_or_else(refuse)?.insert("sha256".to_owned(), Value::Table(pins));
    let found = document::parse(file, new).map_err(|_| refuse())?.value();
    if found == wanted { Ok(()) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(text: &str, pins: &[(&str, &str)]) -> String {
        let pins: Vec<_> = pins.iter().map(|(n, d)| ((*n).to_owned(), (*d).to_owned())).collect();
        with_pins("m.toml".as_ref(), text, &pins).unwrap()
    }

    #[test]
    fn pins_come_after_the_data_and_the_rest_stays() {
        let text =
            "name = \"a\"\n\n[data] # ours\nvocab_size = 300 # small\n\n# cadence\n[eval]\nevery = 1\n";
        let once = pinned(text, &[("a b.parquet", "00"), ("tokenizer", "11")]);
        insta::assert_snapshot!(once, @r#"
        name = "a"

        [data] # ours
        vocab_size = 300 # small

        [data.sha256]
        "a b.parquet" = "00"
        tokenizer = "11"

        # cadence
        [eval]
        every = 1
        "#);
        assert_eq!(pinned(&once, &[("a b.parquet", "00"), ("tokenizer", "11")]), once);
        let other = pinned(&once, &[("tokenizer", "22")]);
        assert_eq!(other, once.replace("\"a b.parquet\" = \"00\"\n", "").replace("11", "22"));
    }

    #[test]
    fn comments_order_and_line_ends_stay() {
        let text = "[data.sha256] # by lock\r\n# ours\r\nb = \"11\"   # the large one\r\n\"a\" = \"00\"\r\n\r\n[eval]\r\n";
        assert_eq!(pinned(text, &[("a", "00"), ("b", "11")]), text);
        let other = pinned(text, &[("a", "22"), ("b", "11"), ("c", "33")]);
        let expected = text.replace("\"00\"\r\n", "\"22\"\r\nc = \"33\"\r\n");
        assert_eq!(other, expected);
        assert_eq!(pinned(text, &[("a", "00")]), text.replace("b = \"11\"   # the large one\r\n", ""));
    }

    #[test]
    fn any_way_of_writing_data_works_or_is_refused() {
        let pins = [("x", "00")];
        assert!(pinned("name = \"a\"", &pins).ends_with("[data.sha256]\nx = \"00\"\n"));
        assert!(pinned("[data]\nsha256 = { y = \"11\" }\n", &pins).ends_with("[data.sha256]\nx = \"00\"\n"));
        assert!(pinned("data.vocab_size = 3\n[[a]]\nb = 1\n", &pins).contains("[data.sha256]"));
        let inline = with_pins("m.toml".as_ref(), "data = { vocab_size = 3 }\n", &[]);
        assert_eq!(inline.unwrap_err().class().exit_code(), 2);
    }
}
