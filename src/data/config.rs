//! What a run trains on: shards, tokenizer and how rows are made.

use serde::{Deserialize, Serialize};

use crate::hash::Digest;

/// The data of a run, with content hashes once they are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataConfig {
    /// Path patterns as resolved, or `embedded`.
    pub shards: Vec<String>,
    /// The tokenizer.
    pub tokenizer: TokenizerChoice,
    /// Rows are packed from documents, or each row is one document (the small models).
    pub packing: Packing,
    /// How text files divide into documents.
    pub document: DocumentSplit,
    /// Which definition of a token's bytes bpb uses.
    pub token_bytes: TokenBytesRule,
    /// Hash over the contents of train shards, validation shard and tokenizer; none while the data are absent.
    pub content: Option<Digest>,
}

/// Which tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerChoice {
    /// A trained one: upstream's directory or `tokenizer.pkl`.
    Path(String),
    /// BPE trained on the train split to this vocabulary.
    Train {
        /// V, with the nine special tokens.
        vocab_size: usize,
    },
    /// One token a character and one BOS (the small models).
    Char,
}

/// How rows are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Upstream's best-fit packing, BOS at the start of each document.
    BestFitBos,
    /// One document a row: BOS, the document, BOS; cut at the context, targets beyond the end ignored.
    Document,
}

/// How a text file divides into documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentSplit {
    /// Blank-line separated blocks.
    Block,
    /// A document a line.
    Line,
}

/// What counts as the bytes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenBytesRule {
    /// Bytes of the token decoded to text with replacement characters (upstream before 92d63d4).
    Decoded,
    /// The token's own bytes (92d63d4).
    Raw,
}
