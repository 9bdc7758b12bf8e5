//! One split of a corpus: which documents of which files.

use std::sync::Arc;

use rayon::prelude::*;

use super::cache::Cache;
use super::shard::Shard;
use super::span_reader::SpanReader;
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};

/// Which part of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What the model learns from.
    Train,
    /// What it is judged by.
    Val,
}

impl Split {
    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "validation",
        }
    }
}

/// The documents of one split: some files, or a part of one.
#[derive(Clone)]
pub struct SplitSource {
    pub(super) spans: Vec<Span>,
}

/// A file and which of its documents belong to the split.
#[derive(Clone)]
pub(super) struct Span {
    pub(super) shard: Arc<Shard>,
    /// First document and the one after the last, counted through the file; none is all of it.
    pub(super) documents: Option<(usize, usize)>,
}

impl Span {
    /// The documents of each row group that belong to the split, given how many each has.
    pub(super) fn groups_of(&self, lengths: &[usize]) -> Vec<(usize, usize)> {
        let (from, to) = self.documents.unwrap_or((0, usize::MAX));
        let mut first = 0;
        let mut of_group = |length: &usize| {
            let end = first + length;
            let held = (from.clamp(first, end) - first, to.clamp(first, end) - first);
            first = end;
            held
        };
        lengths.iter().map(&mut of_group).collect()
    }
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
        let digests: Vec<Digest> =
            self.spans.par_iter().map(|span| span.shard.content(cache)).collect::<Result<_>>()?;
        let mut canonical = Canonical::new("nanorun split");
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

    fn span(&self, file: usize) -> Result<&Span> {
        let beyond = || Error::internal(format!("file {file} is beyond the split's {}", self.spans.len()));
        self.spans.get(file).ok_or_else(beyond)
    }

    /// Opens one of its files.
    pub(super) fn open(&self, file: usize) -> Result<SpanReader> {
        SpanReader::open(self.span(file)?)
    }

    /// Row groups of a file, those without documents of the split among them.
    pub(super) fn group_count(&self, file: usize) -> Result<usize> {
        self.span(file)?.shard.group_count()
    }

    /// The documents of each row group of a file that belong to the split: the first and the one after the last.
    pub(super) fn groups(&self, file: usize) -> Result<Vec<(usize, usize)>> {
        let span = self.span(file)?;
        Ok(span.groups_of(&span.shard.group_lengths()?))
    }

    /// The row group of a file that counts as the split's first: of a part of a file, the first with documents of it.
    pub(super) fn first_group(&self, file: usize) -> Result<usize> {
        if self.span(file)?.documents.is_none() {
            return Ok(0);
        }
        let groups = self.groups(file)?;
        Ok(groups.iter().position(|(first, end)| first < end).unwrap_or(0))
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
