//! Leases: who works on something that many processes and machines share.
//!
//! A lease is a log of holders. Whoever wants it makes the directory of the next generation with `mkdir`, which is
//! exclusive on every file system, also where there are no locks and no hard links. The holder rewrites a nonce, its
//! beat; whoever waits for it judges by its own clock how long the nonce has stood still, so no two clocks are compared.
//! A process of this boot and namespace that is gone is known to be at once.
//!
//! ```text
//! lease/00000003/owner.json   who holds the third generation
//! lease/00000003/attempt      the attempt that it writes into
//! lease/00000003/beat         its nonce
//! lease/00000003/released     it has let go
//! ```
//!
//! A lease keeps work from being done twice; no result rests on it. A holder that froze and comes back still has an
//! attempt that nobody else writes into: [`Lease::occupied`] names those. So the directories of earlier generations
//! stay. They also keep a reader whose listings are behind from making a generation that was there already.

mod beats;
mod generations;
mod patience;
mod workers;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::{LockHolder, now, numbered, uninterrupted};
use crate::host::Life;

use beats::{Beating, Heart};
use generations::Generation;
use patience::{Heard, Patience};

pub use beats::THREAD;
pub use generations::{left_at, worked_by};
pub use workers::{Registered, Worker, at_work, register, somebody_works};

/// How often one process looks again when others claim at the same moment.
const TRIES: usize = 100;

/// Beats that a holder of elsewhere may miss.
pub const MISSED: u32 = 3;

/// The leases of this process: its beats, and what it has seen of those of others.
pub struct Leases {
    period: Duration,
    heart: Heart,
    patience: Patience,
    holder: LockHolder,
}

/// A lease that this process holds; let go when dropped.
#[derive(Debug)]
pub struct Lease {
    dir: PathBuf,
    generation: u64,
    occupied: BTreeSet<u32>,
    taken_from: Option<Box<LockHolder>>,
    beating: Beating,
}

/// What became of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// It is this process's.
    Mine(Lease),
    /// Somebody has it, as far as can be told.
    Theirs {
        /// Who, where that can be read.
        holder: Option<Box<LockHolder>>,
        /// Whether its beat has moved since this process first looked. Before that nobody can tell a holder of elsewhere
        /// that works from one whose machine is gone.
        heard: bool,
    },
}

impl Leases {
    /// Of this process, which beats every `period`.
    pub fn new(holder: LockHolder, period: Duration) -> Self {
        Self { period, heart: Heart::new(period), patience: Patience::new(period, MISSED), holder }
    }

    /// Time between two beats.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Claims what the log of holders in `root` is about. `root` is made where it is not there.
    ///
    /// # Errors
    /// A directory that cannot be made, read or written.
    pub fn claim(&self, root: &Path) -> io::Result<Claimed> {
        uninterrupted(|| std::fs::create_dir_all(root))?;
        let mut last = numbered::highest(root)?;
        for _ in 0..TRIES {
            let mut taken_from = None;
            if last > 0 {
                let found = Generation::read(root, last);
                match self.standing(root, &found) {
                    Standing::Free => {}
                    Standing::Stale => taken_from = found.holder,
                    Standing::Held { heard } => {
                        return Ok(Claimed::Theirs { holder: found.holder, heard });
                    }
                }
            }
            if let Some(mut lease) = self.take(root, last + 1)? {
                lease.taken_from = taken_from;
                return Ok(Claimed::Mine(lease));
            }
            last = numbered::highest_from(root, last + 1);
        }
        Ok(Claimed::Theirs { holder: None, heard: true })
    }

    /// Whether nobody has it: nobody ever had, the last one let go or is dead, or nothing was heard of it for too long.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn is_free(&self, root: &Path) -> io::Result<bool> {
        let last = numbered::highest(root)?;
        let held = |last| matches!(self.standing(root, &Generation::read(root, last)), Standing::Held { .. });
        Ok(last == 0 || !held(last))
    }

    /// How the holder of a generation stands.
    fn standing(&self, root: &Path, found: &Generation) -> Standing {
        match found.life() {
            Life::Dead => Standing::Free,
            // Of a process of this machine too: it may be frozen, and its work waits for nobody.
            Life::Alive | Life::Unknown => {
                let moment = (found.number, found.beat.clone());
                match self.patience.judge(root, &moment, now()) {
                    Heard::Silent => Standing::Stale,
                    heard => Standing::Held { heard: heard == Heard::Moving },
                }
            }
        }
    }

    /// Makes a generation. -> none where another one was faster
    fn take(&self, root: &Path, number: u64) -> io::Result<Option<Lease>> {
        let dir = root.join(numbered::name(number));
        // Before the directory: if this process dies between the two, its name here says whose the generation was.
        let intent = generations::intend(root, number, &self.holder)?;
        let made = uninterrupted(|| std::fs::create_dir(&dir));
        if let Err(error) = made {
            let _ = std::fs::remove_file(&intent);
            // Some file servers answer "permission denied" for a name that is taken.
            return if dir.symlink_metadata().is_ok() { Ok(None) } else { Err(error) };
        }
        let successor = root.join(numbered::name(number + 1));
        let signed = uninterrupted(|| std::fs::rename(&intent, dir.join(generations::OWNER)));
        let beating = signed.and_then(|()| self.heart.beat(dir.join(generations::BEAT), Some(successor)));
        let beating = beating.inspect_err(|_| {
            // Else everybody waits for beats that never come.
            let _ = std::fs::File::create(dir.join(generations::RELEASED));
        })?;
        // One by one: a listing may be behind, but not by those that were there first.
        let first = numbered::numbers(root)?.first().copied().unwrap_or(1).min(number);
        let earlier = (first..number).map(|number| Generation::read(root, number));
        let occupied = earlier.filter(|one| one.life() != Life::Dead).filter_map(|one| one.attempt).collect();
        Ok(Some(Lease { dir, generation: number, occupied, taken_from: None, beating }))
    }
}

/// What is known of the last generation.
enum Standing {
    /// Its holder has let go or is dead.
    Free,
    /// Nothing was heard of its holder for too long; it may come back.
    Stale,
    /// Its holder has it, and whether it was heard of.
    Held { heard: bool },
}

impl Lease {
    /// Its number in the log, from 1: higher than that of every holder before.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Attempts of earlier holders that are neither dead nor have let go: they may come back and write into them.
    pub fn occupied(&self) -> &BTreeSet<u32> {
        &self.occupied
    }

    /// From whom it was taken without being let go, because nothing was heard of them; none where nobody lost it.
    pub fn taken_from(&self) -> Option<&LockHolder> {
        self.taken_from.as_deref()
    }

    /// Says into which attempt this process writes. Before it writes anything there: who comes after it takes another
    /// one, unless this process is dead then.
    ///
    /// # Errors
    /// What cannot be written; then the attempt must not be begun.
    pub fn works_on(&self, attempt: u32) -> io::Result<()> {
        let mut file = uninterrupted(|| std::fs::File::create(self.dir.join(generations::ATTEMPT)))?;
        file.write_all(attempt.to_string().as_bytes())?;
        // A file system that cannot sync keeps as much as it can.
        let _ = file.sync_all();
        Ok(())
    }

    /// Removes the records of holders before the last `kept`: only for a lease of which it does no harm if two have it at
    /// once, for somebody whose view is that old takes it beside this one. What cannot be removed stays.
    pub fn forget_before(&self, kept: u64) {
        let Some(root) = self.dir.parent() else { return };
        let mut number = self.generation.saturating_sub(kept);
        // Each one forgets one: more are there only where that failed before.
        while number > 0 && numbered::is_there(root, number) {
            if std::fs::remove_dir_all(root.join(numbered::name(number))).is_err() {
                return;
            }
            number -= 1;
        }
    }

    /// Whether somebody took it over because nothing was heard of this process. What it does goes on beside theirs.
    pub fn is_lost(&self) -> bool {
        self.beating.is_lost()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.beating.end();
        // Without this whoever comes next finds that the process is dead, or hears nothing of it.
        let _ = uninterrupted(|| std::fs::File::create(self.dir.join(generations::RELEASED)));
    }
}

#[cfg(test)]
mod tests;
