//! `nanorun compare`: two runs side by side.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::survey::{Compared, One};

use super::naming::results_of;
use super::output::Output;
use super::threads;

/// `nanorun compare`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct CompareArgs {
    /// A run: EXPERIMENT/KEY with the first digits of its key, its directory or a checkpoint's; of an experiment with one run, that
    #[arg(value_name = "RUN")]
    a: PathBuf,
    /// The one it is compared with
    #[arg(value_name = "RUN")]
    b: PathBuf,
    /// Where results are kept
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  nanorun compare quickstart/4734d3 quickstart/fcf76a     settings that differ, where they part, curves, last values
  nanorun compare old/quickstart/4734d3 quickstart/4734d3 --json

Two runs say nothing of seeds: `nanorun report` judges arms. `nanorun diff` compares whole directories bit by bit.";

/// Compares.
pub(super) fn compare(args: &CompareArgs) -> Result<Option<Class>> {
    threads::start(None)?;
    let files = Files::new();
    let find = |name: &Path| {
        let (dir, key) = results_of(name, &args.results)?;
        One::find(&files, &dir, key.as_deref())
    };
    let (a, b) = (find(&args.a)?, find(&args.b)?);
    if a.place == b.place {
        return Err(Error::input("both are the same run")
            .file(a.place.path())
            .expected("two runs; `nanorun show` tells of one, with all its attempts"));
    }
    let compared = Compared::of(&a, &b);
    let output = Output::new(false);
    if args.json {
        output.result(&compared.json().to_string());
    } else {
        output.prose(&compared.text(output.width().unwrap_or(100)));
    }
    Ok(None)
}
