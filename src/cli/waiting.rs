//! What takes a while before the first step, shown on stderr: a bar on a terminal, a line now and then elsewhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::console;
use crate::data::progress::{Stand, Unit, Watcher, watch};

use super::output::Output;

/// How often a line reports a task where there are no bars.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows what takes a while, from now to the end of the process; nothing where it is to be quiet.
pub(super) fn show_waiting(quiet: bool) {
    let output = Output::new(quiet);
    watch(match (output.silent(), output.fancy()) {
        (true, _) => None,
        (false, true) => Some(Arc::new(Bars::default()) as Arc<dyn Watcher>),
        (false, false) => Some(Arc::new(Lines { output, last: Mutex::default() })),
    });
}

/// One bar a task.
#[derive(Default)]
struct Bars(Mutex<Vec<(String, ProgressBar)>>);

impl Watcher for Bars {
    fn stands(&self, stand: &Stand<'_>) {
        let mut bars = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = bars.iter().position(|(what, _)| what == stand.what);
        if stand.ended {
            if let Some(at) = at {
                bars.remove(at).1.finish_and_clear();
            }
            return;
        }
        let bar = if let Some((_, bar)) = at.and_then(|at| bars.get(at)) {
            bar.clone()
        } else {
            let bar = new_bar(stand);
            bars.push((stand.what.to_owned(), bar.clone()));
            bar
        };
        bar.set_position(stand.done);
    }
}

fn new_bar(stand: &Stand<'_>) -> ProgressBar {
    let numbers = match stand.unit {
        Unit::Bytes => "{bytes}/{total_bytes}",
        Unit::Count => "{human_pos}/{human_len}",
    };
    let (bar, style) = if stand.total > 0 {
        (ProgressBar::new(stand.total), format!("{{prefix}} {{wide_bar}} {numbers}  eta {{eta}}"))
    } else {
        let done = if stand.unit == Unit::Bytes { "{bytes}" } else { "{human_pos}" };
        (ProgressBar::new_spinner(), format!("{{prefix}} {{spinner}} {done}"))
    };
    if let Ok(style) = ProgressStyle::with_template(&style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_prefix(stand.what.to_owned()).with_elapsed(stand.elapsed)
}

/// A line when a task turns out to take a while, and every ten seconds from then on.
struct Lines {
    output: Output,
    /// Tasks under way, and when each was last told of, as time since it began.
    last: Mutex<Vec<(String, Duration)>>,
}

impl Watcher for Lines {
    fn stands(&self, stand: &Stand<'_>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let at = last.iter().position(|(what, _)| what == stand.what);
        if stand.ended {
            at.map(|at| last.remove(at));
            return;
        }
        match at.and_then(|at| last.get_mut(at)) {
            Some((_, told)) if stand.elapsed < *told + LINE_EVERY => return,
            Some((_, told)) => *told = stand.elapsed,
            None => last.push((stand.what.to_owned(), stand.elapsed)),
        }
        drop(last);
        if console::is_json() {
            let unit = if stand.unit == Unit::Bytes { "bytes" } else { "count" };
            let total = (stand.total > 0).then_some(stand.total);
            let fields = json!({ "what": stand.what, "done": stand.done, "total": total, "unit": unit });
            console::event("waiting", fields);
        } else {
            self.output.note(&line(stand));
        }
    }
}

fn line(stand: &Stand<'_>) -> String {
    let number = |value: u64| match stand.unit {
        Unit::Bytes => format!("{:.2} GB", value as f64 / 1e9),
        Unit::Count => value.to_string(),
    };
    let Stand { what, done, total, .. } = *stand;
    if total > 0 {
        format!("{what}: {} of {}", number(done), number(total))
    } else {
        format!("{what}: {}", number(done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let stand = Stand {
            what: "hashing shards",
            done: 1_250_000_000,
            total: 5_000_000_000,
            unit: Unit::Bytes,
            elapsed: Duration::from_secs(3),
            ended: false,
        };
        assert_eq!(line(&stand), "hashing shards: 1.25 GB of 5.00 GB");
        let count = Stand { what: "merging", done: 17, total: 0, unit: Unit::Count, ..stand };
        assert_eq!(line(&count), "merging: 17");
    }
}
