//! Where things are in a results directory.

use std::path::{Path, PathBuf};

use crate::hash::Digest;

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

    /// A file of the experiment: `plan.toml`, `scorecard.txt`, a table.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The directory of a run.
    pub fn run(&self, run_key: &Digest) -> RunDir {
        RunDir(self.0.join("runs").join(run_key.short()))
    }
}

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

    /// The event log.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal.jsonl")
    }

    /// The result, there once the run is finished.
    pub fn result(&self) -> PathBuf {
        self.0.join("result.json")
    }

    /// Text sampled at the end.
    pub fn samples(&self) -> PathBuf {
        self.0.join("samples.txt")
    }

    /// The checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }
}
