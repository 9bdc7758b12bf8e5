//! `tokenizer.json` of Hugging Face's tokenizers: the same ids for the same text.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::data::{SPLIT_PATTERN, Tokenizer};
use crate::error::{Error, Result};

/// Longer files are refused: a vocabulary of 2^18 tokens has some 30 MB.
const MAX_BYTES: u64 = 1 << 28;

/// The character that stands for each byte in such files: printable ones for themselves, the others from U+0100 on.
fn letters() -> [char; 256] {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut letters = ['\0'; 256];
    for (byte, letter) in (0..=u8::MAX).zip(&mut letters) {
        *letter = if printable(byte) {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or_default()
        };
    }
    letters
}

/// A tokenizer in their terms; none of one that has a token a character.
pub fn tokenizer(tokenizer: &Tokenizer) -> Option<Value> {
    let tokens = tokenizer.bpe_tokens()?;
    let letters = letters();
    let spelt = |token: &[u8]| token.iter().map(|&byte| letters[usize::from(byte)]).collect::<String>();
    let ids: BTreeMap<&[u8], usize> =
        tokens.iter().enumerate().map(|(id, token)| (token.as_slice(), id)).collect();
    let mut vocab = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        vocab.insert(spelt(token), id.into());
    }
    // Whatever two tokens make a third may merge, in the order of what they make: of several pairs that make one the
    // pair of lower ids first.
    let mut merges = Vec::new();
    for token in tokens.iter().filter(|token| token.len() > 1) {
        let mut pairs: Vec<(usize, usize, usize)> = (1..token.len())
            .filter_map(|cut| {
                let (left, right) = token.split_at(cut);
                Some((*ids.get(left)?, *ids.get(right)?, cut))
            })
            .collect();
        pairs.sort_unstable();
        for (.., cut) in pairs {
            let (left, right) = token.split_at(cut);
            merges.push(json!([spelt(left), spelt(right)]));
        }
    }
    let specials = (tokens.len()..tokenizer.vocab_size()).map(|id| {
        let name = String::from_utf8_lossy(&tokenizer.token(id as u32).unwrap_or_default()).into_owned();
        json!({
            "id": id,
            "content": name,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": true,
        })
    });
    let bos = tokenizer.bos();
    let bos_name = String::from_utf8_lossy(&tokenizer.token(bos).unwrap_or_default()).into_owned();
    Some(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": specials.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": { "Regex": SPLIT_PATTERN },
                    "behavior": "Isolated",
                    "invert": false,
                },
                { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
            ],
        },
        // A document begins with BOS, as nanorun and upstream put it there.
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": bos_name, "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
            ],
            "pair": [
                { "SpecialToken": { "id": bos_name, "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": bos_name, "type_id": 1 } },
                { "Sequence": { "id": "B", "type_id": 1 } },
            ],
            "special_tokens": { &bos_name: { "id": bos_name, "ids": [bos], "tokens": [bos_name] } },
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            // A piece that is a token is that token, as tiktoken has it.
            "ignore_merges": true,
            "vocab": vocab,
            "merges": merges,
        },
    }))
}

/// Reads such a file, of a byte-level BPE that splits text as upstream does.
///
/// # Errors
/// A file that is not there, no such tokenizer, or one that encodes otherwise; class `Input`.
pub fn read(path: &Path) -> Result<Tokenizer> {
    let cannot = |error: std::io::Error| Error::input("cannot read a tokenizer").file(path).because(error);
    let unfit = |what: &str| {
        Error::input(format!("this tokenizer.json cannot be used: {what}"))
            .file(path)
            .expected("a byte-level BPE that splits text as upstream's tokenizers do")
    };
    if std::fs::metadata(path).map_err(cannot)?.len() > MAX_BYTES {
        return Err(unfit(&format!("it has more than {MAX_BYTES} bytes")));
    }
    let bytes = std::fs::read(path).map_err(cannot)?;
    let file: Value = serde_json::from_slice(&bytes).map_err(|error| unfit(&error.to_string()))?;
    let model = file.get("model").ok_or_else(|| unfit("it has no model"))?;
    if model.get("type").and_then(Value::as_str) != Some("BPE") {
        return Err(unfit("its model is no BPE"));
    }
    if !has_pattern(file.get("pre_tokenizer").unwrap_or(&Value::Null)) {
        return Err(unfit("it splits text by another pattern"));
    }
    if file.get("normalizer").is_some_and(|normalizer| !normalizer.is_null()) {
        return Err(unfit("it changes text before it is encoded"));
    }
    let bytes_of: BTreeMap<char, u8> = letters().into_iter().zip(0..=u8::MAX).collect();
    let vocab = model.get("vocab").and_then(Value::as_object).ok_or_else(|| unfit("it has no vocabulary"))?;
    let added = file.get("added_tokens").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut specials = BTreeMap::new();
    for token in added {
        let id = token.get("id").and_then(Value::as_u64);
        let name = token.get("content").and_then(Value::as_str);
        let (Some(id), Some(name)) = (id, name) else { return Err(unfit("an added token of it has no id")) };
        specials.insert(id, name.to_owned());
    }
    let mut tokens = BTreeMap::new();
    for (token, id) in vocab {
        let id = id.as_u64().ok_or_else(|| unfit("an id is no number"))?;
        if specials.get(&id).is_some_and(|name| name == token) {
            continue;
        }
        let spelt: Option<Vec<u8>> = token.chars().map(|letter| bytes_of.get(&letter).copied()).collect();
        let spelt = spelt.ok_or_else(|| unfit("a token is not spelt in bytes"))?;
        if tokens.insert(id, spelt).is_some() {
            return Err(unfit("an id is there twice"));
        }
    }
    let counted =
        |keys: &mut dyn Iterator<Item = u64>, from: u64| keys.zip(from..).all(|(key, place)| key == place);
    if !counted(&mut tokens.keys().copied(), 0)
        || !counted(&mut specials.keys().copied(), tokens.len() as u64)
    {
        return Err(unfit("its ids leave gaps, or special tokens stand among the others"));
    }
    let tokenizer = Tokenizer::from_tokens(tokens.into_values().collect(), specials.into_values().collect())
        .map_err(|what| unfit(&what))?;
    // What merges, and in which order, is by id: merges of another order would encode otherwise.
    let own = super::tokenizer_json(&tokenizer);
    let merges = own.as_ref().and_then(|own| own.get("model")?.get("merges"));
    if !same_merges(model.get("merges"), merges) {
        return Err(unfit("its merges are not those of its vocabulary in the order of ids"));
    }
    Ok(tokenizer)
}

fn has_pattern(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            let regex =
                fields.get("pattern").and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str);
            regex == Some(SPLIT_PATTERN) || fields.get("pretokenizers").is_some_and(has_pattern)
        }
        Value::Array(items) => items.iter().any(has_pattern),
        _ => false,
    }
}

/// Merges as pairs or, in older files, as text with a space between; a file may leave out pairs that make a token which
/// another pair before makes.
fn same_merges(found: Option<&Value>, own: Option<&Value>) -> bool {
    let pair = |merge: &Value| match merge {
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
            _ => None,
        },
        Value::String(text) => text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        _ => None,
    };
    let all = |merges: Option<&Value>| merges?.as_array()?.iter().map(pair).collect::<Option<Vec<_>>>();
    let (Some(found), Some(own)) = (all(found), all(own)) else { return false };
    let made = |pairs: &[(String, String)]| {
        let mut made: Vec<String> = pairs.iter().map(|(left, right)| format!("{left}{right}")).collect();
        made.dedup();
        made
    };
    made(&found) == made(&own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_letter_of_its_own() {
        let letters = letters();
        let distinct: std::collections::BTreeSet<char> = letters.into_iter().collect();
        assert_eq!(distinct.len(), 256);
        // As in GPT-2's files: a space, a line end, a letter, 0 and a byte of UTF-8.
        let of = |byte: u8| letters[usize::from(byte)];
        assert_eq!([b' ', b'\n', b'a', 0, 0x7f, 0xad].map(of), ['Ġ', 'Ċ', 'a', 'Ā', 'ġ', 'Ń']);
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/tokenizer_4096");
        let original = Tokenizer::load(&directory).unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tokenizer.json");
        let json = tokenizer(&original).unwrap();
        std::fs::write(&path, json.to_string()).unwrap();
        assert_eq!(read(&path).unwrap().digest(), original.digest());
        let change = |pointer: &str, value: Value| {
            let mut other = json.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            std::fs::write(&path, other.to_string()).unwrap();
            read(&path).err().unwrap().to_string()
        };
        for (pointer, value, what) in [
            ("/model/type", json!("WordPiece"), "its model is no BPE"),
            ("/pre_tokenizer/pretokenizers/0/pattern/Regex", json!("\\s"), "splits text by another pattern"),
            ("/normalizer", json!({ "type": "NFC" }), "changes text before"),
            ("/model/vocab/a", json!(5000), "ids leave gaps"),
            ("/added_tokens/0/id", json!(3), "ids leave gaps"),
            ("/model/merges/3", json!(["a", "b"]), "its merges are not those"),
            ("/model/merges", json!(7), "its merges are not those"),
        ] {
            let error = change(pointer, value);
            assert!(error.contains(what), "{pointer}: {error}");
        }
    }
}
