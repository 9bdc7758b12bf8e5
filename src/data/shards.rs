//! Which files a corpus is made of, and which of their documents train and which validate.
//!
//! Files stand in the order of their names and the last one validates, as upstream's do; a single file holds out
//! its last tenth of documents.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::cache::Cache;
use super::config::DocumentSplit;
use super::embedded::{self, EMBEDDED};
use super::parquet::{Bytes, ParquetShard};
use super::progress::{Task, Unit};
use super::text::TextShard;
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

/// The files of a corpus, each opened once and found sound.
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

/// One file of documents.
pub(super) struct Shard {
    bytes: Bytes,
    format: Format,
    digest: OnceLock<Digest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Parquet,
    Text(DocumentSplit),
}

impl Corpus {
    /// Finds and opens the files that `patterns` name: `embedded`, or files, directories and globs. Reads
    /// footers, not contents. `document` says how text files divide.
    ///
    /// # Errors
    /// A pattern that matches nothing; a file that is missing, empty, truncated, not parquet or lacks column `text`;
    /// a corpus too small to hold anything out.
    pub fn open(patterns: &[String], document: DocumentSplit) -> Result<Self> {
        let mut shards: Vec<Shard> =
            resolve(patterns)?.into_iter().map(|bytes| Shard::new(bytes, document)).collect();
        // Every file is opened, so that a bad one is found before anything is computed.
        let lone = shards.len() == 1;
        let mut documents = 0;
        for shard in &shards {
            let reader = shard.open()?;
            documents = (0..reader.groups()).map(|group| reader.group_len(group)).sum();
            if documents == 0 {
                return Err(Error::input("a shard holds no documents")
                    .file(shard.bytes.name())
                    .expected("at least one row"));
            }
        }
        let Some(last) = shards.pop().map(Arc::new) else {
            return Err(Error::input("no shards are named")
                .key("data.shards")
                .expected("`embedded`, or files, directories or globs"));
        };
        if lone {
            if documents < 2 {
                return Err(Error::input("one document cannot both train and validate")
                    .file(last.bytes.name())
                    .expected("two documents or more, or a second file to validate on"));
            }
            let held_out = (documents / 10).max(1);
            let part = |documents| SplitSource {
                spans: vec![Span { shard: Arc::clone(&last), documents: Some(documents) }],
            };
            return Ok(Self {
                train: part((0, documents - held_out)),
                val: part((documents - held_out, documents)),
            });
        }
        let whole = |shard| Span { shard, documents: None };
        Ok(Self {
            train: SplitSource { spans: shards.into_iter().map(|shard| whole(Arc::new(shard))).collect() },
            val: SplitSource { spans: vec![whole(last)] },
        })
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
            let name = span.shard.bytes.name();
            // A lone file is in both splits.
            if files.iter().all(|(known, _)| known != name) {
                files.push((name.to_owned(), span.shard.bytes.sha256(cache)?));
            }
        }
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
        let size = |shard: &Shard| std::fs::metadata(shard.bytes.name()).map_or(0, |found| found.len());
        let task = Task::new("hashing shards", shards.iter().map(|shard| size(shard)).sum(), Unit::Bytes);
        let hashed: Vec<Result<()>> = shards
            .par_iter()
            .map(|shard| {
                shard.content(cache)?;
                task.advance(size(shard));
                Ok(())
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

    /// Opens one of its files.
    pub(super) fn open(&self, file: usize) -> Result<SpanReader> {
        let Some(span) = self.spans.get(file) else {
            return Err(Error::internal(format!("file {file} is beyond the split's {}", self.spans.len())));
        };
        let reader = span.shard.open()?;
        let mut groups = Vec::with_capacity(reader.groups());
        let mut first = 0;
        for group in 0..reader.groups() {
            let end = first + reader.group_len(group);
            let (from, to) = span.documents.unwrap_or((0, usize::MAX));
            groups.push((from.clamp(first, end) - first, to.clamp(first, end) - first));
            first = end;
        }
        Ok(SpanReader { reader, groups })
    }
}

/// An open file of a split.
pub(super) struct SpanReader {
    reader: Reader,
    /// The documents of each row group that belong to the split.
    groups: Vec<(usize, usize)>,
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
    pub(super) fn read(&self, group: usize) -> Result<Vec<String>> {
        match &self.reader {
            Reader::Parquet(reader) => reader.read(group),
            Reader::Text(reader) => Ok(reader.read(group)),
        }
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
}

enum Reader {
    Parquet(ParquetShard),
    Text(TextShard),
}

impl Reader {
    fn groups(&self) -> usize {
        match self {
            Self::Parquet(reader) => reader.groups(),
            Self::Text(reader) => reader.groups(),
        }
    }

    fn group_len(&self, group: usize) -> usize {
        match self {
            Self::Parquet(reader) => reader.group_len(group),
            Self::Text(reader) => reader.group_len(group),
        }
    }
}

impl Shard {
    fn new(bytes: Bytes, document: DocumentSplit) -> Self {
        let parquet = bytes.name().extension().is_some_and(|extension| extension == "parquet");
        let format = if parquet { Format::Parquet } else { Format::Text(document) };
        Self { bytes, format, digest: OnceLock::new() }
    }

    fn open(&self) -> Result<Reader> {
        Ok(match (self.format, &self.bytes) {
            (Format::Text(document), Bytes::File(path)) => Reader::Text(TextShard::open(path, document)?),
            _ => Reader::Parquet(ParquetShard::open(self.bytes.clone())?),
        })
    }

    /// Hash of the file's bytes and, for text, of how it divides.
    fn content(&self, cache: &Cache) -> Result<Digest> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let bytes = self.bytes.sha256(cache)?;
        let mut canonical = crate::hash::Canonical::new("nanorun shard");
        canonical.digest("bytes", &bytes);
        match self.format {
            Format::Parquet => canonical.none("document"),
            Format::Text(DocumentSplit::Block) => canonical.str("document", "block"),
            Format::Text(DocumentSplit::Line) => canonical.str("document", "line"),
        };
        Ok(*self.digest.get_or_init(|| canonical.finish()))
    }
}

/// Which of `patterns` match nothing now: what a plan made before the data are here says is missing.
///
/// # Errors
/// A pattern that is no glob, or names an environment variable that is not set.
pub fn missing(patterns: &[String]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for pattern in patterns.iter().filter(|pattern| *pattern != EMBEDDED) {
        let found = files_of(pattern)?;
        if found.is_empty() || found.iter().any(|path| !path.exists()) {
            missing.push(pattern.clone());
        }
    }
    Ok(missing)
}

/// The files that `patterns` name, each once, in the order of their names.
fn resolve(patterns: &[String]) -> Result<Vec<Bytes>> {
    if patterns.iter().any(|pattern| pattern == EMBEDDED) {
        if patterns.len() > 1 {
            return Err(Error::input("`embedded` stands alone, but other shards are named too")
                .key("data.shards")
                .expected("either `embedded` or files"));
        }
        return Ok(embedded::shards().to_vec());
    }
    let mut paths = Vec::new();
    for pattern in patterns {
        let found = files_of(pattern)?;
        if found.is_empty() {
            return Err(Error::input(format!("no shards match `{pattern}`"))
                .key("data.shards")
                .expected("a parquet or text file, a directory of them, or a glob")
                .help("download the shards or correct the path; `shards = \"embedded\"` needs none"));
        }
        paths.extend(found);
    }
    paths.sort_by(|a, b| (a.file_name(), a).cmp(&(b.file_name(), b)));
    paths.dedup();
    Ok(paths.into_iter().map(Bytes::File).collect())
}

/// The files that one pattern names. A plain path is taken as it is, there or not.
fn files_of(pattern: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(pattern);
    if path.is_dir() {
        return files_in(path);
    }
    if path.exists() || !pattern.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let matches = glob::glob(pattern).map_err(|error| {
        Error::input(format!("`{pattern}` is not a glob")).key("data.shards").because(error)
    })?;
    let mut files = Vec::new();
    for found in matches {
        let file = found.map_err(|error| {
            let path = error.path().to_owned();
            Error::input("cannot look into a directory of shards").file(path).because(error)
        })?;
        if file.is_file() {
            files.push(file);
        }
    }
    Ok(files)
}

/// The shards in a directory: its parquet files or, without any, its text files.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable =
        |error| Error::input("cannot look into a directory of shards").file(directory).because(error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        files.push(entry.map_err(unreadable)?.path());
    }
    for wanted in ["parquet", "txt"] {
        let has = |path: &&PathBuf| path.extension().is_some_and(|found| found == wanted) && path.is_file();
        let chosen: Vec<PathBuf> = files.iter().filter(has).cloned().collect();
        if !chosen.is_empty() {
            return Ok(chosen);
        }
    }
    Ok(Vec::new())
}
