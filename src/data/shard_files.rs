//! Which files the patterns of `data.shards` name.

use std::path::{Path, PathBuf};

use super::embedded::EMBEDDED;
use super::shard_kind::{Compressed, Contents, NoShard, SHARDS, ShardKind};
use crate::error::{Error, Result};

const KEY: &str = "data.shards";

/// Which of `patterns` match nothing now: what a plan made before the data are here says is missing.
///
/// # Errors
/// A pattern that is no glob, or files that are no shards.
pub fn missing(patterns: &[String]) -> Result<Vec<String>> {
    Ok(Listing::of(patterns)?.missing())
}

/// What patterns match, looked up once: directories of shards may hold thousands and be slow to read.
#[derive(Debug, Clone)]
pub struct Listing(Vec<Listed>);

#[derive(Debug, Clone)]
struct Listed {
    pattern: String,
    files: Vec<(PathBuf, ShardKind)>,
    /// Whether nothing matches, or the file that it names is not there.
    is_missing: bool,
}

impl Listing {
    /// Looks the patterns up; `embedded` matches no file and is not missing.
    ///
    /// # Errors
    /// A pattern that is no glob, or files that are no shards.
    pub fn of(patterns: &[String]) -> Result<Self> {
        let listed = patterns.iter().map(|pattern| {
            let is_embedded = pattern == EMBEDDED;
            let files = if is_embedded { Vec::new() } else { files_of(pattern)? };
            let is_missing =
                !is_embedded && (files.is_empty() || files.iter().any(|(path, _)| !path.exists()));
            Ok(Listed { pattern: pattern.clone(), files, is_missing })
        });
        listed.collect::<Result<_>>().map(Self)
    }

    /// Whether these are the patterns that were looked up.
    pub fn is_of(&self, patterns: &[String]) -> bool {
        self.patterns().eq(patterns)
    }

    /// The patterns.
    pub(super) fn patterns(&self) -> impl ExactSizeIterator<Item = &String> {
        self.0.iter().map(|listed| &listed.pattern)
    }

    /// Those that match nothing.
    pub fn missing(&self) -> Vec<String> {
        self.0.iter().filter(|listed| listed.is_missing).map(|listed| listed.pattern.clone()).collect()
    }
}

/// The files that patterns name, each once, in the order of their names.
pub(super) fn resolve(listing: &Listing) -> Result<Vec<(PathBuf, ShardKind)>> {
    let mut paths = Vec::new();
    for Listed { pattern, files: found, .. } in &listing.0 {
        if found.is_empty() {
            let what = if Path::new(pattern).is_dir() {
                format!("the directory `{pattern}` holds no shards")
            } else {
                format!("no shards match `{pattern}`")
            };
            return Err(Error::input(what)
                .key(KEY)
                .expected(format!("{SHARDS}: files, a directory of them, or a glob"))
                .help("download the shards or correct the path; `shards = \"embedded\"` needs none"));
        }
        paths.extend(found.iter().cloned());
    }
    paths.sort_by(|(a, _), (b, _)| (a.file_name(), a).cmp(&(b.file_name(), b)));
    paths.dedup_by(|(a, _), (b, _)| a == b);
    Ok(paths)
}

/// The files that one pattern names. A plain path is taken as it is, there or not.
fn files_of(pattern: &str) -> Result<Vec<(PathBuf, ShardKind)>> {
    let path = Path::new(pattern);
    if path.is_dir() {
        return files_in(path);
    }
    if path.exists() || !pattern.contains(['*', '?', '[']) {
        return Ok(vec![(path.to_owned(), named(path)?)]);
    }
    // Names with a leading dot are no shards, whatever stands in a glob's place.
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let matches = glob::glob_with(pattern, options)
        .map_err(|error| Error::input(format!("`{pattern}` is not a glob")).key(KEY).because(error))?;
    let mut files = Vec::new();
    for found in matches {
        let file = found.map_err(|error| {
            let path = error.path().to_owned();
            Error::input("cannot look into a directory of shards").file(path).because(error)
        })?;
        if file.is_file() {
            let kind = named(&file)?;
            files.push((file, kind));
        }
    }
    of_one_kind(&files)?;
    Ok(files)
}

/// What a file is whose name somebody wrote.
fn named(path: &Path) -> Result<ShardKind> {
    let (what, help) = match ShardKind::of(path) {
        Ok(kind) => return Ok(kind),
        Err(NoShard::Unknown) => return Ok(ShardKind::TEXT),
        Err(NoShard::Hidden) => {
            ("hidden: its name begins with a dot", "rename it if it is meant, else leave it out")
        }
        Err(NoShard::Refused(what, help)) => (what, help),
    };
    Err(Error::input(format!("a file is no shard but {what}"))
        .file(path)
        .key(KEY)
        .expected(SHARDS)
        .help(help))
}

/// The shards in a directory; what has not the name of one is passed over.
fn files_in(directory: &Path) -> Result<Vec<(PathBuf, ShardKind)>> {
    let unreadable =
        |error| Error::input("cannot look into a directory of shards").file(directory).because(error);
    let (mut files, mut json, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if !path.is_file() {
            continue;
        }
        match ShardKind::of(&path) {
            // Beside shards of another kind, `.json` are notes about them.
            Ok(kind) if is_json(&path) => json.push((path, kind)),
            Ok(kind) => files.push((path, kind)),
            Err(NoShard::Refused(..)) => refused.push(path),
            Err(NoShard::Hidden | NoShard::Unknown) => {}
        }
    }
    if files.iter().all(|(_, kind)| kind.contents == Contents::JsonLines) {
        files.append(&mut json);
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    refused.sort();
    if let (true, Some(first)) = (files.is_empty(), refused.first()) {
        named(first)?;
    }
    of_one_kind(&files)?;
    Ok(files)
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// Files that one pattern finds hold the same kind of contents, and none of them twice.
fn of_one_kind(files: &[(PathBuf, ShardKind)]) -> Result<()> {
    let Some((first, kind)) = files.first() else { return Ok(()) };
    if let Some((other, found)) = files.iter().find(|(_, other)| other.contents != kind.contents) {
        let (first, other) = (first.display(), other.display());
        let what = format!(
            "shards of two kinds stand side by side: `{first}` is {}, `{other}` is {}",
            kind.contents.plural(),
            found.contents.plural()
        );
        return Err(Error::input(what)
            .key(KEY)
            .expected("shards of one kind")
            .help("name the kind that is meant with a glob, such as `DIR/*.parquet`"));
    }
    for (path, _) in files.iter().filter(|(_, kind)| kind.compressed != Compressed::No) {
        let plain = path.with_extension("");
        if files.iter().any(|(other, _)| *other == plain) {
            return Err(Error::input("a shard stands there twice, as it is and compressed")
                .file(path)
                .key(KEY)
                .help(format!("remove it or `{}`", plain.display())));
        }
    }
    Ok(())
}
