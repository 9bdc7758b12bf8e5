//! Text in, token rows out: shards, tokenizer, packed rows with an exact cursor.

pub mod config;

pub use config::{DataConfig, DocumentSplit, Packing, TokenBytesRule, TokenizerChoice};
