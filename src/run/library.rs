//! The data of an experiment's runs: each corpus and tokenizer opened once, however many runs read them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::data::{
    self, Batch, BatchShape, Cache, Corpus, Cursor, Listing, Loader, LoaderBytes, Packing, RankTurns,
    Reading, RowOrder, Sample, Split, Tokenizer, TokenizerChoice,
};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::Digest;
use crate::plan::run_config::{DataConfig, RunConfig};
use crate::plan::{DataFacts, DataUse, Facts, InitCheckpoint, SplitUse};
use crate::tasks::{Bundle, Limits};
use crate::train::rows::{BatchSource, Rows};
use crate::train::session::CoreMeter;

use super::core_metric::CoreInTraining;

/// Corpora and tokenizers by the configuration that names them. What shards there are is looked up once.
pub struct Library {
    cache: Cache,
    listings: Mutex<Vec<Arc<Listing>>>,
    corpora: Mutex<Vec<Known>>,
    opened: Mutex<Vec<(DataConfig, Arc<Opened>)>>,
    /// Digests of evaluation bundles, by path and limit.
    bundles: Mutex<Vec<(String, Option<u64>, Digest)>>,
}

/// A corpus by what names it and how it is read.
type Known = (Vec<String>, Reading, Arc<Corpus>);

/// One corpus under one tokenizer.
pub struct Opened {
    corpus: Arc<Corpus>,
    tokenizer: Arc<Tokenizer>,
    facts: data::DataFacts,
    /// The first documents of train and validation split.
    samples: OnceLock<[Sample; 2]>,
    /// Documents that a row of either split takes, and whether that is exact, by packing and length of rows.
    appetites: Mutex<Vec<(Packing, usize, [Appetite; 2])>>,
}

type Appetite = (f64, bool);

impl Opened {
    fn samples(&self) -> Result<&[Sample; 2]> {
        if let Some(samples) = self.samples.get() {
            return Ok(samples);
        }
        let of = |split| Sample::of(&self.corpus.split(split), &self.tokenizer);
        let samples = [of(Split::Train)?, of(Split::Val)?];
        Ok(self.samples.get_or_init(|| samples))
    }

    fn appetites(&self, packing: Packing, len: usize) -> Result<[Appetite; 2]> {
        let mut known = lock(&self.appetites);
        if let Some((.., found)) = known.iter().find(|(of, rows, _)| (*of, *rows) == (packing, len)) {
            return Ok(*found);
        }
        let [train, validation] = self.samples()?;
        let found = [train.documents_a_row(packing, len)?, validation.documents_a_row(packing, len)?];
        known.push((packing, len, found));
        Ok(found)
    }

    /// Documents of a split that each rank reads in a round.
    ///
    /// # Errors
    /// A rank without any; class `Input`.
    fn documents_by_rank(&self, split: Split, order: RowOrder) -> Result<Vec<u64>> {
        let order = if split == Split::Train { order } else { order.unpermuted() };
        if order.ranks <= 1 {
            return Ok(vec![self.corpus.split(split).size()?.documents]);
        }
        data::documents_by_rank(&self.corpus.split(split), order, split.name())
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
        Self {
            cache,
            listings: Mutex::default(),
            corpora: Mutex::default(),
            opened: Mutex::default(),
            bundles: Mutex::default(),
        }
    }

    /// What of `data` is not on this machine; empty where nothing is missing.
    pub fn missing(&self, data: &DataConfig) -> Result<Vec<Missing>> {
        let shards = self.listing(&data.shards)?.missing().into_iter();
        let mut missing: Vec<_> = shards.map(|path| Missing { field: "data.shards", path }).collect();
        if let TokenizerChoice::Path(path) = &data.tokenizer
            && !std::path::Path::new(path).exists()
        {
            missing.push(Missing { field: TOKENIZER_PATH, path: path.clone() });
        }
        Ok(missing)
    }

    /// What the patterns match.
    fn listing(&self, patterns: &[String]) -> Result<Arc<Listing>> {
        let mut known = lock(&self.listings);
        if let Some(found) = known.iter().find(|listing| listing.is_of(patterns)) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(Listing::of(patterns)?);
        known.push(Arc::clone(&found));
        Ok(found)
    }

    /// The shards of a data set, examined and hashed; data sets may differ in what is made of them alone.
    fn corpus(&self, data: &DataConfig) -> Result<Arc<Corpus>> {
        let reading = Reading::from(data);
        let mut known = lock(&self.corpora);
        let same =
            |(shards, as_well, _): &&(Vec<String>, Reading, _)| *shards == data.shards && *as_well == reading;
        if let Some((.., found)) = known.iter().find(same) {
            return Ok(Arc::clone(found));
        }
        let listing = self.listing(&data.shards)?;
        let found = Arc::new(Corpus::open_listed(&listing, data, &self.cache)?);
        found.hash(&self.cache)?;
        known.push((data.shards.clone(), reading, Arc::clone(&found)));
        Ok(found)
    }

    /// Opens a data set, or finds it open.
    ///
    /// # Errors
    /// Data that are missing or bad.
    pub fn open(&self, data: &DataConfig) -> Result<Arc<Opened>> {
        let named = data.as_named();
        let mut opened = lock(&self.opened);
        if let Some((_, found)) = opened.iter().find(|(known, _)| *known == named) {
            return Ok(Arc::clone(found));
        }
        let corpus = self.corpus(data)?;
        let tokenizer = Tokenizer::resolve(&data.tokenizer, &corpus, &self.cache)?;
        let facts = data::DataFacts::of(&corpus, &tokenizer, &self.cache)?;
        let (samples, appetites) = (OnceLock::new(), Mutex::default());
        let found = Arc::new(Opened { corpus, tokenizer, facts, samples, appetites });
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
        let corpus = Arc::new(Corpus::open_with(&config.data.shards, &config.data, &self.cache)?);
        corpus.hash(&self.cache)?;
        let facts = data::DataFacts::of(&corpus, tokenizer, &self.cache)?;
        let content = facts.content;
        let tokenizer = Arc::clone(tokenizer);
        let (samples, appetites) = (OnceLock::new(), Mutex::default());
        let opened = Arc::new(Opened { corpus, tokenizer, facts, samples, appetites });
        opened.documents_by_rank(Split::Val, config.row_order)?;
        Ok((self.rows_of(opened, config), content))
    }

    /// What measures the CORE metric of a run; none where its configuration does not ask for it.
    ///
    /// # Errors
    /// A bundle that is not there, bad, or not the one that was planned with; class `Input`.
    pub fn core(&self, config: &RunConfig, alone: bool) -> Result<Option<Box<dyn CoreMeter>>> {
        let Some(core) = &config.eval.core else { return Ok(None) };
        let limits = Limits { max_per_task: core.max_per_task };
        let bundle = Bundle::open(std::path::Path::new(&core.bundle), limits)?;
        if core.sha256.is_some_and(|planned| planned != bundle.digest()) {
            return Err(Error::input("the evaluation bundle is not the one that was planned with")
                .file(&core.bundle)
                .key("eval.core.bundle")
                .help("bring back the files that were there, or start again"));
        }
        let opened = self.open(&config.data)?;
        let (tokenizer, cache) = (Arc::clone(&opened.tokenizer), self.cache.clone());
        Ok(Some(Box::new(CoreInTraining { bundle, config: config.clone(), tokenizer, cache, alone })))
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
            train: RankTurns { order: config.row_order, batches: config.turn() },
            validation: RankTurns {
                order: config.row_order.unpermuted(),
                // Whoever asks for rows of no evaluation gets some all the same.
                batches: config.eval_turn().max(1),
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
        let [train_appetite, validation_appetite] = opened.appetites(config.data.packing, len)?;
        let (batch, ranks) = (&config.batch, config.row_order.ranks);
        let rows_of_rank = |rows: u64| rows as f64 / ranks.max(1) as f64;
        let split = |split, sample: &Sample, (documents_a_row, exact): Appetite, rows: u64| {
            let size = opened.corpus.split(split).size()?;
            let by_rank = opened.documents_by_rank(split, config.row_order)?;
            // The rank that goes round most often.
            let epochs = |documents: &u64| rows_of_rank(rows) * documents_a_row / (*documents).max(1) as f64;
            let estimate = || (sample.bytes_a_document() * size.documents as f64) as u64;
            Ok::<_, Error>(SplitUse {
                files: size.files,
                documents: size.documents,
                bytes: size.bytes.unwrap_or_else(estimate),
                bytes_are_estimated: size.bytes.is_none(),
                epochs: by_rank.iter().map(epochs).fold(0.0, f64::max),
                epochs_are_estimated: !exact,
            })
        };
        let rows =
            config.schedule.num_iterations.saturating_mul((batch.total_batch_size / len.max(1)) as u64);
        // Whole batches alone are evaluated.
        let evaluated = config.eval_turn() * (batch.device_batch_size * ranks) as u64;
        Ok(Some(DataUse {
            train: split(Split::Train, train, train_appetite, rows)?,
            validation: split(Split::Val, validation, validation_appetite, evaluated)?,
        }))
    }

    fn core_bundle(&self, path: &str, max_per_task: Option<u64>) -> Result<Option<Digest>> {
        let mut known = lock(&self.bundles);
        if let Some((.., digest)) = known.iter().find(|(at, most, _)| at == path && *most == max_per_task) {
            return Ok(Some(*digest));
        }
        let digest = Bundle::open(std::path::Path::new(path), Limits { max_per_task })?.digest();
        known.push((path.to_owned(), max_per_task, digest));
        Ok(Some(digest))
    }

    fn init_file(&self, path: &str) -> Result<Digest> {
        let bytes = Files::new().read(std::path::Path::new(path));
        Ok(Digest::of(&bytes.map_err(|error| Error::from(error).key("model.init"))?))
    }

    fn init_checkpoint(&self, path: &str, resumes: bool) -> Result<InitCheckpoint> {
        super::initial::facts(path, resumes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct CorpusRows {
    opened: Arc<Opened>,
    cache: Cache,
    shape: BatchShape,
    train: RankTurns,
    validation: RankTurns,
    token_bytes: Vec<u32>,
}

impl CorpusRows {
    fn start(&self, split: Split, cursor: Option<Cursor>) -> Result<Box<dyn BatchSource>> {
        let (source, tokenizer) = (self.opened.corpus.split(split), Arc::clone(&self.opened.tokenizer));
        let turns = match split {
            Split::Train => self.train,
            Split::Val => self.validation,
        };
        Ok(Box::new(Loader::of_ranks(source, tokenizer, self.cache.clone(), self.shape, turns, cursor)?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DocumentSplit, Nulls, TokenBytesRule};

    #[test]
    fn what_is_there_is_looked_up_once() {
        let place = tempfile::tempdir().unwrap();
        let shards = place.path().join("shards");
        std::fs::create_dir(&shards).unwrap();
        for name in ["a.txt", "b.txt"] {
            std::fs::write(shards.join(name), "one\ntwo\nthree\n").unwrap();
        }
        let data = |token_bytes| DataConfig {
            shards: vec![shards.display().to_string()],
            tokenizer: TokenizerChoice::Char,
            packing: Packing::Document,
            document: DocumentSplit::Line,
            token_bytes,
            content: None,
            column: "text".to_owned(),
            nulls: Nulls::Error,
            validation: None,
            splits: None,
        };
        let library = Library::new(Cache::disabled());
        let [one, other] =
            [TokenBytesRule::Raw, TokenBytesRule::Decoded].map(|rule| library.open(&data(rule)).unwrap());
        assert!(!Arc::ptr_eq(&one, &other) && Arc::ptr_eq(&one.corpus, &other.corpus));
        // Whoever asks afterwards is told what was found then.
        std::fs::remove_dir_all(&shards).unwrap();
        assert_eq!(library.missing(&data(TokenBytesRule::Raw)).unwrap(), []);
        assert_eq!(Library::new(Cache::disabled()).missing(&data(TokenBytesRule::Raw)).unwrap().len(), 1);
    }
}
