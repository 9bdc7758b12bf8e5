//! Tokenizers in the forms that people have them: upstream's directory or pickle, `tokenizer.json`, tiktoken's ranks.

use std::path::Path;

use super::huggingface;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::upstream::SPECIAL_TOKENS;

/// Longer files of ranks are refused.
const MAX_BYTES: u64 = 1 << 28;

/// The forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Upstream's `tokenizer.pkl`.
    Pickle,
    /// Hugging Face's `tokenizer.json`.
    Json,
    /// tiktoken's ranks: base64 of a token's bytes and its rank, a line each. Special tokens are not in it.
    Ranks,
}

impl Form {
    /// By the name of a file.
    ///
    /// # Errors
    /// Another ending; class `Input`.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("pkl") => Ok(Self::Pickle),
            Some("json") => Ok(Self::Json),
            Some("tiktoken") => Ok(Self::Ranks),
            _ => Err(Error::input("this is no form of a tokenizer that is known here")
                .file(path)
                .expected("a file that ends in .pkl, .json or .tiktoken, or upstream's tokenizer directory")),
        }
    }
}

/// Reads a tokenizer of any form. A directory has a `tokenizer.pkl`, or else a `tokenizer.json`.
///
/// # Errors
/// A file that is not there or no tokenizer that can be used; class `Input`.
pub fn load(path: &Path) -> Result<Tokenizer> {
    if path.is_dir() {
        let json = path.join("tokenizer.json");
        return if json.is_file() && !path.join("tokenizer.pkl").is_file() {
            huggingface::read_tokenizer(&json)
        } else {
            Tokenizer::load(path)
        };
    }
    match Form::of(path)? {
        Form::Pickle => Tokenizer::load(path),
        Form::Json => huggingface::read_tokenizer(path),
        Form::Ranks => read_ranks(path),
    }
}

/// The bytes of a tokenizer in a form.
///
/// # Errors
/// A character tokenizer, which has none of these forms; class `Input`.
pub fn bytes(tokenizer: &Tokenizer, form: Form) -> Result<Vec<u8>> {
    let none = || Error::input("a character tokenizer has no such form").key("data.tokenizer");
    let tokens = tokenizer.bpe_tokens().ok_or_else(none)?;
    match form {
        Form::Pickle => {
            let [_, (_, pickle)] = tokenizer.files(crate::data::TokenBytesRule::Raw)?;
            Ok(pickle)
        }
        Form::Json => {
            let json = huggingface::tokenizer_json(tokenizer).ok_or_else(none)?;
            let mut text = serde_json::to_vec_pretty(&json)
                .map_err(|error| Error::internal("a tokenizer cannot be written").because(error))?;
            text.push(b'\n');
            Ok(text)
        }
        Form::Ranks => {
            let lines =
                tokens.iter().enumerate().map(|(rank, token)| format!("{} {rank}\n", to_base64(token)));
            Ok(lines.collect::<String>().into_bytes())
        }
    }
}

/// tiktoken's ranks; upstream's nine special tokens follow them.
fn read_ranks(path: &Path) -> Result<Tokenizer> {
    let cannot = |error: std::io::Error| Error::input("cannot read a tokenizer").file(path).because(error);
    let unfit = |line: usize, what: &str| {
        Error::input(format!("these are no ranks of tiktoken's: {what}"))
            .file(path)
            .line(line)
            .expected("base64 of a token's bytes, a space and its rank, from 0 without a gap")
    };
    if std::fs::metadata(path).map_err(cannot)?.len() > MAX_BYTES {
        return Err(unfit(1, &format!("there are more than {MAX_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let (token, rank) = line.split_once(' ').ok_or_else(|| unfit(number + 1, "a line has no rank"))?;
        if rank.parse() != Ok(tokens.len()) {
            return Err(unfit(number + 1, "a rank is not the next one"));
        }
        tokens.push(from_base64(token).ok_or_else(|| unfit(number + 1, "a token is no base64"))?);
    }
    let specials = SPECIAL_TOKENS.map(str::to_owned).to_vec();
    Tokenizer::from_tokens(tokens, specials).map_err(|what| unfit(1, &what))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = bits >> (18 - 6 * place) & 0x3f;
            text.push(if place <= group.len() { char::from(BASE64[digit as usize]) } else { '=' });
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for &digit in group {
            bits = bits << 6 | BASE64.iter().position(|&known| known == digit)? as u32;
        }
        bits <<= 6 * (4 - group.len());
        let whole = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        bytes.extend(whole.get(..group.len().checked_sub(1)?)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_what_it_is_everywhere() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (&[0xff, 0xfe, 0xfd], "//79"),
        ] {
            assert_eq!((to_base64(bytes).as_str(), from_base64(text).unwrap().as_slice()), (text, bytes));
        }
        for text in ["Z", "Zg=", "Zg=a", "Z===", "Zm9*", "Zm 9"] {
            assert_eq!(from_base64(text), None, "{text}");
        }
    }

    #[test]
    fn every_form_is_read_as_it_was_written() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/tokenizer_4096");
        let original = load(&directory).unwrap();
        let place = tempfile::tempdir().unwrap();
        for (form, name) in [(Form::Pickle, "a.pkl"), (Form::Json, "a.json"), (Form::Ranks, "a.tiktoken")] {
            let path = place.path().join(name);
            std::fs::write(&path, bytes(&original, form).unwrap()).unwrap();
            assert_eq!(load(&path).unwrap().digest(), original.digest(), "{name}");
        }
        let ranks = place.path().join("b.tiktoken");
        for (text, what) in [
            ("AA== 0\nAQ== 2\n", "a rank is not the next one"),
            ("AA==\n", "a line has no rank"),
            ("A 0\n", "a token is no base64"),
            ("AA== 0\n", "byte 1 has no token"),
        ] {
            std::fs::write(&ranks, text).unwrap();
            let error = load(&ranks).err().unwrap();
            assert!(error.to_string().contains(what), "{error}");
            assert_eq!(error.class().exit_code(), 2);
        }
        assert!(load(&place.path().join("c.model")).is_err());
    }
}
