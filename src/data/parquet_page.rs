//! The pages of a column, one after the other: header (parquet.thrift, `PageHeader`), then body.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use super::thrift::Thrift;

/// Bytes read for a header at first. Statistics in it hold whole texts with some writers, so it may take any more.
const WINDOW: u64 = 8 * 1024;

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageKind {
    /// Entries that later pages refer to.
    Dictionary,
    /// Texts, levels and values unpacked together.
    Data,
    /// Texts, with so many bytes of levels before what is packed.
    DataV2 {
        /// Bytes of definition levels.
        level_bytes: usize,
        /// Whether the values are packed.
        packed: bool,
    },
}

/// A page as it stands in the file.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) kind: PageKind,
    /// Rows, null ones among them, or entries of a dictionary.
    pub(super) values: usize,
    /// `Encoding` of the values.
    pub(super) encoding: i64,
    /// `Encoding` of the levels.
    pub(super) levels: i64,
    /// Null rows, where the header says so.
    pub(super) nulls: Option<usize>,
    /// Bytes that levels and values take unpacked.
    pub(super) unpacked: usize,
    /// First byte in the file.
    pub(super) at: u64,
    /// Where its body lies in the file.
    place: Range<u64>,
    /// As much of the body as was asked for.
    pub(super) body: Vec<u8>,
}

impl Page {
    /// Whether `body` is all of it.
    pub(super) fn is_whole(&self) -> bool {
        self.body.len() as u64 == self.place.end - self.place.start
    }
}

/// Walks over the pages in a range of bytes.
pub(super) struct Pages<'f, F> {
    file: &'f mut F,
    at: u64,
    end: u64,
    window: Vec<u8>,
}

impl<'f, F: Read + Seek> Pages<'f, F> {
    pub(super) fn new(file: &'f mut F, bytes: Range<u64>) -> Self {
        Self { file, at: bytes.start, end: bytes.end, window: Vec::new() }
    }

    /// The next page of texts or entries, with at most the first `most` bytes of its body.
    ///
    /// # Errors
    /// Says what about it is impossible.
    pub(super) fn next_page(&mut self, most: usize) -> Result<Page, String> {
        loop {
            let (header, len) = self.header()?;
            let at = self.at;
            let impossible = |what: &str| format!("the page at byte {at} {what}");
            let body = at + len;
            let size = |size: Option<i64>| size.and_then(|size| usize::try_from(size).ok());
            let (Some(kind), Some(compressed), Some(unpacked)) =
                (header.kind, size(header.compressed), size(header.uncompressed))
            else {
                return Err(impossible("lacks a size"));
            };
            if compressed as u64 > self.end - body {
                return Err(impossible("does not fit into its column"));
            }
            self.at = body + compressed as u64;
            let kind = match kind {
                0 => PageKind::Data,
                2 => PageKind::Dictionary,
                3 => {
                    let level_bytes = size(Some(header.level_bytes)).filter(|&len| len <= compressed);
                    let level_bytes =
                        level_bytes.ok_or_else(|| impossible("holds more levels than bytes"))?;
                    PageKind::DataV2 { level_bytes, packed: header.packed }
                }
                // An index page says nothing of texts.
                _ => continue,
            };
            let values = size(header.values).ok_or_else(|| impossible("does not say what it holds"))?;
            let encoding = header.encoding.ok_or_else(|| impossible("does not say what it holds"))?;
            let place = body..self.at;
            let body = self.bytes(body, compressed.min(most))?;
            let nulls = size(header.nulls);
            let levels = header.levels;
            return Ok(Page { kind, values, encoding, levels, nulls, unpacked, at, place, body });
        }
    }

    /// Reads the whole body of a page that was read in part.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn complete(&mut self, page: &mut Page) -> Result<(), String> {
        let len = usize::try_from(page.place.end - page.place.start).map_err(|error| error.to_string())?;
        page.body = self.bytes(page.place.start, len)?;
        Ok(())
    }

    fn bytes(&mut self, at: u64, len: usize) -> Result<Vec<u8>, String> {
        // No more than the file holds: that was checked.
        let mut bytes = Vec::with_capacity(len);
        self.file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.by_ref().take(len as u64).read_to_end(&mut bytes))
            .map_err(|error| error.to_string())?;
        if bytes.len() < len {
            return Err(format!("the page whose body is at byte {at} ends with the file"));
        }
        Ok(bytes)
    }

    /// The header at the current place and its length.
    fn header(&mut self) -> Result<(Header, u64), String> {
        let left = self.end - self.at;
        let mut window = WINDOW;
        loop {
            let len = window.min(left);
            self.window.clear();
            self.file
                .seek(SeekFrom::Start(self.at))
                .and_then(|_| self.file.by_ref().take(len).read_to_end(&mut self.window))
                .map_err(|error| error.to_string())?;
            let mut thrift = Thrift::new(&self.window);
            match header(&mut thrift) {
                Some(header) => return Ok((header, thrift.position() as u64)),
                None if len < left => window = window.saturating_mul(8),
                None => return Err(format!("the page at byte {} has no header", self.at)),
            }
        }
    }
}

#[derive(Debug)]
struct Header {
    kind: Option<i64>,
    uncompressed: Option<i64>,
    compressed: Option<i64>,
    values: Option<i64>,
    encoding: Option<i64>,
    levels: i64,
    nulls: Option<i64>,
    level_bytes: i64,
    packed: bool,
}

fn header(thrift: &mut Thrift<'_>) -> Option<Header> {
    let mut header = Header {
        kind: None,
        uncompressed: None,
        compressed: None,
        values: None,
        encoding: None,
        levels: 3,
        nulls: None,
        level_bytes: 0,
        packed: true,
    };
    thrift.structure(0, |thrift, id, kind| {
        match (id, kind) {
            (1, 4..=6) => header.kind = Some(thrift.zigzag()?),
            (2, 4..=6) => header.uncompressed = Some(thrift.zigzag()?),
            (3, 4..=6) => header.compressed = Some(thrift.zigzag()?),
            (5 | 7 | 8, 12) => thrift.structure(1, |thrift, inner, kind| {
                match (id, inner, kind) {
                    (_, 1, 4..=6) => header.values = Some(thrift.zigzag()?),
                    (5 | 7, 2, 4..=6) | (8, 4, 4..=6) => header.encoding = Some(thrift.zigzag()?),
                    (5, 3, 4..=6) => header.levels = thrift.zigzag()?,
                    (8, 2, 4..=6) => header.nulls = Some(thrift.zigzag()?),
                    // Repetition levels come first, and a flat column has none: then their bytes count as well.
                    (8, 5 | 6, 4..=6) => {
                        header.level_bytes = header.level_bytes.checked_add(thrift.zigzag()?)?;
                    }
                    (8, 7, 1 | 2) => header.packed = kind == 1,
                    (5, 5, 12) => thrift.structure(2, |thrift, id, kind| {
                        if (id, kind) != (3, 6) {
                            return Some(false);
                        }
                        header.nulls = Some(thrift.zigzag()?);
                        Some(true)
                    })?,
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
