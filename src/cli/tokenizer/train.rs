//! `nanorun tokenizer train`: tokenizer.pkl and token_bytes.pt.

use std::path::Path;

use serde_json::json;

use super::TrainArgs;
use crate::cli::options;
use crate::cli::output::Output;
use crate::cli::waiting::show_waiting;
use crate::data::{Cache, Split, Tokenizer};
use crate::error::{Class, Error, Result};
use crate::experiment::{AskedFor, TokenizerOrder};
use crate::files::Files;
use crate::manifest::Manifest;
use crate::stop;

/// The file that makes a directory a tokenizer's; written last.
const PICKLE: &str = "tokenizer.pkl";

/// Trains and writes.
pub(super) fn train(args: &TrainArgs) -> Result<Option<Class>> {
    let output = Output::new(args.common.quiet);
    stop::watch()?;
    show_waiting(args.common.quiet);
    let manifest = Manifest::load(&args.manifest, &options(&args.common))?;
    let asked = AskedFor {
        vocab_size: args.vocab_size,
        max_chars: args.max_chars,
        doc_cap: args.doc_cap,
        directory: args.to.clone(),
    };
    let order = TokenizerOrder::of(&manifest, &asked)?;
    let (files, cache) = (Files::from_env()?, Cache::from_env()?);
    let texts = order.corpus.split(Split::Train);
    let stands = order.directory.join(PICKLE).symlink_metadata().is_ok();
    let tokenizer = if stands && !args.force {
        // Without training for nothing: only what was trained before can be known to be the same.
        match Tokenizer::trained_before(&texts, order.limits, &cache)? {
            Some(tokenizer) if same(&order, &tokenizer)? => tokenizer,
            _ => return Err(stands_there(&order.directory)),
        }
    } else {
        // Before an hour of work: the place can be written.
        files
            .check_writable(&order.directory)
            .map_err(|error| Error::from(error).help("name a directory that can be written with --to DIR"))?;
        pool(args)?.install(|| Tokenizer::train_within(&texts, order.limits, &cache))?
    };
    let mut written = Vec::new();
    for (name, bytes) in tokenizer.files(order.rule)? {
        let path = order.directory.join(name);
        if files.read_if_there(&path)?.as_deref() != Some(bytes.as_slice()) {
            files.deliver(&path, &bytes)?;
            written.push(name);
        }
    }
    let digest = tokenizer.digest();
    if args.common.json {
        let report = json!({
            "directory": order.directory,
            "vocab_size": tokenizer.vocab_size(),
            "vocabulary_sha256": digest,
            "max_chars": order.limits.max_chars,
            "doc_cap": order.limits.doc_cap,
            "written": written,
        });
        output.result(&report.to_string());
    } else {
        output.result(&format!("{digest}  {}", order.directory.display()));
        let what = if written.is_empty() { "it was there already".to_owned() } else { written.join(", ") };
        output.note(&format!("{} tokens: {what}", tokenizer.vocab_size()));
    }
    Ok(None)
}

/// Whether the tokenizer in the directory is this one, whatever is missing beside it.
fn same(order: &TokenizerOrder, tokenizer: &Tokenizer) -> Result<bool> {
    for (name, bytes) in tokenizer.files(order.rule)? {
        match std::fs::read(order.directory.join(name)) {
            Ok(found) if found == bytes => {}
            Err(_) if name != PICKLE => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn stands_there(directory: &Path) -> Error {
    Error::input("a tokenizer is there already, and not known to be this one")
        .file(directory.join(PICKLE))
        .expected("an empty directory, or what the same command wrote")
        .help("name another directory with --to DIR, or replace the tokenizer with --force")
}

/// As many threads as asked for.
fn pool(args: &TrainArgs) -> Result<rayon::ThreadPool> {
    let threads = args.common.threads.map_or(0, usize::from);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::input("the threads cannot be started").because(error).help("try --threads 1"))
}
