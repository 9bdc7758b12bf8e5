//! `plan.toml`: what an experiment set out to do, so that its directory explains itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::layout::{ExperimentDir, LAYOUT};
use super::result::RecordError;
use crate::files::Files;
use crate::hash::Digest;
use crate::plan::DataUse;
use crate::toml_text;

/// Its name in the directory.
pub const NAME: &str = "plan.toml";

/// The plan as it was carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// The version of the layout of the directory it stands in; none is said in layout 1.
    #[serde(default = "first_layout")]
    pub layout: u32,
    /// The experiment's name.
    pub name: String,
    /// Its question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// What was expected of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypothesis: Option<String>,
    /// The manifest it came from, as given on the command line; a copy of its text stands beside the plan.
    pub manifest: String,
    /// The working directory of that command, which relative paths are relative to; layout 1 does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The `--set` arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<String>,
    /// The environment variables that set manifest fields, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The `--only` arguments of the last start: which cells it was about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// In what it departs from the manifest and its profile, where it is a variation of them, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub varied: Vec<String>,
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
    /// Digest of the settings of its evaluations; layout 1 does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Digest>,
    /// Tokens that its tokenizer knows; layout 1 does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<u64>,
    /// Hash over the contents of its shards and tokenizer; layout 1 does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// How much text it has and how often it reads it; other versions do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataUse>,
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
    ///
    /// # Errors
    /// One that is not there, is damaged, or is of a later layout.
    pub fn read(files: &Files, dir: &ExperimentDir) -> Result<Self, RecordError> {
        let path = dir.file(NAME);
        let bytes = files.read(&path)?;
        let malformed = |what: String| RecordError::Malformed { path: path.clone(), what };
        // The version first: the rest may look otherwise in a later one.
        let table: toml::Table =
            toml_text::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        refuse_later_layout(dir, &table)?;
        toml_text::from_slice(&bytes).map_err(|error| malformed(error.to_string()))
    }

    /// Refuses a directory whose layout is of a later version. One without a plan, or whose plan cannot be read, has
    /// none that could be told.
    ///
    /// # Errors
    /// A later layout, by name.
    pub fn check_layout(files: &Files, dir: &ExperimentDir) -> Result<(), RecordError> {
        let Some(bytes) = files.read_if_there(&dir.file(NAME))? else { return Ok(()) };
        match toml_text::from_slice::<toml::Table>(&bytes) {
            Ok(table) => refuse_later_layout(dir, &table),
            Err(_) => Ok(()),
        }
    }
}

fn first_layout() -> u32 {
    1
}

fn refuse_later_layout(dir: &ExperimentDir, plan: &toml::Table) -> Result<(), RecordError> {
    match plan.get("layout").and_then(toml::Value::as_integer) {
        Some(found) if found > i64::from(LAYOUT) => {
            Err(RecordError::Layout { dir: dir.path().to_owned(), expected: LAYOUT, found })
        }
        _ => Ok(()),
    }
}
