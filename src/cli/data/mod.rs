//! `nanorun data`: bring published shards here, and check them.

mod check;
mod get;
mod progress;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::{Class, Result};

/// `nanorun data`
#[derive(Debug, Clone, Args)]
pub(super) struct DataArgs {
    /// What to do
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum DataCommand {
    /// Download upstream's shards, whole and checked
    Get(GetArgs),
    /// Compare the shards of a directory with its SHA256SUMS
    Check(CheckArgs),
}

/// `nanorun data get`
#[derive(Debug, Clone, Args)]
#[command(after_help = GET_HELP)]
struct GetArgs {
    /// The data set: climbmix, or fineweb-edu as upstream used it up to commit 2f09686
    #[arg(value_name = "DATASET")]
    dataset: String,
    /// How many shards, from the first; climbmix's validation shard comes along beside them
    #[arg(long, value_name = "N")]
    shards: u32,
    /// The directory they come to (default: upstream's own, under $NANOCHAT_BASE_DIR or ~/.cache/nanochat)
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Where the shards are, up to the slash before their names (default: the data set's place on the Hugging Face Hub)
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Pin the hashes of the shards in this manifest afterwards, as `nanorun lock` does
    #[arg(long, value_name = "MANIFEST")]
    lock: Option<PathBuf>,
    /// List what is here and what would be downloaded; ask nobody, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
    /// Print results and errors only: no progress, no notes
    #[arg(long, short)]
    quiet: bool,
}

// A paragraph a line: clap wraps them to the terminal.
const GET_HELP: &str = "\
Examples:
  nanorun data get climbmix --shards 8
  nanorun data get climbmix --shards 8 --lock m.toml

A shard gets its name once it is whole: of the length and SHA-256 that the server says, and a parquet file that reads. \
A download that was stopped or cut carries on where it was. SHA256SUMS beside the shards says what each was when it \
first came; later downloads and `nanorun data check` compare.

Environment: HF_ENDPOINT is the Hub's address; HF_TOKEN goes to that host alone; HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and \
NO_PROXY are obeyed; SSL_CERT_FILE names certificate authorities (PEM) in place of Mozilla's.

This was tested against servers of its own tests alone; its authors never ran it against the real host.";

/// `nanorun data check`
#[derive(Debug, Clone, Args)]
#[command(after_help = CHECK_HELP)]
struct CheckArgs {
    /// The directory of the shards
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
    /// Print results and errors only: no notes
    #[arg(long, short)]
    quiet: bool,
}

/// Carries it out.
pub(super) fn data(args: &DataArgs) -> Result<Option<Class>> {
    match &args.command {
        DataCommand::Get(args) => get::get(args),
        DataCommand::Check(args) => check::check(args),
    }
}

const CHECK_HELP: &str = "\
Examples:
  nanorun data check ~/.cache/nanochat/base_data_climbmix";
