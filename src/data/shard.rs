//! One file of documents: examined once, then opened as often as it is read.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::cache::Cache;
use super::config::{COLUMN, DocumentSplit, Nulls, Reading};
use super::file_digest::file_digest;
use super::parquet::{Bytes, ParquetShard, null_rows, read_footer};
use super::parquet_footer::Footer;
use super::shard_kind::{Contents, ShardKind};
use super::stamp::Stamp;
use super::text::{Division, Index, TextShard, has_mark};
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};

/// One file of documents.
pub(super) struct Shard {
    bytes: Bytes,
    kind: ShardKind,
    reading: Arc<Reading>,
    /// SHA-256 of its bytes.
    sha256: OnceLock<Digest>,
    /// Hash of what decides its documents.
    content: OnceLock<Digest>,
    examined: OnceLock<Examined>,
    /// What the file was when it was examined; none of what is in the program.
    stamp: Mutex<Option<Stamp>>,
}

/// What is known of a file that was looked through.
enum Examined {
    Parquet {
        footer: Arc<Footer>,
        /// Documents of every group.
        lengths: Vec<usize>,
    },
    Text(Arc<Index>),
}

/// An open file.
pub(super) enum Reader {
    Parquet(ParquetShard, Nulls),
    Text(TextShard),
}

impl Reader {
    /// All documents of a group.
    pub(super) fn read(&self, group: usize) -> Result<Vec<String>> {
        match self {
            Self::Parquet(shard, nulls) => shard.read(group, *nulls),
            Self::Text(shard) => shard.read(group),
        }
    }
}

impl Reader {
    /// The first documents of a group, as many as it takes for so many bytes, and perhaps some more.
    pub(super) fn read_some(&self, group: usize, bytes: usize) -> Result<Vec<String>> {
        match self {
            Self::Parquet(shard, nulls) => shard.read_some(group, *nulls, bytes),
            Self::Text(shard) => shard.read(group),
        }
    }
}

impl Shard {
    pub(super) fn new(bytes: Bytes, kind: ShardKind, reading: Arc<Reading>) -> Self {
        Self {
            bytes,
            kind,
            reading,
            sha256: OnceLock::new(),
            content: OnceLock::new(),
            examined: OnceLock::new(),
            stamp: Mutex::new(None),
        }
    }

    /// What messages call it.
    pub(super) fn name(&self) -> &Path {
        self.bytes.name()
    }

    /// Looks through the file as far as it takes to know its groups and that no row lacks a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn examine(&self, cache: &Cache) -> Result<()> {
        let bad = |what: &str| Error::input(what).file(self.name());
        if let Bytes::File(path) = &self.bytes {
            let missing = |error| bad("cannot open a shard").because(error).help("check data.shards");
            let stamp = Stamp::of(path).map_err(missing)?;
            if path.is_dir() {
                return Err(bad("a shard is a directory").expected("a file"));
            }
            if stamp.len() == 0 {
                return Err(bad("an empty file is no shard")
                    .expected(format!("a {} file", self.kind.contents.plural()))
                    .help("download it again, or remove it"));
            }
            *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
        }
        let examined = match (&self.bytes, self.division()) {
            (Bytes::File(path), Some(division)) => {
                Examined::Text(Arc::new(self.index(path, division, cache)?))
            }
            _ => self.parquet(cache)?,
        };
        if self.examined.get_or_init(|| examined).documents() == 0 {
            return Err(bad("a shard holds no documents").expected("at least one row"));
        }
        Ok(())
    }

    /// How a file of lines divides; none for parquet.
    fn division(&self) -> Option<Division> {
        match self.kind.contents {
            Contents::Parquet => None,
            Contents::JsonLines => Some(Division::JsonLines(self.reading.column.clone(), self.reading.nulls)),
            Contents::Text => Some(Division::Text(self.reading.document)),
        }
    }

    fn index(&self, path: &Path, division: Division, cache: &Cache) -> Result<Index> {
        // Without a cache, hashing the file to remember its index by would be for nothing.
        let key = match cache.root() {
            Some(_) => {
                let mut key = Canonical::new("nanorun text index");
                key.digest("shard", &self.content(cache)?);
                key.bool("skip", self.reading.nulls == Nulls::Skip);
                Some(key.finish())
            }
            None => None,
        };
        let known = key.and_then(|key| cache.get("indices", &key));
        if let Some(index) = known.and_then(|bytes| Index::from_bytes(&bytes)) {
            return Ok(index);
        }
        let index = Index::build(path, self.kind.compressed, division)?;
        if let Some(key) = key {
            cache.put("indices", &key, &index.to_bytes());
        }
        Ok(index)
    }

    fn parquet(&self, cache: &Cache) -> Result<Examined> {
        let column = &self.reading.column;
        let footer = Arc::new(read_footer(&self.bytes, column)?);
        let nulls = self.null_rows(&footer, cache)?;
        if self.reading.nulls == Nulls::Error
            && let Some((group, &count)) = nulls.iter().enumerate().find(|(_, count)| **count > 0)
        {
            return Err(null_rows(&self.bytes, column, group, count));
        }
        let lengths = footer.groups.iter().zip(&nulls).map(|(group, &nulls)| {
            let nulls = usize::try_from(nulls).ok();
            nulls.and_then(|nulls| group.rows.checked_sub(nulls))
        });
        let lengths = lengths.collect::<Option<Vec<usize>>>().ok_or_else(|| {
            Error::input("a row group of a shard claims more null rows than it has")
                .file(self.name())
                .help("the file is damaged: download it again")
        })?;
        Ok(Examined::Parquet { footer, lengths })
    }

    /// Null rows of every group. What takes reading the pages is remembered.
    fn null_rows(&self, footer: &Arc<Footer>, cache: &Cache) -> Result<Vec<u64>> {
        let told = !footer.optional || footer.groups.iter().all(|group| group.nulls.is_some());
        let shard = || ParquetShard::open(self.bytes.clone(), Arc::clone(footer), &self.reading.column);
        if told || cache.root().is_none() {
            return shard()?.nulls();
        }
        let mut key = Canonical::new("nanorun null rows");
        key.digest("shard", &self.content(cache)?);
        let key = key.finish();
        let known = cache.get("indices", &key).and_then(|bytes| {
            let (counts, []) = bytes.as_chunks::<8>() else { return None };
            Some(counts.iter().map(|&count| u64::from_le_bytes(count)).collect::<Vec<_>>())
        });
        if let Some(counts) = known.filter(|counts| counts.len() == footer.groups.len()) {
            return Ok(counts);
        }
        let counts = shard()?.nulls()?;
        let bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        cache.put("indices", &key, &bytes);
        Ok(counts)
    }

    fn known(&self) -> Result<&Examined> {
        self.examined.get().ok_or_else(|| Error::internal("a shard was never examined").file(self.name()))
    }

    /// Opens the file.
    pub(super) fn open(&self) -> Result<Reader> {
        self.check_unchanged()?;
        Ok(match (self.known()?, &self.bytes, self.division()) {
            (Examined::Text(index), Bytes::File(path), Some(division)) => {
                Reader::Text(TextShard::new(path, self.kind.compressed, division, Arc::clone(index)))
            }
            (Examined::Parquet { footer, .. }, bytes, _) => Reader::Parquet(
                ParquetShard::open(bytes.clone(), Arc::clone(footer), &self.reading.column)?,
                self.reading.nulls,
            ),
            _ => return Err(Error::internal("no text is in the program").file(self.name())),
        })
    }

    /// How many groups it has.
    pub(super) fn group_count(&self) -> Result<usize> {
        Ok(match self.known()? {
            Examined::Parquet { lengths, .. } => lengths.len(),
            Examined::Text(index) => index.groups.len(),
        })
    }

    /// Documents of every group.
    pub(super) fn group_lengths(&self) -> Result<Vec<usize>> {
        Ok(match self.known()? {
            Examined::Parquet { lengths, .. } => lengths.clone(),
            Examined::Text(index) => (0..index.groups.len()).map(|group| index.group_len(group)).collect(),
        })
    }

    /// Documents and, where that is known, their bytes.
    pub(super) fn size(&self) -> Result<(u64, Option<u64>)> {
        let examined = self.known()?;
        let bytes = match examined {
            Examined::Parquet { footer, .. } => {
                // Only claimed: a footer may say anything.
                footer.groups.iter().try_fold(0_u64, |sum, group| sum.checked_add(group.text_bytes?))
            }
            Examined::Text(index) => Some(index.bytes),
        };
        Ok((examined.documents(), bytes))
    }

    /// SHA-256 of its bytes.
    pub(super) fn sha256(&self, cache: &Cache) -> Result<Digest> {
        self.hash(cache, &|_| {})
    }

    /// Hashes the file, for whoever asks for its hash later; `told` hears how many bytes were read, a piece at a time.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn hash(&self, cache: &Cache, told: &dyn Fn(u64)) -> Result<Digest> {
        if let Some(digest) = self.sha256.get() {
            return Ok(*digest);
        }
        let digest = self.bytes.sha256(cache, told)?;
        Ok(*self.sha256.get_or_init(|| digest))
    }

    /// Hash of the file's bytes and of whatever else decides its documents. What every shard was read by before
    /// there was a choice is not in it, so that no key moves. Nor is `data.nulls`: where a text is null, only one of
    /// its values gives documents at all.
    pub(super) fn content(&self, cache: &Cache) -> Result<Digest> {
        if let Some(digest) = self.content.get() {
            return Ok(*digest);
        }
        let bytes = self.sha256(cache)?;
        let mut canonical = Canonical::new("nanorun shard");
        canonical.digest("bytes", &bytes);
        match (self.kind.contents, self.reading.document) {
            (Contents::Parquet, _) => canonical.none("document"),
            (Contents::Text, DocumentSplit::Block) => canonical.str("document", "block"),
            (Contents::Text, DocumentSplit::Line) => canonical.str("document", "line"),
            (Contents::JsonLines, _) => canonical.str("document", "json lines"),
        };
        if self.kind.contents != Contents::Text && self.reading.column != COLUMN {
            canonical.str("column", &self.reading.column);
        }
        // It was a character of the text once.
        if let (Contents::Text, Bytes::File(path)) = (self.kind.contents, &self.bytes)
            && has_mark(path, self.kind.compressed)
        {
            canonical.str("byte-order mark", "dropped");
        }
        Ok(*self.content.get_or_init(|| canonical.finish()))
    }

    /// Sees whether the file is still the one that was examined. Looked at closely only when its size or times differ.
    ///
    /// # Errors
    /// It is another one, or gone.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let Bytes::File(path) = &self.bytes else { return Ok(()) };
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = |what: &str| {
            Error::input(what)
                .file(path)
                .help("bring back the file that was there; what was trained so far is kept")
        };
        let now = Stamp::of(path).map_err(|error| {
            changed("a shard is no longer there: it was there at the start").because(error)
        })?;
        if *stamp == Some(now) {
            return Ok(());
        }
        let replaced = "a shard was replaced while it was in use";
        let Some(before) = self.sha256.get() else { return Err(changed(replaced)) };
        let found = file_digest(path, &Cache::disabled())?;
        if found != *before {
            let found = format!("the file of the start, SHA-256 {before}; this one has {found}");
            return Err(changed(replaced).expected(found));
        }
        *stamp = Some(now);
        Ok(())
    }
}

impl Examined {
    fn documents(&self) -> u64 {
        match self {
            Self::Parquet { lengths, .. } => lengths.iter().map(|&length| length as u64).sum(),
            Self::Text(index) => index.documents,
        }
    }
}
