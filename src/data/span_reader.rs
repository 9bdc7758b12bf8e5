//! The documents of one file that belong to a split, row group by row group.

use std::sync::Arc;

use super::shard::{Reader, Shard};
use super::split::Span;
use crate::error::{Error, Result};

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
    /// Opens the file of a span.
    ///
    /// # Errors
    /// A file that cannot be read, or was not examined.
    pub(super) fn open(span: &Span) -> Result<Self> {
        let reader = span.shard.open()?;
        let lengths = span.shard.group_lengths()?;
        let groups = span.groups_of(&lengths);
        Ok(Self { shard: Arc::clone(&span.shard), reader, groups, lengths })
    }

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
    pub(super) fn read_first(&self, group: usize, bytes: usize) -> Result<Vec<String>> {
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
