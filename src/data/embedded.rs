//! The corpus that comes with the program: Shakespeare, in upstream's shard format. See `embedded/README.md`.

use super::parquet::Bytes;

/// What a manifest calls it.
pub const EMBEDDED: &str = "embedded";

/// Its shards, the last one for validation.
pub(super) fn shards() -> [Bytes; 2] {
    [
        Bytes::Embedded("embedded/shard_00000.parquet", include_bytes!("embedded/shard_00000.parquet")),
        Bytes::Embedded("embedded/shard_00001.parquet", include_bytes!("embedded/shard_00001.parquet")),
    ]
}
