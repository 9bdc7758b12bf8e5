//! Zip archives as `torch.save` writes them: every record stored as it is, with the extensions for large files.
//!
//! What is not stored is refused, so that no record is longer than the file. The directory alone decides where a record
//! is; it is read whole, within a bound.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Longer directories are refused: they have a hundred bytes a record.
const MAX_DIRECTORY: u64 = 16 << 20;

/// The end of a directory and the longest comment after it.
const END: u64 = 22;
const MAX_COMMENT: u64 = 0xffff;

/// Bytes of what stands before the end in large archives.
const LOCATOR: u64 = 20;
const LARGE_END: u64 = 56;

/// Bytes that are read at a time.
pub(super) const CHUNK: usize = 1 << 20;

/// Why a file is no such archive.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// No zip archive, or one that was cut short.
    #[error("it is no whole zip archive: it has no directory at its end")]
    NoDirectory,
    /// A record of another kind than stored.
    #[error("its record `{0}` is compressed or encrypted, which torch.save never does")]
    NotStored(String),
    /// Two records of one name.
    #[error("its record `{0}` is there twice")]
    Twice(String),
    /// A record that is not there.
    #[error("it has no record `{0}`")]
    Missing(String),
    /// A record longer than what it is for.
    #[error("its record `{name}` has {len} bytes, more than {most}")]
    TooLong {
        /// The record.
        name: String,
        /// Its length.
        len: u64,
        /// The most it may have.
        most: u64,
    },
    /// Bytes that changed after they were written.
    #[error("its record `{0}` is damaged: its checksum is another")]
    Checksum(String),
    /// Lengths or places that do not fit the file.
    #[error("its directory is damaged: {0}")]
    Damaged(&'static str),
}

/// Where a record is.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Of its header.
    header: u64,
    len: u64,
    crc: u32,
}

/// An archive opened for reading.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    entries: BTreeMap<String, Entry>,
    /// Where the directory begins: every record ends before it.
    directory: u64,
    len: u64,
}

/// Little-endian numbers of a slice, one after another.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take(&mut self, len: usize) -> Result<&'b [u8], ZipError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(ZipError::Damaged("an entry is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, len: usize) -> Result<u64, ZipError> {
        Ok(self.take(len)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn u16(&mut self) -> Result<usize, ZipError> {
        Ok(self.number(2)? as usize)
    }
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, ZipError> {
        let mut file = File::open(path)?;
        let len = file.seek(SeekFrom::End(0))?;
        let mut archive = Self { file, entries: BTreeMap::new(), directory: 0, len };
        let (start, size, count) = archive.find_directory()?;
        if size > MAX_DIRECTORY {
            return Err(ZipError::TooLong {
                name: "the directory".to_owned(),
                len: size,
                most: MAX_DIRECTORY,
            });
        }
        let directory = archive.bytes_at(start, size)?;
        archive.directory = start;
        let mut fields = Fields(&directory);
        for _ in 0..count {
            let (name, entry) = read_entry(&mut fields)?;
            if archive.entries.contains_key(&name) {
                return Err(ZipError::Twice(name));
            }
            archive.entries.insert(name, entry);
        }
        Ok(archive)
    }

    /// Length of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The names of all records.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Start, length and records of the directory.
    fn find_directory(&mut self) -> Result<(u64, u64, u64), ZipError> {
        let tail_len = self.len.min(END + MAX_COMMENT + LOCATOR);
        let tail_start = self.len - tail_len;
        let tail = self.bytes_at(tail_start, tail_len)?;
        // The end whose comment goes exactly to the end of the file, the last of several.
        let is_end = |at: &usize| {
            let comment =
                tail.get(at + 20..at + 22).map(|bytes| usize::from(bytes[0]) | usize::from(bytes[1]) << 8);
            tail.get(*at..at + 4) == Some(b"PK\x05\x06") && comment == Some(tail.len() - at - END as usize)
        };
        let last = tail.len().checked_sub(END as usize).ok_or(ZipError::NoDirectory)?;
        let at = (0..=last).rev().find(is_end).ok_or(ZipError::NoDirectory)?;
        let mut end = Fields(&tail[at + 4..]);
        let disks = (end.u16()?, end.u16()?);
        let (_, count) = (end.u16()?, end.number(2)?);
        let (size, start) = (end.number(4)?, end.number(4)?);
        if disks != (0, 0) {
            return Err(ZipError::Damaged("it is one of several volumes"));
        }
        let end_start = tail_start + at as u64;
        let locator = at.checked_sub(LOCATOR as usize).and_then(|from| tail.get(from..at));
        let Some(locator) = locator.filter(|locator| locator.starts_with(b"PK\x06\x07")) else {
            return inside(start, size, count, end_start);
        };
        let mut locator = Fields(&locator[8..]);
        let large = locator.number(8)?;
        let bytes = self.bytes_at(large, LARGE_END)?;
        if !bytes.starts_with(b"PK\x06\x06") {
            return Err(ZipError::Damaged("the end of a large archive is not where it is said to be"));
        }
        let mut fields = Fields(&bytes[32..]);
        let (count, size, start) = (fields.number(8)?, fields.number(8)?, fields.number(8)?);
        inside(start, size, count, large)
    }

    /// Bytes of the file itself, which it must have.
    fn bytes_at(&mut self, start: u64, len: u64) -> Result<Vec<u8>, ZipError> {
        let fits = start.checked_add(len).is_some_and(|end| end <= self.len);
        if !fits {
            return Err(ZipError::Damaged("something lies beyond the end of the file"));
        }
        self.file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; len as usize];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn entry(&self, name: &str) -> Result<Entry, ZipError> {
        self.entries.get(name).copied().ok_or_else(|| ZipError::Missing(name.to_owned()))
    }

    /// Length of a record.
    pub(super) fn record_len(&self, name: &str) -> Result<u64, ZipError> {
        Ok(self.entry(name)?.len)
    }

    /// Where the bytes of a record begin: behind its own header, whose name must be the directory's.
    fn data_start(&mut self, name: &str) -> Result<u64, ZipError> {
        let Entry { header, len, .. } = self.entry(name)?;
        let bytes = self.bytes_at(header, 30)?;
        if !bytes.starts_with(b"PK\x03\x04") {
            return Err(ZipError::Damaged("a record is not where it is said to be"));
        }
        let mut fields = Fields(&bytes[26..]);
        let (name_len, extra_len) = (fields.number(2)?, fields.number(2)?);
        if self.bytes_at(header + 30, name_len)? != name.as_bytes() {
            return Err(ZipError::Damaged("a record has another name than in the directory"));
        }
        let start = header + 30 + name_len + extra_len;
        match start.checked_add(len) {
            Some(end) if end <= self.directory => Ok(start),
            _ => Err(ZipError::Damaged("a record reaches into the directory")),
        }
    }

    /// A whole record of at most `most` bytes, its checksum checked.
    pub(super) fn read(&mut self, name: &str, most: u64) -> Result<Vec<u8>, ZipError> {
        let len = self.record_len(name)?;
        if len > most {
            return Err(ZipError::TooLong { name: name.to_owned(), len, most });
        }
        let mut bytes = Vec::with_capacity(len as usize);
        self.stream(name, &mut |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    /// Hands a whole record on in pieces of up to [`CHUNK`] bytes, and checks its checksum at the end.
    pub(super) fn stream(&mut self, name: &str, piece: &mut dyn FnMut(&[u8])) -> Result<(), ZipError> {
        let Entry { len, crc, .. } = self.entry(name)?;
        let start = self.data_start(name)?;
        self.file.seek(SeekFrom::Start(start))?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; CHUNK.min(len as usize)];
        let mut left = len;
        while left > 0 {
            let now = buffer.len().min(left as usize);
            let bytes = buffer.get_mut(..now).unwrap_or_default();
            self.file.read_exact(bytes)?;
            hasher.update(bytes);
            piece(bytes);
            left -= now as u64;
        }
        if hasher.finalize() != crc {
            return Err(ZipError::Checksum(name.to_owned()));
        }
        Ok(())
    }

    /// Part of a record, unchecked: whoever asks has had it streamed before.
    pub(super) fn read_range(&mut self, name: &str, from: u64, len: u64) -> Result<Vec<u8>, ZipError> {
        let whole = self.record_len(name)?;
        if from.checked_add(len).is_none_or(|end| end > whole) {
            return Err(ZipError::Damaged("a tensor lies beyond its record"));
        }
        let start = self.data_start(name)?;
        self.bytes_at(start + from, len)
    }
}

/// A directory lies before its end, and has some bytes for each record that it counts.
fn inside(start: u64, size: u64, count: u64, end: u64) -> Result<(u64, u64, u64), ZipError> {
    let fits = start.checked_add(size).is_some_and(|after| after <= end) && count.saturating_mul(46) <= size;
    if fits { Ok((start, size, count)) } else { Err(ZipError::Damaged("it does not fit before its end")) }
}

fn read_entry(fields: &mut Fields<'_>) -> Result<(String, Entry), ZipError> {
    if fields.take(4)? != b"PK\x01\x02" {
        return Err(ZipError::Damaged("an entry does not begin as one"));
    }
    fields.take(4)?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.take(4)?;
    let crc = fields.number(4)? as u32;
    let (mut packed, mut len) = (fields.number(4)?, fields.number(4)?);
    let (name_len, extra_len, comment_len) = (fields.u16()?, fields.u16()?, fields.u16()?);
    fields.take(8)?;
    let mut header = fields.number(4)?;
    let name = std::str::from_utf8(fields.take(name_len)?)
        .map_err(|_| ZipError::Damaged("a name is not UTF-8"))?
        .to_owned();
    let mut extra = Fields(fields.take(extra_len)?);
    fields.take(comment_len)?;
    while extra.0.len() >= 4 {
        let (tag, size) = (extra.u16()?, extra.u16()?);
        let mut large = Fields(extra.take(size)?);
        if tag == 1 {
            // What does not fit its field is here, in this order.
            for field in [&mut len, &mut packed, &mut header] {
                if *field == u64::from(u32::MAX) {
                    *field = large.number(8)?;
                }
            }
        }
    }
    if method != 0 || flags & 1 != 0 || packed != len {
        return Err(ZipError::NotStored(name));
    }
    Ok((name, Entry { header, len, crc }))
}
