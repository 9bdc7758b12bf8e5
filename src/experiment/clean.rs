//! What of an experiment's results nothing needs any more, and how it goes. Never a result, a divergence, a table or an
//! append-only log: only checkpoints, progress of evaluations that are over, and what dead processes left half written.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Result;
use crate::files::{DirLock, FileError, Files, LockHolder, is_abandoned, is_temporary};
use crate::hash::Digest;
use crate::host::host_name;
use crate::lease::{Worker, at_work};
use crate::record::{Attempts, Event, ExperimentDir, Journal, PlanRecord, RunDir};
use crate::train::checkpoint::CheckpointStore;

/// Why something is needed by nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Checkpoints of a run that the experiment no longer has.
    Retired,
    /// Checkpoints of an attempt that another stands for.
    SetAside,
    /// Checkpoints of a further attempt, whose weights are those of the first finished one.
    FurtherAttempt,
    /// How far an evaluation came that is over.
    Evaluation,
    /// Half written, by a process that is gone.
    Temporary,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retired => "checkpoints of a run that the experiment no longer has",
            Self::SetAside => "checkpoints of an attempt that another stands for",
            Self::FurtherAttempt => "checkpoints of a further attempt at a run that is finished",
            Self::Evaluation => "progress of an evaluation that is over",
            Self::Temporary => "left half written by a process that is gone",
        })
    }
}

/// A file or directory that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unneeded {
    /// It.
    pub path: PathBuf,
    /// What it takes, bytes.
    pub bytes: u64,
    /// Why nothing needs it.
    pub why: Why,
}

/// Finds what nothing needs in the results of an experiment whose runs have these keys, in the order of the paths. The
/// caller holds the directory's lock if it means to remove any of it, so that no process writes there.
///
/// # Errors
/// Directories and journals that cannot be read.
pub fn unneeded(files: &Files, dir: &ExperimentDir, keys: &[Digest]) -> Result<Vec<Unneeded>> {
    let mut found = Vec::new();
    let known: Vec<String> = keys.iter().map(Digest::short).collect();
    for path in entries(&dir.file("runs"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !is_temporary(&path) {
            of_run(files, &RunDir::at(path), known.contains(&name), &mut found)?;
        }
    }
    temporaries(dir.path(), &mut found)?;
    // What lies in something that goes goes with it.
    let whole: Vec<PathBuf> = found.iter().map(|unneeded| unneeded.path.clone()).collect();
    found.retain(|one| !whole.iter().any(|other| one.path != *other && one.path.starts_with(other)));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    Ok(found)
}

fn of_run(files: &Files, run: &RunDir, planned: bool, found: &mut Vec<Unneeded>) -> Result<()> {
    let attempts = Attempts::read(files, run)?;
    let last = attempts.last();
    // The first finished attempt with weights has those of every other.
    let mut weights_of = None;
    for (attempt, _) in attempts.finished() {
        let store = CheckpointStore::new(files.clone(), attempt.checkpoints());
        if weights_of.is_none() && !store.steps()?.is_empty() {
            weights_of = Some(attempt.number());
        }
    }
    for attempt in &attempts.all {
        let (dir, number) = (&attempt.dir, attempt.dir.number());
        let finished = matches!(attempt.result, Ok(Some(_)));
        let given_up = || -> Result<bool> {
            let entries = Journal::new(files.clone(), dir.journal()).read()?.entries;
            Ok(entries.iter().any(|entry| matches!(entry.event, Event::SetAside { .. })))
        };
        let ended = finished || attempt.divergence.is_some();
        // One whose result cannot be read may still be wanted.
        let open = matches!(attempt.result, Ok(None)) && attempt.divergence.is_none();
        let why = if !planned {
            Some(Why::Retired)
        } else if finished && weights_of.is_some_and(|other| other < number) {
            Some(Why::FurtherAttempt)
        } else if open && (number < last || given_up()?) || attempt.divergence.is_some() && number < last {
            Some(Why::SetAside)
        } else {
            None
        };
        if let Some(why) = why {
            add(&dir.checkpoints(), why, found)?;
        } else if ended {
            add(&dir.checkpoints().join("evaluation.json"), Why::Evaluation, found)?;
        }
    }
    Ok(())
}

fn temporaries(dir: &Path, found: &mut Vec<Unneeded>) -> Result<()> {
    for path in entries(dir)? {
        if is_temporary(&path) {
            // One that was moved aside for a successor that never came is no rubbish: recovery gives its name back.
            let aside = path.extension().is_some_and(|extension| extension == "old");
            if !aside && is_abandoned(&path) {
                add(&path, Why::Temporary, found)?;
            }
        } else if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            temporaries(&path, found)?;
        }
    }
    Ok(())
}

fn add(path: &Path, why: Why, found: &mut Vec<Unneeded>) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        found.push(Unneeded { path: path.to_owned(), bytes: size(path)?, why });
    }
    Ok(())
}

/// Bytes of a file, or of all files below a directory; links count as themselves.
fn size(path: &Path) -> Result<u64> {
    let meta = path.symlink_metadata().map_err(|error| FileError::new("read", path, error))?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    entries(path)?.iter().map(|entry| size(entry)).sum()
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let error = |error| FileError::new("read the directory", dir, error);
    let read = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(error)?,
    };
    let mut paths = Vec::new();
    for entry in read {
        paths.push(entry.map_err(error)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// What became of one experiment's results.
#[derive(Debug, Serialize)]
pub struct Cleaned {
    /// Its directory.
    pub directory: PathBuf,
    /// What nothing needs.
    pub items: Vec<Unneeded>,
    /// Whether that is gone.
    pub removed: bool,
    /// Who works there, so that nothing was touched; none where nobody does.
    pub in_use: Option<String>,
}

impl Cleaned {
    /// What it takes in all, bytes.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }
}

/// Lists what nothing needs of an experiment, and with `remove` removes it. `keys` are the keys of its runs, those of
/// its recorded plan where none are given; with `within` it is about the directories of these runs alone. Where another
/// process works, nothing is listed and nothing removed.
///
/// # Errors
/// Results of a later layout, without a plan, or that cannot be read; what cannot be removed.
pub fn clean(
    files: &Files,
    dir: &ExperimentDir,
    keys: Option<&[Digest]>,
    within: Option<&[Digest]>,
    remove: bool,
) -> Result<Cleaned> {
    let record = PlanRecord::read(files, dir)?;
    let recorded: Vec<Digest> = record.runs.iter().map(|run| run.key).collect();
    let keys = keys.unwrap_or(&recorded);
    let mut cleaned =
        Cleaned { directory: dir.path().to_owned(), items: Vec::new(), removed: false, in_use: None };
    let _lock = match DirLock::acquire(dir.path(), &LockHolder::this_process(&host_name())) {
        Ok(lock) => Some(lock),
        Err(held @ crate::files::LockError::Held { .. }) => {
            cleaned.in_use = Some(held.to_string());
            return Ok(cleaned);
        }
        // Where locks cannot be had, such as on a disk that is read alone, it can be listed.
        Err(_) if !remove => None,
        Err(error) => return Err(error.into()),
    };
    // Where there are no locks, those who work are known all the same.
    let workers =
        at_work(dir.path()).map_err(|error| FileError::new("read the workers of", dir.path(), error))?;
    if let Some(Worker { holder, .. }) = workers.first() {
        let LockHolder { pid, host, since, command, .. } = holder;
        let dir = dir.path().display();
        cleaned.in_use = Some(format!(
            "another nanorun works in `{dir}`: process {pid} on {host} since {since} (`{command}`)"
        ));
        return Ok(cleaned);
    }
    cleaned.items = unneeded(files, dir, keys)?;
    if let Some(within) = within {
        let lies_in = |item: &Unneeded| within.iter().any(|key| item.path.starts_with(dir.run(key).path()));
        cleaned.items.retain(lies_in);
    }
    if remove {
        for item in &cleaned.items {
            if item.path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                files.remove_dir(&item.path)?;
            } else {
                files.remove_file(&item.path)?;
            }
        }
        cleaned.removed = true;
    }
    Ok(cleaned)
}
