//! How much room text takes on a terminal, and text that does nothing to one.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Columns that `text` takes on a terminal: wide characters take two, combining ones none.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The text with every character escaped that would do something to a terminal instead of being shown: control
/// characters other than line ends and tabs, and those that turn the direction of writing, with which a name can be
/// made to read as another. Labels, questions, file names and sampled text come from others; printed as they are they
/// could recolour, overwrite or hide what nanorun says beside them. The escapes are JSON's, so that JSON stays the same
/// JSON.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if acts(character) {
            let _ = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

fn acts(character: char) -> bool {
    let direction =
        matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    direction || (character.is_control() && !matches!(character, '\n' | '\t'))
}

/// The text cut to at most `room` columns, with `...` at its end where something was cut.
pub(crate) fn shortened(text: &str, room: usize) -> Cow<'_, str> {
    const DOTS: &str = "...";
    if width(text) <= room {
        return Cow::Borrowed(text);
    }
    let mut left = room.saturating_sub(DOTS.len());
    let fits = |character: &char| {
        let columns = character.width().unwrap_or(0);
        let fits = columns <= left;
        left = left.saturating_sub(columns);
        fits
    };
    Cow::Owned(text.chars().take_while(fits).chain(DOTS.chars()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        assert_eq!(printable("val bpb: 2.5\n\tdone, 学習率"), "val bpb: 2.5\n\tdone, 学習率");
        assert_eq!(printable("a\u{1b}[31mred\u{7}\r"), "a\\u001b[31mred\\u0007\\u000d");
        assert_eq!(printable("abc\u{202e}cba\u{9b}"), "abc\\u202ecba\\u009b");
        let json = serde_json::json!({ "label": "abc\u{202e}cba\u{9b}\u{1b}\n" });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printable(&json.to_string())).unwrap(), json);
    }

    #[test]
    fn what_is_cut_fits() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("rather long", 8), "rathe...");
        let wide = "学習率を下げる";
        assert_eq!((width(wide), shortened(wide, 14).as_ref()), (14, wide));
        for room in 3..14 {
            let cut = shortened(wide, room);
            assert!(width(&cut) <= room && cut.ends_with("..."), "{room}: {cut}");
        }
    }
}
