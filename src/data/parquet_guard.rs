//! Polars' parquet decoder behind a guard.
//!
//! The decoder is written for files that are what they say. Of others, some make it panic: [`guarded`] turns that
//! into an error. Some make it reserve memory by a number that nothing stands behind, which ends the process and
//! cannot be caught: so what a footer and the page headers claim is held against the file's length before.

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use polars::io::parquet::read::{FileMetadata, ParallelStrategy, ParquetReader};
use polars::prelude::{DataFrame, PolarsResult, SerReader as _, polars_bail, polars_err};

use super::parquet_pages;
use super::parquet_schema::FILE;
use super::thrift::Thrift;
use crate::caught_panics::caught;

/// Row groups larger than this, uncompressed, are taken for damage: upstream's hold a few megabytes.
const MAX_GROUP_BYTES: usize = 4 << 30;

/// Rows that a group may have however short the file is: runs of equal values take next to no room.
const FREE_ROWS: u64 = 1 << 20;

/// The table in the bytes of a parquet file; the error says what is wrong.
pub(crate) fn read_frame(bytes: &[u8]) -> Result<DataFrame, String> {
    guarded(|| {
        check_footer(&mut Cursor::new(bytes))?;
        let mut reader = ParquetReader::new(Cursor::new(bytes));
        let metadata = Arc::clone(reader.get_metadata()?);
        check_groups(&metadata, bytes.len() as u64).map_err(|what| polars_err!(ComputeError: "{what}"))?;
        let mut rows = 0;
        for group in &metadata.row_groups {
            rows += group.num_rows();
            for column in group.parquet_columns() {
                let codec = column.compression() as i32;
                check_column(&mut Cursor::new(bytes), column.byte_range(), codec, group.num_rows())?;
            }
        }
        if rows != metadata.num_rows {
            polars_bail!(ComputeError: "it claims {} rows and holds {rows}", metadata.num_rows);
        }
        reader.read_parallel(ParallelStrategy::None).finish()
    })
}

/// Checks that the footer is one before the decoder reserves memory by the lengths of its lists. Where there is no
/// footer at all, that is left to the decoder, which says so.
fn check_footer(file: &mut (impl Read + Seek)) -> PolarsResult<()> {
    // The length of the footer, then the magic.
    const END: u64 = 8;
    let size = file.seek(SeekFrom::End(0))?;
    let mut len = [0; 4];
    if size >= END {
        file.seek(SeekFrom::Start(size - END))?;
        file.read_exact(&mut len)?;
    }
    let len = u64::from(u32::from_le_bytes(len));
    if size < END || len > size - END {
        return Ok(());
    }
    let mut footer = Vec::new();
    file.seek(SeekFrom::Start(size - END - len))?;
    file.take(len).read_to_end(&mut footer)?;
    if Thrift::new(&footer).conforms(FILE, 0).is_none() {
        polars_bail!(ComputeError: "its footer is not that of a parquet file");
    }
    Ok(())
}

/// Checks what the footer says of its row groups against the length of the file.
fn check_groups(metadata: &FileMetadata, file: u64) -> Result<(), String> {
    for group in &metadata.row_groups {
        let (rows, bytes) = (group.num_rows(), group.total_byte_size());
        // A value takes a bit at least, unless it is one of a run.
        if rows as u64 > FREE_ROWS.max(file.saturating_mul(8)) || rows > u32::MAX as usize {
            return Err(format!("a row group claims {rows} rows in a file of {file} bytes"));
        }
        if bytes > MAX_GROUP_BYTES {
            return Err(format!("a row group claims {bytes} bytes"));
        }
    }
    Ok(())
}

/// Checks the pages in `chunk`, a range of bytes of `file`, of a flat column with `rows` rows; `codec` is Parquet's
/// number of its compression.
fn check_column(
    file: &mut (impl Read + Seek),
    chunk: Range<u64>,
    codec: i32,
    rows: usize,
) -> PolarsResult<()> {
    parquet_pages::check(file, chunk, rows, expansion(codec))
        .map_err(|what| polars_err!(ComputeError: "{what}"))
}

/// How many bytes one byte can unpack to at most, by `CompressionCodec` of parquet.thrift.
fn expansion(codec: i32) -> u64 {
    match codec {
        0 => 1,       // uncompressed
        1 => 32,      // Snappy: 64 bytes take three
        2 => 1100,    // gzip
        5 | 7 => 256, // LZ4
        _ => 1 << 15, // Zstandard: a run of 128 KiB takes four bytes
    }
}

/// Runs a call into polars; an error or a panic in it comes back as its message. Nothing of ours is borrowed mutably
/// across it.
fn guarded<T>(call: impl FnOnce() -> PolarsResult<T>) -> Result<T, String> {
    match caught(|_| true, call) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the decoder gave up on damaged data".to_owned()),
    }
}
