//! The files of a corpus.
//!
//! They stand in the order of their names and the last one validates, as upstream's do, or those that
//! `data.validation` names; a single file holds out its last tenth of documents.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::cache::Cache;
use super::config::{DocumentSplit, Reading};
use super::embedded::{self, EMBEDDED};
use super::held_out::validation;
use super::parquet::Bytes;
use super::progress::{Task, Unit};
use super::shard::Shard;
use super::shard_files::{Listing, resolve};
use super::shard_kind::{Compressed, Contents, ShardKind};
use super::split::{Span, Split, SplitSource};
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};

/// The files of a corpus, each found sound.
pub struct Corpus {
    train: SplitSource,
    val: SplitSource,
}

impl Corpus {
    /// [`Corpus::open_with`] without a cache.
    ///
    /// # Errors
    /// As there.
    pub fn open(patterns: &[String], reading: impl Into<Reading>) -> Result<Self> {
        Self::open_with(patterns, reading, &Cache::disabled())
    }

    /// Finds and examines the files that `patterns` name: `embedded`, or files, directories and globs. Of parquet
    /// it reads footers, and pages where a footer does not say whether rows are null; text and JSON lines it reads
    /// once. What that took is remembered in `cache`. `reading` says which texts are read and which of them validate.
    ///
    /// # Errors
    /// A pattern that matches nothing, a file that is no shard, missing, empty, damaged or without the column; rows
    /// without a text where none are allowed; a corpus too small to hold anything out.
    pub fn open_with(patterns: &[String], reading: impl Into<Reading>, cache: &Cache) -> Result<Self> {
        Self::open_listed(&Listing::of(patterns)?, reading, cache)
    }

    /// The same of patterns that were looked up already.
    ///
    /// # Errors
    /// As [`Corpus::open_with`].
    pub fn open_listed(listing: &Listing, reading: impl Into<Reading>, cache: &Cache) -> Result<Self> {
        let reading = Arc::new(reading.into());
        let shards: Vec<Arc<Shard>> = find(listing)?
            .into_iter()
            .map(|(bytes, kind)| Arc::new(Shard::new(bytes, kind, Arc::clone(&reading))))
            .collect();
        // Every file is examined, so that a bad one is found before anything is computed. Of several bad ones the
        // first by name is told, whichever thread met its own first.
        let examined: Vec<Result<()>> = shards.par_iter().map(|shard| shard.examine(cache)).collect();
        examined.into_iter().collect::<Result<()>>()?;
        if shards.is_empty() {
            return Err(Error::input("no shards are named")
                .key("data.shards")
                .expected("`embedded`, or files, directories or globs"));
        }
        let validates = validation(&shards, reading.validation.as_deref())?;
        if let [lone] = shards.as_slice() {
            return Self::of_one(lone);
        }
        let split = |wanted: bool| SplitSource {
            spans: shards
                .iter()
                .zip(&validates)
                .filter(|(_, validates)| **validates == wanted)
                .map(|(shard, _)| Span { shard: Arc::clone(shard), documents: None })
                .collect(),
        };
        Ok(Self { train: split(false), val: split(true) })
    }

    /// A single file, whose last tenth of documents validates.
    fn of_one(shard: &Arc<Shard>) -> Result<Self> {
        let documents = shard.size()?.0 as usize;
        if documents < 2 {
            return Err(Error::input("one document cannot both train and validate")
                .file(shard.name())
                .expected("two documents or more, or a second file to validate on"));
        }
        let held_out = (documents / 10).max(1);
        let part = |documents| SplitSource {
            spans: vec![Span { shard: Arc::clone(shard), documents: Some(documents) }],
        };
        Ok(Self { train: part((0, documents - held_out)), val: part((documents - held_out, documents)) })
    }

    /// The embedded corpus.
    pub fn embedded() -> Result<Self> {
        Self::open(&[EMBEDDED.to_owned()], DocumentSplit::Block)
    }

    /// One of its two parts.
    pub fn split(&self, split: Split) -> SplitSource {
        match split {
            Split::Train => self.train.clone(),
            Split::Val => self.val.clone(),
        }
    }

    /// Name and SHA-256 of every file, in the order of their names.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn files(&self, cache: &Cache) -> Result<Vec<(PathBuf, Digest)>> {
        let mut files: Vec<(PathBuf, Digest)> = Vec::new();
        for span in self.train.spans.iter().chain(&self.val.spans) {
            let name = span.shard.name();
            // A lone file is in both splits.
            if files.iter().all(|(known, _)| known != name) {
                files.push((name.to_owned(), span.shard.sha256(cache)?));
            }
        }
        // Shards that validate by name may stand anywhere.
        files.sort_by(|(a, _), (b, _)| (a.file_name(), a).cmp(&(b.file_name(), b)));
        Ok(files)
    }

    /// Hashes all its files, several at a time, so that whoever asks for a hash later has it at once.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn hash(&self, cache: &Cache) -> Result<()> {
        let spans = self.train.spans.iter().chain(&self.val.spans);
        let mut shards: Vec<&Arc<Shard>> = spans.map(|span| &span.shard).collect();
        // A lone file is in both splits.
        shards.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let size = |shard: &Shard| std::fs::metadata(shard.name()).map_or(0, |found| found.len());
        let task = Task::new("hashing shards", shards.iter().map(|shard| size(shard)).sum(), Unit::Bytes);
        let hashed: Vec<Result<()>> = shards
            .par_iter()
            .map(|shard| {
                let told = Cell::new(0);
                shard.hash(cache, &|bytes| {
                    told.set(told.get() + bytes);
                    task.advance(bytes);
                })?;
                // What was known already was not read.
                task.advance(size(shard).saturating_sub(told.get()));
                shard.content(cache).map(drop)
            })
            .collect();
        // Of several bad ones the first by name is told.
        hashed.into_iter().collect()
    }

    /// Hash over the contents of all its files in order and what of them trains and validates; names and paths are
    /// not in it. The first time, this reads every file; their digests are remembered in the cache.
    pub fn digest(&self, cache: &Cache) -> Result<Digest> {
        let mut canonical = Canonical::new("nanorun corpus");
        for (label, split) in [("train", &self.train), ("val", &self.val)] {
            canonical.digest(label, &split.digest(cache)?);
        }
        Ok(canonical.finish())
    }
}

/// The shards that patterns name, in the order of their names.
fn find(listing: &Listing) -> Result<Vec<(Bytes, ShardKind)>> {
    if listing.patterns().all(|pattern| pattern != EMBEDDED) {
        let files = resolve(listing)?.into_iter();
        return Ok(files.map(|(path, kind)| (Bytes::File(path), kind)).collect());
    }
    if listing.patterns().len() > 1 {
        return Err(Error::input("`embedded` stands alone, but other shards are named too")
            .key("data.shards")
            .expected("either `embedded` or files"));
    }
    let kind = ShardKind { contents: Contents::Parquet, compressed: Compressed::No };
    Ok(embedded::shards().map(|bytes| (bytes, kind)).to_vec())
}
