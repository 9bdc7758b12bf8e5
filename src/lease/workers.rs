//! Who works in an experiment just now: one directory a process, gone once the process has ended in an orderly way.
//!
//! ```text
//! workers/4711-93451-1f00c3d2a9b7/worker.json   which process, by which plan
//! workers/4711-93451-1f00c3d2a9b7/beat          its nonce; when it was written is how others of elsewhere are judged
//! ```

use std::cell::LazyCell;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::beats::Beating;
use super::{Leases, MISSED};
use crate::files::{DirLock, LockHolder, clock_of, reopened, system_now, uninterrupted};
use crate::hash::Digest;
use crate::host::{Life, ProcessId, life_here};

const DIRECTORY: &str = "workers";
const WORKER: &str = "worker.json";
const BEAT: &str = "beat";

/// A process that works in an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Which process.
    #[serde(flatten)]
    pub holder: LockHolder,
    /// What it carries out: the plan and how it is judged.
    pub plan: Digest,
    /// Its version of nanorun.
    pub nanorun: String,
    /// Bytes of its program: two builds of one version differ in them.
    pub program_bytes: u64,
    /// Threads it computes on.
    pub threads: usize,
    /// Seconds between two of its beats.
    pub beat_seconds: f64,
    /// The unit of a submission that it carries out; none where it takes whatever is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// That this process is registered; it is not any more when dropped.
#[derive(Debug)]
pub struct Registered {
    dir: PathBuf,
    since: Option<SystemTime>,
    beating: Beating,
}

impl Registered {
    /// Since when, by the clock of the file server.
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.beating.end();
        // One that stays is told from a living one by its process or its beats.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Registers this process in the experiment's directory, and removes what provably dead ones left there.
///
/// # Errors
/// What cannot be written.
pub fn register(leases: &Leases, experiment: &Path, worker: &Worker) -> io::Result<Registered> {
    let root = experiment.join(DIRECTORY);
    uninterrupted(|| fs::create_dir_all(&root))?;
    for (dir, _) in read(&root)?.into_iter().filter(|(dir, _)| is_of_the_dead(dir)) {
        let _ = fs::remove_dir_all(dir);
    }
    let own = ProcessId::own();
    let dir = root.join(format!("{}-{}-{}", own.pid, own.began, own.place()));
    // A thread of this process may have been registered here before and left it by a panic.
    uninterrupted(|| fs::create_dir_all(&dir))?;
    let beating = leases.heart.beat(dir.join(BEAT), None)?;
    let mut file = uninterrupted(|| fs::File::create(dir.join(WORKER)))?;
    file.write_all(serde_json::to_string_pretty(worker).unwrap_or_default().as_bytes())?;
    // Closed, so that the file server has it.
    drop(file);
    let since = fs::metadata(dir.join(WORKER)).and_then(|meta| meta.modified()).ok();
    Ok(Registered { dir, since, beating })
}

/// Whether a registration is of a process that is provably gone. By its name, for it may have died before it wrote more.
fn is_of_the_dead(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parts: Vec<&str> = name.split('-').collect();
    let own = ProcessId::own();
    match parts[..] {
        [pid, began, place] if place == own.place() && !own.boot.is_empty() => {
            let process = pid.parse().ok().zip(began.parse().ok());
            process.is_some_and(|(pid, began)| life_here(pid, began) == Life::Dead)
        }
        _ => false,
    }
}

/// Who else works in an experiment, as far as can be told: processes of this machine that live, and those of elsewhere
/// whose last beat is not too old by the clock of the file server, which gave it its time. This process's own beat tells that
/// clock; without one a file is written for it, where nothing can be written this machine's clock has to do.
///
/// # Errors
/// A directory that is there and cannot be read.
pub fn at_work(experiment: &Path) -> io::Result<Vec<Worker>> {
    let found = read(&experiment.join(DIRECTORY))?;
    let own = ProcessId::own();
    let is_own = |worker: &Worker| worker.holder.process.as_ref() == Some(own);
    let written = |dir: &Path| fs::metadata(dir.join(BEAT)).and_then(|meta| meta.modified()).ok();
    let own_beat =
        found.iter().find(|(_, worker)| worker.as_ref().is_some_and(is_own)).map(|(dir, _)| dir.clone());
    let told = || clock_of(experiment).unwrap_or_else(|_| system_now());
    // Asked for once, and only if somebody of elsewhere is to be judged.
    let server_now = LazyCell::new(|| own_beat.and_then(|dir| written(&dir)).unwrap_or_else(told));
    let lives = |dir: &Path, worker: &Worker| match worker.holder.life() {
        Life::Alive => true,
        Life::Dead => false,
        Life::Unknown => is_recent(written(dir), *server_now, worker.beat_seconds),
    };
    let each = found.into_iter().filter_map(|(dir, worker)| Some((dir, worker?)));
    Ok(each.filter(|(dir, worker)| !is_own(worker) && lives(dir, worker)).map(|(_, worker)| worker).collect())
}

/// Whether anybody works in an experiment, as far as can be told by reading alone.
pub fn somebody_works(experiment: &Path) -> bool {
    at_work(experiment).is_ok_and(|workers| !workers.is_empty()) || DirLock::holder(experiment).is_some()
}

/// Whether a beat is not older than those that may be missed, and one more for the way.
fn is_recent(beat: Option<SystemTime>, now: SystemTime, period: f64) -> bool {
    let patience = Duration::try_from_secs_f64(period * f64::from(MISSED + 1)).unwrap_or(Duration::MAX);
    // One from the future is of a clock that runs ahead.
    beat.is_some_and(|beat| now.duration_since(beat).map_or(true, |age| age <= patience))
}

/// The registrations that are there; none of one that cannot be read, as it is half written.
fn read(root: &Path) -> io::Result<Vec<(PathBuf, Option<Worker>)>> {
    let listed =
        reopened(|| fs::read_dir(root)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>());
    let mut dirs = match listed {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    dirs.sort();
    let worker = |dir: &Path| serde_json::from_slice(&reopened(|| fs::read(dir.join(WORKER))).ok()?).ok();
    Ok(dirs.into_iter().map(|dir| (dir.clone(), worker(&dir))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(process: &ProcessId) -> Worker {
        Worker {
            holder: LockHolder { process: Some(process.clone()), ..LockHolder::this_process("here") },
            plan: Digest::of(b"plan"),
            nanorun: "0".to_owned(),
            program_bytes: 1,
            threads: 1,
            beat_seconds: 30.0,
            unit: None,
        }
    }

    fn left(experiment: &Path, name: &str, process: &ProcessId) {
        let dir = experiment.join(DIRECTORY).join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(WORKER), serde_json::to_string(&worker(process)).unwrap()).unwrap();
        fs::write(dir.join(BEAT), "1").unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn those_who_work_are_known_and_the_dead_are_cleared_away() {
        let place = tempfile::tempdir().unwrap();
        let own = ProcessId::own();
        let dead = ProcessId { began: own.began + 1, ..own.clone() };
        let far = ProcessId { boot: "other".to_owned(), machine: String::new(), ..own.clone() };
        let gone = format!("{}-{}-{}", dead.pid, dead.began, dead.place());
        left(place.path(), &gone, &dead);
        left(place.path(), "2-1-b", &far);
        let leases = Leases::new(LockHolder::this_process("here"), Duration::from_secs(30));
        let registered = register(&leases, place.path(), &worker(own)).unwrap();
        let pids =
            |found: Vec<Worker>| found.iter().map(|one| one.holder.process.clone()).collect::<Vec<_>>();
        assert_eq!(pids(at_work(place.path()).unwrap()), [Some(far)]);
        assert!(!place.path().join("workers").join(gone).exists());
        // Of elsewhere, and too old by the file server's clock.
        let old = system_now() - Duration::from_secs(200);
        let beat = fs::File::options().write(true).open(place.path().join("workers/2-1-b/beat")).unwrap();
        beat.set_modified(old).unwrap();
        assert!(at_work(place.path()).unwrap().is_empty());
        drop(registered);
        assert_eq!(fs::read_dir(place.path().join(DIRECTORY)).unwrap().count(), 1);
    }
}
