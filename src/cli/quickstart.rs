//! `nanorun quickstart`: the first experiment, from anywhere.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Class, Error, Result};
use crate::files::Files;

use super::args::{Common, RunArgs};
use super::output::Output;
use super::undecided::UndecidedArgs;

/// `nanorun quickstart`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct QuickstartArgs {
    /// Common options
    #[command(flatten)]
    common: Common,
}

const HELP: &str = "\
Examples:
  nanorun quickstart                                           six small GPTs on Shakespeare: a minute or two on two cores
  nanorun quickstart --only run.seed=1                         two of them
  nanorun quickstart.toml --set model.depth=4                  the manifest is yours now: change it, and run what it asks

Writes quickstart.toml into this directory, unless it is there, and runs it. It trains on text that comes with nanorun and \
needs neither network nor GPU. Results are in results/quickstart; open report.html there.";

/// The manifest, as it is in the repository.
const MANIFEST: &str = include_str!("../../experiments/quickstart.toml");
/// Its name here.
const NAME: &str = "quickstart.toml";

/// Writes the manifest and runs it.
pub(super) fn quickstart(args: &QuickstartArgs) -> Result<Option<Class>> {
    let written = lay_down(Path::new(NAME))?;
    if written {
        Output::new(args.common.quiet).note(&format!("wrote {NAME}, the experiment that is run now"));
    }
    super::run::run(&RunArgs {
        manifest: PathBuf::from(NAME),
        rerun: false,
        no_share: false,
        reuse: Vec::new(),
        jobs: None,
        devices: Vec::new(),
        undecided: UndecidedArgs::default(),
        common: args.common.clone(),
    })
}

/// Sees to it that the manifest is there. Whether it was written.
fn lay_down(path: &Path) -> Result<bool> {
    match std::fs::read(path) {
        Ok(there) if there == MANIFEST.as_bytes() => return Ok(false),
        Ok(_) => {
            return Err(Error::input(format!("{NAME} is here already and is another experiment")).help(
                format!(
                    "`nanorun {NAME}` runs it; in another directory, `nanorun quickstart` writes its own"
                ),
            ));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Error::input(format!("{NAME} is here and cannot be read"))
                .help("run `nanorun quickstart` in another directory")
                .because(error));
        }
    }
    Files::new().deliver_new(path, MANIFEST.as_bytes()).map_err(|error| {
        Error::input(format!("{NAME} cannot be written into this directory"))
            .help("run `nanorun quickstart` in a directory that you may write to")
            .because(error)
    })?;
    Ok(true)
}
