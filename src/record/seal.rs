//! A checksum over a whole parquet file, kept in the file's own metadata.
//!
//! The file is written with a blank in the place of the digest, hashed, and the blank filled in; readers of parquet see
//! one more entry of metadata. Checking needs no parser, so nothing damaged ever reaches one.

use sha2::{Digest as _, Sha256};

use crate::hash::Digest;

/// The entry of the file's metadata.
pub(super) const KEY: &str = "nanorun";

/// Stands before the digest, so that it can be found in the file's bytes.
const MARK: &[u8] = b"nanorun table sha256 ";

/// Hex digits of a digest.
const DIGITS: usize = 64;

/// The entry's value while the file has no digest yet.
pub(super) fn blank() -> String {
    format!("{}{}", String::from_utf8_lossy(MARK), "0".repeat(DIGITS))
}

/// Where the digest stands: behind the last mark, because the metadata are at the end of the file.
fn place(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let mark = bytes.windows(MARK.len()).rposition(|window| window == MARK)? + MARK.len();
    (mark + DIGITS <= bytes.len()).then_some(mark..mark + DIGITS)
}

/// The digest of the file with a blank in the digest's place.
fn digest(bytes: &[u8], place: std::ops::Range<usize>) -> Digest {
    let (before, after) = (bytes.get(..place.start), bytes.get(place.end..));
    let mut hasher = Sha256::new();
    hasher.update(before.unwrap_or_default());
    hasher.update([b'0'; DIGITS]);
    hasher.update(after.unwrap_or_default());
    Digest::from(<[u8; 32]>::from(hasher.finalize()))
}

/// Fills the blank of a file that was written with one.
pub(super) fn seal(bytes: &mut [u8]) {
    let Some(place) = place(bytes) else { return };
    let digest = digest(bytes, place.clone()).to_string();
    if let Some(digits) = bytes.get_mut(place) {
        digits.copy_from_slice(digest.as_bytes());
    }
}

/// Whether the file is as it was written; the error says what is wrong.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let place = place(bytes).ok_or("it has no checksum of nanorun's, or was cut short")?;
    let written = bytes.get(place.clone()).unwrap_or_default();
    if digest(bytes, place).to_string().as_bytes() == written {
        Ok(())
    } else {
        Err("it was changed after it was written: its checksum does not match".to_owned())
    }
}
