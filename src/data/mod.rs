//! Text in, token rows out: shards, tokenizer, packed rows with an exact cursor.
//!
//! ```
//! use nanorun::internals::data::{BatchShape, Cache, Corpus, Loader, Packing, Split, Tokenizer, TokenizerChoice};
//! # fn main() -> nanorun::Result<()> {
//! let cache = Cache::disabled();
//! let corpus = Corpus::embedded()?;
//! let tokenizer = Tokenizer::resolve(&TokenizerChoice::Train { vocab_size: 300 }, &corpus, &cache)?;
//! let shape = BatchShape { packing: Packing::BestFitBos, rows: 2, len: 16 };
//! let mut loader = Loader::start(corpus.split(Split::Train), tokenizer, cache, shape, None)?;
//! let batch = loader.next()?;
//! assert_eq!(batch.inputs.len(), 2 * 16);
//! # Ok(())
//! # }
//! ```

mod appetite;
mod bpe_encode;
mod bpe_train;
mod cache;
mod char_vocab;
pub mod config;
mod content;
mod corpus;
mod cursor;
mod documents;
mod embedded;
mod encode_pool;
mod fast_hash;
mod file_digest;
mod frozen_shards;
mod held_out;
mod json_lines;
mod loader;
mod loader_bytes;
mod packing;
mod parquet;
mod parquet_column;
mod parquet_encodings;
mod parquet_footer;
mod parquet_guard;
mod parquet_page;
mod parquet_pages;
mod parquet_schema;
mod prefetch;
pub mod progress;
mod ranks;
mod row_order;
mod shard;
mod shard_files;
mod shard_kind;
mod span_reader;
mod split;
mod split_pattern;
mod stamp;
mod text;
mod thrift;
mod token_bytes;
mod token_stream;
mod tokenizer;
mod tokenizer_pickle;
mod unicode_classes;
mod word_cache;
mod unpack;

#[cfg(test)]
mod tests;

pub use appetite::Sample;
pub use cache::{Cache, CacheFacts, KindFacts, LimitFrom, Selection};
#[cfg(any(test, feature = "internals"))]
pub use config::Nulls;
pub use config::{DocumentSplit, Packing, Reading, Splits, TokenBytesRule, TokenizerChoice};
pub use content::DataFacts;
pub use corpus::Corpus;
pub use cursor::{Cursor, RankCursor};
pub use documents::{Document, documents_from_bytes, documents_to_bytes};
pub use embedded::EMBEDDED;
pub use encode_pool::EncodePool;
pub use file_digest::file_digest;
pub use frozen_shards::{FrozenShard, FrozenShards};
pub use loader::{BatchShape, Loader, RankTurns};
pub use loader_bytes::LoaderBytes;
#[cfg(any(test, feature = "internals"))]
pub use packing::DocumentStart;
#[cfg(test)]
pub use packing::IGNORED;
pub use packing::{Batch, Packer};
pub(crate) use parquet::check_shard;
pub(crate) use parquet_guard::read_frame;
pub use row_order::RowOrder;
pub(crate) use row_order::documents_by_rank;
pub use shard_files::{Listing, missing};
pub(crate) use shard_kind::SHARDS;
pub use split::{Split, SplitSource};
pub use split_pattern::SPLIT_PATTERN;
#[cfg(any(test, feature = "internals"))]
pub use token_stream::DocumentBatches;
pub use token_stream::{Position, TokenStream};
pub(crate) use tokenizer::for_each_group;
pub use tokenizer::{Tokenizer, TrainLimits};
