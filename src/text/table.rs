//! Tables on a terminal: columns two spaces apart, aligned by what their cells take on the screen.

use std::fmt;

use super::printable::{printable, width};

/// Rows of cells under headings.
#[derive(Debug)]
pub(crate) struct Table {
    /// For each column, whether it is aligned to its right side.
    right: Vec<bool>,
    /// The headings first.
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table under these headings; a heading that starts with `>` aligns its column to the right.
    pub(crate) fn new<S: AsRef<str>>(headings: impl IntoIterator<Item = S>) -> Self {
        let headings: Vec<S> = headings.into_iter().collect();
        let right = headings.iter().map(|heading| heading.as_ref().starts_with('>')).collect();
        let plain = |heading: &S| {
            let heading = heading.as_ref();
            heading.strip_prefix('>').unwrap_or(heading).to_owned()
        };
        Self { right, rows: vec![headings.iter().map(plain).collect()] }
    }

    /// Columns that its widest row takes on the screen.
    pub(crate) fn width(&self) -> usize {
        let column = |at: usize| self.rows.iter().filter_map(|row| row.get(at)).map(|cell| width(cell)).max();
        let columns: usize = (0..self.right.len()).map(|at| column(at).unwrap_or(0)).sum();
        columns + 2 * self.right.len().saturating_sub(1)
    }

    /// Adds a row. Cells beyond the headings are not shown.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        // A line end within a cell would tear its row.
        let cell = |cell: String| match printable(&cell) {
            shown if shown.contains(['\n', '\t']) => shown.replace('\n', "\\n").replace('\t', "\\t"),
            shown => shown.into_owned(),
        };
        self.rows.push(row.into_iter().map(cell).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = |at: usize| self.rows.iter().filter_map(move |row| row.get(at)).map(|cell| width(cell));
        let widths: Vec<usize> = (0..self.right.len()).map(|at| column(at).max().unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, &room), &right) in row.iter().zip(&widths).zip(&self.right) {
                let space = " ".repeat(room.saturating_sub(width(cell)));
                let (before, after) = if right { (space.as_str(), "") } else { ("", space.as_str()) };
                line.extend([before, cell, after, "  "]);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The row "wide characters": columns stay columns, and nothing in a cell reaches the terminal as a command.
    #[test]
    fn wide_characters_and_control_characters_keep_the_columns() {
        let mut table = Table::new(["arm", ">runs", "hash"]);
        for arm in ["plain", "学習率を下げる🚀", "e\u{301}te\u{301}", "red\u{1b}[31m", "two\nlines"]
        {
            table.push(vec![arm.to_owned(), "2".to_owned(), "|".to_owned()]);
        }
        let text = table.to_string();
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert_eq!(text.lines().count(), 6, "{text}");
        let bars: Vec<usize> =
            text.lines().skip(1).filter_map(|line| line.find('|').map(|at| width(&line[..at]))).collect();
        assert_eq!(bars.len(), 5);
        assert!(bars.iter().all(|bar| *bar == bars[0]), "{text}");
    }
}
