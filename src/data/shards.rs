//! Which of a corpus's documents train and which validate.
//!
//! Files stand in the order of their names and the last one validates, as upstream's do, or those that
//! `data.validation` names; a single file holds out its last tenth of documents.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::cache::Cache;
use super::config::{DocumentSplit, Reading};
use super::embedded::{self, EMBEDDED};
use super::parquet::Bytes;
use super::progress::{Task, Unit};
use super::shard::{Reader, Shard};
use super::shard_files::{Listing, resolve};
use super::shard_kind::{Compressed, Contents, ShardKind, backticked};
use crate::error::{Error, Result};
use crate::hash::Digest;

/// Which part of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What the model learns from.
    Train,
    /// What it is judged by.
    Val,
}

/// The files of a corpus, each found sound.
pub struct Corpus {
    train: SplitSource,
    val: SplitSource,
}

/// The documents of one split: some files, or a part of one.
#[derive(Clone)]
pub struct SplitSource {
    spans: Vec<Span>,
}

/// A file and which of its documents belong to the split.
#[derive(Clone)]
struct Span {
    shard: Arc<Shard>,
    /// First document and the one after the last, counted through the file; none is all of it.
    documents: Option<(usize, usize)>,
}

/// How much text a split holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitSize {
    /// Files, or parts of one.
    pub files: usize,
    /// Documents.
    pub documents: u64,
    /// UTF-8 bytes of the documents; none where only reading them all would tell.
    pub bytes: Option<u64>,
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
        let mut canonical = crate::hash::Canonical::new("nanorun corpus");
        for (label, split) in [("train", &self.train), ("val", &self.val)] {
            canonical.digest(label, &split.digest(cache)?);
        }
        Ok(canonical.finish())
    }
}

impl SplitSource {
    /// Hash of what decides the documents of each of its files.
    pub(super) fn contents(&self, cache: &Cache) -> Result<Vec<Digest>> {
        self.spans.iter().map(|span| span.shard.content(cache)).collect()
    }

    /// How many files it spans.
    pub(super) fn files(&self) -> usize {
        self.spans.len()
    }

    /// Hash over the contents of its files in order and which of their documents belong to it.
    pub fn digest(&self, cache: &Cache) -> Result<Digest> {
        use rayon::prelude::*;
        let digests: Vec<Digest> =
            self.spans.par_iter().map(|span| span.shard.content(cache)).collect::<Result<_>>()?;
        let mut canonical = crate::hash::Canonical::new("nanorun split");
        for (span, digest) in self.spans.iter().zip(&digests) {
            canonical.digest("file", digest);
            match span.documents {
                Some((first, end)) => canonical.u64("first", first as u64).u64("end", end as u64),
                None => canonical.none("first"),
            };
        }
        Ok(canonical.finish())
    }

    /// All its documents in order: for a split that fits into memory.
    ///
    /// # Errors
    /// A shard that cannot be read.
    pub fn documents(&self) -> Result<Vec<String>> {
        let mut documents = Vec::new();
        for file in 0..self.files() {
            let reader = self.open(file)?;
            for group in 0..reader.groups() {
                documents.extend(reader.read_split(group)?);
            }
        }
        Ok(documents)
    }

    /// Its first documents, until they have so many bytes: for a look at what it holds.
    ///
    /// # Errors
    /// A shard that cannot be read.
    pub(super) fn first_documents(&self, bytes: usize) -> Result<Vec<String>> {
        let mut documents = Vec::new();
        let mut left = bytes;
        for file in 0..self.files() {
            let reader = self.open(file)?;
            for group in 0..reader.groups() {
                for document in reader.read_first(group, left)? {
                    left = left.saturating_sub(document.len().max(1));
                    documents.push(document);
                    if left == 0 {
                        return Ok(documents);
                    }
                }
            }
        }
        Ok(documents)
    }

    /// Opens one of its files.
    pub(super) fn open(&self, file: usize) -> Result<SpanReader> {
        let Some(span) = self.spans.get(file) else {
            return Err(Error::internal(format!("file {file} is beyond the split's {}", self.spans.len())));
        };
        let reader = span.shard.open()?;
        let lengths = span.shard.group_lengths()?;
        let mut groups = Vec::with_capacity(lengths.len());
        let mut first = 0;
        for length in &lengths {
            let end = first + length;
            let (from, to) = span.documents.unwrap_or((0, usize::MAX));
            groups.push((from.clamp(first, end) - first, to.clamp(first, end) - first));
            first = end;
        }
        Ok(SpanReader { shard: Arc::clone(&span.shard), reader, groups, lengths })
    }

    /// How much text it holds, as far as that is known without reading it all.
    ///
    /// # Errors
    /// A shard that was not examined.
    pub fn size(&self) -> Result<SplitSize> {
        let mut sum = SplitSize { files: self.files(), documents: 0, bytes: Some(0) };
        for span in &self.spans {
            let (documents, bytes) = span.shard.size()?;
            let here = span.documents.map_or(documents, |(first, end)| (end - first) as u64);
            // Of a part of a file, the part of its bytes that it has of its documents.
            let bytes = bytes.map(|bytes| {
                let share = u128::from(bytes) * u128::from(here) / u128::from(documents.max(1));
                u64::try_from(share).unwrap_or(u64::MAX)
            });
            sum.documents += here;
            sum.bytes = sum.bytes.zip(bytes).map(|(sum, bytes)| sum.saturating_add(bytes));
        }
        Ok(sum)
    }
}

/// An open file of a split.
pub(super) struct SpanReader {
    shard: Arc<Shard>,
    reader: Reader,
    /// The documents of each row group that belong to the split.
    groups: Vec<(usize, usize)>,
    /// Documents of each row group.
    lengths: Vec<usize>,
}

impl SpanReader {
    /// Row groups of the file, those without documents of the split among them.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Which documents of a group belong to the split: the first and the one after the last.
    pub(super) fn documents(&self, group: usize) -> (usize, usize) {
        self.groups.get(group).copied().unwrap_or_default()
    }

    /// All documents of a group, those of the other split among them.
    ///
    /// # Errors
    /// What cannot be read; a file that is another one than when it was examined.
    pub(super) fn read(&self, group: usize) -> Result<Vec<String>> {
        let documents = self.reader.read(group);
        // Looked at after reading: what was read before the file changed is what it was, and what is read from a file
        // that is being replaced is told as that, whatever it looks like.
        self.shard.check_unchanged()?;
        let documents = documents?;
        // Footers that lie of their null rows.
        if self.lengths.get(group) != Some(&documents.len()) {
            let what =
                format!("row group {group} of a shard holds {} texts, not those it claims", documents.len());
            return Err(Error::input(what)
                .file(self.shard.name())
                .help("the file is damaged: download it again"));
        }
        Ok(documents)
    }

    /// The documents of a group that belong to the split.
    pub(super) fn read_split(&self, group: usize) -> Result<Vec<String>> {
        let (first, end) = self.documents(group);
        if first == end {
            return Ok(Vec::new());
        }
        let mut documents = self.read(group)?;
        documents.truncate(end);
        documents.drain(..first);
        Ok(documents)
    }

    /// Documents of a group that belong to the split, no more than it takes for so many bytes.
    fn read_first(&self, group: usize, bytes: usize) -> Result<Vec<String>> {
        let (first, end) = self.documents(group);
        if first == end {
            return Ok(Vec::new());
        }
        // Where the other split comes first, all of it has to be passed over.
        let documents =
            if first == 0 { self.reader.read_some(group, bytes)? } else { self.reader.read(group)? };
        self.shard.check_unchanged()?;
        Ok(documents.into_iter().take(end).skip(first).collect())
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

/// Which of the shards validate: the last, or those that `wanted` names.
fn validation(shards: &[Arc<Shard>], wanted: Option<&str>) -> Result<Vec<bool>> {
    let last = shards.len().saturating_sub(1);
    let Some(wanted) = wanted else { return Ok((0..shards.len()).map(|at| at == last).collect()) };
    let error = |what: String| Error::input(what).key("data.validation");
    let pattern = glob::Pattern::new(wanted)
        .map_err(|why| error(format!("`{wanted}` is neither a name nor a glob")).because(why))?;
    let is_name = !wanted.contains(['*', '?', '[']);
    let matches = |shard: &Arc<Shard>| {
        let path = shard.name();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        // As much of the path as is written.
        name == wanted || path.ends_with(wanted) || pattern.matches(&name) || pattern.matches_path(path)
    };
    let found: Vec<bool> = shards.iter().map(matches).collect();
    let names = |found: &[bool]| {
        let of = shards.iter().zip(found).filter(|(_, found)| **found);
        backticked(&of.map(|(shard, _)| shard.name().display().to_string()).collect::<Vec<_>>())
    };
    match found.iter().filter(|found| **found).count() {
        0 => Err(error(format!("`{wanted}` is not among the shards"))
            .expected(format!("one of {} shards, such as {}", shards.len(), names(&vec![true; shards.len()])))
            .help("get the shard, or correct data.validation")),
        all if all == shards.len() => Err(error(format!("`{wanted}` leaves no shard to train on"))
            .expected("some of the shards, not all")
            .help("left out, the last shard by name validates; of a single one, its last tenth")),
        several if several > 1 && is_name => {
            Err(error(format!("`{wanted}` names {several} shards: {}", names(&found)))
                .expected("one shard, or a glob for several")
                .help("write more of its path"))
        }
        _ => Ok(found),
    }
}
