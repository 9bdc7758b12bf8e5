//! Digests of files, remembered while a file is what it was.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::cache::Cache;
use crate::error::{Error, Result};
use crate::files::{reopened, unix_now};
use crate::hash::{Canonical, Digest};
use crate::stop::{signalled, stopped};

/// Where the cache keeps digests.
const KIND: &str = "digests";

/// Seconds after which another change shows in a file's times: they move in ticks, of two seconds on some file systems.
const TICK: u64 = 2;

/// SHA-256 of a file's bytes. Remembered under the file's path, size, times and inode, so that a second start does
/// not read every shard again.
///
/// Times that are not in the past by this machine's clock (a file server's clock is ahead, an archive was unpacked with
/// odd ones) do not tell that the file has settled. Such a file is remembered once it was found equal, by times and by
/// content, on two starts.
///
/// # Errors
/// A file that cannot be read; a stop asked for meanwhile.
pub fn file_digest(path: &Path, cache: &Cache) -> Result<Digest> {
    file_digest_told(path, cache, &|_| {})
}

/// [`file_digest`] that tells how many bytes it has read since it last said so; of a digest that is known, nothing.
///
/// # Errors
/// As there.
pub(super) fn file_digest_told(path: &Path, cache: &Cache, told: &dyn Fn(u64)) -> Result<Digest> {
    digest_at(path, cache, unix_now(), told)
}

fn digest_at(path: &Path, cache: &Cache, now: u64, told: &dyn Fn(u64)) -> Result<Digest> {
    let Some(frozen) = cache.frozen(path) else { return remembered(path, cache, now, told) };
    let unreadable = |error| Error::input("cannot read a file").file(path).because(error);
    if frozen.is(&std::fs::metadata(path).map_err(unreadable)?)? {
        return Ok(frozen.sha256);
    }
    let digest = remembered(path, cache, now, told)?;
    frozen.require(&digest)?;
    Ok(digest)
}

fn remembered(path: &Path, cache: &Cache, now: u64, told: &dyn Fn(u64)) -> Result<Digest> {
    let unreadable = |error| Error::input("cannot read a file").file(path).because(error);
    let known = |key: &Option<Digest>| text(cache, key.as_ref()?)?.parse().ok();
    let (digest, remember) = reopened(|| {
        let mut file = File::open(path)?;
        let before = fingerprint(path, &file);
        if let Some(digest) = known(&before) {
            return Ok(Some((digest, None)));
        }
        let Some(digest) = digest_of(&mut file, told)? else { return Ok(None) };
        // Written to while it was read: the digest is nobody's.
        let remember = before.filter(|before| fingerprint(path, &file).as_ref() == Some(before));
        Ok(Some((digest, remember.map(|key| (key, file.metadata().is_ok_and(|found| is_settled(&found)))))))
    })
    .map_err(unreadable)?
    .ok_or_else(stopped)?;
    match remember {
        Some((key, settled)) if settled || was_seen(cache, &key, &digest, now) => {
            cache.put(KIND, &key, digest.to_string().as_bytes());
        }
        _ => {}
    }
    Ok(digest)
}

fn text(cache: &Cache, key: &Digest) -> Option<String> {
    String::from_utf8(cache.get(KIND, key)?).ok()
}

/// Whether an earlier start saw the file with this fingerprint and digest, more than a tick ago: a change since then
/// would have moved its times. If not, this start is the one that saw it.
fn was_seen(cache: &Cache, fingerprint: &Digest, digest: &Digest, now: u64) -> bool {
    let mut canonical = Canonical::new("nanorun file seen once");
    canonical.digest("fingerprint", fingerprint);
    let key = canonical.finish();
    let earlier = text(cache, &key).and_then(|text| {
        let (seen, at) = text.split_once(' ')?;
        (seen == digest.to_string()).then(|| at.parse().ok()).flatten()
    });
    match earlier {
        Some(at) if now >= u64::saturating_add(at, TICK) => true,
        // A moment ago; a clock that went back starts over.
        Some(at) if now >= at => false,
        _ => {
            cache.put(KIND, &key, format!("{digest} {now}").as_bytes());
            false
        }
    }
}

/// SHA-256 of what the file holds from here on; none where a signal asked to stop meanwhile.
fn digest_of(file: &mut File, told: &dyn Fn(u64)) -> io::Result<Option<Digest>> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    while !signalled() {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(Digest::from(<[u8; 32]>::from(hasher.finalize())))),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(buffer.get(..read).unwrap_or_default());
        told(read as u64);
    }
    Ok(None)
}

/// Whether the last change is old enough for another one to show in the file's times.
pub(super) fn is_settled(found: &Metadata) -> bool {
    found.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age.as_secs() >= TICK)
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
    if let Some([_, inode, changed, nanoseconds]) = crate::system::identity(&metadata) {
        // The change time moves even where a copy keeps the modification time.
        canonical
            .u64("inode", inode as u64)
            .u64("changed", changed as u64)
            .u64("changed nanoseconds", nanoseconds as u64);
    }
    Some(canonical.finish())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    /// A file with this text and a time so many seconds from now.
    fn file(dir: &Path, text: &str, ahead: i64) -> std::path::PathBuf {
        let path = dir.join("shard");
        std::fs::write(&path, text).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(unix_now());
        let time = now.checked_add_signed(ahead);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        path
    }

    trait Signed {
        fn checked_add_signed(self, seconds: i64) -> SystemTime;
    }

    impl Signed for SystemTime {
        fn checked_add_signed(self, seconds: i64) -> SystemTime {
            let by = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { self - by } else { self + by }
        }
    }

    fn is_remembered(path: &Path, cache: &Cache) -> bool {
        let key = fingerprint(path, &File::open(path).unwrap()).unwrap();
        cache.get(KIND, &key).is_some()
    }

    #[test]
    fn clocks_file_times_in_the_future_are_remembered_once_equal_on_two_starts() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache"));
        let path = file(dir.path(), "one", 1 << 30);
        let start = |now| {
            let digest = digest_at(&path, &cache, now, &|_| {}).unwrap();
            assert_eq!(digest, Digest::of(&std::fs::read(&path).unwrap()));
            is_remembered(&path, &cache)
        };
        // Within a tick another change might not show.
        assert_eq!([1000, 1001, 1002, 1003].map(start), [false, false, true, true]);
        // Changed: other times, so nothing is known of it.
        file(dir.path(), "two", (1 << 30) + 7);
        assert_eq!([1004, 1010].map(start), [false, true]);
        // A clock that went back starts over.
        file(dir.path(), "six", (1 << 30) + 9);
        assert_eq!([2000, 500, 501, 502].map(start), [false, false, false, true]);
    }

    #[test]
    fn what_is_read_is_told_and_what_is_known_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let (path, cache) = (dir.path().join("a"), Cache::at(dir.path().join("cache")));
        std::fs::write(&path, vec![7; (2 << 20) + 5]).unwrap();
        let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        File::options().write(true).open(&path).unwrap().set_modified(past).unwrap();
        let pieces = std::cell::RefCell::new(Vec::new());
        let tell = |bytes| pieces.borrow_mut().push(bytes);
        file_digest_told(&path, &cache, &tell).unwrap();
        let first = pieces.take();
        assert!(first.len() > 1 && first.iter().sum::<u64>() == (2 << 20) + 5, "{first:?}");
        file_digest_told(&path, &cache, &tell).unwrap();
        assert!(pieces.take().is_empty());
    }

    #[test]
    fn a_settled_file_is_remembered_at_once_and_a_fresh_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache"));
        let path = file(dir.path(), "one", -100);
        file_digest(&path, &cache).unwrap();
        assert!(is_remembered(&path, &cache));
        let path = file(dir.path(), "two", 0);
        file_digest(&path, &cache).unwrap();
        assert!(!is_remembered(&path, &cache));
        // The same times and size with other content: found out as long as nothing is remembered.
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, "six").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_eq!(file_digest(&path, &cache).unwrap(), Digest::of(b"six"));
    }
}
