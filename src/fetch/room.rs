//! Whether what is to come will fit on the disk, asked before each shard begins to come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::client::{Outcome, Trouble};
use crate::error::{Class, Error};

/// Free bytes of the file system of a directory; none where the system does not tell.
type Free = fn(&Path) -> Option<u64>;

/// The shards that are not here yet.
pub(super) struct Room {
    dir: PathBuf,
    free: Free,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    /// Shards that have not come whole.
    shards: usize,
    /// Length of those whose length is known, and how much of it is here.
    known: BTreeMap<String, (u64, u64)>,
    /// Lengths heard so far: their sum and number.
    heard: (u64, u64),
}

impl Room {
    pub(super) fn new(dir: &Path, shards: usize, free: Free) -> Self {
        let waiting = Waiting { shards, known: BTreeMap::new(), heard: (0, 0) };
        Self { dir: dir.to_owned(), free, waiting: Mutex::new(waiting) }
    }

    /// A shard of `total` bytes begins to come, `here` of them being here. Those of which nobody has said how long
    /// they are are taken to be like the others.
    pub(super) fn check(&self, name: &str, total: u64, here: u64) -> Outcome<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.known.insert(name.to_owned(), (total, here)).is_none() {
            waiting.heard = (waiting.heard.0 + total, waiting.heard.1 + 1);
        }
        let Some(free) = (self.free)(&self.dir) else { return Ok(()) };
        let known: u64 = waiting.known.values().map(|(total, here)| total.saturating_sub(*here)).sum();
        let mean = waiting.heard.0 / waiting.heard.1.max(1);
        let unknown = waiting.shards.saturating_sub(waiting.known.len()) as u64;
        let needed = known.saturating_add(unknown.saturating_mul(mean));
        if needed <= free {
            return Ok(());
        }
        Err(Trouble::Final(
            Error::new(
                Class::Run,
                format!(
                    "the disk is too small: {} shards still to come need about {} MB, {} MB are free",
                    waiting.shards,
                    needed.div_ceil(1_000_000),
                    free / 1_000_000
                ),
            )
            .file(&self.dir)
            .help("free some space, ask for fewer --shards, or name a larger disk with --to DIR; what came is kept"),
        ))
    }

    /// So many bytes of a shard are here now.
    pub(super) fn moved(&self, name: &str, here: u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shard) = waiting.known.get_mut(name) {
            shard.1 = here;
        }
    }

    /// A shard is here.
    pub(super) fn came(&self, name: &str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.shards = waiting.shards.saturating_sub(1);
        waiting.known.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_like_what_is_known() {
        let room = Room::new(Path::new("."), 4, |_| Some(1_000));
        room.check("a", 250, 0).unwrap();
        room.moved("a", 250);
        room.came("a");
        // 300 for b, and about 275 for each of the other two.
        room.check("b", 300, 0).unwrap();
        room.moved("b", 100);
        let Err(Trouble::Final(error)) = room.check("c", 900, 0) else { panic!("it fits") };
        assert_eq!(error.class().exit_code(), 3);
        assert!(error.to_string().contains("3 shards still to come"), "{error}");
        Room::new(Path::new("."), 9, |_| None).check("a", u64::MAX, 0).unwrap();
    }
}
