//! What is in the cache: looked up from its directories, without reading an entry.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layout::{self, KINDS, Kind};
use super::limit::{LimitFrom, reserve};
use super::room::{LEFT_OVER, Room, set_time};

/// A file of the cache.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// Its directory.
    pub(super) shelf: PathBuf,
    /// What it takes on disk.
    pub(super) bytes: u64,
    /// Since its last use; tokens are used a shelf at a time.
    pub(super) age: Duration,
    /// Whether it is a temporary file that nobody writes to any more.
    pub(super) left_over: bool,
}

impl Found {
    /// Removes it, and directories that are empty without it. Returns the bytes freed.
    pub(super) fn remove(&self, root: &Path) -> u64 {
        let used = std::fs::metadata(&self.shelf).and_then(|metadata| metadata.modified());
        if std::fs::remove_file(&self.path).is_err() {
            // Another process was faster, or it cannot be.
            return 0;
        }
        // To remove from a shelf is not to use it.
        if let Ok(used) = used {
            set_time(&self.shelf, used);
        }
        for directory in self.path.ancestors().skip(1).take_while(|directory| *directory != root) {
            if std::fs::remove_dir(directory).is_err() {
                break;
            }
        }
        self.bytes
    }
}

/// All files of the cache. What cannot be looked into is passed over.
pub(super) fn survey(root: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for (kind_dir, name, _) in entries(root) {
        let Some(kind) = layout::kind(&name) else { continue };
        for (shelf, name, shelf_metadata) in entries(&kind_dir) {
            if !layout::is_shelf(&name) || !shelf_metadata.is_dir() {
                continue;
            }
            for (path, name, metadata) in entries(&shelf) {
                if !layout::is_entry(&name) || !metadata.is_file() {
                    continue;
                }
                let temporary = layout::is_temporary(&name);
                let used = if kind.name == "tokens" { &shelf_metadata } else { &metadata };
                found.push(Found {
                    path,
                    kind,
                    shelf: shelf.clone(),
                    bytes: crate::system::allocated(&metadata),
                    age: age(used),
                    left_over: temporary && age(&metadata) > LEFT_OVER,
                });
            }
        }
    }
    found
}

/// What is in a directory: path, name and facts, links not followed; in the order of the names.
fn entries(directory: &Path) -> Vec<(PathBuf, String, Metadata)> {
    let Ok(listed) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut entries: Vec<_> = listed
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.path(), entry.file_name().into_string().ok()?, entry.metadata().ok()?))
        })
        .collect();
    entries.sort_by(|a, b| a.1.cmp(&b.1));
    entries
}

/// Since the last change. A time in the future is now, unless it is a day ahead: such a clock says nothing.
fn age(metadata: &Metadata) -> Duration {
    match metadata.modified().map(|at| at.elapsed()) {
        Ok(Ok(age)) => age,
        Ok(Err(ahead)) if ahead.duration() < Duration::from_secs(24 * 60 * 60) => Duration::ZERO,
        _ => Duration::MAX,
    }
}

/// What a cache holds and how much it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFacts {
    /// Its directory.
    pub root: PathBuf,
    /// Bytes it may hold.
    pub limit: u64,
    /// Who says so.
    pub limit_from: LimitFrom,
    /// Bytes free on its disk; none where the system does not tell.
    pub free: Option<u64>,
    /// Of these, what it leaves free.
    pub reserve: Option<u64>,
    /// Each kind.
    pub kinds: Vec<KindFacts>,
    /// What earlier versions and killed processes left: it is never read, and goes first.
    pub removable: KindFacts,
}

/// What there is of a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KindFacts {
    /// One of [`KINDS`].
    pub kind: &'static str,
    /// How many.
    pub entries: u64,
    /// What they take on disk.
    pub bytes: u64,
    /// Since the latest use of one of them; none where there are none.
    pub newest: Option<Duration>,
    /// Since the last use of the one used longest ago.
    pub oldest: Option<Duration>,
}

impl KindFacts {
    fn of<'a>(kind: &'static str, found: impl Iterator<Item = &'a Found>) -> Self {
        let mut facts = Self { kind, ..Self::default() };
        for found in found {
            facts.entries += 1;
            facts.bytes += found.bytes;
            facts.newest = Some(facts.newest.map_or(found.age, |age| age.min(found.age)));
            facts.oldest = Some(facts.oldest.map_or(found.age, |age| age.max(found.age)));
        }
        facts
    }
}

impl CacheFacts {
    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.bytes).sum::<u64>() + self.removable.bytes
    }
}

/// What is in the cache at `root`.
pub(super) fn facts(root: &Path, room: &Room) -> CacheFacts {
    let found = survey(root);
    let removable = |found: &&Found| found.kind.old || found.left_over;
    let kinds = KINDS.map(|name| {
        KindFacts::of(name, found.iter().filter(|found| found.kind.name == name && !removable(found)))
    });
    let removable = KindFacts::of("old", found.iter().filter(removable));
    let (limit, limit_from) = room.limit(found.iter().map(|found| found.bytes).sum());
    let disk = room.disk();
    CacheFacts {
        root: root.to_owned(),
        limit,
        limit_from,
        free: disk.map(|disk| disk.free),
        reserve: disk.map(reserve),
        kinds: kinds.into(),
        removable,
    }
}

/// Which entries are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// One of [`KINDS`], or `old` for what is never read again; none is everything.
    pub kind: Option<String>,
    /// Only what has not been used for this long.
    pub older_than: Option<Duration>,
}

/// Removes what is meant, or counts it. -> entries and bytes
pub(super) fn clear(root: &Path, selection: &Selection, remove: bool) -> (u64, u64) {
    let old = |found: &Found| found.kind.old || found.left_over;
    let meant = |found: &Found| {
        let kind = match selection.kind.as_deref() {
            None => true,
            Some("old") => old(found),
            Some(kind) => found.kind.name == kind,
        };
        kind && selection.older_than.is_none_or(|age| found.age >= age)
    };
    let (mut entries, mut bytes) = (0, 0);
    for found in survey(root).iter().filter(|found| meant(found)) {
        let freed = if remove { found.remove(root) } else { found.bytes };
        // An entry of no blocks was removed all the same.
        entries += u64::from(!remove || freed > 0 || !found.path.exists());
        bytes += freed;
    }
    (entries, bytes)
}
