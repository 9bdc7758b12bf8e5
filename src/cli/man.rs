//! `nanorun man`: manual pages.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;

use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::manifest::nearest;

use super::args::Cli;
use super::output::Output;

/// `nanorun man`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct ManArgs {
    /// The command whose page is printed (default: that of nanorun itself)
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

const HELP: &str = "\
Examples:
  nanorun man | man -l -                             read it
  nanorun man run | man -l -
  nanorun man --dir ~/.local/share/man/man1          for `man nanorun`, `man nanorun-run`, ...";

/// Prints or writes pages.
pub(super) fn man(args: &ManArgs) -> Result<Option<Class>> {
    // Built, commands know their whole names.
    let mut root = Cli::command();
    root.build();
    let output = Output::new(false);
    let commands: Vec<Command> =
        root.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    if let Some(dir) = &args.dir {
        let files = Files::from_env()?;
        let bad = |error: crate::files::FileError| {
            Error::input(format!("the pages cannot be written: {error}"))
                .file(dir)
                .expected("a directory that can be written")
        };
        files.create_dir_all(dir).map_err(bad)?;
        let pages = std::iter::once(("nanorun".to_owned(), root.clone()))
            .chain(commands.into_iter().map(|command| (format!("nanorun-{}", command.get_name()), command)));
        let mut count = 0;
        for (name, command) in pages {
            let page = page(command)?;
            files.deliver(&dir.join(format!("{name}.1")), &page).map_err(bad)?;
            count += 1;
        }
        output.note(&format!("{count} pages are in {}", dir.display()));
        return Ok(None);
    }
    let page = match &args.command {
        None => page(root)?,
        Some(name) => {
            let found = commands.iter().find(|command| command.get_name() == name);
            let Some(command) = found else {
                let names: Vec<&str> = commands.iter().map(Command::get_name).collect();
                let error = Error::input(format!("there is no command `{name}`")).expected(names.join(", "));
                return Err(match nearest(name, names) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error,
                });
            };
            page(command.clone())?
        }
    };
    output.result(&String::from_utf8_lossy(&page));
    Ok(None)
}

fn page(command: Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(command)
        .render(&mut text)
        .map_err(|error| Error::internal(format!("a manual page cannot be made: {error}")))?;
    Ok(text)
}
