//! `nanorun completions`: what shells complete by.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::args::Cli;
use super::output::Output;

/// `nanorun completions`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct CompletionsArgs {
    /// The shell: bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    shell: Shell,
}

const HELP: &str = "\
Examples:
  nanorun completions bash > ~/.local/share/bash-completion/completions/nanorun
  nanorun completions zsh > ~/.zfunc/_nanorun              (with fpath+=~/.zfunc before compinit in ~/.zshrc)
  nanorun completions fish > ~/.config/fish/completions/nanorun.fish";

/// Prints them.
pub(super) fn completions(args: &CompletionsArgs) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "nanorun", &mut script);
    Output::new(false).result(&String::from_utf8_lossy(&script));
}
