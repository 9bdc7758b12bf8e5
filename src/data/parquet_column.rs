//! The texts of one row group out of its pages.
//!
//! Every number in a page is held against the bytes or rows it stands for before memory is taken for it, so that a
//! damaged page costs an error and nothing else.

use std::io::{Read, Seek};

use super::config::Nulls;
use super::parquet_encodings::{Run, Runs, deltas, packed};
use super::parquet_footer::Group;
use super::parquet_page::{Page, PageKind, Pages};
use super::unpack;

/// Memory that the texts of a row group may take: upstream's hold a few megabytes.
const MAX_GROUP_BYTES: usize = 4 << 30;

/// What is wrong with a row group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ColumnError {
    /// Its pages are not what they say.
    Damaged(String),
    /// This row, counted from 0 through the group, is null.
    Null(usize),
    /// This row is not UTF-8.
    NotText(usize),
    /// It is sound and of a kind that is not read.
    Unread(String),
}

impl From<String> for ColumnError {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

/// The texts of a row group, in order, page after page until they have `enough` bytes. `optional` says whether a row
/// may be null, `nulls` what becomes of one.
pub(super) fn read(
    file: &mut (impl Read + Seek),
    group: &Group,
    optional: bool,
    nulls: Nulls,
    enough: usize,
) -> Result<Vec<String>, ColumnError> {
    let mut sink = Sink { texts: Vec::new(), row: 0, bytes: 0, nulls };
    let mut dictionary: Option<Vec<Box<str>>> = None;
    let mut pages = Pages::new(file, group.bytes.clone());
    while sink.row < group.rows && sink.bytes < enough {
        let page = pages.next_page(usize::MAX)?;
        if page.kind == PageKind::Dictionary {
            if dictionary.is_some() {
                return Err(format!("the page at byte {} is a second dictionary", page.at).into());
            }
            dictionary = Some(entries(page, group.codec, sink.row)?);
            continue;
        }
        let rows = page.values;
        if rows > group.rows - sink.row {
            return Err(format!("the page at byte {} claims {rows} rows", page.at).into());
        }
        let before = sink.row;
        data_page(page, group.codec, optional, dictionary.as_deref(), &mut sink)?;
        if sink.row - before != rows {
            return Err(format!("a page holds {} of its {rows} rows", sink.row - before).into());
        }
    }
    Ok(sink.texts)
}

/// How many rows of a group are null. Reads no more of its pages than that takes.
pub(super) fn count_nulls(file: &mut (impl Read + Seek), group: &Group) -> Result<u64, ColumnError> {
    let mut pages = Pages::new(file, group.bytes.clone());
    let (mut rows, mut nulls) = (0, 0);
    while rows < group.rows {
        let mut page = pages.next_page(ENOUGH_FOR_LEVELS)?;
        if page.kind == PageKind::Dictionary {
            continue;
        }
        let (at, values) = (page.at, page.values);
        rows += values;
        if rows > group.rows {
            return Err(format!("the page at byte {at} claims {values} rows").into());
        }
        if let Some(known) = page.nulls {
            nulls += known as u64;
            continue;
        }
        let levels = match levels_alone(&page, group.codec) {
            Err(_) if !page.is_whole() => {
                pages.complete(&mut page)?;
                levels_alone(&page, group.codec)
            }
            levels => levels,
        }?;
        let mut counted = 0;
        levels_of(&levels, values, |present, count| {
            counted += count;
            if !present {
                nulls += count as u64;
            }
            Ok(())
        })?;
        if counted != values {
            return Err(format!("a page holds {counted} of its {values} rows").into());
        }
    }
    Ok(nulls)
}

/// The definition levels of a page, unpacking no more of it than they take.
fn levels_alone(page: &Page, codec: i64) -> Result<Vec<u8>, ColumnError> {
    let &Page { kind, levels, unpacked, ref body, .. } = page;
    let short = || ColumnError::Damaged("a page has no levels".to_owned());
    if let PageKind::DataV2 { level_bytes, .. } = kind {
        return Ok(body.get(..level_bytes).ok_or_else(short)?.to_vec());
    }
    if levels != 3 {
        return Err(bit_packed_levels());
    }
    // Their length stands before them.
    let mut head = unpack::page(codec, body.clone(), unpacked, FEW_LEVELS)?;
    let len = level_bytes(&head)?;
    if len + 4 > head.len() {
        head = unpack::page(codec, body.clone(), unpacked, len + 4)?;
    }
    head.drain(..4.min(head.len()));
    head.truncate(len);
    Ok(head)
}

/// Bytes read of a page to look at its levels: they come first, and a stream unpacks as far as it goes.
const ENOUGH_FOR_LEVELS: usize = 64 << 10;

/// Bytes unpacked to look at the levels of a page: enough for most.
const FEW_LEVELS: usize = 1024;

/// Takes the texts as they are decoded.
struct Sink {
    texts: Vec<String>,
    row: usize,
    /// Memory taken so far.
    bytes: usize,
    nulls: Nulls,
}

impl Sink {
    fn push(&mut self, text: &str) -> Result<(), ColumnError> {
        self.bytes = self.bytes.saturating_add(text.len() + size_of::<String>());
        // One long entry of a dictionary can stand for any number of rows.
        if self.bytes > MAX_GROUP_BYTES {
            let what = format!("a row group holds more than {MAX_GROUP_BYTES} bytes of texts");
            return Err(ColumnError::Unread(what));
        }
        self.row += 1;
        self.texts.push(text.to_owned());
        Ok(())
    }

    fn push_bytes(&mut self, text: &[u8]) -> Result<(), ColumnError> {
        let text = std::str::from_utf8(text).map_err(|_| ColumnError::NotText(self.row))?;
        self.push(text)
    }

    fn push_nulls(&mut self, count: usize) -> Result<(), ColumnError> {
        if self.nulls == Nulls::Error {
            return Err(ColumnError::Null(self.row));
        }
        self.row += count;
        Ok(())
    }
}

/// The entries of a dictionary.
fn entries(page: Page, codec: i64, row: usize) -> Result<Vec<Box<str>>, ColumnError> {
    // PLAIN, under either of its names.
    if !matches!(page.encoding, 0 | 2) {
        return Err(unknown_encoding(page.encoding));
    }
    let bytes = unpack::page(codec, page.body, page.unpacked, page.unpacked)?;
    let mut rest = &*bytes;
    let mut entries = Vec::new();
    for _ in 0..page.values {
        let entry = plain(&mut rest)?;
        entries.push(std::str::from_utf8(entry).map_err(|_| ColumnError::NotText(row))?.into());
    }
    Ok(entries)
}

fn data_page(
    page: Page,
    codec: i64,
    optional: bool,
    dictionary: Option<&[Box<str>]>,
    sink: &mut Sink,
) -> Result<(), ColumnError> {
    let Page { kind, values: rows, encoding, levels: level_encoding, unpacked, mut body, .. } = page;
    let (levels, bytes) = if let PageKind::DataV2 { level_bytes, packed } = kind {
        let values = body.split_off(level_bytes);
        let whole = unpacked.saturating_sub(level_bytes);
        // Some writers leave out the bytes of a page of nulls alone.
        let values =
            if packed && !values.is_empty() { unpack::page(codec, values, whole, whole)? } else { values };
        (body, values)
    } else {
        let mut bytes = unpack::page(codec, body, unpacked, unpacked)?;
        let mut levels = Vec::new();
        if optional {
            if level_encoding != 3 {
                return Err(bit_packed_levels());
            }
            let len = level_bytes(&bytes)?;
            if len > bytes.len() - 4 {
                return Err("a page holds more levels than bytes".to_owned().into());
            }
            let values = bytes.split_off(4 + len);
            levels = bytes.split_off(4);
            bytes = values;
        }
        (levels, bytes)
    };
    let mut values = Values::new(encoding, &bytes, rows, dictionary)?;
    if !optional {
        return values.take(rows, sink);
    }
    levels_of(
        &levels,
        rows,
        |present, count| {
            if present { values.take(count, sink) } else { sink.push_nulls(count) }
        },
    )
}

/// Hands over definition levels, whether rows are there and how many of them, until all `rows` have theirs.
fn levels_of(
    levels: &[u8],
    rows: usize,
    mut each: impl FnMut(bool, usize) -> Result<(), ColumnError>,
) -> Result<(), ColumnError> {
    let mut left = rows;
    let mut runs = Runs::new(levels, 1).ok_or_else(|| "no levels".to_owned())?;
    while left > 0 {
        match runs.next_run() {
            Some(Run::Repeated(level, count)) => {
                let count = count.min(left);
                each(level == 1, count)?;
                left -= count;
            }
            Some(Run::Packed(bytes, count)) => {
                let count = count.min(left);
                let mut at = 0;
                while at < count {
                    let level = packed(bytes, 1, at);
                    let same = (at..count).take_while(|&next| packed(bytes, 1, next) == level).count();
                    each(level == 1, same)?;
                    at += same;
                }
                left -= count;
            }
            None => return Err("a page has fewer levels than rows".to_owned().into()),
        }
    }
    Ok(())
}

/// The length before the levels of a page.
fn level_bytes(page: &[u8]) -> Result<usize, ColumnError> {
    let (len, _) = page.split_first_chunk::<4>().ok_or_else(|| "a page has no levels".to_owned())?;
    Ok(u32::from_le_bytes(*len) as usize)
}

/// The next text with its length before it.
fn plain<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], ColumnError> {
    let short = || ColumnError::Damaged("a page holds fewer texts than it claims".to_owned());
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
    let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(short)?;
    *bytes = rest;
    Ok(text)
}

/// The values of a page, in order.
enum Values<'b> {
    Plain(&'b [u8]),
    Dictionary {
        entries: &'b [Box<str>],
        runs: Runs<'b>,
        /// The run that was begun, and how many of its numbers are taken.
        open: Option<(Run<'b>, usize)>,
    },
    /// Lengths, then the bytes one after the other. With prefixes: what is kept of the text before.
    Lengths {
        prefixes: Option<std::vec::IntoIter<i64>>,
        lengths: std::vec::IntoIter<i64>,
        bytes: &'b [u8],
        last: Vec<u8>,
    },
}

impl<'b> Values<'b> {
    fn new(
        encoding: i64,
        mut bytes: &'b [u8],
        rows: usize,
        dictionary: Option<&'b [Box<str>]>,
    ) -> Result<Self, ColumnError> {
        let bad_lengths = || ColumnError::Damaged("a page has no whole lengths".to_owned());
        Ok(match encoding {
            0 => Self::Plain(bytes),
            2 | 8 => {
                let entries = dictionary.ok_or_else(|| "a page lacks its dictionary".to_owned())?;
                // A page of nulls alone may hold nothing at all.
                let (&width, rest) = bytes.split_first().unwrap_or((&0, &[]));
                let runs = Runs::new(rest, u32::from(width));
                let runs = runs.ok_or_else(|| format!("a page has indices of {width} bits"))?;
                Self::Dictionary { entries, runs, open: None }
            }
            6 | 7 if bytes.is_empty() => Self::Plain(bytes),
            6 => {
                let lengths = deltas(&mut bytes, rows).ok_or_else(bad_lengths)?.into_iter();
                Self::Lengths { prefixes: None, lengths, bytes, last: Vec::new() }
            }
            7 => {
                let prefixes = Some(deltas(&mut bytes, rows).ok_or_else(bad_lengths)?.into_iter());
                let lengths = deltas(&mut bytes, rows).ok_or_else(bad_lengths)?.into_iter();
                Self::Lengths { prefixes, lengths, bytes, last: Vec::new() }
            }
            other => return Err(unknown_encoding(other)),
        })
    }

    fn take(&mut self, count: usize, sink: &mut Sink) -> Result<(), ColumnError> {
        match self {
            Self::Plain(bytes) => (0..count).try_for_each(|_| sink.push_bytes(plain(bytes)?)),
            Self::Lengths { prefixes, lengths, bytes, last } => (0..count).try_for_each(|_| {
                let short = || ColumnError::Damaged("a page holds fewer texts than it claims".to_owned());
                let size = |length: Option<i64>| length.and_then(|length| usize::try_from(length).ok());
                let kept = match prefixes {
                    Some(prefixes) => size(prefixes.next()).ok_or_else(short)?,
                    None => 0,
                };
                let length = size(lengths.next()).ok_or_else(short)?;
                let (text, rest) = bytes.split_at_checked(length).ok_or_else(short)?;
                *bytes = rest;
                if prefixes.is_none() {
                    return sink.push_bytes(text);
                }
                if kept > last.len() {
                    return Err(short());
                }
                last.truncate(kept);
                last.extend_from_slice(text);
                sink.push_bytes(last)
            }),
            Self::Dictionary { entries, runs, open } => {
                let mut left = count;
                while left > 0 {
                    let (run, taken) = match open.take() {
                        Some(open) => open,
                        None => (
                            runs.next_run().ok_or_else(|| "a page has fewer indices than rows".to_owned())?,
                            0,
                        ),
                    };
                    let entry = |index: u64| {
                        let entry = usize::try_from(index).ok().and_then(|index| entries.get(index));
                        entry.ok_or_else(|| format!("a page refers to entry {index} of {}", entries.len()))
                    };
                    let (Run::Repeated(_, length) | Run::Packed(_, length)) = run;
                    let now = left.min(length - taken);
                    match run {
                        Run::Repeated(index, _) => {
                            let text = entry(u64::from(index))?;
                            (0..now).try_for_each(|_| sink.push(text))?;
                        }
                        Run::Packed(bytes, _) => {
                            for at in taken..taken + now {
                                sink.push(entry(packed(bytes, runs.width(), at))?)?;
                            }
                        }
                    }
                    left -= now;
                    *open = (taken + now < length).then_some((run, taken + now));
                }
                Ok(())
            }
        }
    }
}

fn bit_packed_levels() -> ColumnError {
    ColumnError::Unread("its levels are bit-packed, as writers before 2014 had them".to_owned())
}

fn unknown_encoding(number: i64) -> ColumnError {
    ColumnError::Unread(format!("its encoding has the number {number}, which texts do not have"))
}
