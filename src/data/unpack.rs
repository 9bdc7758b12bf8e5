//! Compressed bytes: pages of parquet, and whole files.
//!
//! A length that is only claimed reserves no memory: what unpacks as a stream grows as it goes and stops at the claim,
//! what unpacks at once is held against the most that its format can make of its bytes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use polars_parquet::parquet::compression::{Compression, DecompressionContext, decompress};

use super::shard_kind::Compressed;
use crate::caught_panics::caught;

/// Bytes that a page may unpack to however short it is.
const SLACK: u64 = 1 << 20;

/// Log2 of the most history that a zstd stream may refer to: what `zstd` itself unpacks without being asked to.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Bytes read from a file at once.
const BUFFER: usize = 1 << 18;

/// The bytes of a page, at most the first `wanted` of them; `codec` is `CompressionCodec` of parquet.thrift and
/// `whole` what the page claims to unpack to.
///
/// # Errors
/// Says what is wrong with them.
pub(super) fn page(codec: i64, bytes: Vec<u8>, whole: usize, wanted: usize) -> Result<Vec<u8>, String> {
    let wanted = wanted.min(whole);
    let unpacked = match codec {
        0 => bytes,
        1 => block(Compression::Snappy, &bytes, whole, 32)?, // 64 bytes take three
        2 if bytes.first() == Some(&0x78) => stream(flate2::read::ZlibDecoder::new(&*bytes), wanted)?,
        2 => stream(flate2::read::MultiGzDecoder::new(&*bytes), wanted)?,
        4 => stream(brotli::Decompressor::new(&*bytes, 4096), wanted)?,
        5 => block(Compression::Lz4, &bytes, whole, 256)?,
        6 => stream(zstd::Decoder::with_buffer(&*bytes).map_err(|error| error.to_string())?, wanted)?,
        7 => block(Compression::Lz4Raw, &bytes, whole, 256)?,
        3 => return Err("its compression, LZO, is not read".to_owned()),
        other => return Err(format!("its compression has the unknown number {other}")),
    };
    if unpacked.len() < wanted || (wanted == whole && unpacked.len() > whole) {
        return Err(format!("a page unpacks to {} bytes, not {whole}", unpacked.len()));
    }
    Ok(unpacked)
}

/// At most the first `wanted` bytes and one more, which tells that there are too many.
fn stream(source: impl Read, wanted: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = source.take(wanted as u64 + 1).read_to_end(&mut bytes);
    // What follows the page's bytes, padding or a cut end, does not matter.
    match read {
        Err(error) if bytes.len() < wanted => Err(format!("a page does not unpack: {error}")),
        _ => Ok(bytes),
    }
}

/// Everything at once, where a byte unpacks to `expansion` bytes at most.
fn block(codec: Compression, bytes: &[u8], whole: usize, expansion: u64) -> Result<Vec<u8>, String> {
    if whole as u64 > (bytes.len() as u64).saturating_mul(expansion).max(SLACK) {
        return Err(format!("a page of {} bytes claims to unpack to {whole}", bytes.len()));
    }
    let mut unpacked = vec![0; whole];
    let outcome =
        caught(|_| true, || decompress(codec, bytes, &mut unpacked, &mut DecompressionContext::Unset));
    match outcome {
        Ok(Ok(())) => Ok(unpacked),
        Ok(Err(error)) => Err(format!("a page does not unpack: {error}")),
        Err(_) => Err("a page does not unpack".to_owned()),
    }
}

/// The bytes of a file from the one at `at` on.
///
/// # Errors
/// A file that cannot be opened.
pub(super) fn open_at(path: &Path, at: u64) -> std::io::Result<Box<dyn BufRead + Send>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, file)))
}

/// The unpacked bytes of a file, as a stream of bounded memory; members and frames may follow each other.
///
/// # Errors
/// A file that cannot be opened.
pub(super) fn open(path: &Path, compressed: Compressed) -> std::io::Result<Box<dyn BufRead + Send>> {
    let file = BufReader::with_capacity(BUFFER, File::open(path)?);
    Ok(match compressed {
        Compressed::No => Box::new(file),
        Compressed::Gzip => {
            Box::new(BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(file)))
        }
        Compressed::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(file)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_it_claims_or_refused() {
        let packed = zstd::encode_all(&vec![b'a'; 5000][..], 3).unwrap();
        assert_eq!(page(6, packed.clone(), 5000, 5000).unwrap(), vec![b'a'; 5000]);
        assert!(page(6, packed.clone(), 5000, 10).unwrap().starts_with(&[b'a'; 10]));
        for claim in [4999, 5001, usize::MAX - 1] {
            assert!(page(6, packed.clone(), claim, claim).is_err(), "{claim}");
        }
        // Whatever the claim, nothing is reserved by it.
        for codec in [1, 2, 3, 4, 5, 7, 8] {
            assert!(page(codec, vec![1, 2, 3], 1 << 40, 1 << 40).is_err(), "{codec}");
        }
    }
}
