//! What `nanorun tokenizer train` trains: the train split of a manifest's shards, with upstream's limits.

use std::path::{Path, PathBuf};

use super::missing::how_to_get_shards;
use crate::data::{self, Corpus, Reading, TokenBytesRule, TokenizerChoice, TrainLimits};
use crate::error::{Error, Result};
use crate::manifest::{Cell, Manifest};
use crate::plan::data_config;

/// Upstream's default.
const VOCAB_SIZE: usize = 32_768;

/// Shards that upstream brings before it trains a tokenizer: about its two billion characters (runs/speedrun.sh).
const SHARDS: u64 = 8;

/// What a user asks for in place of the manifest's or upstream's.
#[derive(Debug, Clone, Default)]
pub struct AskedFor {
    /// V.
    pub vocab_size: Option<usize>,
    /// Most characters in all.
    pub max_chars: Option<usize>,
    /// Most characters of a document.
    pub doc_cap: Option<usize>,
    /// The directory it goes to.
    pub directory: Option<PathBuf>,
}

/// A tokenizer to be trained.
pub struct TokenizerOrder {
    /// Its texts: the train split.
    pub corpus: Corpus,
    /// Vocabulary and limits.
    pub limits: TrainLimits,
    /// What counts as the bytes of a token, by the manifest's recipe.
    pub rule: TokenBytesRule,
    /// The directory it goes to.
    pub directory: PathBuf,
}

impl TokenizerOrder {
    /// What a manifest's cells need, which has to be one tokenizer.
    ///
    /// # Errors
    /// Shards that are missing or bad; cells with several data, vocabularies or token-bytes rules; nothing that says where
    /// the tokenizer goes.
    pub fn of(manifest: &Manifest, asked: &AskedFor) -> Result<Self> {
        let mut found: Option<(Vec<String>, Reading, Wanted)> = None;
        for cell in manifest.selected_cells() {
            let config = data_config(&cell.settings);
            let wanted = Wanted {
                vocab_size: match (asked.vocab_size, &config.tokenizer) {
                    (Some(vocab_size), _) => vocab_size,
                    (None, TokenizerChoice::Train { vocab_size }) => *vocab_size,
                    (None, TokenizerChoice::Path(_)) => cell.settings.data.vocab_size.unwrap_or(VOCAB_SIZE),
                    (None, TokenizerChoice::Char) => {
                        let what =
                            Error::input("a character tokenizer is not trained, and has no tokenizer.pkl");
                        return Err(cell
                            .locate("data.tokenizer", what)
                            .help("--vocab-size N trains BPE on the same texts"));
                    }
                },
                rule: config.token_bytes,
                directory: match (&asked.directory, &config.tokenizer) {
                    (Some(directory), _) => Some(directory.clone()),
                    (None, TokenizerChoice::Path(path)) => Some(directory_of(Path::new(path))),
                    (None, _) => None,
                },
            };
            let this = (config.shards.clone(), Reading::from(&config), wanted);
            if found.as_ref().is_some_and(|found| *found != this) {
                return Err(Error::input("the cells of the manifest have several tokenizers")
                    .file(&manifest.file)
                    .expected("one set of shards, vocabulary and token-bytes rule in all cells")
                    .help(format!("--only picks the cells of one: {}", one_of(manifest, cell))));
            }
            found = Some(this);
        }
        let (Some((shards, reading, wanted)), Some(cell)) = (found, manifest.selected_cells().next()) else {
            return Err(Error::input("the manifest has no cells").file(&manifest.file));
        };
        let Some(directory) = wanted.directory else {
            return Err(Error::input("nobody says where the tokenizer goes")
                .expected("--to DIR, or a manifest with data.tokenizer.path"));
        };
        let missing = data::missing(&shards)?;
        if let Some(first) = missing.first() {
            let error = Error::input(format!("the texts are not here: nothing matches `{first}`"));
            return Err(cell.locate("data.shards", error).help(how_to_get_shards(&missing, SHARDS)));
        }
        let corpus = Corpus::open(&shards, reading)?;
        let upstream = TrainLimits::upstream(wanted.vocab_size);
        let limits = TrainLimits {
            max_chars: asked.max_chars.unwrap_or(upstream.max_chars),
            doc_cap: asked.doc_cap.unwrap_or(upstream.doc_cap),
            ..upstream
        };
        Ok(Self { corpus, limits, rule: wanted.rule, directory })
    }
}

/// An `--only` that tells a cell from the first one by what makes its tokenizer.
fn one_of(manifest: &Manifest, cell: &Cell) -> String {
    let first = manifest.selected_cells().next().map(|first| &first.overrides);
    let differs =
        |(path, value): &(&String, &toml::Value)| first.and_then(|first| first.get(*path)) != Some(*value);
    let makes =
        |(path, _): &(&String, &toml::Value)| path.starts_with("data.") || path.starts_with("upstream.");
    let found = cell.overrides.iter().filter(differs).find(makes);
    found.map_or_else(|| "--only PATH=VALUE".to_owned(), |(path, value)| format!("--only '{path}={value}'"))
}

#[derive(Debug, PartialEq)]
struct Wanted {
    vocab_size: usize,
    rule: TokenBytesRule,
    directory: Option<PathBuf>,
}

/// A manifest may name the directory or the pickle in it.
fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if path.extension().is_some_and(|extension| extension == "pkl") => parent.to_owned(),
        _ => path.to_owned(),
    }
}
