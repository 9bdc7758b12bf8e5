//! Parquet shards: the texts of one column, one row group at a time.
//!
//! The file is never held whole: its footer is read once, then each row group on its own. Whatever a writer makes of
//! texts is read, dictionaries and all encodings and compressions of the format among them, since only the column's
//! physical type counts: what a writer's own schema beside it calls the column does not matter.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::cache::Cache;
use super::config::{COLUMN, Nulls};
use super::file_digest::file_digest_told;
use super::parquet_column::{self, ColumnError};
use super::parquet_footer::{Footer, FooterError, Group};
use super::shard_kind::{backticked, head, looks_like};
use crate::error::{Error, Result};
use crate::hash::Digest;
use crate::manifest::nearest;

/// Where a shard's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Bytes {
    /// In a file.
    File(PathBuf),
    /// In the program.
    Embedded(&'static str, &'static [u8]),
}

impl Bytes {
    /// What messages call it.
    pub(super) fn name(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Embedded(name, _) => Path::new(name),
        }
    }

    /// SHA-256 of the bytes; `told` hears how many of them were read.
    pub(super) fn sha256(&self, cache: &Cache, told: &dyn Fn(u64)) -> Result<Digest> {
        match self {
            Self::File(path) => file_digest_told(path, cache, told),
            Self::Embedded(_, bytes) => Ok(Digest::of(bytes)),
        }
    }

    fn open(&self) -> Result<Source> {
        Ok(match self {
            Self::File(path) => Source::File(
                File::open(path)
                    .map_err(|error| Error::input("cannot open a shard").file(path).because(error))?,
            ),
            Self::Embedded(_, bytes) => Source::Embedded(Cursor::new(*bytes)),
        })
    }
}

/// Bytes to read and seek in.
enum Source {
    File(File),
    Embedded(Cursor<&'static [u8]>),
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Embedded(bytes) => bytes.read(buffer),
        }
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File(file) => file.seek(to),
            Self::Embedded(bytes) => bytes.seek(to),
        }
    }
}

/// An open parquet file whose footer has been read and checked.
pub(super) struct ParquetShard {
    bytes: Bytes,
    source: Mutex<Source>,
    footer: Arc<Footer>,
    column: String,
}

/// The length of the footer, then the magic: what a file ends with.
const END: u64 = 8;

/// The footer of a shard, and what it says of its column.
///
/// # Errors
/// Says what the file is where it is no shard with such a column of texts.
pub(super) fn read_footer(bytes: &Bytes, column: &str) -> Result<Footer> {
    let bad = |what: &str| Error::input(what).file(bytes.name());
    let unreadable = |error| bad("cannot read a shard").because(error);
    let mut source = bytes.open()?;
    let size = source.seek(SeekFrom::End(0)).map_err(unreadable)?;
    if size == 0 {
        return Err(bad("an empty file is no shard").help("download it again"));
    }
    let mut end = [0; END as usize];
    if size >= END {
        source
            .seek(SeekFrom::Start(size - END))
            .and_then(|_| source.read_exact(&mut end))
            .map_err(unreadable)?;
    }
    let len = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    match &end[4..] {
        b"PAR1" if len <= size - END => {}
        b"PARE" => {
            return Err(bad("a shard is an encrypted parquet file").expected("one that is not encrypted"));
        }
        _ => return Err(not_parquet(bytes)),
    }
    let mut footer = Vec::new();
    source
        .seek(SeekFrom::Start(size - END - len))
        .and_then(|_| source.take(len).read_to_end(&mut footer))
        .map_err(unreadable)?;
    Footer::read(&footer, size, column).map_err(|error| match error {
        FooterError::Damaged(what) => bad("the footer of a shard is damaged").because(what).help(AGAIN),
        FooterError::Unread(what) => bad("a parquet file of a kind that is not read")
            .because(what)
            .expected("a file that stands alone"),
        FooterError::Other(what) => bad(&what)
            .expected(format!("a column `{column}` of strings"))
            .help("name the column that holds the texts with data.column"),
        FooterError::NoColumn(names) => {
            let help = nearest(column, names.iter().map(String::as_str)).map_or_else(
                || "name the column that holds the texts with data.column".to_owned(),
                |name| format!("did you mean `data.column = \"{name}\"`?"),
            );
            bad(&format!("a shard has no column `{column}`, only {}", backticked(&names)))
                .expected(format!("a column `{column}` of strings"))
                .help(help)
        }
    })
}

const AGAIN: &str = "the file is damaged: download it again";

impl ParquetShard {
    /// Opens a file with this footer.
    pub(super) fn open(bytes: Bytes, footer: Arc<Footer>, column: &str) -> Result<Self> {
        let source = Mutex::new(bytes.open()?);
        Ok(Self { bytes, source, footer, column: column.to_owned() })
    }

    /// Null rows of every group. Of a footer that says nothing of them, the pages are asked.
    pub(super) fn nulls(&self) -> Result<Vec<u64>> {
        let groups = self.footer.groups.iter().enumerate();
        groups
            .map(|(at, group)| match group.nulls {
                _ if !self.footer.optional => Ok(0),
                Some(nulls) => Ok(nulls),
                None => self.in_group(at, group, |source| parquet_column::count_nulls(source, group)),
            })
            .collect()
    }

    /// The documents of one row group, in order.
    pub(super) fn read(&self, group: usize, nulls: Nulls) -> Result<Vec<String>> {
        self.read_some(group, nulls, usize::MAX)
    }

    /// Its first documents: whole pages, until they have so many bytes.
    pub(super) fn read_some(&self, group: usize, nulls: Nulls, bytes: usize) -> Result<Vec<String>> {
        let Some(wanted) = self.footer.groups.get(group) else {
            return Err(Error::internal(format!("row group {group} is beyond the shard's end"))
                .file(self.bytes.name()));
        };
        let optional = self.footer.optional;
        self.in_group(group, wanted, |source| parquet_column::read(source, wanted, optional, nulls, bytes))
    }

    fn in_group<T>(
        &self,
        at: usize,
        group: &Group,
        read: impl FnOnce(&mut Source) -> std::result::Result<T, ColumnError>,
    ) -> Result<T> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = |what: String| Error::input(what).file(self.bytes.name());
        let column = &self.column;
        read(&mut source).map_err(|error| match error {
            ColumnError::Damaged(what) => {
                bad(format!("cannot read row group {at} of a shard")).because(what).help(AGAIN)
            }
            ColumnError::Unread(what) => bad(format!("cannot read row group {at} of a shard"))
                .because(what)
                .help("write the file again, with pyarrow or polars as they are"),
            ColumnError::Null(row) => null_rows(&self.bytes, column, at, 1)
                .because(format!("row {row} of the group's {}", group.rows)),
            ColumnError::NotText(row) => {
                bad(format!("column `{column}` is not UTF-8 in row {row} of row group {at}"))
                    .expected("texts in UTF-8")
            }
        })
    }
}

/// Whether a file is a whole parquet file with upstream's column of texts, by its two ends and its footer.
///
/// # Errors
/// Says what it is instead.
pub(crate) fn check_shard(path: &Path) -> Result<()> {
    let bytes = Bytes::File(path.to_owned());
    read_footer(&bytes, COLUMN)?;
    // The footer alone decides what a reader finds; a file with another beginning is still not what was written.
    if head(path).starts_with(b"PAR1") { Ok(()) } else { Err(not_parquet(&bytes)) }
}

/// The error of rows without a text.
pub(super) fn null_rows(bytes: &Bytes, column: &str, group: usize, count: u64) -> Error {
    let rows = if count == 1 { "row is" } else { "rows are" };
    Error::input(format!("in row group {group} of a shard {count} {rows} null in column `{column}`"))
        .file(bytes.name())
        .expected("a string in every row")
        .help("`data.nulls = \"skip\"` passes over such rows")
}

/// The error of a file that does not end as parquet does, named for what it is.
fn not_parquet(bytes: &Bytes) -> Error {
    let error = Error::input("a shard is not a whole parquet file").file(bytes.name());
    let found = match bytes {
        Bytes::File(path) => looks_like(&head(path)),
        Bytes::Embedded(..) => None,
    };
    match found {
        Some("parquet") => error.help("it begins like one but is cut short or damaged: download it again"),
        Some("JSON") => {
            error.expected("a parquet file; it begins like JSON").help("JSON lines are named .jsonl")
        }
        Some(kind) => error.expected(format!("a parquet file; by its first bytes it is {kind}")),
        None => error.expected("a parquet file; text files are named .txt, JSON lines .jsonl"),
    }
}
