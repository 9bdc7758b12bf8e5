//! One runner a directory where the file system has no locks: numbered claims.
//!
//! A lock goes when its process does, a file does not. So a claim says whose it is ([`LockHolder`]), and the next one
//! comes when that process has let go or is provably dead; of a process of elsewhere nobody here can tell, and a person
//! has to. The claim with the highest number counts. It appears with its owner in it and only once, because a directory
//! takes no name that another one with something in it has; and it is never removed before a higher one is there, so
//! that whoever was late finds that out.
//!
//! ```text
//! .lock.claims/00000007/owner.json    the claim that counts
//! .lock.claims/00000007/released      its owner has let go
//! ```

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock::LockHolder;
use super::names::{Temporary, temporary_name};
use super::numbered::{highest, is_there, name, numbers};
use super::trouble::{reopened, uninterrupted};
use crate::host::{Life, ProcessId};

/// The claims' directory in the directory they are on.
pub(super) const NAME: &str = ".lock.claims";
const OWNER: &str = "owner.json";
const RELEASED: &str = "released";

/// How often another one may come between the look and the claim.
const TRIES: usize = 100;

/// Before the claims are listed again.
const PAUSE: Duration = Duration::from_millis(20);

/// A claim, let go when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    dir: PathBuf,
    /// Processes that had claims before and are dead.
    pub(super) dead: Vec<ProcessId>,
}

/// What is known of the claim that counts.
#[derive(Debug)]
pub(super) enum Standing {
    /// There is none, or its owner has let go or is dead.
    Free,
    /// Its owner lives.
    Held(Box<LockHolder>),
    /// Nobody here can tell whether its owner lives, or it does not say whose it is.
    Unknown(Option<Box<LockHolder>>),
}

/// Why there is no claim.
#[derive(Debug)]
pub(super) enum Refused {
    Standing(Standing),
    Failed(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// What is known of the claim on `dir` that counts.
pub(super) fn standing(dir: &Path) -> io::Result<Standing> {
    let root = dir.join(NAME);
    Ok(match highest(&root)? {
        0 => Standing::Free,
        number => of(&root.join(name(number))),
    })
}

/// Claims `dir`, which must exist.
pub(super) fn claim(dir: &Path, holder: &LockHolder) -> Result<Claim, Refused> {
    let root = dir.join(NAME);
    let mut known = 0;
    for _ in 0..TRIES {
        match uninterrupted(|| fs::create_dir(&root)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        known = highest(&root)?.max(known);
        if known > 0 {
            let last = root.join(name(known));
            match of(&last) {
                // It was cleared away, so there is a higher one: the listing is old, as those of network file systems are.
                Standing::Free if !is_there(&root, known) => {
                    std::thread::sleep(PAUSE);
                    known = 0;
                    continue;
                }
                Standing::Free => {}
                taken => return Err(Refused::Standing(taken)),
            }
        }
        let number = known + 1;
        let own = root.join(name(number));
        if !appear(&own, holder)? {
            known = number;
            continue;
        }
        // One that looked earlier and came later may have had a number that was cleared away meanwhile: there is a higher one
        // then. That its own is not listed yet says nothing.
        if highest(&root)? > number {
            remove(&own);
            continue;
        }
        return Ok(Claim { dir: own, dead: clear_below(&root, number) });
    }
    Err(Refused::Failed(io::Error::other("others claim it all the time")))
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Without this the next one finds that the process is dead; only of elsewhere that cannot be told.
        let _ = uninterrupted(|| File::create(self.dir.join(RELEASED)));
    }
}

/// What is known of one claim.
fn of(claim: &Path) -> Standing {
    if claim.join(RELEASED).exists() {
        return Standing::Free;
    }
    let owner = reopened(|| fs::read(claim.join(OWNER))).ok();
    let owner = owner.and_then(|bytes| serde_json::from_slice::<LockHolder>(&bytes).ok()).map(Box::new);
    // It may have been cleared away between the look at the names and this one.
    if owner.is_none() && claim.symlink_metadata().is_err() {
        return Standing::Free;
    }
    match owner {
        Some(owner) => match owner.life() {
            Life::Alive => Standing::Held(owner),
            Life::Dead => Standing::Free,
            Life::Unknown => Standing::Unknown(Some(owner)),
        },
        None => Standing::Unknown(None),
    }
}

/// Makes a claim with its owner in it appear. -> whether it did; else another one was faster
fn appear(claim: &Path, holder: &LockHolder) -> io::Result<bool> {
    let staged = temporary_name(claim, "tmp");
    let made = || -> io::Result<()> {
        uninterrupted(|| fs::create_dir(&staged))?;
        let mut file = uninterrupted(|| File::create_new(staged.join(OWNER)))?;
        file.write_all(serde_json::to_string(holder).unwrap_or_default().as_bytes())?;
        // A power cut must not leave a claim without its owner. Where nothing can be synced, a person removes it.
        let _ = file.sync_all();
        uninterrupted(|| fs::rename(&staged, claim))
    };
    match made() {
        Ok(()) => Ok(true),
        Err(error) => {
            remove(&staged);
            // Not found: the claims were cleared away by hand just now.
            let late = matches!(
                error.kind(),
                ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound
            );
            // Some file servers answer "permission denied" for a name that is taken.
            if late || claim.exists() { Ok(false) } else { Err(error) }
        }
    }
}

/// Removes what is below the claim `own`. -> the owners of what was there that had not let go
fn clear_below(root: &Path, own: u64) -> Vec<ProcessId> {
    let mut dead = Vec::new();
    for number in numbers(root).unwrap_or_default().into_iter().filter(|number| *number < own) {
        let claim = root.join(name(number));
        let owner = fs::read(claim.join(OWNER)).ok();
        let owner = owner.and_then(|bytes| serde_json::from_slice::<LockHolder>(&bytes).ok());
        dead.extend(owner.and_then(|owner| owner.process));
        remove(&claim);
    }
    // Claims whose makers died before they appeared.
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        if Temporary::of(&path).is_some_and(|temporary| temporary.writer() == Life::Dead) {
            remove(&path);
        }
    }
    dead
}

/// Removes a claim that does not count: at once, so that nobody finds one without its owner. What stays of it is a temporary,
/// which whoever comes next removes.
fn remove(claim: &Path) {
    let aside = if Temporary::of(claim).is_some() { claim.to_owned() } else { temporary_name(claim, "tmp") };
    if aside != claim && uninterrupted(|| fs::rename(claim, &aside)).is_err() {
        return;
    }
    // By their names: a listing may not have what was written just now, and the directory would stay.
    for file in [OWNER, RELEASED] {
        let _ = uninterrupted(|| fs::remove_file(aside.join(file)));
    }
    let _ = uninterrupted(|| fs::remove_dir_all(&aside));
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn holder(process: Option<ProcessId>) -> LockHolder {
        LockHolder { process, ..LockHolder::this_process("here") }
    }

    fn elsewhere() -> ProcessId {
        ProcessId {
            host: "far".to_owned(),
            boot: "other".to_owned(),
            machine: String::new(),
            ..ProcessId::own().clone()
        }
    }

    #[cfg(target_os = "linux")]
    fn dead() -> ProcessId {
        ProcessId { began: ProcessId::own().began + 1, ..ProcessId::own().clone() }
    }

    /// Puts a claim there as a process leaves it that was killed.
    fn left(dir: &Path, number: u64, holder: &LockHolder) {
        fs::create_dir_all(dir.join(NAME)).unwrap();
        assert!(appear(&dir.join(NAME).join(name(number)), holder).unwrap());
    }

    #[test]
    fn a_claim_is_had_once_and_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let own = holder(Some(ProcessId::own().clone()));
        let first = claim(dir.path(), &own).unwrap();
        let refused = claim(dir.path(), &own).unwrap_err();
        assert!(matches!(refused, Refused::Standing(Standing::Held(by)) if *by == own));
        drop(first);
        for _ in 0..3 {
            drop(claim(dir.path(), &own).unwrap());
        }
        // Only the last is left.
        assert_eq!(numbers(&dir.path().join(NAME)).unwrap(), [4]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_claim_of_the_dead_is_taken_over_and_one_of_elsewhere_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let own = holder(Some(ProcessId::own().clone()));
        left(dir.path(), 7, &holder(Some(dead())));
        let taken = claim(dir.path(), &own).unwrap();
        assert_eq!(taken.dead, [dead()]);
        drop(taken);
        left(dir.path(), 9, &holder(Some(elsewhere())));
        assert!(matches!(claim(dir.path(), &own), Err(Refused::Standing(Standing::Unknown(Some(_))))));
        fs::remove_dir_all(dir.path().join(NAME)).unwrap();
        // Torn, or of a nanorun that says it in another way.
        left(dir.path(), 1, &holder(None));
        assert!(matches!(claim(dir.path(), &own), Err(Refused::Standing(Standing::Unknown(Some(_))))));
        fs::write(dir.path().join(NAME).join(name(1)).join(OWNER), "").unwrap();
        assert!(matches!(claim(dir.path(), &own), Err(Refused::Standing(Standing::Unknown(None)))));
        fs::remove_dir_all(dir.path().join(NAME)).unwrap();
        claim(dir.path(), &own).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn of_many_at_once_one_takes_over() {
        let inside = AtomicUsize::new(0);
        let taken = AtomicUsize::new(0);
        for round in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            if round % 2 == 0 {
                left(dir.path(), 3, &holder(Some(dead())));
            }
            let start = Barrier::new(8);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let own = holder(Some(ProcessId::own().clone()));
                        start.wait();
                        for _ in 0..20 {
                            let Ok(claim) = claim(dir.path(), &own) else { continue };
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have it");
                            taken.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(claim);
                        }
                    });
                }
            });
        }
        assert!(taken.load(Ordering::SeqCst) >= 20);
    }
}
