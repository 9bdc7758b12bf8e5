//! Where entries stand, and what a path in the cache says of the entry.

use std::path::{Path, PathBuf};

use super::super::bpe_encode::ENCODER_VERSION;
use super::super::tokenizer::TRAINER_VERSION;
use crate::hash::Digest;

/// How entries are laid out in files. Those of the first format have none in their path.
const FORMAT: u32 = 2;

/// The last part of a temporary name.
pub(super) const TEMPORARY: &str = "tmp";

/// The kinds of entries.
pub const KINDS: [&str; 5] = ["tokens", "tokenizers", "digests", "indices", "scores"];

/// What a directory of the cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// One of [`KINDS`].
    pub(super) name: &'static str,
    /// Whether an earlier version of nanorun wrote it: this one never reads it.
    pub(super) old: bool,
}

/// The version of what writes entries of a kind: another one writes others under the same key.
fn version(kind: &str) -> u64 {
    match kind {
        "tokens" => ENCODER_VERSION,
        "tokenizers" => TRAINER_VERSION,
        _ => 1,
    }
}

fn directory(kind: &str) -> String {
    format!("{kind}.{FORMAT}.{}", version(kind))
}

/// The entry of this key, from the cache's root.
pub(super) fn entry(kind: &str, key: &Digest) -> PathBuf {
    let name = key.to_string();
    let shelf = name.get(..2).unwrap_or_default();
    Path::new(&directory(kind)).join(shelf).join(&name)
}

/// The directory of a family, from the cache's root.
pub(super) fn shelf(kind: &str, family: &Digest) -> PathBuf {
    let name = family.to_string();
    Path::new(&directory(kind)).join(name.get(..16).unwrap_or_default())
}

/// What the directory of this name in the root holds; none where it is not the cache's.
pub(super) fn kind(name: &str) -> Option<Kind> {
    let mut parts = name.split('.');
    let kind = parts.next()?;
    let name = *KINDS.iter().find(|name| **name == kind)?;
    let number = |part: Option<&str>| part?.parse::<u64>().ok();
    let found = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => (1, 0),
        (Some(format), version @ Some(_), None) => (number(Some(format))?, number(version)?),
        _ => return None,
    };
    Some(Kind { name, old: found < (u64::from(FORMAT), version(name)) })
}

/// Whether a directory of this name can be a shelf.
pub(super) fn is_shelf(name: &str) -> bool {
    matches!(name.len(), 2 | 16) && is_hex(name)
}

/// Whether a file of this name can be an entry, or the temporary form of one.
pub(super) fn is_entry(name: &str) -> bool {
    let (key, rest) = name.split_once('.').unwrap_or((name, ""));
    key.len() == 64 && is_hex(key) && (rest.is_empty() || rest.ends_with(TEMPORARY))
}

/// Whether an entry of this name is a temporary one.
pub(super) fn is_temporary(name: &str) -> bool {
    name.contains('.')
}

fn is_hex(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_whose_version_an_entry_is_of() {
        let found = |name: &str| kind(name).map(|kind| (kind.name, kind.old));
        let now = directory("tokens");
        assert_eq!(found(&now), Some(("tokens", false)));
        assert_eq!(found("tokens"), Some(("tokens", true)));
        assert_eq!(found("tokens.2.0"), Some(("tokens", true)));
        assert_eq!(found("tokens.1.9"), Some(("tokens", true)));
        assert_eq!(found("digests"), Some(("digests", true)));
        // A later nanorun's is nothing to remove first.
        assert_eq!(found("tokens.3.1"), Some(("tokens", false)));
        for other in ["", "Tokens", "tokens.", "tokens.2", "tokens.2.1.1", "tokens.a.1", "photos", "results"]
        {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_the_cache_writes_is_an_entry() {
        let key = Digest::of(b"key").to_string();
        assert!(is_entry(&key) && is_entry(&format!("{key}.12-0.tmp")));
        for other in ["", "notes.txt", &key[1..], &format!("{key}.txt"), &key.to_uppercase()] {
            assert!(!is_entry(other), "{other}");
        }
        assert!(is_shelf("0f") && is_shelf("0123456789abcdef") && !is_shelf("photos") && !is_shelf("zz"));
    }
}
