//! `nanorun tokenizer import` and `export`.

use super::{ExportTokenizerArgs, ImportTokenizerArgs};
use crate::cli::output::Output;
use crate::data::TokenBytesRule;
use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::interop::tokenizers::{Form, bytes, load};

fn taken(path: &std::path::Path) -> Error {
    Error::input("a file is there already")
        .file(path)
        .expected("a name that is free")
        .help("name another with --to, or replace it with --force")
}

/// Writes upstream's directory of a tokenizer in any form.
pub(super) fn import(args: &ImportTokenizerArgs) -> Result<Option<Class>> {
    let tokenizer = load(&args.tokenizer)?;
    let rule = if args.token_bytes == "decoded" { TokenBytesRule::Decoded } else { TokenBytesRule::Raw };
    let written = tokenizer.files(rule)?;
    for (name, bytes) in &written {
        let path = args.to.join(name);
        let same = std::fs::read(&path).is_ok_and(|found| found == *bytes);
        if !args.force && !same && path.symlink_metadata().is_ok() {
            return Err(taken(&path));
        }
    }
    let files = Files::from_env()?;
    files.create_dir_all(&args.to)?;
    for (name, bytes) in &written {
        files.deliver(&args.to.join(name), bytes)?;
    }
    Output::new(false).result(&format!("{}  {}", tokenizer.digest(), args.to.display()));
    Ok(None)
}

/// Writes a tokenizer in the form that a file's name says.
pub(super) fn export(args: &ExportTokenizerArgs) -> Result<Option<Class>> {
    let tokenizer = load(&args.tokenizer)?;
    let bytes = bytes(&tokenizer, Form::of(&args.to)?)?;
    if !args.force && args.to.symlink_metadata().is_ok() {
        return Err(taken(&args.to));
    }
    Files::from_env()?.deliver(&args.to, &bytes)?;
    Output::new(false).result(&format!("{}  {}", tokenizer.digest(), args.to.display()));
    Ok(None)
}
