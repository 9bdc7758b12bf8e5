//! The split pattern: where a text is cut into pieces before byte-pair merges, which never cross a cut.
//!
//! Upstream's pattern is GPT-4's with numbers of at most two digits (nanochat/tokenizer.py). [`Pieces`] is the same
//! cut by a hand-written scanner, which is what makes encoding fast; a property test holds it equal to the regex.

use std::sync::LazyLock;

use super::unicode_classes::{LETTERS, NUMBERS};

/// The pattern as upstream writes it into its tokenizers.
pub const SPLIT_PATTERN: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

/// Digits of one piece at most: the `{1,2}` of the pattern.
const MAX_DIGITS: usize = 2;

/// What the pattern can tell apart about a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    /// Neither letter, number nor white space.
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s` without the two below.
    Space,
    /// `\r` or `\n`
    Newline,
}

/// Classes of the basic multilingual plane, by code point.
static CLASSES: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let mut classes = vec![Class::Other; 0x1_0000];
    let mut fill = |ranges: &[(u32, u32)], class| {
        for &(first, last) in ranges.iter().filter(|range| range.1 < 0x1_0000) {
            if let Some(slots) = classes.get_mut(first as usize..=last as usize) {
                slots.fill(class);
            }
        }
    };
    fill(LETTERS, Class::Letter);
    fill(NUMBERS, Class::Number);
    // The property White_Space, which no Unicode version has changed since 6.3.
    fill(
        &[
            (0x09, 0x0d),
            (0x20, 0x20),
            (0x85, 0x85),
            (0xa0, 0xa0),
            (0x1680, 0x1680),
            (0x2000, 0x200a),
            (0x2028, 0x2029),
            (0x202f, 0x202f),
            (0x205f, 0x205f),
            (0x3000, 0x3000),
        ],
        Class::Space,
    );
    fill(&[(0x0a, 0x0a), (0x0d, 0x0d)], Class::Newline);
    classes
});

fn in_ranges(ranges: &[(u32, u32)], code: u32) -> bool {
    let after = ranges.partition_point(|range| range.0 <= code);
    after.checked_sub(1).and_then(|i| ranges.get(i)).is_some_and(|range| code <= range.1)
}

/// The pieces of a text, in order; together they are the whole text.
pub struct Pieces<'t> {
    rest: &'t str,
    classes: &'static [Class],
}

/// Cuts `text` as [`SPLIT_PATTERN`] does.
pub fn pieces(text: &str) -> Pieces<'_> {
    Pieces { rest: text, classes: &CLASSES }
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t str;

    #[inline]
    fn next(&mut self) -> Option<&'t str> {
        let (class, len) = self.class_at(0)?;
        let end = self.piece_len(class, len);
        let (piece, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(piece)
    }
}

impl Pieces<'_> {
    /// Class and UTF-8 length of the character at byte `at`.
    #[inline]
    fn class_at(&self, at: usize) -> Option<(Class, usize)> {
        let byte = *self.rest.as_bytes().get(at)?;
        if byte < 0x80 {
            return Some((*self.classes.get(usize::from(byte))?, 1));
        }
        let character = self.rest.get(at..)?.chars().next()?;
        let code = character as u32;
        let class = match self.classes.get(code as usize) {
            Some(&class) => class,
            None if in_ranges(LETTERS, code) => Class::Letter,
            None if in_ranges(NUMBERS, code) => Class::Number,
            None => Class::Other,
        };
        Some((class, character.len_utf8()))
    }

    /// The end of the run of `class` that starts at `at`.
    #[inline]
    fn run(&self, mut at: usize, class: Class) -> usize {
        while let Some((next, len)) = self.class_at(at)
            && next == class
        {
            at += len;
        }
        at
    }

    /// Length of the piece at the front, whose first character has this class and length: the pattern's
    /// alternatives in its order.
    #[inline]
    fn piece_len(&self, class: Class, len: usize) -> usize {
        match class {
            Class::Letter => self.run(len, Class::Letter),
            Class::Number => self.digits(len),
            Class::Newline => self.white_space(),
            Class::Other | Class::Space => {
                if let Some(end) = self.contraction() {
                    return end;
                }
                match self.class_at(len) {
                    Some((Class::Letter, next)) => self.run(len + next, Class::Letter),
                    Some((Class::Other, _)) if self.rest.as_bytes().first() == Some(&b' ') => {
                        self.run(self.run(len, Class::Other), Class::Newline)
                    }
                    _ if class == Class::Other => self.run(self.run(len, Class::Other), Class::Newline),
                    _ => self.white_space(),
                }
            }
        }
    }

    fn digits(&self, first: usize) -> usize {
        let mut end = first;
        for _ in 1..MAX_DIGITS {
            match self.class_at(end) {
                Some((Class::Number, len)) => end += len,
                _ => break,
            }
        }
        end
    }

    /// `'(?i:[sdmt]|ll|ve|re)`, where case folding also lets the long s (U+017F) stand for an s.
    #[inline]
    fn contraction(&self) -> Option<usize> {
        let bytes = self.rest.as_bytes();
        if *bytes.first()? != b'\'' {
            return None;
        }
        match (bytes.get(1)?.to_ascii_lowercase(), bytes.get(2).map(u8::to_ascii_lowercase)) {
            (b's' | b'd' | b'm' | b't', _) => Some(2),
            (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) | (0xc5, Some(0xbf)) => Some(3),
            _ => None,
        }
    }

    /// `\s*[\r\n]|\s+(?!\S)|\s+`: up to the last line end of the run; without one, all of the run but the
    /// character before a word, which belongs to the word where it can.
    fn white_space(&self) -> usize {
        let (mut end, mut last, mut line_end) = (0, 0, 0);
        while let Some((class @ (Class::Space | Class::Newline), len)) = self.class_at(end) {
            last = end;
            end += len;
            if class == Class::Newline {
                line_end = end;
            }
        }
        if line_end > 0 {
            line_end
        } else if end == self.rest.len() || last == 0 {
            end
        } else {
            last
        }
    }
}

#[cfg(test)]
mod tests {
    use fancy_regex::Regex;
    use proptest::prelude::*;

    use super::*;

    fn by_regex(text: &str) -> Vec<String> {
        static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new(SPLIT_PATTERN).unwrap());
        PATTERN.find_iter(text).map(|found| found.unwrap().as_str().to_owned()).collect()
    }

    /// Text in which the pattern's alternatives meet often.
    fn tricky() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => proptest::sample::select(vec![
                "'", "s", "S", "ll", "Ve", "rE", "ſ", " ", "  ", "\n", "\r", "\t", "\u{a0}", "\u{3000}", "\u{85}", "1", "²",
                "Ⅷ", "٣", "a", "é", "語", "\u{301}", "!", "-", "🌍", "\u{200b}", "𝔸", "𝟙", "x", "12", "K",
            ]).prop_map(str::to_owned),
            1 => any::<char>().prop_map(String::from),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn equal_to_the_regex(text in tricky()) {
            let ours: Vec<&str> = pieces(&text).collect();
            prop_assert_eq!(&ours, &by_regex(&text));
            prop_assert_eq!(ours.concat(), text);
        }
    }

    #[test]
    fn classes_are_those_of_the_regex_engine() {
        for (pattern, class) in [(r"\p{L}", Class::Letter), (r"\p{N}", Class::Number), (r"\s", Class::Space)]
        {
            let regex = Regex::new(pattern).unwrap();
            for character in '\0'..=char::MAX {
                let text = character.encode_utf8(&mut [0; 4]).to_owned();
                let (ours, _) = pieces(&text).class_at(0).unwrap();
                let ours = if ours == Class::Newline { Class::Space } else { ours };
                assert_eq!(ours == class, regex.is_match(&text).unwrap(), "{pattern} on {character:?}");
            }
        }
    }
}
