//! All the shards of a download, over several connections at a time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::address::Address;
use super::client::{Client, Environment, Trouble};
use super::gathering::Gathering;
use super::patience::Patience;
use super::room::Room;
use super::shard::Shared;
use super::sums::{SUMS, Sums};
use crate::data::Cache;
use crate::error::{Class, Error, Result};
use crate::files::{DirLock, Files, LockError, LockHolder, space};
use crate::hash::Digest;
use crate::host::host_name;

/// How often a stop is looked for.
const TICK: Duration = Duration::from_millis(50);

/// What to bring, and where to.
#[derive(Debug, Clone)]
pub struct Order {
    /// The files' names.
    pub files: Vec<String>,
    /// What their names are added to.
    pub base: Address,
    /// The directory they come to.
    pub dir: PathBuf,
    /// Connections at a time.
    pub jobs: usize,
}

/// What a download works with.
#[derive(Debug, Clone)]
pub struct Place {
    /// Proxies, certificates, token.
    pub environment: Environment,
    /// Writes files.
    pub files: Files,
    /// Remembers digests of files.
    pub cache: Cache,
    /// How long servers are waited for.
    pub patience: Patience,
}

/// Where a shard was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// It was here.
    Here,
    /// It came now.
    Network,
    /// Some of it is here.
    Part,
    /// None of it is here.
    Away,
}

/// A shard that is here now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash.
    pub sha256: Digest,
    /// Whether it was here before.
    pub origin: Origin,
}

/// Sees how a download goes on.
pub trait Watcher: Sync {
    /// A shard begins to come, with so many of its bytes here.
    fn started(&self, name: &str, here: u64, total: Option<u64>);
    /// So many of its bytes are here.
    fn moved(&self, name: &str, here: u64);
    /// A shard is here, the `count`th.
    fn done(&self, fetched: &Fetched, count: usize);
    /// Something that a person may want to know.
    fn note(&self, text: &str);
}

impl Order {
    /// What of it is here, by names and lengths alone: name, origin, bytes here.
    pub fn state(&self) -> Vec<(String, Origin, u64)> {
        let state = |name: &String| {
            let target = self.dir.join(name);
            match (std::fs::metadata(&target), Gathering::left(&target)) {
                (Ok(found), _) => (name.clone(), Origin::Here, found.len()),
                (Err(_), 0) => (name.clone(), Origin::Away, 0),
                (Err(_), left) => (name.clone(), Origin::Part, left),
            }
        };
        self.files.iter().map(state).collect()
    }
}

/// Brings what an order names. The first shard that cannot be had ends it; what came stays, and the same order carries
/// on.
///
/// # Errors
/// A shard that cannot be had or is not what it should be; a directory that cannot be written; a disk too small; a stop
/// (class [`Class::Interrupted`]).
pub fn get(
    order: &Order,
    place: &Place,
    watcher: &dyn Watcher,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Fetched>> {
    let client = Client::new(&place.environment, &place.patience)?;
    let dir = order.dir.as_path();
    place.files.create_dir_all(dir).map_err(elsewhere)?;
    let _lock = lock(dir, watcher, stop)?;
    // Whatever else lies there is not nanorun's: only what a killed download left of its own file goes.
    place.files.recover_beside(&dir.join(SUMS)).map_err(elsewhere)?;
    let sums = Mutex::new(Sums::read(&place.files, dir)?.unwrap_or_else(|| Sums::empty(dir)));
    let room = Room::new(dir, order.files.len(), |dir| space(dir).ok().map(|space| space.free));
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let over = AtomicBool::new(false);
    let halt = || stop() || over.load(Ordering::SeqCst);
    let shared = Shared {
        client: &client,
        files: &place.files,
        cache: &place.cache,
        dir,
        sums: &sums,
        room: &room,
        patience: &place.patience,
        watcher,
        halt: &halt,
    };
    let next = AtomicUsize::new(0);
    let here: Mutex<Vec<(usize, Fetched)>> = Mutex::new(Vec::new());
    let work = || {
        while !halt() {
            let index = next.fetch_add(1, Ordering::SeqCst);
            let Some(name) = order.files.get(index) else { return };
            match order.base.beneath(name).map_err(Trouble::from).and_then(|from| shared.bring(name, &from)) {
                Ok(fetched) => {
                    let mut here = here.lock().unwrap_or_else(PoisonError::into_inner);
                    here.push((index, fetched.clone()));
                    watcher.done(&fetched, here.len());
                }
                Err(Trouble::Final(error)) => {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    over.store(true, Ordering::SeqCst);
                }
                Err(Trouble::Stopped | Trouble::Passing(..)) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..order.jobs.clamp(1, order.files.len().max(1))).map(|_| scope.spawn(work)).collect();
        let mut told = false;
        while workers.iter().any(|worker| !worker.is_finished()) {
            if halt() && !std::mem::replace(&mut told, true) {
                client.shut_down();
            }
            std::thread::sleep(TICK);
        }
    });
    let mut here = here.into_inner().unwrap_or_else(PoisonError::into_inner);
    here.sort_by_key(|(index, _)| *index);
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    if here.len() < order.files.len() {
        return Err(stopped(here.len(), order.files.len()));
    }
    Ok(here.into_iter().map(|(_, fetched)| fetched).collect())
}

fn stopped(here: usize, all: usize) -> Error {
    Error::new(Class::Interrupted, format!("stopped with {here} of {all} shards here"))
        .help("the same command carries on from what is here")
}

/// One download a directory; another waits for it and then finds its shards here.
fn lock(dir: &Path, watcher: &dyn Watcher, stop: &(dyn Fn() -> bool + Sync)) -> Result<DirLock> {
    let holder = LockHolder::this_process(&host_name());
    let mut told = false;
    let lock = DirLock::acquire_waiting(dir, &holder, Duration::from_millis(200), |held| {
        if !std::mem::replace(&mut told, true) {
            watcher.note(&format!("waiting: {held}"));
        }
        !stop()
    });
    match lock {
        Ok(lock) => Ok(lock),
        Err(LockError::Held { .. }) if stop() => {
            Err(Error::new(Class::Interrupted, "stopped while waiting for another nanorun"))
        }
        Err(error) => Err(error.into()),
    }
}

fn elsewhere(error: crate::files::FileError) -> Error {
    Error::from(error).help("name a directory that can be written with --to DIR")
}
