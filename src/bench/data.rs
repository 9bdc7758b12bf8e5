//! How fast text becomes rows: the tokenizer's training, encoding and packing.

use serde_json::{Value, json};

use crate::data::{
    Cache, Corpus, EncodePool, Packer, RankCursor, Split, SplitSource, TokenStream, Tokenizer,
    TokenizerChoice,
};
use crate::error::Result;
use crate::files::now;
use crate::plan::run_config::RunConfig;

/// Measurements of each; the fastest counts.
const REPEATS: usize = 3;
/// Tokens packed, at least: enough that the first buffer of documents does not weigh most.
const PACKED: usize = 1 << 17;

/// Speed of the data of a run, nothing of it cached. Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataSpeed {
    /// Threads that encode.
    pub threads: usize,
    /// Bytes of the train split.
    pub bytes: usize,
    /// Its tokens, one BOS a document included.
    pub tokens: usize,
    /// Training the tokenizer on it, reading included; none where the tokenizer comes from elsewhere.
    pub train_seconds: Option<f64>,
    /// Encoding it, from text in memory.
    pub encode_seconds: f64,
    /// Tokens a second that come out of reading, encoding and packing, one after another.
    pub packed_tokens_per_second: f64,
}

impl DataSpeed {
    /// As a JSON document.
    pub fn json(&self) -> Value {
        json!({
            "threads": self.threads,
            "bytes": self.bytes,
            "tokens": self.tokens,
            "tokenizer_train_seconds": self.train_seconds,
            "encode_seconds": self.encode_seconds,
            "encode_bytes_per_second": self.bytes as f64 / self.encode_seconds,
            "packed_tokens_per_second": self.packed_tokens_per_second,
        })
    }

    /// For people, a line each.
    pub(super) fn human(&self) -> String {
        let trained = self.train_seconds.map_or_else(String::new, |seconds| {
            format!("tokenizer trained on {:.1} MB in {seconds:.2} s\n", self.bytes as f64 / 1e6)
        });
        format!(
            "{trained}text encoded at {:.1} MB/s on {} threads; read, encoded and packed at {:.2} million tok/s\n",
            self.bytes as f64 / self.encode_seconds / 1e6,
            self.threads,
            self.packed_tokens_per_second / 1e6
        )
    }
}

/// Measures the data of a run; the train split must fit into memory.
///
/// # Errors
/// Data that are missing or bad.
pub fn measure_data(config: &RunConfig) -> Result<DataSpeed> {
    let none = Cache::disabled();
    let corpus = Corpus::open(&config.data.shards, &config.data)?;
    let source = corpus.split(Split::Train);
    let train_seconds = match config.data.tokenizer {
        TokenizerChoice::Train { vocab_size } => {
            Some(fastest(|| Tokenizer::train(&source, vocab_size, &none).map(drop))?)
        }
        _ => None,
    };
    let tokenizer = Tokenizer::resolve(&config.data.tokenizer, &corpus, &none)?;
    let documents = source.documents()?;
    let mut tokens = 0;
    let mut pool = EncodePool::default();
    let encode_seconds = fastest(|| {
        tokens = tokenizer.encode_documents(&documents, &mut pool)?.iter().map(|ids| ids.len()).sum();
        Ok(())
    })?;
    drop(documents);
    Ok(DataSpeed {
        threads: rayon::current_num_threads(),
        bytes: bytes(&source)?,
        tokens,
        train_seconds,
        encode_seconds,
        packed_tokens_per_second: packing(config, &source, tokenizer)?,
    })
}

fn bytes(source: &SplitSource) -> Result<usize> {
    Ok(source.documents()?.iter().map(String::len).sum())
}

/// Tokens a second of a packer over the split from its start, around and around.
fn packing(config: &RunConfig, source: &SplitSource, tokenizer: std::sync::Arc<Tokenizer>) -> Result<f64> {
    let cursor = RankCursor::start();
    let bos = tokenizer.bos();
    let stream = TokenStream::new(source.clone(), tokenizer, Cache::disabled(), cursor.next);
    let (rows, len) = (config.batch.device_batch_size, config.model.sequence_len());
    let started = now();
    let mut packer = Packer::new(stream, config.data.packing, rows, len, bos, cursor)?;
    let batches = PACKED.div_ceil(rows * len);
    for _ in 0..batches {
        packer.next_batch()?;
    }
    Ok((batches * rows * len) as f64 / started.elapsed().as_secs_f64())
}

/// Seconds of the fastest of a few calls.
fn fastest(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let started = now();
        f()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best)
}
