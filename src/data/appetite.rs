//! How many documents a row takes, measured on the first of a split: what says how often a budget reads its data.
//!
//! Best-fit packing drops the ends of documents that it cuts, so tokens alone would say too little.

use super::config::Packing;
use super::cursor::RankCursor;
use super::documents::Document;
use super::encode_pool::EncodePool;
use super::packing::Packer;
use super::split::SplitSource;
use super::token_stream::{BATCH_DOCUMENTS, DocumentBatches, Position};
use super::tokenizer::Tokenizer;
use crate::error::Result;

/// Text that is looked at: a few milliseconds of tokenising.
const SAMPLE_BYTES: usize = 128 << 10;

/// Rows that are packed at most.
const MOST_ROWS: usize = 512;

/// The first documents of a split, tokenised.
pub struct Sample {
    documents: Vec<Document>,
    bos: u32,
    /// UTF-8 bytes of the documents.
    bytes: usize,
}

impl Sample {
    /// Reads and tokenises the first documents of a split; none of a split that has none.
    ///
    /// # Errors
    /// A shard that cannot be read, characters beyond the vocabulary.
    pub fn of(source: &SplitSource, tokenizer: &Tokenizer) -> Result<Self> {
        let texts = source.first_documents(SAMPLE_BYTES)?;
        let bytes = texts.iter().map(String::len).sum();
        let documents = tokenizer.encode_documents(&texts, &mut EncodePool::default())?;
        Ok(Self { documents, bos: tokenizer.bos(), bytes })
    }

    /// Mean UTF-8 bytes of a document.
    pub fn bytes_a_document(&self) -> f64 {
        self.bytes as f64 / self.documents.len().max(1) as f64
    }

    /// Documents that a row of `len` tokens takes in the mean, and whether that is exact.
    ///
    /// # Errors
    /// Rows of no tokens.
    pub fn documents_a_row(&self, packing: Packing, len: usize) -> Result<(f64, bool)> {
        if packing == Packing::Document || self.documents.is_empty() {
            return Ok((1.0, packing == Packing::Document));
        }
        let tokens: usize = self.documents.iter().map(|document| document.len()).sum();
        let rows = (tokens / len.max(1)).clamp(1, MOST_ROWS);
        let around = Around { documents: &self.documents, at: 0 };
        let mut packer = Packer::new(around, packing, rows, len, self.bos, RankCursor::start())?;
        // What the buffer takes in at first is no appetite.
        let mut placed = [0; 2];
        for placed in &mut placed {
            packer.next_batch()?;
            let cursor = packer.cursor();
            *placed = cursor.next.batch - cursor.buffered.len();
        }
        Ok(((placed[1] - placed[0]) as f64 / rows as f64, false))
    }
}

/// The documents of a sample, again and again. Its position counts documents.
struct Around<'d> {
    documents: &'d [Document],
    at: usize,
}

impl DocumentBatches for Around<'_> {
    fn next_batch(&mut self) -> Result<(Vec<Document>, Position)> {
        let position = self.position();
        let batch = self.documents.iter().cycle().skip(self.at % self.documents.len().max(1));
        let batch: Vec<Document> = batch.take(BATCH_DOCUMENTS).cloned().collect();
        self.at += batch.len();
        Ok((batch, position))
    }

    fn position(&self) -> Position {
        Position { batch: self.at, ..Position::START }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_as_many_documents_as_packing_gives_it() {
        let documents: Vec<Document> = (0..300).map(|_| vec![1; 10].into()).collect();
        let sample = Sample { documents, bos: 0, bytes: 6000 };
        assert_eq!(sample.bytes_a_document(), 20.0);
        // A row of 30 and one: three documents of ten and one that is cut.
        assert_eq!(sample.documents_a_row(Packing::BestFitBos, 30).unwrap(), (4.0, false));
        assert_eq!(sample.documents_a_row(Packing::BestFitBos, 29).unwrap(), (3.0, false));
        assert_eq!(sample.documents_a_row(Packing::Document, 30).unwrap(), (1.0, true));
        // One document longer than all rows: each row takes one.
        let long = Sample { documents: vec![vec![1; 5000].into()], bos: 0, bytes: 6000 };
        assert_eq!(long.documents_a_row(Packing::BestFitBos, 64).unwrap(), (1.0, false));
    }
}
