//! The tokenizer of a run: trained here, read from upstream's pickle, or one token a character.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::bpe_encode::{BpeEncoder, Scratch};
use super::bpe_train::{self, PieceCounts};
use super::cache::Cache;
use super::char_vocab::CharVocab;
use super::config::{TokenBytesRule, TokenizerChoice};
use super::corpus::Corpus;
use super::encode_pool::{EncodePool, shares};
use super::progress::{Task, Unit};
use super::split::{Split, SplitSource};
use super::{token_bytes, tokenizer_pickle};
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};
use crate::torch_file;
use crate::upstream::{BOS, MIN_VOCAB_SIZE, SPECIAL_TOKENS};

/// What a tokenizer is trained on, by the flags of upstream's tok_train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainLimits {
    /// V, with the nine special tokens.
    pub vocab_size: usize,
    /// The trainer stops after the document that passes this many characters.
    pub max_chars: usize,
    /// Characters of a document that it looks at.
    pub doc_cap: usize,
}

impl TrainLimits {
    /// Upstream's.
    pub fn upstream(vocab_size: usize) -> Self {
        Self { vocab_size, max_chars: 2_000_000_000, doc_cap: 10_000 }
    }
}

/// Bytes of text that the trainer gathers before it counts them on all threads.
const TRAIN_BLOCK_BYTES: usize = 16 << 20;

/// Bytes of the word cache that a single text is encoded with.
const LONE_WORD_CACHE_BYTES: usize = 1 << 20;

/// The vocabulary of the embedded and trained tokenizers changes when this does.
pub(super) const TRAINER_VERSION: u64 = 1;

/// Text to ids and back.
pub struct Tokenizer {
    kind: Kind,
    /// Names by id, from the first id after the ordinary tokens.
    specials: Vec<String>,
    bos: u32,
    digest: Digest,
}

enum Kind {
    Bpe(Box<BpeEncoder>),
    Char(CharVocab),
}

impl Tokenizer {
    /// The tokenizer that a run asks for. A trained one is kept in the cache.
    ///
    /// # Errors
    /// A vocabulary below 265 or above what the corpus can fill, a tokenizer file that is missing or not one, a
    /// shard that cannot be read.
    pub fn resolve(choice: &TokenizerChoice, corpus: &Corpus, cache: &Cache) -> Result<Arc<Self>> {
        let tokenizer = match choice {
            TokenizerChoice::Path(path) => Self::load(Path::new(path))?,
            TokenizerChoice::Train { vocab_size } => {
                Self::train(&corpus.split(Split::Train), *vocab_size, cache)?
            }
            TokenizerChoice::Char => Self::characters(corpus)?,
        };
        Ok(Arc::new(tokenizer))
    }

    /// Ordinary tokens by id and the special tokens that follow them.
    ///
    /// # Errors
    /// Says what is wrong with the vocabulary.
    pub(crate) fn from_tokens(
        tokens: Vec<Vec<u8>>,
        specials: Vec<String>,
    ) -> std::result::Result<Self, String> {
        let ordinary = tokens.len();
        let at =
            specials.iter().position(|name| name == BOS).ok_or_else(|| format!("no special token {BOS}"))?;
        let mut canonical = Canonical::new("nanorun tokenizer");
        canonical.str("kind", "bpe").u64("tokens", ordinary as u64);
        for token in &tokens {
            canonical.bytes("token", token);
        }
        for name in &specials {
            canonical.str("special", name);
        }
        let kind = Kind::Bpe(Box::new(BpeEncoder::new(tokens)?));
        Ok(Self { kind, bos: (ordinary + at) as u32, specials, digest: canonical.finish() })
    }

    /// Trains BPE on the documents of a split, as upstream's tok_train does with its defaults.
    ///
    /// # Errors
    /// A vocabulary below 265, or above what the texts can fill; a shard that cannot be read.
    pub fn train(source: &SplitSource, vocab_size: usize, cache: &Cache) -> Result<Self> {
        Self::train_within(source, TrainLimits::upstream(vocab_size), cache)
    }

    /// Where the cache keeps a trained tokenizer.
    fn entry(source: &SplitSource, limits: TrainLimits, cache: &Cache) -> Result<Digest> {
        let mut canonical = Canonical::new("nanorun trained tokenizer");
        canonical
            .u64("trainer", TRAINER_VERSION)
            .digest("texts", &source.digest(cache)?)
            .u64("vocabulary", limits.vocab_size as u64)
            .u64("document characters", limits.doc_cap as u64)
            .u64("characters", limits.max_chars as u64);
        Ok(canonical.finish())
    }

    /// The tokenizer that was trained on the split within these limits before, if the cache still has it.
    ///
    /// # Errors
    /// A shard that cannot be read.
    pub fn trained_before(source: &SplitSource, limits: TrainLimits, cache: &Cache) -> Result<Option<Self>> {
        let bytes = cache.get("tokenizers", &Self::entry(source, limits, cache)?);
        let tokenizer = bytes.and_then(|bytes| tokenizer_pickle::read(&bytes).ok());
        Ok(tokenizer.filter(|tokenizer| tokenizer.vocab_size() == limits.vocab_size))
    }

    /// Trains BPE on the documents of a split, or finds it trained.
    ///
    /// # Errors
    /// As [`Tokenizer::train`].
    pub fn train_within(source: &SplitSource, limits: TrainLimits, cache: &Cache) -> Result<Self> {
        let vocab_size = limits.vocab_size;
        let key = "data.tokenizer.vocab_size";
        if vocab_size < MIN_VOCAB_SIZE {
            return Err(Error::input(format!("a vocabulary of {vocab_size} tokens is too small"))
                .key(key)
                .expected(format!(
                    "at least {MIN_VOCAB_SIZE}: 256 bytes and {} special tokens",
                    SPECIAL_TOKENS.len()
                ))
                .help("upstream trains 32768; 4096 suits the embedded corpus"));
        }
        if let Some(tokenizer) = Self::trained_before(source, limits, cache)? {
            return Ok(tokenizer);
        }
        let entry = Self::entry(source, limits, cache)?;
        let _filling = cache.filling("tokenizers", &entry, || cache.get("tokenizers", &entry).is_some());
        if let Some(tokenizer) = Self::trained_before(source, limits, cache)? {
            return Ok(tokenizer);
        }
        let counts = count_pieces(source, limits)?;
        let tokens = bpe_train::train(counts, vocab_size - MIN_VOCAB_SIZE)?;
        let reached = tokens.len() + SPECIAL_TOKENS.len();
        if reached < vocab_size {
            return Err(Error::input(format!(
                "the training texts fill no vocabulary of {vocab_size} tokens"
            ))
            .key(key)
            .expected(format!("at most {reached} for these texts"))
            .help("choose a smaller vocabulary or more text"));
        }
        let specials = SPECIAL_TOKENS.map(str::to_owned).to_vec();
        let tokenizer = Self::from_tokens(tokens, specials)
            .map_err(|what| Error::internal(format!("the trained vocabulary is unusable: {what}")))?;
        if let Some(bytes) = tokenizer.to_pickle() {
            cache.put("tokenizers", &entry, &bytes);
        }
        Ok(tokenizer)
    }

    /// One token for each character of the corpus, both splits, and one BOS.
    ///
    /// # Errors
    /// A shard that cannot be read.
    pub fn characters(corpus: &Corpus) -> Result<Self> {
        let mut characters = BTreeSet::new();
        for split in [Split::Train, Split::Val] {
            for_each_group(&corpus.split(split), |documents| {
                characters.extend(documents.iter().flat_map(|document| document.chars()));
                Ok(true)
            })?;
        }
        let vocab = CharVocab::new(characters);
        let mut canonical = Canonical::new("nanorun tokenizer");
        canonical.str("kind", "char").str("characters", &String::from_iter(vocab.characters()));
        let bos = vocab.characters().len() as u32;
        let specials = vec![BOS.to_owned()];
        Ok(Self { kind: Kind::Char(vocab), specials, bos, digest: canonical.finish() })
    }

    /// Reads `tokenizer.pkl`, or the directory it is in. Nothing in it is executed.
    ///
    /// # Errors
    /// A file that is missing, no tokenizer, or one with another split pattern.
    pub fn load(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join("tokenizer.pkl") } else { path.to_owned() };
        let bytes = std::fs::read(&file).map_err(|error| {
            Error::input("cannot read a tokenizer")
                .file(&file)
                .key("data.tokenizer")
                .because(error)
                .expected("upstream's tokenizer directory or its tokenizer.pkl")
        })?;
        tokenizer_pickle::read(&bytes).map_err(|what| {
            Error::input(format!("not a tokenizer that can be used: {what}"))
                .file(&file)
                .key("data.tokenizer")
                .expected("a tokenizer.pkl as upstream's tok_train writes it")
        })
    }

    /// The files of upstream's tokenizer directory, byte for byte as Python and torch write them: `token_bytes.pt`
    /// under a definition, then `tokenizer.pkl`.
    ///
    /// # Errors
    /// A character tokenizer, which has no such form.
    pub fn files(&self, rule: TokenBytesRule) -> Result<[(&'static str, Vec<u8>); 2]> {
        let Some(pickle) = self.to_pickle() else {
            return Err(Error::input("a character tokenizer has no tokenizer.pkl").key("data.tokenizer"));
        };
        let bytes: Vec<i32> = self.token_bytes(rule).into_iter().map(|bytes| bytes as i32).collect();
        Ok([("token_bytes.pt", torch_file::int32(&bytes)), ("tokenizer.pkl", pickle)])
    }

    /// Upstream's pickle of it; none for a character tokenizer.
    fn to_pickle(&self) -> Option<Vec<u8>> {
        match &self.kind {
            Kind::Bpe(encoder) => Some(tokenizer_pickle::write(encoder.tokens(), &self.specials)),
            Kind::Char(_) => None,
        }
    }

    fn ordinary(&self) -> usize {
        match &self.kind {
            Kind::Bpe(encoder) => encoder.tokens().len(),
            Kind::Char(vocab) => vocab.characters().len(),
        }
    }

    /// The ordinary tokens by id; none of a character tokenizer.
    pub(crate) fn bpe_tokens(&self) -> Option<&[Vec<u8>]> {
        match &self.kind {
            Kind::Bpe(encoder) => Some(encoder.tokens()),
            Kind::Char(_) => None,
        }
    }

    /// V, special tokens among them.
    pub fn vocab_size(&self) -> usize {
        self.ordinary() + self.specials.len()
    }

    /// Whether all of these ids are its own.
    pub(super) fn knows(&self, ids: &[u32]) -> bool {
        ids.iter().all(|&id| (id as usize) < self.vocab_size())
    }

    /// Id of the token that begins every document.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// Id of a special token.
    pub fn special(&self, name: &str) -> Option<u32> {
        self.specials.iter().position(|special| special == name).map(|at| (self.ordinary() + at) as u32)
    }

    /// Name of a special token.
    fn special_name(&self, id: u32) -> Option<&str> {
        let at = (id as usize).checked_sub(self.ordinary())?;
        self.specials.get(at).map(String::as_str)
    }

    /// Hash of its vocabulary; equal however it was come by.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes that a token stands for; the name of a special one. None beyond the vocabulary.
    pub fn token(&self, id: u32) -> Option<Vec<u8>> {
        let ordinary = match &self.kind {
            Kind::Bpe(encoder) => encoder.tokens().get(id as usize).cloned(),
            Kind::Char(vocab) => {
                vocab.characters().get(id as usize).map(|character| character.to_string().into_bytes())
            }
        };
        ordinary.or_else(|| Some(self.special_name(id)?.as_bytes().to_vec()))
    }

    /// Bytes of each token by id, special tokens 0, under a definition.
    pub fn token_bytes(&self, rule: TokenBytesRule) -> Vec<u32> {
        (0..self.vocab_size() as u32)
            .map(|id| match (self.special_name(id), self.token(id)) {
                (None, Some(token)) => token_bytes::bytes_of(&token, rule),
                _ => 0,
            })
            .collect()
    }

    /// The ids of a text, without BOS; special tokens in it are ordinary text.
    ///
    /// # Errors
    /// A character that a character tokenizer does not know.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.encode_into(text, &mut Scratch::of_bytes(LONE_WORD_CACHE_BYTES), &mut ids)?;
        Ok(ids)
    }

    pub(super) fn encode_into(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<()> {
        if u32::try_from(text.len()).is_err() {
            return Err(Error::input(format!("a document has {} bytes", text.len()))
                .key("data.shards")
                .expected("documents below 4 GiB"));
        }
        match &self.kind {
            Kind::Bpe(encoder) => encoder.encode_into(text, scratch, ids),
            Kind::Char(vocab) => vocab.encode_into(text, ids).map_err(|character| {
                Error::input(format!("the character tokenizer has no token for {character:?}"))
                    .expected("characters of the training corpus")
            })?,
        }
        Ok(())
    }

    /// The ids of each document with BOS before them, on all threads.
    ///
    /// # Errors
    /// A character that a character tokenizer does not know; a document of 4 GiB or more; a stop asked for meanwhile.
    pub fn encode_documents(
        &self,
        documents: &[impl AsRef<str> + Sync],
        pool: &mut EncodePool,
    ) -> Result<Vec<Arc<[u32]>>> {
        let workers = pool.workers(rayon::current_num_threads().max(1));
        let shares = shares(documents, workers.len());
        let encoded: Vec<Vec<Arc<[u32]>>> = workers
            .par_iter_mut()
            .zip(shares)
            .map(|(worker, documents)| worker.encode(self, documents))
            .collect::<Result<_>>()?;
        Ok(encoded.into_iter().flatten().collect())
    }

    /// The bytes that ids stand for, special tokens by their names; ids beyond the vocabulary give nothing.
    pub fn decode_bytes(&self, ids: &[u32]) -> Vec<u8> {
        ids.iter().filter_map(|&id| self.token(id)).flatten().collect()
    }

    /// The text that ids stand for, with U+FFFD for what is not UTF-8.
    pub fn decode(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(ids)).into_owned()
    }
}

/// The pieces of the documents that upstream's trainer sees.
fn count_pieces(source: &SplitSource, limits: TrainLimits) -> Result<PieceCounts> {
    let mut counts = PieceCounts::default();
    let mut block: Vec<String> = Vec::new();
    let (mut block_bytes, mut chars) = (0, 0);
    let task = Task::new("reading texts to train the tokenizer", 0, Unit::Bytes);
    for_each_group(source, |documents| {
        for mut document in documents {
            let mut ends = document.char_indices().map(|(at, _)| at);
            match ends.nth(limits.doc_cap) {
                Some(end) => {
                    document.truncate(end);
                    chars += limits.doc_cap;
                }
                None => chars += document.chars().count(),
            }
            block_bytes += document.len();
            block.push(document);
            if chars > limits.max_chars {
                break;
            }
        }
        if block_bytes >= TRAIN_BLOCK_BYTES {
            counts.add(&block);
            block.clear();
            task.advance(std::mem::take(&mut block_bytes) as u64);
        }
        Ok(chars <= limits.max_chars)
    })?;
    counts.add(&block);
    Ok(counts)
}

/// Hands the documents of each row group to `each`, in order, until it answers false.
pub(crate) fn for_each_group(
    source: &SplitSource,
    mut each: impl FnMut(Vec<String>) -> Result<bool>,
) -> Result<()> {
    for file in 0..source.files() {
        let reader = source.open(file)?;
        for group in 0..reader.groups() {
            crate::stop::check()?;
            if !each(reader.read_split(group)?)? {
                return Ok(());
            }
        }
    }
    Ok(())
}
