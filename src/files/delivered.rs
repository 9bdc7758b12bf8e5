//! Files and directories that a person asked for at a place of their own, which no lock guards.

use std::fs::OpenOptions;
use std::path::Path;

use super::error::{FileError, FileResult};
use super::seam::Files;
use super::staged::StagedDir;

impl Files {
    /// [`Files::write`] at a place that no lock guards: what killed processes left of the same file goes first, for
    /// nothing else would ever sweep there.
    pub fn deliver(&self, path: &Path, bytes: &[u8]) -> FileResult<()> {
        self.recover_beside(path)?;
        self.write(path, bytes)
    }

    /// Writes a file that must not be there yet, whole or not at all: one that somebody else makes meanwhile stays.
    ///
    /// # Errors
    /// One that is there, of kind `AlreadyExists`.
    pub fn deliver_new(&self, path: &Path, bytes: &[u8]) -> FileResult<()> {
        let taken = |error| FileError::new("create", path, error);
        let place = OpenOptions::new().write(true).create_new(true).open(path).map_err(taken)?;
        drop(place);
        // The name is taken: what replaces it is this file's own content.
        self.deliver(path, bytes).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }

    /// [`Files::stage_dir`] at a place that no lock guards, swept as [`Files::deliver`] does.
    pub fn deliver_dir(&self, path: &Path) -> FileResult<StagedDir> {
        self.recover_beside(path)?;
        self.stage_dir(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_process_left_of_the_same_name_goes_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let left = |name: &str| super::super::names::temporary_name(&dir.join(name), "tmp");
        // This process counts as dead for whoever asks before it writes.
        let (own, other) = (left("a.json"), left("b.json"));
        fs::write(&own, "half").unwrap();
        fs::write(&other, "half").unwrap();
        fs::write(dir.join(".a.json.7-3.tmp"), "of nobody knows whom").unwrap();
        Files::new().deliver(&dir.join("a.json"), b"whole").unwrap();
        let other = other.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(names(dir), [".a.json.7-3.tmp".to_owned(), other, "a.json".to_owned()]);
    }

    #[test]
    fn a_directory_that_was_moved_aside_comes_back_before_it_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("model");
        let aside = super::super::names::temporary_name(&target, "old");
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join("weights"), "old").unwrap();
        let staged = Files::new().deliver_dir(&target).unwrap();
        assert_eq!(fs::read(target.join("weights")).unwrap(), b"old");
        staged.write("weights", b"new").unwrap();
        staged.commit().unwrap();
        assert_eq!(names(place.path()), ["model"]);
        assert_eq!(fs::read(target.join("weights")).unwrap(), b"new");
    }
}
