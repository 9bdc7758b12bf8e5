//! Where a command writes: results to stdout, everything else to stderr. A closed pipe ends output, not the command.

use std::io::{self, IsTerminal, Write};

use crate::text::printable;

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

    /// Writes part of a line of a result to stdout, to be seen at once; false where nobody reads it any more.
    pub(super) fn part(self, text: &str) -> bool {
        let mut stdout = io::stdout().lock();
        write!(stdout, "{}", printable(text)).and_then(|()| stdout.flush()).is_ok()
    }

    /// Writes a note and a line end to stderr.
    pub(super) fn note(self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Writes to stderr even when quiet.
    pub(super) fn warn(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", printable(text.trim_end_matches('\n')));
    }

    /// Whether bars and colours may be drawn: stderr is a terminal and nobody asked otherwise.
    pub(super) fn fancy(self) -> bool {
        !self.quiet && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
    }
}
