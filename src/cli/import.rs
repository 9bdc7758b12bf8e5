//! `nanorun import`: the manifest that trains a checkpoint of upstream's on.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::manifest::Options;
use crate::run::import::{ImportOptions, Imported, import as imported};
use crate::stop;

use super::naming::{absolute, shards as shards_of};
use super::output::Output;

/// `nanorun import`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct ImportArgs {
    /// Upstream's: a base directory, a run's directory, or model_NNNNNN.pt
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// The manifest to write (default: the run's tag and .toml)
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Take over the weights alone, and train from step 0
    #[arg(long)]
    weights: bool,
    /// The step, where there are several (default: the last)
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// The commit by which it was trained, where its files do not tell
    #[arg(long, value_name = "HEX")]
    commit: Option<String>,
    /// Its tokenizer's directory (default: tokenizer/ in its base directory)
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// The text to train on: a directory, a glob or files (default: the base directory's)
    #[arg(long, value_name = "PATH", num_args = 1..)]
    shards: Vec<PathBuf>,
    /// Set a field of the manifest; may be given several times
    #[arg(long = "set", value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// Replace a manifest that is there
    #[arg(long)]
    force: bool,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
    /// Print results and errors only
    #[arg(long, short)]
    quiet: bool,
}

const HELP: &str = "\
Examples:
  nanorun import ~/.cache/nanochat/base_checkpoints/d12 --to d12_on.toml
  nanorun import ~/.cache/nanochat/base_checkpoints/d12 --weights --shards more/*.parquet

The manifest has every flag of the training script that upstream noted, and model.init = { resume = ... }: weights, the \
optimizer's state of all ranks, the step and the place in the data, which go on at the next row group as upstream's own \
resume does. Nothing is copied: the checkpoint's files stay where they are, and their digests are in the run's key.";

/// Writes the manifest.
pub(super) fn import(args: &ImportArgs) -> Result<Option<Class>> {
    stop::watch()?;
    super::waiting::show_waiting(args.quiet);
    let shards = args.shards.iter().map(|path| shards_of(path)).collect::<Result<Vec<_>>>()?;
    let tokenizer = args.tokenizer.as_deref().map(absolute).transpose()?;
    let options = ImportOptions {
        step: args.step,
        commit: args.commit.as_deref(),
        tokenizer: tokenizer.as_deref(),
        shards: &shards,
        weights_alone: args.weights,
        layers: Options { sets: args.sets.clone(), ..Options::default() },
    };
    let Imported { text, name, before, steps, data, notes } = imported(&args.checkpoint, &options)?;
    let to = args.to.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    if !args.force && to.symlink_metadata().is_ok() {
        return Err(Error::input("a file is there already")
            .file(&to)
            .expected("a name that is free")
            .help("name another with --to, or replace it with --force"));
    }
    Files::from_env()?.deliver(&to, text.as_bytes())?;
    let output = Output::new(args.quiet);
    for note in notes {
        output.note(&note);
    }
    if args.json {
        let report = json!({ "manifest": to, "steps_before": before, "steps": steps, "data": data });
        output.result(&report.to_string());
    } else {
        output.result(&to.display().to_string());
        let horizon = before + steps;
        output.note(&if args.weights {
            format!("trains {steps} steps from its weights: nanorun {}", to.display())
        } else {
            format!("trains steps {} to {horizon} of {horizon}: nanorun {}", before + 1, to.display())
        });
    }
    Ok(None)
}
