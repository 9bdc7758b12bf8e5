//! Names of files and directories on their way.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A hidden name beside `path` that no other writer has: `.NAME.PID-NUMBER.EXTENSION`.
pub(super) fn temporary_name(path: &Path, extension: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{number}.{extension}", std::process::id()))
}

/// Whether it is the name of something on its way: half written, or moved aside for its successor.
pub fn is_temporary(path: &Path) -> bool {
    original_name(path).is_some()
}

/// The name that a temporary name was made from, and its extension; none for any other name.
pub(super) fn original_name(path: &Path) -> Option<(String, &'static str)> {
    let name = path.file_name()?.to_str()?.strip_prefix('.')?;
    let (rest, extension) = name.rsplit_once('.')?;
    let extension = ["tmp", "old"].into_iter().find(|known| *known == extension)?;
    let (original, unique) = rest.rsplit_once('.')?;
    let (pid, number) = unique.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(pid) && digits(number)).then(|| (original.to_owned(), extension))
}
