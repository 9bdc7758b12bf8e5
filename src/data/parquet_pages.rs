//! A look at a column's page headers before the decoder sees them.
//!
//! Polars believes the counts in a page header and reserves memory by them; a flipped bit there asks for exabytes,
//! which ends the process and cannot be caught. So the headers are walked first: each page must lie in its column
//! chunk and hold no more values than the row group has rows. A header is a Thrift compact struct
//! (parquet.thrift, `PageHeader`).

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use super::parquet_schema::PAGE_HEADER;
use super::thrift::Thrift;

/// Bytes read for a header: far more than one with statistics takes.
const WINDOW: u64 = 64 * 1024;

/// Bytes that a page may claim to unpack to however short it is.
const SLACK: u64 = 1 << 20;

/// What the fields of a page header say, as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageHeader {
    kind: Option<i64>,
    uncompressed: Option<i64>,
    compressed: Option<i64>,
    /// Values of the data page (either version), or entries of the dictionary.
    values: Option<i64>,
    dictionary: Option<i64>,
    nulls: i64,
    level_bytes: i64,
}

/// Checks the pages in `chunk`, a range of bytes of `file`, of a flat column with `rows` rows, where a byte unpacks
/// to `expansion` bytes at most.
///
/// # Errors
/// Says what about a page is impossible.
pub(super) fn check(
    file: &mut (impl Read + Seek),
    chunk: Range<u64>,
    rows: usize,
    expansion: u64,
) -> Result<(), String> {
    let size = file.seek(SeekFrom::End(0)).map_err(|error| error.to_string())?;
    if chunk.start > chunk.end || chunk.end > size {
        return Err(format!("its column lies at bytes {chunk:?} of a file of {size}"));
    }
    let rows = rows as i64;
    let mut at = chunk.start;
    let mut seen = 0;
    let mut window = Vec::new();
    while seen < rows {
        let impossible = |what: &str| format!("the page at byte {at} {what}");
        window.clear();
        let available = WINDOW.min(chunk.end - at);
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.take(available).read_to_end(&mut window))
            .map_err(|error| error.to_string())?;
        let mut thrift = Thrift::new(&window);
        let header = page_header(&mut thrift).ok_or_else(|| impossible("has no header"))?;
        let (Some(kind), Some(uncompressed), Some(compressed)) =
            (header.kind, header.uncompressed, header.compressed)
        else {
            return Err(impossible("lacks a size"));
        };
        let body = at + thrift.position() as u64;
        if uncompressed < 0 || compressed < 0 || compressed as u64 > chunk.end - body {
            return Err(impossible("does not fit into its column"));
        }
        // Levels may stand outside of what is compressed, so there is some slack.
        if uncompressed as u64 > (compressed as u64).saturating_mul(expansion).max(SLACK) {
            return Err(impossible("claims to unpack to more than its bytes can hold"));
        }
        let parts = [header.nulls, header.level_bytes];
        if parts.iter().any(|&part| part < 0) || header.nulls > rows || header.level_bytes > compressed {
            return Err(impossible("holds more levels than bytes"));
        }
        match (kind, header.values, header.dictionary) {
            // A dictionary entry has its length before it, four bytes.
            (2, None, Some(entries)) if (0..=uncompressed / 4).contains(&entries) => {}
            (0 | 3, Some(values), None) if (0..=rows - seen).contains(&values) => seen += values,
            _ => return Err(impossible("claims an impossible number of values")),
        }
        at = body + compressed as u64;
    }
    Ok(())
}

/// Reads a header; none unless every field has the type that the decoder takes it for.
fn page_header(thrift: &mut Thrift<'_>) -> Option<PageHeader> {
    thrift.clone().conforms(PAGE_HEADER, 0)?;
    let mut header = PageHeader::default();
    thrift.structure(0, |thrift, id, kind| {
        match (id, kind) {
            (1, 5) => header.kind = Some(thrift.zigzag()?),
            (2, 5) => header.uncompressed = Some(thrift.zigzag()?),
            (3, 5) => header.compressed = Some(thrift.zigzag()?),
            (5 | 7 | 8, 12) => thrift.structure(1, |thrift, inner, kind| {
                match (id, inner, kind) {
                    (7, 1, 5) => header.dictionary = Some(thrift.zigzag()?),
                    (_, 1, 5) => header.values = Some(thrift.zigzag()?),
                    (8, 2, 5) => header.nulls = thrift.zigzag()?,
                    (8, 5 | 6, 5) => {
                        let bytes = thrift.zigzag()?;
                        // One negative part must not hide behind the other.
                        header.level_bytes = match header.level_bytes {
                            sum if sum < 0 || bytes < 0 => -1,
                            sum => sum.checked_add(bytes)?,
                        };
                    }
                    _ => return Some(false),
                }
                Some(true)
            })?,
            _ => return Some(false),
        }
        Some(true)
    })?;
    Some(header)
}
