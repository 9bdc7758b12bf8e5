//! Whether the shards of a directory still are what `SHA256SUMS` says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::sums::{SUMS, Sums};
use crate::data::{Cache, check_shard, file_digest};
use crate::error::{Class, Error, Result};
use crate::files::{FileError, Files};

/// How a file stands to its sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// As it was when it came.
    Same,
    /// Other bytes, with this hash.
    Differs(String),
    /// Not here.
    Missing,
    /// It cannot be read, or is no whole parquet file; why.
    Bad(String),
    /// Here, without a sum.
    Unlisted,
}

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub found: Found,
}

impl Checked {
    /// Whether it is anything but fine.
    pub fn is_wrong(&self) -> bool {
        !matches!(self.found, Found::Same | Found::Unlisted)
    }
}

/// Reads every file that `SHA256SUMS` names, and finds the shards that it does not; in the order of their names.
///
/// # Errors
/// A directory without `SHA256SUMS` or with one that is none; a stop.
pub fn check(
    dir: &Path,
    files: &Files,
    threads: usize,
    each: &(dyn Fn(&Checked) + Sync),
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Checked>> {
    if !dir.is_dir() {
        return Err(Error::input("there is no such directory").file(dir));
    }
    let Some(sums) = Sums::read(files, dir)? else {
        return Err(Error::input(format!("there is no {SUMS}, so nobody knows what the files were"))
            .file(dir)
            .help("`nanorun data get` writes it, also for shards that are here already"));
    };
    let listed: Vec<_> = sums.iter().map(|(name, digest)| (name.to_owned(), digest)).collect();
    let next = AtomicUsize::new(0);
    let checked = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, 16) {
            scope.spawn(|| {
                while let Some((name, digest)) = listed.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if stop() {
                        return;
                    }
                    let found = found(&dir.join(name), digest);
                    let one = Checked { name: name.clone(), found };
                    each(&one);
                    checked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(one);
                }
            });
        }
    });
    let mut checked = checked.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if checked.len() < listed.len() {
        return Err(Error::new(
            Class::Interrupted,
            format!("stopped after {} of {} files", checked.len(), listed.len()),
        ));
    }
    let names: BTreeSet<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    let error = |error| FileError::new("read the directory", dir, error);
    for entry in fs::read_dir(dir).map_err(error)? {
        let name = entry.map_err(error)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".parquet") && !name.starts_with('.') && !names.contains(name.as_str()) {
            checked.push(Checked { name, found: Found::Unlisted });
        }
    }
    checked.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(checked)
}

fn found(path: &Path, digest: &crate::hash::Digest) -> Found {
    if path.symlink_metadata().is_err() {
        return Found::Missing;
    }
    // Read, whatever is remembered of it.
    match file_digest(path, &Cache::disabled()) {
        Err(error) => Found::Bad(error.to_string()),
        Ok(found) if found != *digest => Found::Differs(found.to_string()),
        Ok(_) if path.extension().is_some_and(|extension| extension == "parquet") => {
            match check_shard(path) {
                Ok(()) => Found::Same,
                Err(error) => Found::Bad(error.what().to_owned()),
            }
        }
        Ok(_) => Found::Same,
    }
}
