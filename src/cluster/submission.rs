//! `submit/<time>/`: what was submitted, frozen, so that the index of a job means the same whatever changes meanwhile.
//!
//! ```text
//! submit/20260131T235959/submission.toml    this: units, settings, and the SHA-256 of all that must not change
//!                        manifest.toml      the manifest, as it was
//!                        job.sh report.sh   what the scheduler runs
//!                        jobs/<number>      the scheduler's jobs, a file each: number, first unit, what
//!                        events/<unit>      what became of a unit, a line each
//!                        logs/              what jobs print
//!                        cancelled          whether somebody cancelled it
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::units::UnitKind;
use crate::data::FrozenShard;
use crate::error::{Error, Result};
use crate::experiment::Classes;
use crate::files::Files;
use crate::hash::Digest;
use crate::manifest::ClusterSettings;
use crate::record::ExperimentDir;
use crate::toml_text;

/// The version of what stands in a submission's directory.
pub const FORMAT: u32 = 1;

/// Who runs the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Slurm.
    Slurm,
    /// HyperQueue.
    Hyperqueue,
}

impl Engine {
    /// As `--engine` has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Slurm => "slurm",
            Self::Hyperqueue => "hyperqueue",
        }
    }
}

/// A submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// [`FORMAT`].
    pub format: u32,
    /// When it was made, UTC.
    pub created: String,
    /// The version of nanorun.
    pub nanorun: String,
    /// Who runs it.
    pub engine: Engine,
    /// The program.
    pub binary: FrozenFile,
    /// The manifest as it was named; its text stands beside this.
    pub manifest: FrozenFile,
    /// The working directory that its relative paths are relative to.
    pub directory: PathBuf,
    /// The results of the experiment.
    pub results: PathBuf,
    /// The profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The `--set` arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<String>,
    /// The `--only` arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// The environment variables that the manifest takes in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Over the keys of all runs of the plan, in its order.
    pub plan: Digest,
    /// Of `job.sh`.
    pub script: Digest,
    /// Of `report.sh`.
    pub report: Digest,
    /// Environment classes that were known, by backend: what was finished is of them.
    #[serde(default, skip_serializing_if = "Classes::is_empty")]
    pub classes: Classes,
    /// What the scheduler was asked for.
    pub cluster: ClusterSettings,
    /// The files of text as they were.
    #[serde(default, rename = "shard", skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<FrozenShard>,
    /// The units, numbered by their place.
    #[serde(default, rename = "unit")]
    pub units: Vec<FrozenUnit>,
}

/// A file that must not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub sha256: Digest,
}

/// What one job does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenUnit {
    /// What it is of its tree.
    pub kind: UnitKind,
    /// The unit that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<usize>,
    /// Its runs.
    pub runs: Vec<FrozenRun>,
}

/// A run of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenRun {
    /// Its key.
    pub key: Digest,
    /// What people call it.
    pub label: String,
    /// Its steps.
    pub steps: u64,
    /// Of the settings of its evaluations.
    pub evaluation: Digest,
}

impl Submission {
    /// Its text.
    ///
    /// # Errors
    /// None that anybody has met.
    pub fn text(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::internal("a submission has no text").because(error))
    }
}

/// The directory of a submission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubmissionDir(PathBuf);

impl SubmissionDir {
    /// One that is already known by its path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Whether this path is one.
    pub fn is(path: &Path) -> bool {
        path.join("submission.toml").is_file()
    }

    /// Those of an experiment, the oldest first.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn all(experiment: &ExperimentDir) -> Result<Vec<Self>> {
        let place = experiment.file("submit");
        let entries = match std::fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(Error::input("the submissions of this experiment cannot be read")
                    .file(place)
                    .because(error));
            }
        };
        let paths = entries.flatten().map(|entry| entry.path()).filter(|path| Self::is(path));
        let mut found: Vec<Self> = paths.map(Self).collect();
        found.sort();
        Ok(found)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its name: when it was made.
    pub fn name(&self) -> String {
        self.0.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What became of a unit, in the lines that scripts and workers wrote; none where nothing did yet.
    pub fn events(&self, unit: usize) -> Vec<String> {
        let text = std::fs::read_to_string(self.events_file(unit)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Where that stands.
    pub fn events_file(&self, unit: usize) -> PathBuf {
        self.0.join("events").join(unit.to_string())
    }

    /// Whether somebody cancelled it.
    pub fn is_cancelled(&self) -> bool {
        self.file("cancelled").exists()
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is not there, is damaged, or is of a later version.
    pub fn read(&self, files: &Files) -> Result<Submission> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let path = self.file("submission.toml");
        let bytes = files.read(&path)?;
        let damaged = |error: toml_text::TomlError| {
            Error::input("the submission cannot be read").file(&path).because(error.to_string())
        };
        let Version { format } = toml_text::from_slice(&bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(Error::input(format!("the submission has format {format}"))
                .file(&path)
                .expected(format!("format {FORMAT}, which this version knows"))
                .help("use the version of nanorun that made it"));
        }
        toml_text::from_slice(&bytes).map_err(damaged)
    }
}
