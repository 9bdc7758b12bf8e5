//! What the data are, by content: digests that run keys are made of.

use serde::{Deserialize, Serialize};

use super::cache::Cache;
use super::config::{SplitRecord, Splits};
use super::corpus::Corpus;
use super::split::{Split, SplitSize};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};

/// What a plan needs to know of the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFacts {
    /// V, special tokens among them.
    pub vocab_size: usize,
    /// Hash over the contents of train shards, validation shard and tokenizer: `DataConfig::content`.
    pub content: Digest,
    /// What its splits are.
    pub splits: Splits,
}

impl DataFacts {
    /// The facts of this corpus under this tokenizer.
    pub fn of(corpus: &Corpus, tokenizer: &Tokenizer, cache: &Cache) -> Result<Self> {
        let mut canonical = Canonical::new("nanorun data");
        canonical.digest("corpus", &corpus.digest(cache)?).digest("tokenizer", &tokenizer.digest());
        let record = |split| {
            let source = corpus.split(split);
            let SplitSize { files, documents, .. } = source.size()?;
            Ok::<_, Error>(SplitRecord { files: files as u64, documents, digest: source.digest(cache)? })
        };
        let splits = Splits { train: record(Split::Train)?, validation: record(Split::Val)? };
        Ok(Self { vocab_size: tokenizer.vocab_size(), content: canonical.finish(), splits })
    }
}
