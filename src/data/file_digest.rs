//! Digests of files, remembered while a file is what it was.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::cache::Cache;
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};

/// SHA-256 of a file's bytes. Remembered under the file's path, size, times and inode, so that a second start does
/// not read every shard again.
///
/// # Errors
/// A file that cannot be read; a stop asked for meanwhile.
pub fn file_digest(path: &Path, cache: &Cache) -> Result<Digest> {
    let unreadable = |error| Error::input("cannot read a file").file(path).because(error);
    let mut file = File::open(path).map_err(unreadable)?;
    let fingerprint = fingerprint(path, &file);
    if let Some(key) = &fingerprint
        && let Some(bytes) = cache.get("digests", key)
        && let Some(digest) = String::from_utf8(bytes).ok().and_then(|text| text.parse().ok())
    {
        return Ok(digest);
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        crate::stop::check()?;
        let read = file.read(&mut buffer).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
    let digest = Digest::from(<[u8; 32]>::from(hasher.finalize()));
    if let Some(key) = &fingerprint
        && is_settled(&file)
    {
        cache.put("digests", key, digest.to_string().as_bytes());
    }
    Ok(digest)
}

/// Whether the last change is old enough for another one to show in the file's times, which move in ticks.
fn is_settled(file: &File) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
    modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age.as_secs() >= 2)
}

/// What changes whenever the file does; none where that cannot be told.
fn fingerprint(path: &Path, file: &File) -> Option<Digest> {
    let path = path.canonicalize().ok()?;
    let metadata = file.metadata().ok()?;
    let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let mut canonical = Canonical::new("nanorun file fingerprint");
    canonical
        .bytes("path", path.as_os_str().as_encoded_bytes())
        .u64("size", metadata.len())
        .u64("seconds", modified.as_secs())
        .u64("nanoseconds", u64::from(modified.subsec_nanos()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        // The change time moves even where a copy keeps the modification time.
        canonical
            .u64("inode", metadata.ino())
            .u64("changed", metadata.ctime() as u64)
            .u64("changed nanoseconds", metadata.ctime_nsec() as u64);
    }
    Some(canonical.finish())
}
