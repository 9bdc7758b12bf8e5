//! The command line: one file a command, and the exit code of the process.

mod args;
mod output;

use std::process::ExitCode;

use clap::Parser;

pub use args::{Cli, Command};
pub use output::Output;

/// Parses the command line, carries the command out and reports how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap knows whether this is help (stdout, 0) or a mistake (stderr, 2).
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let _ = cli;
    ExitCode::SUCCESS
}
