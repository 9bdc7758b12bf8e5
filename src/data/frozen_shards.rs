//! Shards as they were when an experiment was frozen: whoever finds them unchanged takes their digests over and reads none
//! of them, so that hundreds of workers that start together do not all hash the same files.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::file_digest::is_settled;
use crate::error::{Error, Result};
use crate::hash::Digest;

/// A shard as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenShard {
    /// Its absolute path.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// When it was last changed, in seconds and nanoseconds since 1970; none where another change might not have shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<[u64; 2]>,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
}

impl FrozenShard {
    /// The file at `path`, which hashes to `sha256`.
    ///
    /// # Errors
    /// A file that is gone, or cannot be looked at.
    pub fn of(path: &Path, sha256: Digest) -> Result<Self> {
        let failed = |error| Error::input("cannot look at a shard").file(path).because(error);
        let found = std::fs::metadata(path).map_err(failed)?;
        let modified = if is_settled(&found) { modified(&found) } else { None };
        let path = std::path::absolute(path).map_err(failed)?;
        Ok(Self { path, size: found.len(), modified, sha256 })
    }

    /// Whether a file of this size and time is it, by all that can be told without reading it.
    ///
    /// # Errors
    /// It is another one: its size differs.
    pub(super) fn is(&self, found: &Metadata) -> Result<bool> {
        if found.len() != self.size {
            return Err(self.other(format!("{} bytes", self.size), &format!("{} bytes", found.len())));
        }
        Ok(self.modified.is_some() && modified(found) == self.modified)
    }

    /// Makes sure of a digest that was taken of it.
    ///
    /// # Errors
    /// It is another one.
    pub(super) fn require(&self, digest: &Digest) -> Result<()> {
        if *digest == self.sha256 {
            return Ok(());
        }
        Err(self.other(format!("SHA-256 {}", self.sha256), &digest.to_string()))
    }

    fn other(&self, expected: String, found: &str) -> Error {
        Error::input(format!("other data: this shard is not the one that was submitted, it has {found}"))
            .file(&self.path)
            .expected(expected)
            .help("bring back the file that was there; or `nanorun cancel`, and submit the experiment with these data")
    }
}

/// Shards by their absolute paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrozenShards(BTreeMap<PathBuf, FrozenShard>);

impl FrozenShards {
    /// These.
    pub fn new(shards: &[FrozenShard]) -> Self {
        Self(shards.iter().map(|shard| (shard.path.clone(), shard.clone())).collect())
    }

    /// What is known of the file at this path.
    pub(super) fn get(&self, path: &Path) -> Option<&FrozenShard> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&std::path::absolute(path).ok()?)
    }
}

fn modified(found: &Metadata) -> Option<[u64; 2]> {
    let since = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some([since.as_secs(), since.subsec_nanos().into()])
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::super::cache::Cache;
    use super::super::file_digest::{file_digest, file_digest_told};
    use super::*;

    fn put(path: &Path, text: &str, seconds: u64) {
        std::fs::write(path, text).unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(seconds);
        File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    }

    /// The digest, and how many bytes were read for it.
    fn digest(path: &Path, cache: &Cache) -> (Result<Digest>, u64) {
        let read = std::cell::Cell::new(0);
        let found = file_digest_told(path, cache, &|bytes| read.set(read.get() + bytes));
        (found, read.get())
    }

    #[test]
    fn what_is_as_it_was_frozen_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shard.txt");
        put(&path, "three", 1_000_000_000);
        let sha256 = file_digest(&path, &Cache::disabled()).unwrap();
        let frozen = FrozenShard::of(&path, sha256).unwrap();
        let text = toml::to_string(&frozen).unwrap();
        assert_eq!(crate::toml_text::from_slice::<FrozenShard>(text.as_bytes()).unwrap(), frozen);
        let cache = Cache::disabled().with_frozen(FrozenShards::new(&[frozen]));
        let (found, read) = digest(&path, &cache);
        assert_eq!((found.unwrap(), read), (sha256, 0));
        // Another time, as of a copy on the node's own disk: it is read, and is the same.
        put(&path, "three", 1_000_000_001);
        let (found, read) = digest(&path, &cache);
        assert_eq!((found.unwrap(), read), (sha256, 5));
        for (other, seconds, read) in [("threE", 1_000_000_002, 5), ("four", 1_000_000_000, 0)] {
            put(&path, other, seconds);
            let (found, told) = digest(&path, &cache);
            let error = found.unwrap_err();
            assert!(error.what().starts_with("other data: ") && error.class().exit_code() == 2, "{error}");
            assert_eq!(told, read, "{other}");
        }
        // Of other files nothing is known.
        let beside = dir.path().join("beside.txt");
        put(&beside, "two", 1_000_000_000);
        assert_eq!(digest(&beside, &cache).0.unwrap(), Digest::of(b"two"));
    }

    #[test]
    fn a_file_that_was_changed_a_moment_ago_is_known_by_its_content_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shard.txt");
        std::fs::write(&path, "now").unwrap();
        let frozen = FrozenShard::of(&path, Digest::of(b"now")).unwrap();
        assert_eq!(frozen.modified, None);
        let cache = Cache::disabled().with_frozen(FrozenShards::new(&[frozen]));
        assert_eq!(digest(&path, &cache).1, 3);
    }
}
