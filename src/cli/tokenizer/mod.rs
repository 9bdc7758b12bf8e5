//! `nanorun tokenizer`: upstream's tokenizer directory without upstream.

mod train;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::Common;
use crate::error::{Class, Result};

/// `nanorun tokenizer`
#[derive(Debug, Clone, Args)]
pub(super) struct TokenizerArgs {
    /// What to do
    #[command(subcommand)]
    command: TokenizerCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum TokenizerCommand {
    /// Train BPE on the train split, as upstream's tok_train does
    Train(TrainArgs),
}

/// `nanorun tokenizer train`
#[derive(Debug, Clone, Args)]
#[command(after_help = TRAIN_HELP)]
struct TrainArgs {
    /// The manifest whose data are trained on
    #[arg(value_name = "MANIFEST")]
    manifest: PathBuf,
    /// The directory that tokenizer.pkl and token_bytes.pt go to (default: the manifest's data.tokenizer.path)
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Tokens, special ones among them (default: the manifest's, or 32768)
    #[arg(long, value_name = "N")]
    vocab_size: Option<usize>,
    /// Stop after the document that passes so many characters (default: 2000000000, as upstream)
    #[arg(long, value_name = "N")]
    max_chars: Option<usize>,
    /// Characters of a document that are looked at (default: 10000, as upstream)
    #[arg(long, value_name = "N")]
    doc_cap: Option<usize>,
    /// Replace another tokenizer that is there
    #[arg(long)]
    force: bool,
    /// Common options
    #[command(flatten)]
    common: Common,
}

const TRAIN_HELP: &str = "\
The two files are what upstream's tok_train leaves, byte for byte: Python's pickle and tiktoken read the one, torch.load \
the other. token_bytes.pt counts bytes by the manifest's data.token_bytes. The directory works as data.tokenizer.path. \
The same texts and limits give the same bytes on any number of threads.";

/// Carries it out.
pub(super) fn tokenizer(args: &TokenizerArgs) -> Result<Option<Class>> {
    match &args.command {
        TokenizerCommand::Train(args) => train::train(args),
    }
}
