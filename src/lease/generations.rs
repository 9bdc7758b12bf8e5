//! The log of a lease's holders, as it is on disk.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::files::numbered::{highest, name, names};
use crate::files::{LockHolder, Temporary, reopened, temporary_name, uninterrupted};
use crate::host::{Life, ProcessId};

pub(super) const OWNER: &str = "owner.json";
pub(super) const ATTEMPT: &str = "attempt";
pub(super) const BEAT: &str = "beat";
pub(super) const RELEASED: &str = "released";

/// One holder, as the log has it.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Its number, from 1.
    pub number: u64,
    /// Who; none where that cannot be read.
    pub holder: Option<Box<LockHolder>>,
    /// The attempt it writes into; none before it writes any.
    pub attempt: Option<u32>,
    /// Its nonce; empty where there is none.
    pub beat: String,
    /// Whether it has let go.
    pub released: bool,
    /// Whether it died after it made its directory and before it said whose that is.
    stillborn: bool,
}

impl Generation {
    /// Reads what is there of it.
    pub(super) fn read(root: &Path, number: u64) -> Self {
        let dir = root.join(name(number));
        let text = |name: &str| reopened(|| fs::read_to_string(dir.join(name))).ok();
        // What is half written is not there yet.
        let holder = |text: String| serde_json::from_str::<LockHolder>(&text).ok().map(Box::new);
        let mut found = Self {
            number,
            holder: text(OWNER).and_then(holder),
            attempt: text(ATTEMPT).and_then(|text| text.parse().ok()),
            beat: text(BEAT).unwrap_or_default(),
            released: dir.join(RELEASED).exists(),
            stillborn: false,
        };
        if found.holder.is_none() && !found.released {
            found.stillborn = is_stillborn(root, number);
            // It may have said so between the two looks.
            found.holder = text(OWNER).and_then(holder);
        }
        found
    }

    /// Whether its holder can still do anything: dead where it has let go.
    pub fn life(&self) -> Life {
        match &self.holder {
            _ if self.released => Life::Dead,
            Some(holder) => holder.life(),
            None if self.stillborn => Life::Dead,
            None => Life::Unknown,
        }
    }
}

/// When a generation let go, or was heard of last, by the clock of the file server; none where nothing is known of it.
pub fn left_at(root: &Path, number: u64) -> Option<SystemTime> {
    let dir = root.join(name(number));
    let written = |name: &str| fs::metadata(dir.join(name)).and_then(|meta| meta.modified()).ok();
    written(RELEASED).or_else(|| written(BEAT))
}

/// Who works on something just now, or may do so on another machine, as far as can be told by reading alone; nobody where
/// the last holder has let go or is dead.
pub fn worked_by(root: &Path) -> Option<LockHolder> {
    let last = highest(root).ok().filter(|last| *last > 0)?;
    let found = Generation::read(root, last);
    if found.life() == Life::Dead { None } else { found.holder.map(|holder| *holder) }
}

/// Writes who is about to make generation `number`, under a name that tells the process. It becomes the owner's file.
pub(super) fn intend(root: &Path, number: u64, holder: &LockHolder) -> io::Result<PathBuf> {
    let path = temporary_name(&root.join(name(number)), "tmp");
    let mut file = uninterrupted(|| fs::File::create_new(&path))?;
    let written = file.write_all(serde_json::to_string(holder).unwrap_or_default().as_bytes());
    if let Err(error) = written {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    // A power cut must not leave a generation whose owner is empty; then its beats are waited for, that is all.
    let _ = file.sync_all();
    Ok(path)
}

/// Whether the maker of a generation without an owner is dead: it left its intent, and nobody who lives has one.
fn is_stillborn(root: &Path, number: u64) -> bool {
    let intents: Vec<Life> = names(root)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| Temporary::of(Path::new(name)))
        .filter(|temporary| temporary.original == name(number))
        // Another thread of this process lives as well.
        .map(|temporary| if temporary.is_of(ProcessId::own()) { Life::Alive } else { temporary.writer() })
        .collect();
    !intents.is_empty() && intents.iter().all(|life| *life == Life::Dead)
}
