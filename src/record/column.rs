//! Tables whose columns are documented where they are defined.
//!
//! `table!` makes a row type, its documented columns, and the way to and from parquet from one list, so that
//! the schema, the documentation and the code cannot disagree.

use std::path::{Path, PathBuf};

use polars::prelude::{
    Column as PolarsColumn, DataFrame, KeyValueMetadata, NamedFrom as _, ParquetWriter, PolarsError,
    PolarsResult, Series,
};

use super::seal;
use crate::data::read_frame;
use crate::error::Error;
use crate::files::{FileError, Files};

/// What one column of a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type, as polars calls it.
    pub kind: &'static str,
    /// Whether it may be empty.
    pub optional: bool,
    /// Its unit; empty where it has none.
    pub unit: &'static str,
    /// Whether it was measured: such a column differs from run to run of the same thing.
    pub measured: bool,
    /// What it means.
    pub meaning: &'static str,
}

/// A row of a documented table.
pub trait Row: Sized {
    /// The file's name.
    const FILE: &'static str;
    /// What one row is.
    const ABOUT: &'static str;
    /// Its columns, in order.
    const COLUMNS: &'static [Column];

    /// The table of these rows.
    fn to_frame(rows: &[Self]) -> PolarsResult<DataFrame>;

    /// The rows of a table that has these columns (further ones are passed over); the error says what is wrong.
    fn from_frame(frame: &DataFrame) -> Result<Vec<Self>, String>;
}

/// Why a table could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is no parquet, or not this table.
    #[error("the table `{}` cannot be read: {what}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<TableError> for Error {
    fn from(error: TableError) -> Self {
        match error {
            TableError::File(error) => error.into(),
            TableError::Malformed { .. } => {
                Self::input(error.to_string()).help(
                    "tables are made from results: remove it, and the next start of the experiment makes it again",
                )
            }
        }
    }
}

/// Rows from which on a part of a table is compressed and let go of. Smaller tables are one row group, as all tables
/// were before there were parts.
const PART: usize = 1 << 16;

/// Writes a table, atomically, with a checksum over the whole file. The same rows give the same bytes.
pub fn write_table<R: Row>(files: &Files, path: &Path, rows: &[R]) -> Result<(), TableError> {
    sealed(files, path, |blank| parquet([rows], Some(blank)))
}

/// The same of a table that is made part by part, such as run by run: only few of its rows are in memory at a time.
pub fn write_table_of<R: Row>(
    files: &Files,
    path: &Path,
    parts: impl Iterator<Item = Vec<R>>,
) -> Result<(), TableError> {
    let mut parts = parts.fuse();
    let mut gathered = std::iter::from_fn(|| {
        let mut rows = parts.next()?;
        while rows.len() < PART {
            let Some(mut more) = parts.next() else { break };
            rows.append(&mut more);
        }
        Some(rows)
    });
    sealed(files, path, |blank| parquet(&mut gathered, Some(blank)))
}

fn sealed(
    files: &Files,
    path: &Path,
    bytes: impl FnOnce(KeyValueMetadata) -> Result<Vec<u8>, String>,
) -> Result<(), TableError> {
    let blank = KeyValueMetadata::from_static(vec![(seal::KEY.to_owned(), seal::blank())]);
    let mut bytes = bytes(blank).map_err(|what| TableError::Malformed { path: path.to_owned(), what })?;
    seal::seal(&mut bytes);
    Ok(files.write(path, &bytes)?)
}

/// The bytes of a table's parquet file, without a checksum: for files whose hash is kept elsewhere.
pub fn table_bytes<R: Row>(rows: &[R]) -> Result<Vec<u8>, String> {
    parquet([rows], None)
}

fn parquet<R: Row, P: AsRef<[R]>>(
    parts: impl IntoIterator<Item = P>,
    metadata: Option<KeyValueMetadata>,
) -> Result<Vec<u8>, String> {
    let said = |error: PolarsError| error.to_string();
    let mut bytes = Vec::new();
    let schema = R::to_frame(&[]).map_err(said)?;
    let writer = ParquetWriter::new(&mut bytes).set_parallel(false).with_key_value_metadata(metadata);
    let mut writer = writer.batched(schema.schema()).map_err(said)?;
    for part in parts {
        // A part may be larger than a row group should be: a single run has its rows at once.
        for rows in part.as_ref().chunks(ROW_GROUP) {
            writer.write_batch(&R::to_frame(rows).map_err(said)?).map_err(said)?;
        }
    }
    writer.finish().map_err(said)?;
    drop(writer);
    Ok(bytes)
}

/// Most rows of a row group: polars' own number.
const ROW_GROUP: usize = 512 * 512;

/// Reads a table that `write_table` wrote. A file of which any bit changed since is refused before it is parsed.
pub fn read_table<R: Row>(files: &Files, path: &Path) -> Result<Vec<R>, TableError> {
    let bytes = files.read(path)?;
    let rows = seal::check(&bytes).and_then(|()| table_rows(&bytes));
    rows.map_err(|what| TableError::Malformed { path: path.to_owned(), what })
}

/// The rows in the bytes of a parquet file; the error says what is wrong.
pub fn table_rows<R: Row>(bytes: &[u8]) -> Result<Vec<R>, String> {
    R::from_frame(&read_frame(bytes)?)
}

/// The columns of all tables, for the documentation.
#[cfg(test)]
pub fn schemas_markdown() -> String {
    use super::tables::{DocumentRow, EvalRow, LedgerRow, RunRow, ScorecardRow, StepRow};
    [
        schema::<RunRow>(),
        schema::<StepRow>(),
        schema::<EvalRow>(),
        schema::<DocumentRow>(),
        schema::<ScorecardRow>(),
        schema::<LedgerRow>(),
    ]
    .join("\n")
}

#[cfg(test)]
fn schema<R: Row>() -> String {
    let mut lines = vec![format!("### `{}`\n\n{}\n", R::FILE, R::ABOUT)];
    lines.push("| column | type | unit | meaning |\n|---|---|---|---|".to_owned());
    lines.extend(R::COLUMNS.iter().map(|column| {
        let optional = if column.optional { ", may be empty" } else { "" };
        let measured = if column.measured { " *(measured)*" } else { "" };
        let (name, kind, unit, meaning) = (column.name, column.kind, column.unit, column.meaning);
        format!("| `{name}` | {kind}{optional} | {unit} | {meaning}{measured} |")
    }));
    lines.join("\n") + "\n"
}

/// A type that fills a column.
pub(super) trait Cell: Sized + Clone {
    const KIND: &'static str;
    const OPTIONAL: bool;
    fn column(name: &str, values: Vec<Self>) -> PolarsColumn;
    fn read(frame: &DataFrame, name: &str) -> Result<std::vec::IntoIter<Self>, String>;
}

macro_rules! cell {
    ($type:ty, $kind:literal, $get:ident, $convert:expr) => {
        impl Cell for $type {
            const KIND: &'static str = $kind;
            const OPTIONAL: bool = false;

            fn column(name: &str, values: Vec<Self>) -> PolarsColumn {
                Series::new(name.into(), values).into()
            }

            fn read(frame: &DataFrame, name: &str) -> Result<std::vec::IntoIter<Self>, String> {
                frame.column(name).map_err(|_| format!("it has no column `{name}`"))?;
                let values: Option<Vec<Self>> = <Option<$type>>::read(frame, name)?.collect();
                values.map(Vec::into_iter).ok_or_else(|| format!("column `{name}` has empty fields"))
            }
        }

        impl Cell for Option<$type> {
            const KIND: &'static str = $kind;
            const OPTIONAL: bool = true;

            fn column(name: &str, values: Vec<Self>) -> PolarsColumn {
                Series::new(name.into(), values).into()
            }

            fn read(frame: &DataFrame, name: &str) -> Result<std::vec::IntoIter<Self>, String> {
                // Versions before a column was there left nothing in it.
                let Ok(column) = frame.column(name) else {
                    return Ok(vec![None; frame.height()].into_iter());
                };
                let found = column.$get().map_err(|_| {
                    format!("column `{name}` has type {}; expected {}", column.dtype(), $kind)
                })?;
                Ok(found.iter().map(|value| value.map($convert)).collect::<Vec<_>>().into_iter())
            }
        }
    };
}

cell!(String, "str", str, str::to_owned);
cell!(bool, "bool", bool, |value| value);
cell!(u64, "u64", u64, |value| value);
cell!(f32, "f32", f32, |value| value);
cell!(f64, "f64", f64, |value| value);

/// Defines a row type with documented columns: name, type, unit, `exact` or `measured`, meaning.
macro_rules! table {
    (
        $row:ident, $file:literal, $about:literal,
        $($name:ident : $type:ty, $unit:literal, $nature:ident, $meaning:literal;)*
    ) => {
        #[doc = $about]
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $row {
            $(#[doc = $meaning] pub $name: $type,)*
        }

        impl $crate::record::column::Row for $row {
            const FILE: &'static str = $file;
            const ABOUT: &'static str = $about;
            const COLUMNS: &'static [$crate::record::column::Column] = &[$(
                $crate::record::column::Column {
                    name: stringify!($name),
                    kind: <$type as $crate::record::column::Cell>::KIND,
                    optional: <$type as $crate::record::column::Cell>::OPTIONAL,
                    unit: $unit,
                    measured: table!(@ $nature),
                    meaning: $meaning,
                },
            )*];

            fn to_frame(rows: &[Self]) -> polars::prelude::PolarsResult<polars::prelude::DataFrame> {
                use $crate::record::column::Cell;
                polars::prelude::DataFrame::new(rows.len(), vec![$(
                    <$type as Cell>::column(stringify!($name), rows.iter().map(|row| row.$name.clone()).collect()),
                )*])
            }

            fn from_frame(frame: &polars::prelude::DataFrame) -> Result<Vec<Self>, String> {
                use $crate::record::column::Cell;
                $(let mut $name = <$type as Cell>::read(frame, stringify!($name))?;)*
                let row = || Some(Self { $($name: $name.next()?,)* });
                Ok(std::iter::from_fn(row).collect())
            }
        }
    };
    (@ exact) => { false };
    (@ measured) => { true };
}
pub(super) use table;
