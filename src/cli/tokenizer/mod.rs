//! `nanorun tokenizer`: upstream's tokenizer directory without upstream.

mod convert;
mod text;
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
    /// Print the ids of a text
    Encode(EncodeArgs),
    /// Print the text of ids
    Decode(DecodeArgs),
    /// Say whether two tokenizers give the same ids, and where not
    Compare(CompareArgs),
    /// Write upstream's directory of a tokenizer in another form
    Import(ImportTokenizerArgs),
    /// Write a tokenizer in the form of another program
    Export(ExportTokenizerArgs),
}

/// `nanorun tokenizer encode`
#[derive(Debug, Clone, Args)]
#[command(after_help = ENCODE_HELP)]
struct EncodeArgs {
    /// Upstream's directory or tokenizer.pkl, a tokenizer.json, or tiktoken's ranks (.tiktoken)
    #[arg(value_name = "TOKENIZER")]
    tokenizer: PathBuf,
    /// The text (default: the standard input); special tokens in it are ordinary text
    #[arg(long)]
    text: Option<String>,
    /// Begin with the token that begins a document
    #[arg(long)]
    bos: bool,
    /// Print machine-readable JSON on stdout, with the text of each token
    #[arg(long)]
    json: bool,
}

/// `nanorun tokenizer decode`
#[derive(Debug, Clone, Args)]
#[command(after_help = DECODE_HELP)]
struct DecodeArgs {
    /// As for encode
    #[arg(value_name = "TOKENIZER")]
    tokenizer: PathBuf,
    /// The ids (default: the standard input)
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

/// `nanorun tokenizer compare`
#[derive(Debug, Clone, Args)]
#[command(after_help = COMPARE_HELP)]
struct CompareArgs {
    /// The one, as for encode
    a: PathBuf,
    /// The other
    b: PathBuf,
    /// The texts: a directory, a glob or files (default: those that come with nanorun)
    #[arg(long, value_name = "PATH", num_args = 1..)]
    shards: Vec<PathBuf>,
    /// One text instead
    #[arg(long, conflicts_with = "shards")]
    text: Option<String>,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
}

/// `nanorun tokenizer import`
#[derive(Debug, Clone, Args)]
#[command(after_help = IMPORT_HELP)]
struct ImportTokenizerArgs {
    /// A tokenizer.json, tiktoken's ranks (.tiktoken), or as for encode
    #[arg(value_name = "TOKENIZER")]
    tokenizer: PathBuf,
    /// The directory that tokenizer.pkl and token_bytes.pt go to
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// How token_bytes.pt counts: raw bytes, or those of the decoded text as before 92d63d4
    #[arg(long, value_name = "RULE", value_parser = ["raw", "decoded"], default_value = "raw")]
    token_bytes: String,
    /// Replace another tokenizer that is there
    #[arg(long)]
    force: bool,
}

/// `nanorun tokenizer export`
#[derive(Debug, Clone, Args)]
#[command(after_help = EXPORT_HELP)]
struct ExportTokenizerArgs {
    /// As for encode
    #[arg(value_name = "TOKENIZER")]
    tokenizer: PathBuf,
    /// The file, whose ending says the form: .json (Hugging Face's tokenizers), .tiktoken, .pkl
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
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
Examples:
  nanorun tokenizer train m.toml --to tokenizer

The two files are what upstream's tok_train leaves, byte for byte: Python's pickle and tiktoken read the one, torch.load \
the other. token_bytes.pt counts bytes by the manifest's data.token_bytes. The directory works as data.tokenizer.path. \
The same texts and limits give the same bytes on any number of threads.";

/// Carries it out.
pub(super) fn tokenizer(args: &TokenizerArgs) -> Result<Option<Class>> {
    match &args.command {
        TokenizerCommand::Train(args) => train::train(args),
        TokenizerCommand::Encode(args) => text::encode(args),
        TokenizerCommand::Decode(args) => text::decode(args),
        TokenizerCommand::Compare(args) => text::compare(args),
        TokenizerCommand::Import(args) => convert::import(args),
        TokenizerCommand::Export(args) => convert::export(args),
    }
}

const ENCODE_HELP: &str = "\
Examples:
  echo 'To be or not to be' | nanorun tokenizer encode ~/.cache/nanochat/tokenizer";

const DECODE_HELP: &str = "\
Examples:
  nanorun tokenizer decode ~/.cache/nanochat/tokenizer 464 3290";

const COMPARE_HELP: &str = "\
Examples:
  nanorun tokenizer compare mine/tokenizer ~/.cache/nanochat/tokenizer";

const IMPORT_HELP: &str = "\
Examples:
  nanorun tokenizer import tokenizer.json --to tokenizer";

const EXPORT_HELP: &str = "\
Examples:
  nanorun tokenizer export ~/.cache/nanochat/tokenizer --to tokenizer.json";
