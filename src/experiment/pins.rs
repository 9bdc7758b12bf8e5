//! `[data] sha256`: what an experiment's data hash to, and whether that is what its manifest pins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::data::{Cache, Corpus};
use crate::error::{Error, Result};
use crate::hash::Digest;
use crate::manifest::Manifest;
use crate::plan::data_config;
use crate::plan::run_config::{DataConfig, TokenizerChoice};

use super::Experiment;

/// The name of the pin of the vocabulary.
pub(crate) const TOKENIZER_PIN: &str = "tokenizer";

/// Something that a pin speaks of.
struct Pinned {
    /// Its key in the table.
    name: String,
    /// The file, as far as there is one.
    file: PathBuf,
    digest: Digest,
}

/// What the shards of a manifest hash to now, in the order of their names, and the pin of a tokenizer in a file where
/// there is one: neither tokenizer nor plan is needed.
///
/// # Errors
/// Shards that are missing or bad; cells that read different shards.
pub(crate) fn shard_pins(manifest: &Manifest) -> Result<Vec<(String, String)>> {
    let cache = Cache::from_env()?;
    let mut pins: Vec<(String, String)> = Vec::new();
    for (index, cell) in manifest.cells.iter().enumerate() {
        let data = data_config(&cell.settings);
        let files = Corpus::open_with(&data.shards, &data, &cache)?.files(&cache)?;
        let found: Vec<(String, String)> =
            files.iter().map(|(file, digest)| (short_name(file, &files), digest.to_string())).collect();
        if index > 0 && found != pins {
            return Err(cell
                .locate("data.shards", Error::input("the cells read different shards"))
                .expected("one set of shards for the whole matrix"));
        }
        pins = found;
    }
    let kept = manifest.cells.first().and_then(|cell| {
        let data = &cell.settings.data;
        let in_a_file = matches!(data.tokenizer, TokenizerChoice::Path(_));
        data.sha256.as_ref().filter(|_| in_a_file)?.get_key_value(TOKENIZER_PIN)
    });
    pins.extend(kept.map(|(name, digest)| (name.clone(), digest.clone())));
    Ok(pins)
}

impl Pinned {
    /// Whether a pin of this name speaks of it: the file's name, or more of its path.
    fn is_meant_by(&self, pin: &str) -> bool {
        match (self.name == TOKENIZER_PIN, pin == TOKENIZER_PIN) {
            (false, false) => self.file.ends_with(pin),
            (this, that) => this && that,
        }
    }
}

/// The name of a shard's pin: its file name, with as much of its path as tells it from other shards of that name.
fn short_name(file: &Path, files: &[(PathBuf, Digest)]) -> String {
    let mut name = PathBuf::new();
    for part in file.components().rev() {
        name =
            if name.as_os_str().is_empty() { part.as_os_str().into() } else { Path::new(&part).join(name) };
        if files.iter().filter(|(other, _)| other.ends_with(&name)).count() < 2 {
            break;
        }
    }
    name.to_string_lossy().into_owned()
}

/// The names of some pins, as messages list them.
fn listed<'p>(pins: impl IntoIterator<Item = &'p Pinned>) -> String {
    const MOST: usize = 8;
    let mut names: Vec<String> = pins.into_iter().map(|pinned| format!("`{}`", pinned.name)).collect();
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

impl Experiment {
    /// What the data of all cells hash to now, shards in the order of their names, then the tokenizer. Where the cells
    /// have several tokenizers, none of them has a pin.
    ///
    /// # Errors
    /// Data that are missing or bad; two shards that would have one pin.
    pub fn pins(&self) -> Result<Vec<(String, Digest)>> {
        let mut pins: Vec<(String, Digest)> = Vec::new();
        let mut one_tokenizer = true;
        for run in &self.plan.runs {
            for found in self.hashes(&run.config.data)? {
                match pins.iter().find(|(name, _)| *name == found.name) {
                    None => pins.push((found.name, found.digest)),
                    Some((_, digest)) if *digest == found.digest => {}
                    Some(_) if found.name == TOKENIZER_PIN => one_tokenizer = false,
                    Some(_) => {
                        return Err(Error::input(format!(
                            "the cells have several kinds of `{}`",
                            found.name
                        ))
                        .file(&self.manifest.file)
                        .key("data.sha256")
                        .expected("one set of shards for the whole matrix"));
                    }
                }
            }
        }
        // Stable: shards are in order already.
        pins.sort_by_key(|(name, _)| name == TOKENIZER_PIN);
        pins.retain(|(name, _)| one_tokenizer || name != TOKENIZER_PIN);
        Ok(pins)
    }

    /// Compares the data of every cell that the command is about with what is pinned for it.
    pub(super) fn check_pins(&self) -> Result<()> {
        let mut checked: Vec<(&DataConfig, &BTreeMap<String, String>)> = Vec::new();
        let cells = self.manifest.cells.iter().zip(&self.plan.runs);
        for (cell, run) in cells.filter(|(cell, _)| cell.selected) {
            let Some(pins) = &cell.settings.data.sha256 else { continue };
            if checked.contains(&(&run.config.data, pins)) {
                continue;
            }
            let found = self.hashes(&run.config.data)?;
            // First: another set of shards trains another tokenizer, which would hide why.
            for name in pins.keys() {
                let meant: Vec<&Pinned> = found.iter().filter(|pinned| pinned.is_meant_by(name)).collect();
                let (what, expected, help) = match meant.as_slice() {
                    [_] => continue,
                    [] => (
                        format!("the pinned `{name}` is not among the data"),
                        format!("a pin for each of {}", listed(&found)),
                        "get the file; if it is not meant to be there, `nanorun lock` pins what is",
                    ),
                    several => (
                        format!("the pin `{name}` is that of {} shards", several.len()),
                        format!(
                            "as much of their paths as tells them apart: {}",
                            listed(several.iter().copied())
                        ),
                        "`nanorun lock` pins them so",
                    ),
                };
                return Err(cell.locate("data.sha256", Error::input(what)).expected(expected).help(help));
            }
            for pinned in &found {
                let Pinned { name, file, digest } = pinned;
                let pin = pins.iter().find(|(name, _)| pinned.is_meant_by(name)).map(|(_, pin)| pin);
                let (what, expected) = match pin {
                    Some(pin) if pin.eq_ignore_ascii_case(&digest.to_string()) => continue,
                    Some(pin) => (format!("its SHA-256 is {digest}"), pin.clone()),
                    // A cell with a tokenizer of its own.
                    None if name == TOKENIZER_PIN => continue,
                    None => ("it has no pin".to_owned(), format!("`{name}` under [data.sha256]")),
                };
                let what = format!("`{}` is not what the manifest pins: {what}", file.display());
                let error = Error::input(what).expected(expected);
                return Err(cell
                    .locate("data.sha256", error)
                    .help("get the pinned data; if these are meant, `nanorun lock` pins them"));
            }
            checked.push((&run.config.data, pins));
        }
        Ok(())
    }

    fn hashes(&self, data: &DataConfig) -> Result<Vec<Pinned>> {
        let opened = self.library.open(data)?;
        let files = opened.files(&self.library)?;
        let names: Vec<String> = files.iter().map(|(file, _)| short_name(file, &files)).collect();
        let shards = files.into_iter().zip(names).map(|((file, digest), name)| Pinned { name, file, digest });
        let tokenizer = match &data.tokenizer {
            TokenizerChoice::Path(path) => Path::new(path),
            _ => Path::new(TOKENIZER_PIN),
        };
        let tokenizer = Pinned {
            name: TOKENIZER_PIN.to_owned(),
            file: tokenizer.to_owned(),
            digest: opened.tokenizer().digest(),
        };
        Ok(shards.chain([tokenizer]).collect())
    }
}
