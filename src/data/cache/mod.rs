//! The cache on disk: tokens, trained tokenizers, file digests, indices and scores of tasks, each under the hash of what decides it.
//!
//! It is only ever a shortcut. An entry carries its key and the SHA-256 of all it holds; one that does not match is
//! treated as absent and written anew. A directory that is missing, full or read-only is no error, and whatever is in
//! it may vanish at any time. Entries stand at `<kind>.<format>.<version>/<shelf>/<key>`, so that those of another
//! version are told by their place ([`layout`]); how much there may be is [`room`]'s matter.

mod filling;
mod layout;
mod limit;
mod room;
mod survey;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::frozen_shards::{FrozenShard, FrozenShards};
use crate::error::Result;
use crate::hash::Digest;

use limit::Limit;
use room::Room;

pub use limit::LimitFrom;
pub use survey::{CacheFacts, KindFacts, Selection};

const MAGIC: &[u8; 8] = b"nanorun2";

/// Magic and key before the payload, SHA-256 after it.
const FRAME: usize = 8 + 32 + 32;

/// A place for cached results, or none.
#[derive(Debug, Clone)]
pub struct Cache {
    place: Option<Place>,
    /// Digests that are known beforehand.
    frozen: Arc<FrozenShards>,
}

#[derive(Debug, Clone)]
struct Place {
    root: PathBuf,
    room: Arc<Room>,
}

impl Cache {
    /// `$NANORUN_CACHE`, else `~/.cache/nanorun`; no cache where neither is known. `$NANORUN_CACHE_GB` bounds it.
    ///
    /// # Errors
    /// A bound that is no number.
    pub fn from_env() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let limit = Limit::from_env()?;
        let root = set("NANORUN_CACHE")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache").join("nanorun")));
        Ok(root.map_or_else(Self::disabled, |root| Self::with_limit(root, limit)))
    }

    /// A cache in this directory, which is created when first written to.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self::with_limit(root, Limit::default())
    }

    fn with_limit(root: impl Into<PathBuf>, limit: Limit) -> Self {
        let root = root.into();
        let place = Place { room: Arc::new(Room::new(root.clone(), limit)), root };
        Self { place: Some(place), frozen: Arc::default() }
    }

    /// No cache: everything is computed.
    pub fn disabled() -> Self {
        Self { place: None, frozen: Arc::default() }
    }

    /// The same, with digests that were taken when an experiment was frozen.
    #[must_use]
    pub fn with_frozen(self, shards: FrozenShards) -> Self {
        Self { frozen: Arc::new(shards), ..self }
    }

    /// What was frozen of the file at this path.
    pub(super) fn frozen(&self, path: &Path) -> Option<&FrozenShard> {
        self.frozen.get(path)
    }

    /// Its directory, there or not; none where nothing is cached.
    pub fn root(&self) -> Option<&Path> {
        self.place.as_ref().map(|place| place.root.as_path())
    }

    /// The entry of this kind and key, if it is there and whole.
    pub(super) fn get(&self, kind: &str, key: &Digest) -> Option<Vec<u8>> {
        let place = self.place.as_ref()?;
        let path = place.root.join(layout::entry(kind, key));
        let payload = read(&path, key)?;
        room::touch(&path);
        Some(payload)
    }

    /// Keeps an entry, if it can.
    pub(super) fn put(&self, kind: &str, key: &Digest, payload: &[u8]) {
        let Some(place) = &self.place else { return };
        if place.room.make_way((payload.len() + FRAME) as u64) {
            write(&place.root.join(layout::entry(kind, key)), key, payload);
        }
    }

    /// The score that was kept under this key: how many were right, of how many.
    pub fn score(&self, key: &Digest) -> Option<[u64; 2]> {
        let bytes = self.get("scores", key)?;
        let (&[correct, examples], []) = bytes.as_chunks::<8>() else { return None };
        Some([correct, examples].map(u64::from_le_bytes))
    }

    /// Keeps a score, if it can.
    pub fn keep_score(&self, key: &Digest, score: [u64; 2]) {
        self.put("scores", key, score.map(u64::to_le_bytes).as_flattened());
    }

    /// The entries of this kind that belong to `family` and are of use only together: where there is too little room
    /// for all families, those of a family in use never make way for one another.
    pub(super) fn shelf(&self, kind: &str, family: &Digest) -> Shelf {
        let place = self.place.clone().map(|place| {
            let dir = place.root.join(layout::shelf(kind, family));
            place.room.in_use(&dir);
            (dir, place.room)
        });
        Shelf { place }
    }

    /// What is in it, and how much may be.
    pub fn facts(&self) -> Option<CacheFacts> {
        let place = self.place.as_ref()?;
        Some(survey::facts(&place.root, &place.room))
    }

    /// Removes what `selection` names, and returns how many entries and bytes that was; `remove` false only counts.
    pub fn clear(&self, selection: &Selection, remove: bool) -> (u64, u64) {
        self.place.as_ref().map_or((0, 0), |place| survey::clear(&place.root, selection, remove))
    }
}

/// Entries of a cache that belong together.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    place: Option<(PathBuf, Arc<Room>)>,
}

impl Shelf {
    /// The entry of this key, if it is there and whole.
    pub(super) fn get(&self, key: &Digest) -> Option<Vec<u8>> {
        let (dir, room) = self.place.as_ref()?;
        let payload = read(&dir.join(key.to_string()), key)?;
        room.used(dir);
        Some(payload)
    }

    /// Keeps an entry, if there is room that this shelf may have.
    pub(super) fn put(&self, key: &Digest, payload: &[u8]) {
        let Some((dir, room)) = &self.place else { return };
        if room.make_way((payload.len() + FRAME) as u64) {
            write(&dir.join(key.to_string()), key, payload);
        }
    }
}

/// The payload of the entry in this file; none where it is not there, damaged or of another key.
fn read(path: &Path, key: &Digest) -> Option<Vec<u8>> {
    let mut bytes = std::fs::read(path).ok()?;
    let payload_end = bytes.len().checked_sub(32)?;
    let (content, digest) = bytes.split_at_checked(payload_end)?;
    if !content.starts_with(MAGIC)
        || content.get(8..40)? != key.as_bytes()
        || Digest::of(content).as_bytes() != digest
    {
        return None;
    }
    bytes.truncate(payload_end);
    bytes.drain(..40);
    Some(bytes)
}

/// Writes an entry to a temporary name and renames it, so that no reader sees half of it; not synced, since a torn entry
/// is found out by its hash. What fails leaves nothing.
fn write(path: &Path, key: &Digest, payload: &[u8]) {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let Some(directory) = path.parent() else { return };
    let mut bytes = Vec::with_capacity(payload.len() + FRAME);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(Digest::of(&bytes).as_bytes());
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{unique}.{}", std::process::id(), layout::TEMPORARY));
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&temporary, &bytes))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
}
