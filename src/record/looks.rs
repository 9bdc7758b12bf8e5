//! `looks.jsonl`: every look that was taken at an experiment's seeds, one a line, in the order in which they were taken.
//! Lines are only added. What a look decides follows from its results alone and is found again from them; the log says
//! when it was taken and what it said then, and keeps that where results change.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::layout::ExperimentDir;
use crate::files::{FileResult, Files};
use crate::hash::Digest;

/// One look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LookRecord {
    /// When, UTC, by the host's clock.
    pub at: String,
    /// Which, from 1.
    pub look: u64,
    /// How many there are.
    pub looks: u64,
    /// The seeds that it is over.
    pub seeds: Vec<u64>,
    /// Seeds of the experiment.
    pub of_seeds: u64,
    /// Its nominal two-sided level, of one arm as if there were no other.
    pub level: f64,
    /// Whether every arm is decided, so that no more seeds are begun.
    pub decides: bool,
    /// The results that it is over.
    pub runs: Vec<LookedAt>,
    /// Runs that are not needed because it decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_needed: Vec<Digest>,
    /// What it says of each arm.
    pub verdicts: Vec<LookVerdict>,
}

/// A run that a look is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookedAt {
    /// The run.
    pub key: Digest,
    /// Its result; none of a run that diverged.
    pub result_hash: Option<Digest>,
}

/// What a look says of an arm by a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as the columns of `scorecard.parquet` of the same names")]
pub struct LookVerdict {
    pub arm: String,
    pub control: Option<String>,
    pub metric: String,
    pub outcome: String,
    pub finding: Option<String>,
    pub difference: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub deviation: Option<f64>,
}

impl LookRecord {
    /// Whether another one is the same, but for when it was taken.
    pub fn says_the_same(&self, other: &Self) -> bool {
        // As text: an infinite end of an interval is none there.
        let text = |record: &Self| serde_json::to_string(&Self { at: String::new(), ..record.clone() }).ok();
        text(self) == text(other)
    }
}

/// The log of an experiment.
#[derive(Debug, Clone)]
pub struct Looks(PathBuf);

impl Looks {
    /// Of the experiment in this directory.
    pub fn of(dir: &ExperimentDir) -> Self {
        Self(dir.file("looks.jsonl"))
    }

    /// Its lines; none where there is no log. A last line without its end is what a crash leaves, and no line; any other
    /// that is no look is passed over: nothing is decided by the log.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn read(&self, files: &Files) -> FileResult<Vec<LookRecord>> {
        let bytes = files.read_if_there(&self.0)?.unwrap_or_default();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Adds a line.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn append(&self, files: &Files, record: &LookRecord) -> FileResult<()> {
        files.append_line(&self.0, &serde_json::to_string(record).unwrap_or_default())
    }
}
