//! Parquet shards: the strings of column `text`, one row group at a time.
//!
//! The file is never held whole: its footer is read once, then each row group is decoded on its own, behind
//! [`super::parquet_guard`].

use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::io::mmap::MmapBytesReader;
use polars::io::parquet::read::{FileMetadata, ParallelStrategy, ParquetReader};
use polars::prelude::{DataType, SerReader};

use super::cache::Cache;
use super::file_digest::file_digest;
use super::parquet_guard::{MAX_GROUP_BYTES, check_column, check_footer, check_groups, guarded};
use crate::error::{Error, Result};
use crate::hash::Digest;

/// The column that upstream's shards have.
const COLUMN: &str = "text";

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

    /// SHA-256 of the bytes.
    pub(super) fn sha256(&self, cache: &Cache) -> Result<Digest> {
        match self {
            Self::File(path) => file_digest(path, cache),
            Self::Embedded(_, bytes) => Ok(Digest::of(bytes)),
        }
    }

    fn len(&self) -> std::io::Result<u64> {
        match self {
            Self::File(path) => Ok(std::fs::metadata(path)?.len()),
            Self::Embedded(_, bytes) => Ok(bytes.len() as u64),
        }
    }

    fn open(&self) -> Result<Box<dyn MmapBytesReader>> {
        Ok(match self {
            Self::File(path) => Box::new(
                File::open(path)
                    .map_err(|error| Error::input("cannot open a shard").file(path).because(error))?,
            ),
            Self::Embedded(_, bytes) => Box::new(Cursor::new(*bytes)),
        })
    }
}

/// A parquet file whose footer has been read and checked.
pub(super) struct ParquetShard {
    bytes: Bytes,
    metadata: Arc<FileMetadata>,
}

impl ParquetShard {
    /// Reads and checks the footer.
    pub(super) fn open(bytes: Bytes) -> Result<Self> {
        let bad = |what: &str| Error::input(what).file(bytes.name());
        if let Bytes::File(path) = &bytes {
            let found = std::fs::metadata(path)
                .map_err(|error| bad("cannot open a shard").because(error).help("check data.shards"))?;
            if found.is_dir() {
                return Err(bad("a shard is a directory").expected("a parquet file"));
            }
            if found.len() == 0 {
                return Err(bad("an empty file is not a parquet shard")
                    .expected("a parquet file with a column `text`")
                    .help("download it again"));
            }
        }
        let mut source = bytes.open()?;
        let (metadata, schema) = guarded(|| {
            check_footer(&mut source)?;
            let mut reader = ParquetReader::new(source);
            let metadata = Arc::clone(reader.get_metadata()?);
            Ok((metadata, reader.schema()?))
        })
        .map_err(|cause| not_parquet(&bytes, cause))?;

        let Some(field) = schema.get(COLUMN) else {
            let names: Vec<&str> =
                schema.iter_names().map(polars::prelude::PlSmallStr::as_str).take(8).collect();
            return Err(bad(&format!("a shard has no column `{COLUMN}`, only {}", backticked(&names)))
                .expected(format!("a column `{COLUMN}` of strings, as in upstream's shards")));
        };
        // Of types that this build of polars lacks, decimals among them, it panics.
        let dtype = guarded(|| Ok(DataType::from_arrow_field(field)));
        if dtype != Ok(DataType::String) {
            let found = dtype.map_or_else(|_| format!("{:?}", field.dtype), |dtype| dtype.to_string());
            return Err(bad(&format!("column `{COLUMN}` of a shard holds {found}"))
                .expected(format!("a column `{COLUMN}` of strings")));
        }
        let len = bytes.len().map_err(|error| bad("cannot open a shard").because(error))?;
        check_groups(&metadata, len).map_err(|what| {
            bad("a shard claims a row group of impossible size")
                .because(what)
                .help("the file is damaged: download it again")
        })?;
        Ok(Self { bytes, metadata })
    }

    /// How many row groups it has.
    pub(super) fn groups(&self) -> usize {
        self.metadata.row_groups.len()
    }

    /// Rows of one group.
    pub(super) fn group_len(&self, group: usize) -> usize {
        let Some(group) = self.metadata.row_groups.get(group) else { return 0 };
        group.num_rows()
    }

    /// The documents of one row group, in order.
    pub(super) fn read(&self, group: usize) -> Result<Vec<String>> {
        let bad = |what: String| Error::input(what).file(self.bytes.name());
        let Some(wanted) = self.metadata.row_groups.get(group) else {
            return Err(Error::internal(format!("row group {group} is beyond the shard's end"))
                .file(self.bytes.name()));
        };
        // A footer with this one group: the decoder then looks at nothing else.
        let rows = wanted.num_rows();
        let mut metadata = FileMetadata::clone(&self.metadata);
        metadata.row_groups = vec![wanted.clone()];
        metadata.num_rows = rows;
        let mut source = self.bytes.open()?;
        let documents = guarded(|| {
            let columns: Vec<_> = wanted.columns_under_root_iter(COLUMN).into_iter().flatten().collect();
            let [column] = columns.as_slice() else {
                polars::prelude::polars_bail!(ComputeError: "its column `{COLUMN}` is not one flat column");
            };
            check_column(&mut source, column.byte_range(), column.compression() as i32, rows)?;
            let mut reader = ParquetReader::new(source)
                .with_columns(Some(vec![COLUMN.to_owned()]))
                .read_parallel(ParallelStrategy::None);
            reader.set_metadata(Arc::new(metadata));
            let frame = reader.finish()?;
            let texts = frame.column(COLUMN)?.str()?;
            // One long entry of a dictionary can stand for any number of rows.
            if texts.iter().flatten().map(str::len).sum::<usize>() > MAX_GROUP_BYTES {
                polars::prelude::polars_bail!(ComputeError: "its texts are longer than {MAX_GROUP_BYTES} bytes");
            }
            let texts: Vec<Option<String>> = texts.iter().map(|text| text.map(str::to_owned)).collect();
            Ok(texts)
        })
        .map_err(|cause| {
            bad(format!("cannot read row group {group} of a shard"))
                .because(cause)
                .help("the file is damaged: download it again")
        })?;
        if documents.len() != rows {
            return Err(bad(format!("row group {group} holds {} of its {rows} rows", documents.len()))
                .help("the file is damaged: download it again"));
        }
        documents
            .into_iter()
            .enumerate()
            .map(|(row, text)| {
                text.ok_or_else(|| {
                    bad(format!("row {row} of row group {group} is null")).expected("a string in every row")
                })
            })
            .collect()
    }
}

/// Whether a file is a whole parquet file with a column of texts, by its two ends and its footer.
///
/// # Errors
/// Says what it is instead.
pub(crate) fn check_shard(path: &Path) -> Result<()> {
    let shard = ParquetShard::open(Bytes::File(path.to_owned()))?;
    if starts_as_parquet(path) {
        return Ok(());
    }
    // The footer alone decides what a reader finds; a file with another beginning is still not what was written.
    Err(not_parquet(&shard.bytes, "it does not begin like one".to_owned()))
}

fn backticked(names: &[&str]) -> String {
    if names.is_empty() {
        return "none at all".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn not_parquet(bytes: &Bytes, cause: String) -> Error {
    let error = Error::input("a shard is not a whole parquet file").file(bytes.name());
    let whole = match bytes {
        Bytes::File(path) => starts_as_parquet(path),
        Bytes::Embedded(..) => true,
    };
    if whole {
        error.because(cause).help("it begins like one but is cut short or damaged: download it again")
    } else {
        error.because(cause).expected(
            "a parquet file with a column `text`; text files are named .txt or otherwise, not .parquet",
        )
    }
}

fn starts_as_parquet(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"PAR1"
}
