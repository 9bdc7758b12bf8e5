//! What is a shard: decided here alone, by the name of the file, whatever the case of its letters.

use std::path::Path;

/// What a shard holds and how it is compressed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShardKind {
    pub(super) contents: Contents,
    pub(super) compressed: Compressed,
}

/// What a shard holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contents {
    /// A column of texts.
    Parquet,
    /// One JSON object a line.
    JsonLines,
    /// Plain text.
    Text,
}

/// How a file is compressed as a whole. Parquet compresses its own pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compressed {
    No,
    Gzip,
    Zstd,
}

/// What a file is when its name is not that of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoShard {
    /// Its name begins with a dot: what systems and editors leave beside files.
    Hidden,
    /// Something that is certainly not read: what it is, and what to do.
    Refused(&'static str, &'static str),
    /// Nothing known: text, if somebody says so.
    Unknown,
}

/// What messages say a shard is.
pub(crate) const SHARDS: &str = "parquet (.parquet), JSON lines (.jsonl, .ndjson, .json) or text (.txt), the latter two also as .gz or .zst";

const CONVERT: &str =
    "write its column of texts as parquet, or as JSON lines with one {\"text\": ...} a line";

impl ShardKind {
    /// What the file of this name is.
    pub(super) fn of(path: &Path) -> Result<Self, NoShard> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.starts_with('.') {
            return Err(NoShard::Hidden);
        }
        let (stem, compressed) = [
            (".gz", Compressed::Gzip),
            (".gzip", Compressed::Gzip),
            (".zst", Compressed::Zstd),
            (".zstd", Compressed::Zstd),
        ]
        .into_iter()
        .find_map(|(end, compressed)| Some((name.strip_suffix(end)?, compressed)))
        .unwrap_or((&name, Compressed::No));
        let extension = stem.rsplit_once('.').map_or("", |(_, extension)| extension);
        let contents = match extension {
            "parquet" | "parq" | "pq" => Contents::Parquet,
            "jsonl" | "ndjson" | "json" => Contents::JsonLines,
            "txt" | "text" => Contents::Text,
            "csv" => return Err(NoShard::Refused("comma-separated values", CONVERT)),
            "tsv" => return Err(NoShard::Refused("tab-separated values", CONVERT)),
            "arrow" | "feather" | "ipc" | "avro" | "orc" | "xls" | "xlsx" | "db" | "sqlite" => {
                return Err(NoShard::Refused("a table of a kind that is not read", CONVERT));
            }
            "tar" | "tgz" | "zip" | "7z" | "rar" | "bz2" | "xz" | "lz4" | "br" => {
                return Err(NoShard::Refused(
                    "an archive",
                    "unpack it; gzip and zstd alone are read as they are",
                ));
            }
            "tmp" | "part" | "partial" | "incomplete" | "crdownload" | "download" => {
                return Err(NoShard::Refused("an unfinished download", "download it again, or remove it"));
            }
            "crc" | "md5" | "sha1" | "sha256" | "lock" => {
                return Err(NoShard::Refused("a note beside files", "leave it out"));
            }
            "bin" | "npy" | "npz" | "pkl" | "pickle" | "pt" | "safetensors" | "idx" => {
                return Err(NoShard::Refused("binary", "name the texts themselves: nanorun tokenises them"));
            }
            _ if compressed != Compressed::No && !stem.contains('.') => Contents::Text,
            _ => return Err(NoShard::Unknown),
        };
        if contents == Contents::Parquet && compressed != Compressed::No {
            return Err(NoShard::Refused(
                "a parquet file inside another compression",
                "unpack it: parquet compresses its own pages",
            ));
        }
        Ok(Self { contents, compressed })
    }

    /// Text as it is, which is what a file of no known kind is taken for when it is named.
    pub(super) const TEXT: Self = Self { contents: Contents::Text, compressed: Compressed::No };
}

impl Contents {
    /// What messages call such files.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::JsonLines => "JSON lines",
            Self::Text => "text",
        }
    }
}

/// What the first bytes of a file say it is, where they say anything.
pub(super) fn looks_like(head: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    let text = head.trim_ascii_start();
    let begins = |word: &[u8]| text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word);
    Some(match head {
        _ if starts(b"PAR1") => "parquet",
        _ if starts(b"PARE") => "encrypted parquet",
        _ if starts(&[0x1f, 0x8b]) => "gzip",
        _ if starts(&[0x28, 0xb5, 0x2f, 0xfd]) => "zstd",
        _ if starts(b"BZh") => "bzip2",
        _ if starts(b"\xfd7zXZ") => "xz",
        _ if starts(b"PK\x03\x04") => "a zip archive",
        _ if starts(b"ARROW1") => "an Arrow file",
        _ if starts(b"Obj\x01") => "Avro",
        _ if starts(b"ORC") => "ORC",
        _ if starts(&[0xff, 0xfe, 0, 0]) || starts(&[0, 0, 0xfe, 0xff]) => "UTF-32",
        _ if starts(&[0xff, 0xfe]) || starts(&[0xfe, 0xff]) => "UTF-16",
        _ if starts(&[0, 5, 0x16, 7]) => "a Mac's sidecar",
        _ if starts(b"version https://git-lfs") => "a Git LFS pointer, not the file it points to",
        _ if begins(b"<!doctype html") || begins(b"<html") => "a web page",
        _ if begins(b"<?xml") => "an XML document, perhaps a server's refusal",
        [0, ..] if head.iter().all(|&byte| byte == 0) => "nothing but zeros, a download that was cut short",
        _ if text.first() == Some(&b'{') => "JSON",
        _ if text.first() == Some(&b'[') => "a JSON array",
        _ => return None,
    })
}

/// The first bytes of a file, for [`looks_like`]; none of one that cannot be read.
pub(super) fn head(path: &Path) -> Vec<u8> {
    use std::io::Read as _;
    let mut head = Vec::new();
    // Whatever cannot be read is told by whoever needs it.
    let _ = std::fs::File::open(path).and_then(|file| file.take(512).read_to_end(&mut head));
    head
}

/// Names as messages list them.
pub(super) fn backticked(names: &[String]) -> String {
    if names.is_empty() {
        return "none at all".to_owned();
    }
    names.iter().take(8).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_a_shard() {
        let kind = |name: &str| ShardKind::of(Path::new(name));
        let is = |contents, compressed| Ok(ShardKind { contents, compressed });
        for name in ["a.parquet", "a/X.PARQUET", "b.parq", "c.pq"] {
            assert_eq!(kind(name), is(Contents::Parquet, Compressed::No), "{name}");
        }
        for (name, compressed) in [
            ("a.jsonl", Compressed::No),
            ("A.JSONL", Compressed::No),
            ("a.ndjson", Compressed::No),
            ("a.json", Compressed::No),
            ("a.jsonl.gz", Compressed::Gzip),
            ("a.json.gz", Compressed::Gzip),
            ("a.Jsonl.ZST", Compressed::Zstd),
            ("a.b.jsonl.zstd", Compressed::Zstd),
        ] {
            assert_eq!(kind(name), is(Contents::JsonLines, compressed), "{name}");
        }
        for (name, compressed) in [
            ("a.txt", Compressed::No),
            ("a.TXT.gz", Compressed::Gzip),
            ("a.text.zst", Compressed::Zstd),
            ("corpus.gz", Compressed::Gzip),
        ] {
            assert_eq!(kind(name), is(Contents::Text, compressed), "{name}");
        }
        for name in ["._shard_00000.parquet", ".ipynb_checkpoints", ".DS_Store", ".a.txt"] {
            assert_eq!(kind(name), Err(NoShard::Hidden), "{name}");
        }
        for name in ["names", "README.md", "a.py", "_SUCCESS", "SHA256SUMS", "a.md.gz"] {
            assert_eq!(kind(name), Err(NoShard::Unknown), "{name}");
        }
        for name in ["a.csv", "a.CSV.gz", "a.tsv", "a.tar.gz", "a.parquet.gz", "a.parquet.tmp", "a.zip"] {
            assert!(matches!(kind(name), Err(NoShard::Refused(..))), "{name}");
        }
    }
}
