//! The footer of a parquet file (parquet.thrift, `FileMetaData`), as far as one column of texts needs it.
//!
//! Read field by field: nothing is reserved by a number in it, and a field of another type than it should have is
//! passed over. Whatever is impossible is found here, before a page is looked at.

use super::thrift::Thrift;

/// Rows that a group may have however short the file is: runs of equal values take next to no room.
const FREE_ROWS: u64 = 1 << 26;

/// Where the texts of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    /// Whether a row may be null.
    pub(super) optional: bool,
    /// The row groups, in order.
    pub(super) groups: Vec<Group>,
}

/// The column's part of a row group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Rows, null ones among them.
    pub(super) rows: usize,
    /// First byte of its pages in the file, and the one after the last.
    pub(super) bytes: std::ops::Range<u64>,
    /// `CompressionCodec`.
    pub(super) codec: i64,
    /// Null rows, where the footer says so.
    pub(super) nulls: Option<u64>,
    /// UTF-8 bytes of its texts; none where the footer cannot tell.
    pub(super) text_bytes: Option<u64>,
}

/// Why a footer has no such column of texts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FooterError {
    /// It is not what a whole file ends with.
    Damaged(String),
    /// There are only these columns.
    NoColumn(Vec<String>),
    /// The column is something else.
    Other(String),
    /// It is a sound file of a kind that is not read.
    Unread(String),
}

/// One `SchemaElement`.
#[derive(Debug, Default)]
struct Element {
    kind: Option<i64>,
    repetition: Option<i64>,
    name: String,
    children: i64,
    converted: Option<i64>,
    /// The member of the `LogicalType` union.
    logical: Option<i16>,
}

impl Footer {
    /// Reads the footer in `bytes` of a file of `file` bytes and finds its column `column`.
    ///
    /// # Errors
    /// See [`FooterError`].
    pub(super) fn read(bytes: &[u8], file: u64, column: &str) -> Result<Self, FooterError> {
        let damaged = || FooterError::Damaged("its footer is not that of a parquet file".to_owned());
        let mut schema = Vec::new();
        Thrift::new(bytes)
            .structure(0, |thrift, id, kind| {
                if (id, kind) != (2, 9) {
                    return Some(false);
                }
                thrift.elements(|thrift, _| {
                    schema.push(element(thrift)?);
                    Some(())
                })?;
                Some(true)
            })
            .ok_or_else(damaged)?;
        let (leaf, optional) = find(&schema, column)?;
        let mut groups = Vec::new();
        let mut wrong = None;
        Thrift::new(bytes)
            .structure(0, |thrift, id, kind| {
                match (id, kind) {
                    (4, 9) => thrift.elements(|thrift, _| match group(thrift, leaf)? {
                        Ok(group) => {
                            groups.push(group);
                            Some(())
                        }
                        Err(error) => {
                            wrong = Some(error);
                            None
                        }
                    })?,
                    // Column keys, or the footer's own.
                    (8 | 9, _) => {
                        wrong = Some(FooterError::Unread("it is encrypted".to_owned()));
                        return None;
                    }
                    _ => return Some(false),
                }
                Some(true)
            })
            .ok_or_else(|| wrong.take().unwrap_or_else(damaged))?;
        for group in &groups {
            let Group { rows, bytes, .. } = group;
            if bytes.end > file || bytes.start > bytes.end {
                let what = format!("a column lies at bytes {bytes:?} of a file of {file}");
                return Err(FooterError::Damaged(what));
            }
            // A value takes a bit at least, unless it is one of a run.
            if *rows as u64 > FREE_ROWS.max(file.saturating_mul(8)) || *rows > u32::MAX as usize {
                let what = format!("a row group claims {rows} rows in a file of {file} bytes");
                return Err(FooterError::Damaged(what));
            }
        }
        Ok(Self { optional, groups })
    }
}

fn element(thrift: &mut Thrift<'_>) -> Option<Element> {
    let mut element = Element::default();
    thrift.structure(1, |thrift, id, kind| {
        match (id, kind) {
            (1, 4..=6) => element.kind = Some(thrift.zigzag()?),
            (3, 4..=6) => element.repetition = Some(thrift.zigzag()?),
            (4, 8) => element.name = String::from_utf8_lossy(thrift.binary()?).into_owned(),
            (5, 4..=6) => element.children = thrift.zigzag()?,
            (6, 4..=6) => element.converted = Some(thrift.zigzag()?),
            (10, 12) => thrift.structure(2, |_, id, _| {
                element.logical = Some(id);
                Some(false)
            })?,
            _ => return Some(false),
        }
        Some(true)
    })?;
    Some(element)
}

/// Which leaf of the schema the column is, and whether it may be null.
fn find(schema: &[Element], column: &str) -> Result<(usize, bool), FooterError> {
    let damaged = || FooterError::Damaged("its footer has no whole schema".to_owned());
    let root = schema.first().ok_or_else(damaged)?;
    let (mut at, mut leaf) = (1, 0);
    let mut names = Vec::new();
    let mut found: Option<(usize, usize)> = None;
    for _ in 0..root.children {
        let top = schema.get(at).ok_or_else(damaged)?;
        if top.name == column && found.replace((at, leaf)).is_some() {
            return Err(FooterError::Other(format!("it has two columns `{column}`")));
        }
        names.push(top.name.clone());
        // The element and all below it, depth first.
        let mut open = 1_i64;
        while open > 0 {
            let next = schema.get(at).ok_or_else(damaged)?;
            let children = if next.kind.is_some() { 0 } else { next.children.max(0) };
            open = open.checked_sub(1).and_then(|open| open.checked_add(children)).ok_or_else(damaged)?;
            leaf += usize::from(next.kind.is_some());
            at += 1;
        }
    }
    let Some((at, leaf)) = found else { return Err(FooterError::NoColumn(names)) };
    let element = schema.get(at).ok_or_else(damaged)?;
    match holds(element) {
        None => Ok((leaf, element.repetition == Some(1))),
        Some(what) => Err(FooterError::Other(format!("column `{column}` of a shard holds {what}"))),
    }
}

/// What a column holds instead of texts; none where it holds texts.
fn holds(element: &Element) -> Option<String> {
    let Some(kind) = element.kind else {
        return Some(match (element.converted, element.logical) {
            (Some(3), _) | (_, Some(3)) => "lists".to_owned(),
            (Some(1 | 2), _) | (_, Some(2)) => "maps".to_owned(),
            _ => "structs".to_owned(),
        });
    };
    if element.repetition == Some(2) {
        return Some("lists".to_owned());
    }
    let logical = match (element.logical, element.converted) {
        (Some(logical), _) => Some(logical),
        (None, Some(0)) => Some(1),
        (None, Some(4)) => Some(4),
        (None, Some(19)) => Some(12),
        _ => None,
    };
    let what = match (kind, logical) {
        // STRING, ENUM and JSON are UTF-8.
        (6, Some(1 | 4 | 12)) => return None,
        (_, Some(11)) => "nulls alone",
        (_, Some(5)) => "decimals",
        (_, Some(6)) => "dates",
        (_, Some(7)) => "times of day",
        (_, Some(8)) => "timestamps",
        (_, Some(14)) => "UUIDs",
        (_, Some(15)) => "16-bit floats",
        (6, Some(13)) => "BSON",
        (6, _) => "binary: its bytes are not marked as text",
        (7, _) => "binary of a fixed length",
        (0, _) => "bool",
        (1, _) => "i32",
        (2, _) => "i64",
        (3, _) => "timestamps",
        (4, _) => "f32",
        (5, _) => "f64",
        _ => "values of an unknown type",
    };
    Some(what.to_owned())
}

/// A row group's rows and its leaf `leaf`; none where it is no row group.
fn group(thrift: &mut Thrift<'_>, leaf: usize) -> Option<Result<Group, FooterError>> {
    let (mut rows, mut chunk) = (None, None);
    thrift.structure(1, |thrift, id, kind| {
        match (id, kind) {
            (1, 9) => {
                let mut at = 0;
                thrift.elements(|thrift, _| {
                    let read = column_chunk(thrift)?;
                    if at == leaf {
                        chunk = Some(read);
                    }
                    at += 1;
                    Some(())
                })?;
            }
            (3, 4..=6) => rows = usize::try_from(thrift.zigzag()?).ok(),
            _ => return Some(false),
        }
        Some(true)
    })?;
    let (rows, chunk) = (rows?, chunk?);
    if let Some(what) = chunk.unread() {
        return Some(Err(FooterError::Unread(what)));
    }
    if rows == 0 {
        // Some writers say nothing more of an empty group.
        let (bytes, codec) = (0..0, 0);
        return Some(Ok(Group { rows, bytes, codec, nulls: Some(0), text_bytes: Some(0) }));
    }
    if chunk.values? != rows as i64 {
        let what = format!("a row group of {rows} rows claims {} texts", chunk.values?);
        return Some(Err(FooterError::Damaged(what)));
    }
    let data = chunk.data?;
    // Some writers say 0 where there is no dictionary.
    let start = chunk.dictionary.filter(|&dictionary| dictionary > 0 && dictionary < data).unwrap_or(data);
    let (start, compressed) = (u64::try_from(start).ok()?, u64::try_from(chunk.compressed?).ok()?);
    let nulls = chunk.nulls.and_then(|nulls| u64::try_from(nulls).ok());
    let Some(end) = start.checked_add(compressed) else {
        return Some(Err(FooterError::Damaged("a column lies beyond any file's end".to_owned())));
    };
    let text_bytes = chunk.text_bytes.and_then(|bytes| u64::try_from(bytes).ok());
    Some(Ok(Group { rows, bytes: start..end, codec: chunk.codec?, nulls, text_bytes }))
}

/// One `ColumnChunk`.
#[derive(Debug, Default)]
struct Chunk {
    elsewhere: bool,
    encrypted: bool,
    codec: Option<i64>,
    values: Option<i64>,
    compressed: Option<i64>,
    data: Option<i64>,
    dictionary: Option<i64>,
    nulls: Option<i64>,
    text_bytes: Option<i64>,
}

impl Chunk {
    fn unread(&self) -> Option<String> {
        if self.encrypted {
            Some("its column is encrypted".to_owned())
        } else if self.elsewhere {
            Some("it is an index of other files: its columns are not in it".to_owned())
        } else {
            None
        }
    }
}

fn column_chunk(thrift: &mut Thrift<'_>) -> Option<Chunk> {
    let mut chunk = Chunk::default();
    thrift.structure(2, |thrift, id, kind| {
        match (id, kind) {
            (1, 8) => chunk.elsewhere = !thrift.binary()?.is_empty(),
            (3, 12) => column_metadata(thrift, &mut chunk)?,
            (8 | 9, _) => {
                chunk.encrypted = true;
                return Some(false);
            }
            _ => return Some(false),
        }
        Some(true)
    })?;
    Some(chunk)
}

/// `ColumnMetaData`.
fn column_metadata(thrift: &mut Thrift<'_>, chunk: &mut Chunk) -> Option<()> {
    thrift.structure(3, |thrift, id, kind| {
        match (id, kind) {
            (4, 4..=6) => chunk.codec = Some(thrift.zigzag()?),
            (5, 4..=6) => chunk.values = Some(thrift.zigzag()?),
            (7, 4..=6) => chunk.compressed = Some(thrift.zigzag()?),
            (9, 4..=6) => chunk.data = Some(thrift.zigzag()?),
            (11, 4..=6) => chunk.dictionary = Some(thrift.zigzag()?),
            (12, 12) => thrift.structure(4, |thrift, id, kind| {
                if (id, kind) != (3, 6) {
                    return Some(false);
                }
                chunk.nulls = Some(thrift.zigzag()?);
                Some(true)
            })?,
            // `SizeStatistics`.
            (16, 12) => thrift.structure(4, |thrift, id, kind| {
                if (id, kind) != (1, 6) {
                    return Some(false);
                }
                chunk.text_bytes = Some(thrift.zigzag()?);
                Some(true)
            })?,
            _ => return Some(false),
        }
        Some(true)
    })
}
