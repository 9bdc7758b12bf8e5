//! What is said to people while a command works: lines on stderr, the same with times in a log, or JSON lines for programs
//! that watch. One place for the whole process, because whatever writes to stderr has to go through it.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::files::utc_now;
use crate::text::{Tone, printable, wrapped};

/// The version of the JSON lines; it rises when a field changes its meaning or goes.
pub const PROGRESS_FORMAT: u32 = 1;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, lines elsewhere
    Auto,
    /// Bars
    Bars,
    /// A line now and then
    Lines,
    /// JSON lines on stderr, which hold everything else that is said there too
    Json,
    /// Nothing
    Off,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// How far something is.
    Progress,
    /// Something worth knowing.
    Note,
    /// Something that is wrong.
    Warning,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Progress => "progress",
            Self::Note => "note",
            Self::Warning => "warning",
        }
    }
}

struct Console {
    progress: Progress,
    log: Option<(PathBuf, Mutex<File>)>,
    /// Whether it was said that the log cannot be written.
    broken: AtomicBool,
}

static CONSOLE: OnceLock<Console> = OnceLock::new();

/// From now on everything that is said goes to this log too, and progress is shown so.
///
/// # Errors
/// A log that cannot be written; class `Input`.
pub fn start(log: Option<&Path>, progress: Progress) -> Result<()> {
    let open = |path: &Path| {
        OpenOptions::new().append(true).create(true).open(path).map_err(|error| {
            Error::input("the log cannot be written")
                .file(path)
                .because(error)
                .expected("a file in a directory that is there and can be written")
        })
    };
    let log = match log {
        Some(path) => Some((path.to_owned(), Mutex::new(open(path)?))),
        None => None,
    };
    // A second start in one process, as tests have it, changes nothing.
    let _ = CONSOLE.set(Console { progress, log, broken: AtomicBool::new(false) });
    Ok(())
}

/// How progress is to be shown.
pub fn progress() -> Progress {
    CONSOLE.get().map_or(Progress::Auto, |console| console.progress)
}

/// Whether programs watch, and stderr has JSON lines alone.
pub fn is_json() -> bool {
    progress() == Progress::Json
}

/// Columns of the terminal that stderr or, with `stdout`, stdout is; `COLUMNS` in the environment decides before it. None
/// where there is no terminal and nobody says.
pub fn width(stdout: bool) -> Option<usize> {
    let told = std::env::var("COLUMNS").ok().and_then(|text| text.trim().parse().ok()).filter(|n| *n >= 20);
    told.or_else(|| {
        let size = if stdout {
            terminal_size::terminal_size_of(std::io::stdout())
        } else {
            terminal_size::terminal_size_of(std::io::stderr())
        };
        size.map(|(width, _)| usize::from(width.0)).filter(|width| *width >= 20)
    })
}

/// Whether colours may be used there: on a terminal, where nobody asked otherwise.
pub fn has_colour(stdout: bool) -> bool {
    let terminal = if stdout { std::io::stdout().is_terminal() } else { std::io::stderr().is_terminal() };
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Says a text of one or several lines.
pub fn say(kind: Kind, text: &str) {
    let text = text.trim_end_matches('\n');
    let safe = printable(text);
    log(&safe);
    if is_json() {
        event(kind.word(), json!({ "text": text }));
        return;
    }
    let shown = width(false).map_or_else(|| safe.clone(), |room| wrapped(&safe, room));
    let _ = writeln!(std::io::stderr().lock(), "{}", coloured(&shown));
}

/// Writes to the log alone: what a terminal shows in its own way.
pub fn log(text: &str) {
    let Some(Console { log: Some((path, file)), broken, .. }) = CONSOLE.get() else { return };
    let now = utc_now();
    let mut lines = String::with_capacity(text.len() + 32);
    for line in text.lines() {
        lines.extend([now.as_str(), " ", line, "\n"]);
    }
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = file.write_all(lines.as_bytes())
        && !broken.swap(true, Ordering::Relaxed)
    {
        // Results do not depend on it.
        let path = path.display();
        let _ = writeln!(std::io::stderr().lock(), "note: the log `{path}` is not written on: {error}");
    }
}

/// Writes a JSON line, where programs watch; what it is about are the fields of `value`.
pub fn event(name: &str, value: Value) {
    if !is_json() {
        return;
    }
    let mut line = Map::new();
    line.insert("at".to_owned(), utc_now().into());
    line.insert("event".to_owned(), name.into());
    if let Value::Object(fields) = value {
        line.extend(fields);
    }
    let line = Value::Object(line).to_string();
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(&line));
}

/// The word that says what kind of line it is, in its colour.
fn coloured(text: &str) -> String {
    if !has_colour(false) {
        return text.to_owned();
    }
    let word = |line: &str| {
        let (word, rest) = line.split_once(": ")?;
        Some(format!("{}: {rest}", Tone::of(word).filter(|tone| *tone != Tone::Good)?.paint(word)))
    };
    text.split('\n').map(|line| word(line).unwrap_or_else(|| line.to_owned())).collect::<Vec<_>>().join("\n")
}
