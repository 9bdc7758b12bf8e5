//! One process makes an entry; others that need it wait for it instead of making it too.
//!
//! Hundreds of workers that start at once on one cache would all tokenise the same shards. This is a courtesy and no
//! lock: where it cannot be had, an entry is made twice, with the same bytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Cache;
use crate::files::LockHolder;
use crate::hash::Digest;
use crate::host::host_name;
use crate::lease::{Claimed, Lease, Leases};
use crate::stop::signalled;

/// Where leases of entries are, in the cache.
const DIRECTORY: &str = ".filling";

/// Between two beats of who makes an entry. Whoever waits takes over after three of them missed.
const PERIOD: Duration = Duration::from_secs(5);

/// Between the first two looks whether the entry is there.
const PAUSE: Duration = Duration::from_millis(50);

/// Between two looks later on.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// That this process makes an entry; over when dropped.
pub struct Filling {
    dir: PathBuf,
    // Let go of before the directory is removed.
    lease: Option<Lease>,
    // Beats for the lease.
    _leases: Leases,
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.lease = None;
        // Nobody needs the record of who made what. Whoever waits finds the entry, or makes the directory anew.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Cache {
    /// Waits while another process makes the entry of this kind and key. Ask for it again afterwards: `there` says
    /// whether it has come, which ends the waiting. -> that this process is the one to make it; none where nobody can
    /// tell, or a stop was asked for
    pub(in crate::data) fn filling(
        &self,
        kind: &str,
        key: &Digest,
        there: impl Fn() -> bool,
    ) -> Option<Filling> {
        let dir = self.root()?.join(DIRECTORY).join(format!("{kind}-{key}"));
        filling(&dir, there)
    }
}

fn filling(dir: &Path, there: impl Fn() -> bool) -> Option<Filling> {
    let leases = Leases::new(LockHolder::this_process(&host_name()), PERIOD);
    let mut pause = PAUSE;
    loop {
        match leases.claim(dir).ok()? {
            Claimed::Mine(lease) => {
                return Some(Filling { dir: dir.to_owned(), lease: Some(lease), _leases: leases });
            }
            Claimed::Theirs { .. } => {}
        }
        // Hundreds may wait: each looks more rarely the longer it does.
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
        if there() || signalled() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn an_entry_is_made_once_and_others_wait_for_it() {
        let place = tempfile::tempdir().unwrap();
        let key = Digest::of(b"entry");
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let cache = Cache::at(place.path());
                    let get = || cache.get("tokens", &key);
                    if get().is_some() {
                        return;
                    }
                    let _filling = cache.filling("tokens", &key, || get().is_some());
                    if get().is_none() {
                        made.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(PAUSE);
                        cache.put("tokens", &key, b"payload");
                    }
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
        assert_eq!(std::fs::read_dir(place.path().join(DIRECTORY)).unwrap().count(), 0);
    }

    #[test]
    fn without_a_cache_or_in_one_that_cannot_be_written_everybody_makes_it() {
        let key = Digest::of(b"entry");
        assert!(Cache::disabled().filling("tokens", &key, || false).is_none());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Cache::at(file.path()).filling("tokens", &key, || false).is_none());
    }
}
