//! How a download is watched: bars on a terminal, a line a shard elsewhere.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::console::{self, Kind};
use crate::fetch::{Fetched, Origin, Watcher};
use crate::files::now;

/// How often a line tells of shards that take long, where there are no bars.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Progress {
    shards: usize,
    how: How,
}

enum How {
    Bars { all: MultiProgress, shards: ProgressBar, each: Mutex<BTreeMap<String, ProgressBar>> },
    Lines(Mutex<Lines>),
    Silent,
}

struct Lines {
    /// Bytes here and in all of each shard under way.
    under_way: BTreeMap<String, (u64, Option<u64>)>,
    done: usize,
    last: Instant,
}

impl Progress {
    /// Of a download of so many shards.
    pub(super) fn new(bars: bool, quiet: bool, shards: usize) -> Self {
        let how = if bars {
            let all = MultiProgress::new();
            let total = all.add(ProgressBar::new(shards as u64));
            style(&total, "{pos}/{len} shards {wide_bar} {elapsed}");
            total.enable_steady_tick(Duration::from_millis(500));
            How::Bars { all, shards: total, each: Mutex::default() }
        } else if quiet {
            How::Silent
        } else {
            How::Lines(Mutex::new(Lines { under_way: BTreeMap::new(), done: 0, last: now() }))
        };
        Self { shards, how }
    }

    /// Takes the bars away.
    pub(super) fn end(&self) {
        if let How::Bars { all, .. } = &self.how {
            let _ = all.clear();
        }
    }
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

fn say(text: &str) {
    console::say(Kind::Progress, text);
}

impl Watcher for Progress {
    fn started(&self, name: &str, here: u64, total: Option<u64>) {
        match &self.how {
            How::Bars { all, shards, each } => {
                let mut each = each.lock().unwrap_or_else(PoisonError::into_inner);
                let bar = each.entry(name.to_owned()).or_insert_with(|| {
                    let bar = all.insert_before(shards, ProgressBar::new(0));
                    bar.set_prefix(name.to_owned());
                    bar
                });
                match total {
                    Some(total) => {
                        bar.set_length(total);
                        style(bar, "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}  eta {eta}");
                    }
                    None => style(bar, "{prefix} {bytes} {bytes_per_sec}"),
                }
                bar.set_position(here);
                // What was here already did not come at this rate.
                bar.reset_eta();
            }
            How::Lines(lines) => {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.under_way.insert(name.to_owned(), (here, total));
                if here > 0 {
                    say(&format!("{name}: carried on after {:.1} MB", here as f64 / 1e6));
                }
            }
            How::Silent => {}
        }
    }

    fn moved(&self, name: &str, here: u64) {
        match &self.how {
            How::Bars { each, .. } => {
                if let Some(bar) = each.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
                    bar.set_position(here);
                }
            }
            How::Lines(lines) => {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(shard) = lines.under_way.get_mut(name) {
                    shard.0 = here;
                }
                if lines.last.elapsed() >= LINE_EVERY {
                    lines.last = now();
                    let under_way: Vec<String> = lines
                        .under_way
                        .iter()
                        .map(|(name, (here, total))| match total {
                            Some(total) => {
                                format!("{name} {:.0} %", 100.0 * *here as f64 / (*total).max(1) as f64)
                            }
                            None => format!("{name} {:.1} MB", *here as f64 / 1e6),
                        })
                        .collect();
                    say(&format!("{}/{} shards; {}", lines.done, self.shards, under_way.join(", ")));
                }
            }
            How::Silent => {}
        }
    }

    fn done(&self, fetched: &Fetched, count: usize) {
        match &self.how {
            How::Bars { all, shards, each } => {
                if let Some(bar) = each.lock().unwrap_or_else(PoisonError::into_inner).remove(&fetched.name) {
                    bar.finish_and_clear();
                    all.remove(&bar);
                }
                shards.set_position(count as u64);
            }
            How::Lines(lines) => {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.under_way.remove(&fetched.name);
                lines.done = count;
                lines.last = now();
                let how = if fetched.origin == Origin::Network { "came" } else { "was here" };
                say(&format!(
                    "{}: {how}, {:.1} MB ({count}/{})",
                    fetched.name,
                    fetched.bytes as f64 / 1e6,
                    self.shards
                ));
            }
            How::Silent => {}
        }
    }

    fn note(&self, text: &str) {
        match &self.how {
            How::Bars { all, .. } => {
                let _ = all.println(text);
            }
            How::Lines(_) => say(text),
            How::Silent => {}
        }
    }
}
