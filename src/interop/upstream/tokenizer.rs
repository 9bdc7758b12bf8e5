//! `token_bytes.pt`: by which definition a directory counts the bytes of its tokens.

use std::path::Path;

use crate::data::{TokenBytesRule, Tokenizer};
use crate::error::{Error, Result};
use crate::torch_file::TorchFile;

/// The definition by which the table beside a tokenizer was made: upstream evaluates by the table, whatever the commit.
/// None where there is no table, or where both definitions give the same.
///
/// # Errors
/// A table of neither definition, or one that cannot be read; class `Input`.
pub fn token_bytes_rule(dir: &Path, tokenizer: &Tokenizer) -> Result<Option<TokenBytesRule>> {
    let path = dir.join("token_bytes.pt");
    if !path.is_file() {
        return Ok(None);
    }
    let mut file = TorchFile::open(&path)?;
    let root = file.pickle().root_id();
    let tensor = file.tensor("token_bytes", root)?;
    let found = file.i64(&tensor)?;
    let table = |rule| tokenizer.token_bytes(rule).into_iter().map(i64::from).collect::<Vec<_>>();
    let rules = [TokenBytesRule::Raw, TokenBytesRule::Decoded];
    let fitting: Vec<_> = rules.into_iter().filter(|&rule| table(rule) == found).collect();
    match fitting.as_slice() {
        [] => Err(Error::input("token_bytes.pt counts the bytes of this tokenizer's tokens in another way")
            .file(&path)
            .expected("the bytes of each token, or of its text, and 0 for special tokens")
            .help("it belongs to another tokenizer: bring the two files of one training together")),
        [rule] => Ok(Some(*rule)),
        _ => Ok(None),
    }
}
