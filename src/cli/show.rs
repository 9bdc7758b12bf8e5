//! `nanorun show`: one run's story.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Class, Result};
use crate::files::Files;
use crate::survey::{One, Story};

use super::naming::results_of;
use super::output::Output;
use super::threads;

/// `nanorun show`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct ShowArgs {
    /// A run: EXPERIMENT/KEY with the first digits of its key, its directory or a checkpoint's; of an experiment with one run, that
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Where results are kept
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  nanorun show quickstart/4734d3            its lives, curves, values, hashes, files, and the command that repeats it
  nanorun show results/quickstart/4734d3 --json

It reads what is on disk and trains nothing; a run that goes on is shown as far as its newest checkpoint.";

/// Tells the story.
pub(super) fn show(args: &ShowArgs) -> Result<Option<Class>> {
    threads::start(None)?;
    let files = Files::new();
    let (dir, key) = results_of(&args.run, &args.results)?;
    let one = One::find(&files, &dir, key.as_deref())?;
    let story = Story::of(&files, &one)?;
    let output = Output::new(false);
    if args.json {
        output.result(&story.json().to_string());
    } else {
        output.prose(&story.text(output.width().unwrap_or(100)));
    }
    Ok(None)
}
