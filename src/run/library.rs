//! The data of an experiment's runs: each corpus and tokenizer opened once, however many runs read them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::data::{
    self, Batch, BatchShape, Cache, Corpus, Cursor, Loader, LoaderBytes, Sample, Split, Tokenizer,
    TokenizerChoice,
};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::Digest;
use crate::plan::run_config::{DataConfig, RunConfig};
use crate::plan::{DataFacts, DataUse, Facts, InitCheckpoint, SplitUse};
use crate::train::session::{BatchSource, Rows};

/// Corpora and tokenizers by the configuration that names them.
pub struct Library {
    cache: Cache,
    opened: Mutex<Vec<(DataConfig, Arc<Opened>)>>,
}

/// One corpus under one tokenizer.
pub struct Opened {
    corpus: Corpus,
    tokenizer: Arc<Tokenizer>,
    facts: data::DataFacts,
    /// The first documents of train and validation split.
    samples: OnceLock<[Sample; 2]>,
}

impl Opened {
    fn samples(&self) -> Result<&[Sample; 2]> {
        if let Some(samples) = self.samples.get() {
            return Ok(samples);
        }
        let of = |split| Sample::of(&self.corpus.split(split), &self.tokenizer);
        let samples = [of(Split::Train)?, of(Split::Val)?];
        Ok(self.samples.get_or_init(|| samples))
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Name and SHA-256 of every shard, in the order of their names.
    ///
    /// # Errors
    /// A shard that cannot be read.
    pub fn files(&self, library: &Library) -> Result<Vec<(PathBuf, Digest)>> {
        self.corpus.files(&library.cache)
    }
}

/// Data that are not on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The manifest field that names them.
    pub field: &'static str,
    /// The path or pattern that names nothing.
    pub path: String,
}

const TOKENIZER_PATH: &str = "data.tokenizer.path";

impl Missing {
    /// Whether it is the tokenizer; else it is shards.
    pub fn is_tokenizer(&self) -> bool {
        self.field == TOKENIZER_PATH
    }

    /// What should be there.
    pub fn expected(&self) -> &'static str {
        if self.is_tokenizer() {
            "upstream's tokenizer directory, or its tokenizer.pkl"
        } else {
            data::SHARDS
        }
    }
}

impl Library {
    /// A library that keeps tokens in `cache`.
    pub fn new(cache: Cache) -> Self {
        Self { cache, opened: Mutex::default() }
    }

    /// What of `data` is not on this machine; empty where nothing is missing.
    pub fn missing(&self, data: &DataConfig) -> Result<Vec<Missing>> {
        let shards = data::missing(&data.shards)?.into_iter();
        let mut missing: Vec<_> = shards.map(|path| Missing { field: "data.shards", path }).collect();
        if let TokenizerChoice::Path(path) = &data.tokenizer
            && !std::path::Path::new(path).exists()
        {
            missing.push(Missing { field: TOKENIZER_PATH, path: path.clone() });
        }
        Ok(missing)
    }

    /// Opens a data set, or finds it open.
    ///
    /// # Errors
    /// Data that are missing or bad.
    pub fn open(&self, data: &DataConfig) -> Result<Arc<Opened>> {
        let named = data.as_named();
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = opened.iter().find(|(known, _)| *known == named) {
            return Ok(Arc::clone(found));
        }
        let corpus = Corpus::open_with(&data.shards, data, &self.cache)?;
        corpus.hash(&self.cache)?;
        let tokenizer = Tokenizer::resolve(&data.tokenizer, &corpus, &self.cache)?;
        let facts = data::DataFacts::of(&corpus, &tokenizer, &self.cache)?;
        let found = Arc::new(Opened { corpus, tokenizer, facts, samples: OnceLock::new() });
        opened.push((named, Arc::clone(&found)));
        Ok(found)
    }

    /// The rows of a configuration under a tokenizer that is here already, and the digest of both: where its shards are
    /// not those that the tokenizer was trained on.
    ///
    /// # Errors
    /// Data that are missing or bad.
    pub fn rows_with(
        &self,
        config: &RunConfig,
        tokenizer: &Arc<Tokenizer>,
    ) -> Result<(Box<dyn Rows>, Digest)> {
        let corpus = Corpus::open_with(&config.data.shards, &config.data, &self.cache)?;
        corpus.hash(&self.cache)?;
        let facts = data::DataFacts::of(&corpus, tokenizer, &self.cache)?;
        let content = facts.content;
        let tokenizer = Arc::clone(tokenizer);
        let opened = Arc::new(Opened { corpus, tokenizer, facts, samples: OnceLock::new() });
        Ok((self.rows_of(opened, config), content))
    }

    /// The rows of a run.
    pub fn rows(&self, config: &RunConfig) -> Result<Box<dyn Rows>> {
        Ok(self.rows_of(self.open(&config.data)?, config))
    }

    fn rows_of(&self, opened: Arc<Opened>, config: &RunConfig) -> Box<dyn Rows> {
        Box::new(CorpusRows {
            token_bytes: opened.tokenizer.token_bytes(config.data.token_bytes),
            opened,
            cache: self.cache.clone(),
            shape: BatchShape {
                packing: config.data.packing,
                rows: config.batch.device_batch_size,
                len: config.model.sequence_len(),
            },
        })
    }
}

impl Facts for Library {
    fn data(&self, data: &DataConfig) -> Result<DataFacts> {
        if !self.missing(data)?.is_empty() {
            return Ok(DataFacts::default());
        }
        let facts = &self.open(data)?.facts;
        Ok(DataFacts {
            vocab_size: Some(facts.vocab_size),
            content: Some(facts.content),
            splits: Some(facts.splits),
        })
    }

    fn data_use(&self, config: &RunConfig) -> Result<Option<DataUse>> {
        if !self.missing(&config.data)?.is_empty() {
            return Ok(None);
        }
        let opened = self.open(&config.data)?;
        let [train, validation] = opened.samples()?;
        let len = config.model.sequence_len();
        let split = |split, sample: &Sample, rows: u64| {
            let size = opened.corpus.split(split).size()?;
            let (documents_a_row, exact) = sample.documents_a_row(config.data.packing, len)?;
            let estimate = || (sample.bytes_a_document() * size.documents as f64) as u64;
            Ok::<_, Error>(SplitUse {
                files: size.files,
                documents: size.documents,
                bytes: size.bytes.unwrap_or_else(estimate),
                bytes_are_estimated: size.bytes.is_none(),
                epochs: rows as f64 * documents_a_row / size.documents.max(1) as f64,
                epochs_are_estimated: !exact,
            })
        };
        let batch = &config.batch;
        let rows =
            config.schedule.num_iterations.saturating_mul((batch.total_batch_size / len.max(1)) as u64);
        // Whole batches alone are evaluated.
        let micro = (batch.device_batch_size * len).max(1) as u64;
        let evaluated = config.eval.tokens / micro * batch.device_batch_size as u64;
        Ok(Some(DataUse {
            train: split(Split::Train, train, rows)?,
            validation: split(Split::Val, validation, evaluated)?,
        }))
    }

    fn init_file(&self, path: &str) -> Result<Digest> {
        let bytes = Files::new().read(std::path::Path::new(path));
        Ok(Digest::of(&bytes.map_err(|error| Error::from(error).key("model.init"))?))
    }

    fn init_checkpoint(&self, path: &str, resumes: bool) -> Result<InitCheckpoint> {
        super::initial::facts(path, resumes)
    }
}

struct CorpusRows {
    opened: Arc<Opened>,
    cache: Cache,
    shape: BatchShape,
    token_bytes: Vec<u32>,
}

impl CorpusRows {
    fn start(&self, split: Split, cursor: Option<Cursor>) -> Result<Box<dyn BatchSource>> {
        let (source, tokenizer) = (self.opened.corpus.split(split), Arc::clone(&self.opened.tokenizer));
        Ok(Box::new(Loader::start(source, tokenizer, self.cache.clone(), self.shape, cursor)?))
    }
}

impl Rows for CorpusRows {
    fn train(&self, cursor: Option<Cursor>) -> Result<Box<dyn BatchSource>> {
        self.start(Split::Train, cursor)
    }

    fn validation(&self, cursor: Option<Cursor>) -> Result<Box<dyn BatchSource>> {
        self.start(Split::Val, cursor)
    }

    fn token_bytes(&self) -> &[u32] {
        &self.token_bytes
    }
}

impl BatchSource for Loader {
    fn next_batch(&mut self) -> Result<Batch> {
        self.next()
    }

    fn held(&self) -> LoaderBytes {
        Loader::held(self)
    }
}
