//! What data an experiment needs that are not on this machine, and how to get them.

use std::path::Path;

use crate::error::{Error, Result};
use crate::fetch::{DATASETS, Dataset, Environment};
use crate::manifest::{Cell, Manifest};
use crate::plan::data_config;
use crate::run::library::{Library, Missing};

use super::Experiment;

/// Training tokens that a shard of upstream's is good for after packing: upstream takes 150 shards for the 6 billion
/// tokens of its d24 (runs/speedrun.sh).
const TOKENS_A_SHARD: u64 = 40_000_000;

impl Experiment {
    /// What data are missing, in the order of the runs that need them, of those that the command is about.
    ///
    /// # Errors
    /// A pattern that is no glob.
    pub fn missing_data(&self) -> Result<Vec<Missing>> {
        let mut missing = Vec::new();
        for run in self.selected_runs() {
            for found in self.library.missing(&run.config.data)? {
                if !missing.contains(&found) {
                    missing.push(found);
                }
            }
        }
        Ok(missing)
    }

    /// The error of running without the data, or with other data than are pinned.
    ///
    /// # Errors
    /// That error.
    pub fn require_data(&self) -> Result<()> {
        self.require_present()?;
        self.check_pins()
    }

    /// The error of running without the data.
    ///
    /// # Errors
    /// That error; it names the first missing path's field and line, and all the missing paths.
    pub fn require_present(&self) -> Result<()> {
        let missing = self.missing_data()?;
        let Some(first) = missing.first() else { return Ok(()) };
        let what: Vec<String> = missing.iter().map(describe).collect();
        let error = Error::input(format!("the data are not here: {}", what.join("; ")))
            .expected(first.expected())
            .help(self.how_to_get(&missing));
        let needs = |found: &Missing| found.field == first.field && found.path == first.path;
        let cell = self.manifest.cells.iter().zip(&self.plan.runs).find(|(_, run)| {
            self.library.missing(&run.config.data).is_ok_and(|missing| missing.iter().any(needs))
        });
        Err(match cell {
            Some((cell, _)) => cell.locate(first.field, error),
            None => error.key(first.field).file(&self.manifest.file),
        })
    }

    /// Commands that bring the missing data, and one that does without them.
    fn how_to_get(&self, missing: &[Missing]) -> String {
        let shards: Vec<String> =
            missing.iter().filter(|found| !found.is_tokenizer()).map(|found| found.path.clone()).collect();
        let tokenizer = missing.iter().any(Missing::is_tokenizer);
        let shards_needed = self.shards_needed();
        let mut commands: Vec<String> =
            shards.iter().filter_map(|path| download(path, shards_needed)).collect();
        commands.dedup();
        let can_come = shards.is_empty() || !commands.is_empty();
        let mut upstreams = Vec::new();
        if !commands.is_empty() {
            upstreams.push(format!("python -m nanochat.dataset -n {shards_needed}"));
        }
        let mut ways = Vec::new();
        if tokenizer && can_come {
            commands.push(self.command_on_manifest("tokenizer train"));
            upstreams.push("python -m scripts.tok_train".to_owned());
        }
        if !commands.is_empty() {
            ways.push(commands.join(" && "));
        }
        // What upstream's commands leave is where upstream keeps it.
        let is_upstreams =
            |found: &Missing| found.path.contains("base_data") || found.path.contains("nanochat");
        let all_upstreams = missing.iter().all(is_upstreams);
        if !upstreams.is_empty() && all_upstreams {
            ways.push(format!("in a checkout of {}: {}", "karpathy/nanochat", upstreams.join(" && ")));
        }
        if !can_come || !all_upstreams {
            ways.push("bring them there or correct the path".to_owned());
        }
        let own_tokenizer = if tokenizer { " --set data.tokenizer.vocab_size=4096" } else { "" };
        ways.push(format!("try the embedded corpus: --set 'data.shards=\"embedded\"'{own_tokenizer}"));
        ways.join("; or ")
    }

    /// As many shards as the longest run needs.
    fn shards_needed(&self) -> u64 {
        let tokens = self.selected_runs().map(|run| run.sizes.tokens).max().unwrap_or(0);
        // One more validates.
        tokens.div_ceil(TOKENS_A_SHARD) + 1
    }
}

/// How shards that are missing can be had.
pub(super) fn how_to_get_shards(patterns: &[String], shards: u64) -> String {
    let mut commands: Vec<String> = patterns.iter().filter_map(|pattern| download(pattern, shards)).collect();
    commands.dedup();
    if commands.is_empty() {
        "bring them there or correct the path".to_owned()
    } else {
        commands.join(" && ")
    }
}

/// The command that brings the shards of a path: of the data set whose directory it is in, by upstream's name for it.
fn download(path: &str, shards: u64) -> Option<String> {
    let path = Path::new(path);
    let named = |dir: &Path, dataset: &Dataset| dir.file_name().is_some_and(|name| name == dataset.directory);
    let (dir, dataset) = path
        .ancestors()
        .find_map(|dir| DATASETS.iter().find(|dataset| named(dir, dataset)).map(|dataset| (dir, dataset)))?;
    let shards = shards.min(u64::from(dataset.shards));
    let to = if dataset.place(&environment()).is_ok_and(|place| place == dir) {
        String::new()
    } else {
        format!(" --to '{}'", dir.display())
    };
    Some(format!("nanorun data get {} --shards {shards}{to}", dataset.name))
}

fn environment() -> Environment {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    Environment::of(std::env::vars_os().filter_map(text))
}

/// The error of a plan whose vocabulary is not known, with what is missing that would tell it.
pub(super) fn named(error: Error, manifest: &Manifest, library: &Library) -> Error {
    if error.key_path() != Some("data.vocab_size") {
        return error;
    }
    let of_cell = |cell: &Cell| library.missing(&data_config(&cell.settings)).ok()?.into_iter().next();
    match manifest.cells.iter().find_map(of_cell) {
        Some(missing) => error.because(describe(&missing)),
        None => error,
    }
}

/// What is missing at a path, as precisely as can be told.
fn describe(found: &Missing) -> String {
    let Missing { path, .. } = found;
    if found.is_tokenizer() {
        return format!("there is no tokenizer `{path}`");
    }
    let file = Path::new(path);
    let glob = path.contains(['*', '?', '[']);
    let outer = file.ancestors().skip(1).find(|dir| !dir.to_string_lossy().contains(['*', '?', '[']));
    let outer = outer.filter(|dir| !dir.as_os_str().is_empty());
    match outer {
        Some(dir) if !dir.exists() => format!("there is no `{path}`: no directory `{}`", dir.display()),
        _ if file.is_dir() => format!("the directory `{path}` holds no shards"),
        _ if glob => format!("no file matches `{path}`"),
        _ => format!("there is no file `{path}`"),
    }
}
