//! The cache on disk: tokens, trained tokenizers and file digests, each under the hash of what decides it.
//!
//! It is only ever a shortcut. An entry carries its key and the SHA-256 of all it holds; one that does not match is
//! treated as absent and written anew. A directory that is missing, full or read-only is no error.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hash::Digest;

const MAGIC: &[u8; 8] = b"nanorun1";

/// A place for cached results, or none.
#[derive(Debug, Clone)]
pub struct Cache {
    root: Option<PathBuf>,
}

impl Cache {
    /// `$NANORUN_CACHE`, else `~/.cache/nanorun`; no cache where neither is known.
    pub fn from_env() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = set("NANORUN_CACHE")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache").join("nanorun")));
        Self { root }
    }

    /// A cache in this directory, which is created when first written to.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: Some(root.into()) }
    }

    /// No cache: everything is computed.
    pub fn disabled() -> Self {
        Self { root: None }
    }

    /// Its directory, there or not; none where nothing is cached.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    fn path(&self, kind: &str, key: &Digest) -> Option<PathBuf> {
        let name = key.to_string();
        let (shelf, _) = name.split_at_checked(2)?;
        Some(self.root.as_ref()?.join(kind).join(shelf).join(&name))
    }

    /// The entry of this kind and key, if it is there and whole.
    pub(super) fn get(&self, kind: &str, key: &Digest) -> Option<Vec<u8>> {
        let mut bytes = std::fs::read(self.path(kind, key)?).ok()?;
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

    /// Keeps an entry, if it can. Written to a temporary name and renamed, so that no reader sees half of it; not
    /// synced, since a torn entry is found out by its hash.
    pub(super) fn put(&self, kind: &str, key: &Digest, payload: &[u8]) {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let Some(path) = self.path(kind, key) else { return };
        let Some(directory) = path.parent() else { return };
        let mut bytes = Vec::with_capacity(payload.len() + 72);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(Digest::of(&bytes).as_bytes());
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{unique}.tmp", std::process::id()));
        let written = std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::write(&temporary, &bytes))
            .and_then(|()| std::fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_entry_is_absent_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().join("new"));
        let key = Digest::of(b"key");
        assert_eq!(cache.get("tokens", &key), None);
        cache.put("tokens", &key, b"payload");
        assert_eq!(cache.get("tokens", &key).unwrap(), b"payload");

        let path = cache.path("tokens", &key).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(cache.get("tokens", &key), None, "bit flipped in byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(cache.get("tokens", &key), None, "cut to {at} bytes");
        }
        cache.put("tokens", &key, b"payload");
        assert_eq!(cache.get("tokens", &key).unwrap(), b"payload");

        // Whole, but another key's.
        let other = Digest::of(b"other");
        let moved = cache.path("tokens", &other).unwrap();
        std::fs::create_dir_all(moved.parent().unwrap()).unwrap();
        std::fs::copy(&path, moved).unwrap();
        assert_eq!(cache.get("tokens", &other), None);
    }

    #[test]
    fn no_place_to_write_is_no_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for cache in [Cache::disabled(), Cache::at(file.path())] {
            cache.put("tokens", &Digest::of(b"key"), b"payload");
            assert_eq!(cache.get("tokens", &Digest::of(b"key")), None);
        }
    }
}
