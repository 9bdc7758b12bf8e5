//! `result.json`: the truth about a finished run. It is written last; a run without it is unfinished.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::files::{ExactF32, FileError, Files};
use crate::hash::Digest;
use crate::host::HostFacts;
use crate::plan::evaluation::CORE;
use crate::train::checkpoint::EvalPoint;
use crate::train::result_hash::result_hash;

/// The version of the format; later ones are refused.
const FORMAT: u32 = 2;

/// The first version that has a checksum. Results of the one before are read without: nothing else is different.
const CHECKED_FORMAT: u32 = 2;

/// The key of the file's own checksum: SHA-256 of everything else in it, as compact JSON in the file's order. Hashes of
/// the run do not cover all that is written (losses enter the train hash together with the final parameters, which are
/// not here), and timings and host are in none.
const CHECKSUM: &str = "sha256";

/// A finished run. It knows nothing of names and arms: several cells of a plan may be the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The version of the format.
    pub format: u32,
    /// The run key, `k[N]`.
    pub run_key: Digest,
    /// The class whose bits these are.
    pub environment_class: String,
    /// The version of the engine's numerics.
    pub numerics_version: u32,
    /// Hash over losses and final parameters.
    pub train_hash: Digest,
    /// Hash over the final evaluation.
    pub eval_hash: Digest,
    /// Hash over both.
    pub result_hash: Digest,
    /// Mean loss of every step.
    pub step_losses: Vec<ExactF32>,
    /// Every evaluation, the final one last.
    pub evals: Vec<EvalPoint>,
    /// Every measurement of the CORE metric; in no hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub core: Vec<EvalPoint>,
    /// How long it took; never hashed.
    pub timings: Timings,
    /// Where it was made; never hashed.
    pub host: HostFacts,
    /// The attempt of other results that it was taken over from; none where it was trained here. Never hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_over_from: Option<String>,
}

/// How long a run took and in what company; never hashed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
// Another version may measure other things.
#[serde(default)]
pub struct Timings {
    /// Wall seconds of every step, over all the processes that worked on it; shared steps have their first run's.
    pub step_seconds: Vec<f64>,
    /// Wall seconds in evaluations.
    pub eval_seconds: f64,
    /// Wall seconds in writing checkpoints.
    pub checkpoint_seconds: f64,
    /// Steps that were trained as part of another run.
    pub shared_steps: u64,
    /// How often it was resumed.
    pub resumes: u64,
    /// Whether all its steps, those of others that it took over included, were trained with no other run beside them.
    pub alone: bool,
    /// CPU or accelerator and threads of every life whose steps these are; empty where an older version wrote it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<String>,
    /// The most memory the process held, bytes.
    pub peak_rss_bytes: Option<u64>,
    /// The most memory tensors took on the device, bytes, in the process that finished it; none where nobody counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_device_bytes: Option<u64>,
    /// The generation of the lease under which it was finished: of two attempts that overlap, the one with the lower
    /// number had lost it. None where an older version wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// When it began and ended, UTC, by the host's clock.
    pub started: String,
    /// See `started`.
    pub finished: String,
}

/// Why a record could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It does not have the form it should have.
    #[error("`{}` is damaged: {what}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Something in it changed after it was written.
    #[error("`{}` was changed after it was written: its content has SHA-256 {found}, it says {written}", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What it says.
        written: String,
        /// What it has.
        found: Digest,
    },
    /// Its hashes do not follow from its values.
    #[error("`{}` contradicts itself: {what}", .path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// Which hash.
        what: String,
    },
    /// Written in another version of the format.
    #[error("`{}` has format {found}; this nanorun reads format {expected}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format this build reads.
        expected: u32,
        /// The format it has.
        found: u64,
    },
    /// A directory laid out by a later version.
    #[error("the results in `{}` have layout {found}; this nanorun reads layouts up to {expected}", .dir.display())]
    Layout {
        /// The experiment's directory.
        dir: PathBuf,
        /// The latest layout this build reads.
        expected: u32,
        /// The layout it has.
        found: i64,
    },
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::File(error) => error.into(),
            RecordError::Layout { .. } => Self::input(error.to_string())
                .help("a newer nanorun wrote them: use that one, or other results"),
            RecordError::Format { expected, found, .. } if found > u64::from(expected) => {
                Self::input(error.to_string())
                    .help("a newer nanorun wrote it: use that one, or other results")
            }
            other => Self::input(other.to_string()).help(
                "remove that file and start again: what can be taken up from checkpoints is not trained anew",
            ),
        }
    }
}

impl RunResult {
    /// The version that [`Self::write`] writes.
    pub const FORMAT: u32 = FORMAT;

    /// A result from its parts; the final evaluation is the last of `evals`. None where there is no evaluation.
    pub fn new(
        run_key: Digest,
        environment_class: String,
        numerics_version: u32,
        train_hash: Digest,
        step_losses: Vec<ExactF32>,
        evals: Vec<EvalPoint>,
        timings: Timings,
        host: HostFacts,
    ) -> Option<Self> {
        let eval_hash = evals.last()?.hash();
        Some(Self {
            format: FORMAT,
            run_key,
            environment_class,
            numerics_version,
            train_hash,
            eval_hash,
            result_hash: result_hash(&train_hash, &eval_hash),
            step_losses,
            evals,
            core: Vec::new(),
            timings,
            host,
            taken_over_from: None,
        })
    }

    /// Writes it, atomically.
    ///
    /// # Errors
    /// File failures.
    pub fn write(&self, files: &Files, path: &Path) -> Result<(), RecordError> {
        write_checked(files, path, self)
    }

    /// Reads it and checks that its hashes follow from its values; none where the run is unfinished.
    ///
    /// # Errors
    /// One that is damaged, contradicts itself or is of a later format.
    pub fn read(files: &Files, path: &Path) -> Result<Option<Self>, RecordError> {
        let Some(result) = read_checked::<Self>(files, path, 1..=FORMAT, CHECKED_FORMAT)? else {
            return Ok(None);
        };
        result.check().map_err(|what| RecordError::Inconsistent { path: path.to_owned(), what })?;
        Ok(Some(result))
    }

    fn check(&self) -> Result<(), String> {
        let last = self.evals.last().ok_or("it has no evaluation")?;
        if last.hash() != self.eval_hash {
            return Err("eval_hash is not that of the last evaluation".to_owned());
        }
        if last.train_hash != self.train_hash {
            return Err("the last evaluation is not of the final parameters".to_owned());
        }
        if result_hash(&self.train_hash, &self.eval_hash) != self.result_hash {
            return Err("result_hash is not that of train_hash and eval_hash".to_owned());
        }
        Ok(())
    }

    /// Whether its file is of a version that wrote a checksum into it.
    pub fn has_checksum(&self) -> bool {
        self.format >= CHECKED_FORMAT
    }

    /// The CORE metric after the last step, by a definition; none where it was not measured so.
    pub fn final_core(&self, settings: Option<Digest>) -> Option<f64> {
        let last = self.core.iter().rev().find(|point| point.train_hash == self.train_hash)?;
        let same = settings.is_some_and(|settings| settings == last.settings);
        same.then(|| last.values.get(CORE).map(|value| value.0))?
    }

    /// A value of the final evaluation.
    pub fn final_value(&self, metric: &str) -> Option<f64> {
        self.evals.last()?.values.get(metric).map(|value| value.0)
    }

    /// The settings of its final evaluation.
    pub fn evaluation(&self) -> Option<Digest> {
        self.evals.last().map(|eval| eval.settings)
    }

    /// Whether this and `other` cannot both be right: one run, one class, one version, two results. Evaluations under
    /// other settings have other hashes by right; what was trained has one all the same.
    pub fn contradicts(&self, other: &Self) -> bool {
        let one_run = self.run_key == other.run_key
            && self.environment_class == other.environment_class
            && self.numerics_version == other.numerics_version;
        let one_evaluation = self.evaluation() == other.evaluation();
        one_run
            && (self.train_hash != other.train_hash
                || one_evaluation && self.result_hash != other.result_hash)
    }

    /// The first evaluation with a value that is no finite number: what a version wrote that took such a run for
    /// finished.
    pub fn not_finite(&self) -> Option<(&EvalPoint, &str, f64)> {
        self.evals.iter().find_map(|eval| {
            let (name, value) = eval.values.iter().find(|(_, value)| !value.0.is_finite())?;
            Some((eval, name.as_str(), value.0))
        })
    }
}

/// Writes a record with its checksum, atomically.
pub(super) fn write_checked(files: &Files, path: &Path, record: &impl Serialize) -> Result<(), RecordError> {
    let mut value = serde_json::to_value(record).map_err(|error| malformed(path, &error))?;
    let checksum = checksum(&value).to_string();
    if let Some(fields) = value.as_object_mut() {
        fields.insert(CHECKSUM.to_owned(), checksum.into());
    }
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(|error| malformed(path, &error))?;
    bytes.push(b'\n');
    Ok(files.write(path, &bytes)?)
}

/// Reads a record of one of `formats`, those from `checked` on with their checksum; none where there is no file.
pub(super) fn read_checked<T: DeserializeOwned>(
    files: &Files,
    path: &Path,
    formats: RangeInclusive<u32>,
    checked: u32,
) -> Result<Option<T>, RecordError> {
    let Some(bytes) = files.read_if_there(path)? else { return Ok(None) };
    let mut value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| malformed(path, &e))?;
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    if let Some(found) = format
        && !u32::try_from(found).is_ok_and(|found| formats.contains(&found))
    {
        return Err(RecordError::Format { path: path.to_owned(), expected: *formats.end(), found });
    }
    let written = value.as_object_mut().and_then(|fields| fields.shift_remove(CHECKSUM));
    let has_none = written.is_none() && format.is_some_and(|format| format < u64::from(checked));
    let written = written.as_ref().and_then(serde_json::Value::as_str).unwrap_or("nothing").to_owned();
    let found = checksum(&value);
    if !has_none && written != found.to_string() {
        return Err(RecordError::Changed { path: path.to_owned(), written, found });
    }
    serde_json::from_value(value).map(Some).map_err(|e| malformed(path, &e))
}

/// SHA-256 of a file's content without its checksum.
pub(crate) fn checksum(value: &serde_json::Value) -> Digest {
    Digest::of(value.to_string().as_bytes())
}

fn malformed(path: &Path, error: &serde_json::Error) -> RecordError {
    RecordError::Malformed { path: path.to_owned(), what: error.to_string() }
}
