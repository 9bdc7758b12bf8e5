//! The `nanorun` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    nanorun::command()
}
