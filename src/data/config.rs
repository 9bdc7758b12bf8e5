//! What a run trains on: shards, tokenizer and how rows are made.

use serde::{Deserialize, Serialize};

use crate::hash::Digest;
pub use crate::manifest::settings::{DocumentSplit, Nulls, Packing, TokenizerChoice};
pub use crate::upstream::TokenBytesRule;

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
    /// Column of parquet shards, field of JSON lines.
    // Left out where it is what every run had before, so that recorded configurations keep their digests.
    #[serde(default = "upstreams_column", skip_serializing_if = "is_upstreams_column")]
    pub column: String,
    /// What becomes of rows without a text.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nulls: Nulls,
    /// Name or glob of the shards that validate; none is the last by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<String>,
    /// What the splits were: nothing follows from it that `content` does not decide, but it tells which of them is
    /// another where contents differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splits: Option<Splits>,
}

/// Both splits of a corpus, as records tell them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splits {
    /// What is trained on.
    pub train: SplitRecord,
    /// What is evaluated on.
    pub validation: SplitRecord,
}

/// What a split is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// Files, or parts of one.
    pub files: u64,
    /// Documents.
    pub documents: u64,
    /// Hash over what decides its documents.
    pub digest: Digest,
}

impl DataConfig {
    /// What a manifest says of the data, without what only the data themselves say.
    #[must_use]
    pub fn as_named(&self) -> Self {
        Self { content: None, splits: None, ..self.clone() }
    }
}

/// The column that upstream's shards have.
pub const COLUMN: &str = "text";

fn upstreams_column() -> String {
    COLUMN.to_owned()
}

fn is_upstreams_column(column: &str) -> bool {
    column == COLUMN
}

// Serde hands over a reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_default(nulls: &Nulls) -> bool {
    *nulls == Nulls::default()
}

/// How shards are read: everything but their names that decides which texts are in which split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// How text files divide into documents.
    pub document: DocumentSplit,
    /// Column of parquet shards, field of JSON lines.
    pub column: String,
    /// What becomes of rows without a text.
    pub nulls: Nulls,
    /// Name or glob of the shards that validate; none is the last by name.
    pub validation: Option<String>,
}

impl From<DocumentSplit> for Reading {
    fn from(document: DocumentSplit) -> Self {
        Self { document, column: upstreams_column(), nulls: Nulls::Error, validation: None }
    }
}

impl From<&DataConfig> for Reading {
    fn from(data: &DataConfig) -> Self {
        Self {
            document: data.document,
            column: data.column.clone(),
            nulls: data.nulls,
            validation: data.validation.clone(),
        }
    }
}
