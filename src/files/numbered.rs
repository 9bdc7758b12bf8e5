//! A directory whose entries are numbered, of which the highest counts.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::trouble::reopened;

/// The name of a number, so that names sort as numbers do.
pub fn name(number: u64) -> String {
    format!("{number:08}")
}

/// Whether there is an entry of that number, asked for by its name alone.
pub fn is_there(root: &Path, number: u64) -> bool {
    root.join(name(number)).symlink_metadata().is_ok()
}

/// The numbers that are listed, ascending; none where there is no such directory.
///
/// # Errors
/// A directory that cannot be read.
pub fn numbers(root: &Path) -> io::Result<Vec<u64>> {
    let number = |text: &str| text.parse().ok().filter(|number| name(*number) == text);
    let mut numbers: Vec<u64> = names(root)?.iter().filter_map(|text| number(text)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// All names in a directory that are text; none where there is no such directory.
///
/// # Errors
/// A directory that cannot be read.
pub fn names(root: &Path) -> io::Result<Vec<String>> {
    let names =
        reopened(|| fs::read_dir(root)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>());
    match names {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
    }
}

/// The highest number that is there; 0 where there is none.
///
/// # Errors
/// A directory that cannot be read.
pub fn highest(root: &Path) -> io::Result<u64> {
    Ok(highest_from(root, numbers(root)?.pop().unwrap_or(0)))
}

/// The highest number from `known` on, which may be 0, going by names: a listing may be behind by seconds on a network file
/// system, a name that is asked for by itself is less so.
pub fn highest_from(root: &Path, known: u64) -> u64 {
    let mut highest = known;
    while is_there(root, highest + 1) {
        highest += 1;
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_numbers_do_not_count() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(highest(&place.path().join("none")).unwrap(), 0);
        for name in ["00000002", "00000010", "3", "000000003", "00000004.tmp", "-0000001", "+0000009"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        assert_eq!(numbers(place.path()).unwrap(), [2, 10]);
        assert_eq!(highest(place.path()).unwrap(), 10);
        assert_eq!((highest_from(place.path(), 1), highest_from(place.path(), 0)), (2, 0));
    }
}
