//! Lines broken at the terminal's width, so that what belongs together stays readable.

use std::borrow::Cow;

use super::printable::width;

/// Text in a last column is broken within its column where that has at least so much room.
const LEAST_COLUMN: usize = 30;

/// The text with every line of more than `room` columns broken between words. What follows stands under the beginning of
/// its line, two columns in; of a table's row, whose last cell is a sentence, under that cell. Rows of cells that are no
/// sentences stay as they are: broken, they would no longer be columns.
pub(crate) fn wrapped(text: &str, room: usize) -> Cow<'_, str> {
    if text.lines().all(|line| width(line) <= room) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            out.push('\n');
        }
        if width(line) <= room {
            out.push_str(line);
        } else {
            broken(line, room, &mut out);
        }
    }
    Cow::Owned(out)
}

/// Where the last column of a row begins, in bytes; none where the line is no row.
fn last_column(line: &str) -> Option<usize> {
    let begins = line.len() - line.trim_start().len();
    let gap = line[begins..].rfind("  ").map(|at| begins + at)?;
    Some(gap + 2)
}

fn broken(line: &str, room: usize, out: &mut String) {
    let own = line.len() - line.trim_start_matches(' ').len();
    let (head, hang) = match last_column(line) {
        Some(start) => {
            let column = width(&line[..start]);
            // A row of numbers: there is nothing to break in its last cell, or no room for it.
            if !line[start..].contains(' ') || column + LEAST_COLUMN > room {
                out.push_str(line);
                return;
            }
            (start, column)
        }
        None => (own, own + 2),
    };
    out.push_str(&line[..head]);
    let mut used = width(&line[..head]);
    let mut first = true;
    for word in line[head..].split(' ').filter(|word| !word.is_empty()) {
        let columns = width(word);
        if first {
            first = false;
        } else if used + 1 + columns > room && hang + columns <= room.max(hang + 1) {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', hang));
            used = hang;
        } else {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += columns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        let text = "short\n\n  a  table  row\n";
        assert!(matches!(wrapped(text, 20), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn sentences_hang_and_rows_break_in_their_last_cell() {
        let text = "warmdown=sqrt is worse than linear by 0.0046\n  help: name the manifest instead\nquality  pass   \
                    arm   one two three four five six seven eight nine";
        let broken = wrapped(text, 58);
        assert_eq!(
            wrapped("warmdown=sqrt is worse than linear by 0.0046", 20),
            "warmdown=sqrt is\n  worse than linear\n  by 0.0046"
        );
        assert_eq!(wrapped("  help: name the manifest", 18), "  help: name the\n    manifest");
        assert!(broken.ends_with("six seven\n                      eight nine"), "{broken}");
        assert!(broken.lines().all(|line| width(line) <= 58), "{broken}");
    }

    #[test]
    fn rows_of_numbers_stay_rows() {
        let row = "warmdown=linear     1  6.38723     5.68729   5.68111     39365  89ed6923e807";
        assert_eq!(wrapped(row, 40), row);
        // No room for a column.
        let narrow = "a rather long first cell of a row  and a sentence that is long";
        assert_eq!(wrapped(narrow, 40), narrow);
    }

    #[test]
    fn words_longer_than_the_room_and_wide_ones() {
        assert_eq!(wrapped("a 0123456789 b", 6), "a\n  0123456789\n  b".replace("a\n  0", "a 0"));
        let wide = "学習率 学習率 学習率";
        assert_eq!(wrapped(wide, 13), "学習率 学習率\n  学習率");
    }
}
