//! What data an experiment needs that are not on this machine, and how to get them.

use std::path::Path;

use crate::error::{Error, Result};
use crate::run::library::Missing;

use super::Experiment;

/// Training tokens that a shard of upstream's is good for after packing: upstream takes 150 shards for the 6 billion
/// tokens of its d24 (runs/speedrun.sh).
const TOKENS_A_SHARD: u64 = 40_000_000;

impl Experiment {
    /// What data are missing, in the order of the runs that need them.
    ///
    /// # Errors
    /// A pattern that is no glob.
    pub fn missing_data(&self) -> Result<Vec<Missing>> {
        let mut missing = Vec::new();
        for run in &self.plan.runs {
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
        let mut ways = Vec::new();
        // Upstream's own directory names, whose content its own commands make.
        let upstreams = |found: &Missing| found.path.contains("base_data") || found.path.contains("nanochat");
        let commands: Vec<String> = missing
            .iter()
            .filter(|found| upstreams(found))
            .map(|found| if found.is_tokenizer() { TRAIN_TOKENIZER.to_owned() } else { self.download() })
            .collect();
        if !commands.is_empty() {
            ways.push(format!("in a checkout of {}: {}", "karpathy/nanochat", commands.join(" && ")));
        }
        if missing.iter().any(|found| !upstreams(found)) {
            ways.push("bring them there or correct the path".to_owned());
        }
        let no_tokenizer = missing.iter().any(Missing::is_tokenizer);
        let own_tokenizer = if no_tokenizer { " --set data.tokenizer.vocab_size=4096" } else { "" };
        ways.push(format!("try the embedded corpus: --set 'data.shards=\"embedded\"'{own_tokenizer}"));
        ways.join("; or ")
    }

    /// Upstream's download, of as many shards as the longest run needs.
    fn download(&self) -> String {
        let tokens = self.plan.runs.iter().map(|run| run.sizes.tokens).max().unwrap_or(0);
        // One more validates.
        format!("python -m nanochat.dataset -n {}", tokens.div_ceil(TOKENS_A_SHARD) + 1)
    }
}

const TRAIN_TOKENIZER: &str = "python -m scripts.tok_train";

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
        _ if file.is_dir() => format!("the directory `{path}` holds neither .parquet nor .txt files"),
        _ if glob => format!("no file matches `{path}`"),
        _ => format!("there is no file `{path}`"),
    }
}
