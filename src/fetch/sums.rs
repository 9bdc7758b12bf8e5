//! `SHA256SUMS`: what each shard of a directory was when it first came, as `sha256sum` writes and checks it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::Digest;

/// The file's name.
pub const SUMS: &str = "SHA256SUMS";

/// The digests of a directory, by file name.
#[derive(Debug)]
pub(super) struct Sums {
    path: PathBuf,
    digests: BTreeMap<String, Digest>,
}

impl Sums {
    /// Those of a directory; none where it has no such file.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is no sum.
    pub(super) fn read(files: &Files, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(SUMS);
        let Some(bytes) = files.read_if_there(&path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let mut digests = BTreeMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |what: &str| {
                Error::input(what)
                    .file(&path)
                    .line(index + 1)
                    .expected("64 hex digits, two blanks and a file name, as sha256sum writes")
                    .help("correct the line, or remove the file: the shards that are here are then taken as they are")
            };
            let (digest, name) = line.split_once(' ').ok_or_else(|| wrong("a line is no sum"))?;
            let name = name.strip_prefix([' ', '*']).unwrap_or(name);
            let name = name.strip_prefix("./").unwrap_or(name);
            let digest = digest.parse().map_err(|what: String| wrong("a line is no sum").because(what))?;
            if digests.insert(name.to_owned(), digest).is_some_and(|old| old != digest) {
                return Err(wrong(&format!("`{name}` has two sums")));
            }
        }
        Ok(Some(Self { path, digests }))
    }

    /// None yet, for a directory.
    pub(super) fn empty(dir: &Path) -> Self {
        Self { path: dir.join(SUMS), digests: BTreeMap::new() }
    }

    /// The digest of a file.
    pub(super) fn get(&self, name: &str) -> Option<Digest> {
        self.digests.get(name).copied()
    }

    /// All of them, in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Digest)> {
        self.digests.iter().map(|(name, digest)| (name.as_str(), *digest))
    }

    /// Remembers a file and writes all of them down.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub(super) fn add(&mut self, files: &Files, name: &str, digest: Digest) -> Result<()> {
        if self.digests.insert(name.to_owned(), digest) == Some(digest) {
            return Ok(());
        }
        let mut text = String::new();
        for (name, digest) in &self.digests {
            let _ = writeln!(text, "{digest}  {name}");
        }
        Ok(files.write(&self.path, text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_sha256sum_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::unsynced();
        assert!(Sums::read(&files, directory.path()).unwrap().is_none());
        let mut sums = Sums::empty(directory.path());
        sums.add(&files, "b", Digest::of(b"b")).unwrap();
        sums.add(&files, "a", Digest::of(b"a")).unwrap();
        let text = std::fs::read_to_string(directory.path().join(SUMS)).unwrap();
        assert_eq!(text, format!("{}  a\n{}  b\n", Digest::of(b"a"), Digest::of(b"b")));
        let back = Sums::read(&files, directory.path()).unwrap().unwrap();
        assert_eq!(back.iter().collect::<Vec<_>>(), [("a", Digest::of(b"a")), ("b", Digest::of(b"b"))]);
    }

    #[test]
    fn other_writers_lines_are_read_and_bad_ones_named() {
        let directory = tempfile::tempdir().unwrap();
        let a = Digest::of(b"a");
        let read = |text: &str| {
            std::fs::write(directory.path().join(SUMS), text).unwrap();
            Sums::read(&Files::new(), directory.path())
        };
        let upper = a.to_string().to_uppercase();
        let sums = read(&format!("{a} *./x y\r\n\n{upper}  z\n{a}  z\n")).unwrap().unwrap();
        assert_eq!((sums.get("x y"), sums.get("z"), sums.get("a")), (Some(a), Some(a), None));
        for wrong in
            ["hello\n".to_owned(), format!("{a}  z\n{}  z\n", Digest::of(b"b")), "00  z\n".to_owned()]
        {
            assert_eq!(read(&wrong).unwrap_err().class().exit_code(), 2, "{wrong}");
        }
    }
}
