//! Where things are in a results directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::files::{FileError, FileResult, Files};
use crate::hash::Digest;

/// The version of the layout of a results directory. Layout 1 is read too: there a run has one directory for
/// everything, which stands for its first attempt.
pub const LAYOUT: u32 = 2;

/// `results/<experiment>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentDir(PathBuf);

/// `results/<experiment>/runs/<run key, 12 hex>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl ExperimentDir {
    /// Of the experiment `name`, under a profile `name@profile`.
    pub fn new(results: &Path, name: &str, profile: Option<&str>) -> Self {
        Self(match profile {
            Some(profile) => results.join(format!("{name}@{profile}")),
            None => results.join(name),
        })
    }

    /// One that is already known by its path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The manifest as it was carried out: a copy of its text.
    pub fn manifest(&self) -> PathBuf {
        self.0.join("manifest.toml")
    }

    /// A file of the experiment: `plan.toml`, `scorecard.txt`, a table.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The directory whose lock is held while files of the experiment itself are written.
    pub fn turn(&self) -> PathBuf {
        self.0.join(".turn")
    }

    /// The directory of a run.
    pub fn run(&self, run_key: &Digest) -> RunDir {
        RunDir(self.0.join("runs").join(run_key.short()))
    }
}

/// `runs/<run key>/attempt/<n>/`, or the run's own directory where that has layout 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDir {
    number: u32,
    path: PathBuf,
}

/// What a run's directory of layout 1 holds, any of them. They are names in [`AttemptDir`] too.
const JOURNAL: &str = "journal.jsonl";
const RESULT: &str = "result.json";
const CHECKPOINTS: &str = "checkpoints";

/// Attempts that are asked for by name below the last one that is listed.
const LOOKED_UP: u32 = 64;

/// Where layout 1 has its result. Versions that know layout 1 alone read the `format`, refuse it by name and so leave
/// these results as they are.
const GUARD: &str = "{\n  \"format\": 3,\n  \"layout\": 2,\n  \"see\": \"attempt/<n>/result.json: this file only keeps \
    versions of nanorun that do not know these results from adding to them\"\n}\n";

impl RunDir {
    /// One that is already known by its path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The complete manifest of the run.
    pub fn manifest(&self) -> PathBuf {
        self.0.join("manifest.toml")
    }

    /// Whether it has layout 1: what would be the first attempt's lies in the run's own directory. Such a run is read
    /// and carried on where it lies, for moving it would have moments at which it is nowhere.
    pub fn is_of_layout_1(&self) -> bool {
        !self.attempts_dir().join("1").is_dir()
            && [JOURNAL, RESULT, CHECKPOINTS].iter().any(|name| self.0.join(name).exists())
    }

    /// The attempt of that number, from 1.
    pub fn attempt(&self, number: u32) -> AttemptDir {
        let path = if number <= 1 && self.is_of_layout_1() {
            self.0.clone()
        } else {
            self.attempts_dir().join(number.max(1).to_string())
        };
        AttemptDir { number: number.max(1), path }
    }

    /// The attempts that are there, in order; the first is not missing where there are others.
    ///
    /// # Errors
    /// A directory that is there and cannot be read.
    pub fn attempts(&self) -> FileResult<Vec<AttemptDir>> {
        let dir = self.attempts_dir();
        let error = |error| FileError::new("read the directory", &dir, error);
        let mut numbers: Vec<u32> = Vec::new();
        match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(error(e)),
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(error)?.file_name();
                    let number = name.to_str().and_then(|name| name.parse().ok());
                    // Only the exact spelling: `01` is nobody's.
                    numbers.extend(number.filter(|number: &u32| {
                        *number > 0 && Some(number.to_string().as_str()) == name.to_str()
                    }));
                }
            }
        }
        // Where others write from other machines, a listing may be behind by seconds; a name is less so.
        let last = numbers.iter().copied().max().unwrap_or(0);
        let is_there = |number: &u32| dir.join(number.to_string()).is_dir();
        numbers.extend((1..last.min(LOOKED_UP)).filter(is_there));
        numbers.extend((last..u32::MAX).map(|number| number + 1).take_while(is_there));
        if self.is_of_layout_1() {
            numbers.push(1);
        }
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers.into_iter().map(|number| self.attempt(number)).collect())
    }

    /// Makes the directory of an attempt, and before anything is in it what keeps older versions away.
    ///
    /// # Errors
    /// File failures.
    pub fn make(&self, files: &Files, attempt: &AttemptDir) -> FileResult<()> {
        files.create_dir_all(attempt.path())?;
        let guard = self.0.join(RESULT);
        if !guard.exists() && !self.is_of_layout_1() && attempt.path != self.0 {
            files.write(&guard, GUARD.as_bytes())?;
        }
        Ok(())
    }

    /// The log of those who worked on it, as `crate::lease` keeps it.
    pub fn lease(&self) -> PathBuf {
        self.0.join("lease")
    }

    /// Results that `--rerun` of a version with layout 1 put aside, in order.
    pub fn put_aside(&self) -> Vec<PathBuf> {
        let name = |number: u32| self.0.join(format!("result.{number}.json"));
        (1..=9999).map(name).take_while(|path| path.exists()).collect()
    }

    fn attempts_dir(&self) -> PathBuf {
        self.0.join("attempt")
    }
}

impl AttemptDir {
    /// The first attempt of a run that has no other, at a path of its own.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { number: 1, path: path.into() }
    }

    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The event log.
    pub fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// The result, there once the attempt is finished.
    pub fn result(&self) -> PathBuf {
        self.path.join(RESULT)
    }

    /// How it ended where it diverged.
    pub fn divergence(&self) -> PathBuf {
        self.path.join("diverged.json")
    }

    /// The attempt's own table: its steps.
    pub fn steps(&self) -> PathBuf {
        self.path.join("steps.parquet")
    }

    /// The last evaluation by the documents of its text; there before the result. Attempts of versions before have none.
    pub fn documents(&self) -> PathBuf {
        self.path.join("documents.parquet")
    }

    /// Text sampled at the end.
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples.txt")
    }

    /// The checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }
}
