//! Where a command writes: results to stdout, everything else to stderr. A closed pipe ends output, not the command.

use std::io::{self, IsTerminal, Write};

use crate::console::{self, Kind, Progress};
use crate::text::{Tone, printable, wrapped};

/// The command's two streams. What others wrote into labels, files or samples is printed without effect on the terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    quiet: bool,
}

#[expect(clippy::unused_self, reason = "a stream is asked of the output, whichever it is")]
impl Output {
    /// `quiet` drops notes.
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// Writes a result and a line end to stdout.
    pub(super) fn result(self, text: &str) {
        let mut stdout = io::stdout().lock();
        // A reader that went away (`| head`) wants no more; what was done stays done.
        let _ = writeln!(stdout, "{}", printable(text.trim_end_matches('\n'))).and_then(|()| stdout.flush());
    }

    /// Writes a result that people read: broken at the terminal's width, outcomes in their colours.
    pub(super) fn prose(self, text: &str) {
        let safe = printable(text.trim_end_matches('\n'));
        let text = console::width(true).map_or_else(|| safe.clone(), |room| wrapped(&safe, room));
        self.raw(&text);
    }

    /// Writes rows of a table: never broken, states in their colours.
    pub(super) fn rows(self, text: &str) {
        self.raw(&printable(text.trim_end_matches('\n')));
    }

    fn raw(self, text: &str) {
        let text = if console::has_colour(true) { coloured(text) } else { text.to_owned() };
        let mut stdout = io::stdout().lock();
        let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    }

    /// Writes part of a line of a result to stdout, to be seen at once; false where nobody reads it any more.
    pub(super) fn part(self, text: &str) -> bool {
        let mut stdout = io::stdout().lock();
        write!(stdout, "{}", printable(text)).and_then(|()| stdout.flush()).is_ok()
    }

    /// Writes a note and a line end to stderr.
    pub(super) fn note(self, text: &str) {
        if !self.quiet {
            console::say(Kind::Note, text);
        }
    }

    /// Writes to stderr even when quiet.
    pub(super) fn warn(self, text: &str) {
        console::say(Kind::Warning, text);
    }

    /// Goes so many lines up on the terminal that stdout is, and clears what is there.
    pub(super) fn up(self, lines: usize) {
        let mut stdout = io::stdout().lock();
        let _ = write!(stdout, "\u{1b}[{lines}A\u{1b}[J").and_then(|()| stdout.flush());
    }

    /// Columns of the terminal that results are written to; none where it is none.
    pub(super) fn width(self) -> Option<usize> {
        console::width(true)
    }

    /// Whether bars may be drawn: stderr is a terminal and nobody asked otherwise.
    pub(super) fn fancy(self) -> bool {
        match console::progress() {
            Progress::Auto => {
                let coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
                !self.quiet && io::stderr().is_terminal() && coloured
            }
            Progress::Bars => !self.quiet,
            Progress::Lines | Progress::Json | Progress::Off => false,
        }
    }

    /// Whether progress is not to be shown.
    pub(super) fn silent(self) -> bool {
        self.quiet && console::progress() != Progress::Json || console::progress() == Progress::Off
    }
}

/// Words that stand in a column of their own and say how something went, in their colours.
fn coloured(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            out.push('\n');
        }
        // Cells are two spaces or more apart.
        let mut rest = line;
        while let Some(gap) = rest.find("  ") {
            let (cell, after) = rest.split_at(gap);
            let next = after.len() - after.trim_start_matches(' ').len();
            out.push_str(&cell_in_colour(cell));
            out.push_str(&after[..next]);
            rest = &after[next..];
        }
        out.push_str(&cell_in_colour(rest));
    }
    out
}

fn cell_in_colour(cell: &str) -> String {
    // `pass: better` is a pass.
    let word = cell.split(':').next().unwrap_or(cell);
    match Tone::of(word) {
        Some(tone) => tone.paint(cell),
        None => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::coloured;

    #[test]
    fn outcomes_have_colours_and_nothing_else() {
        let row = "quality  FAIL          warmdown=sqrt  a sentence that says pass";
        assert_eq!(
            coloured(row),
            "quality  \u{1b}[31;1mFAIL\u{1b}[0m          warmdown=sqrt  a sentence that says pass"
        );
        assert_eq!(coloured("pass: better  x"), "\u{1b}[32mpass: better\u{1b}[0m  x");
        assert_eq!(coloured("the run finished"), "the run finished");
    }
}
