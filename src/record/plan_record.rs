//! `plan.toml`: what an experiment set out to do, so that its directory explains itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::layout::ExperimentDir;
use super::result::RecordError;
use crate::files::Files;
use crate::hash::Digest;
use crate::toml_text;

const NAME: &str = "plan.toml";

/// The plan as it was carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// The experiment's name.
    pub name: String,
    /// Its question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The manifest it came from, as given on the command line.
    pub manifest: String,
    /// The profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The `--set` arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<String>,
    /// The environment variables that set manifest fields, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whether every run was to train all its steps itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_share: bool,
    /// The version of nanorun.
    pub nanorun: String,
    /// The control arm, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Its runs, in the plan's order.
    #[serde(default, rename = "run")]
    pub runs: Vec<PlannedRun>,
}

/// One run of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedRun {
    /// The arm: the cell without its seed.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// The run key, which also names its directory.
    pub key: Digest,
    /// Optimizer steps.
    pub steps: u64,
    /// The cell: every axis's key path and value.
    #[serde(default)]
    pub cell: BTreeMap<String, toml::Value>,
}

impl PlanRecord {
    /// Writes `plan.toml`.
    pub fn write(&self, files: &Files, dir: &ExperimentDir) -> Result<(), RecordError> {
        let path = dir.file(NAME);
        let text = toml::to_string(self)
            .map_err(|error| RecordError::Malformed { path: path.clone(), what: error.to_string() })?;
        Ok(files.write(&path, text.as_bytes())?)
    }

    /// Reads `plan.toml`.
    pub fn read(files: &Files, dir: &ExperimentDir) -> Result<Self, RecordError> {
        let path = dir.file(NAME);
        let bytes = files.read(&path)?;
        toml_text::from_slice(&bytes)
            .map_err(|error| RecordError::Malformed { path, what: error.to_string() })
    }
}
