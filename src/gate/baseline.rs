//! Baselines: `baselines/<name>.toml`, readable and small enough for review, with the steps of every run in
//! `<name>.parquet` beside it.
//!
//! The TOML is the baseline. The parquet only lets a mismatch name its first step; the TOML has its SHA-256, and
//! one that does not belong to it is left unread.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::compare::{Comparison, Tolerance, compare};
use super::records::{Candidate, RunRecord, StepRecord};
use crate::error::Error;
use crate::files::{FileError, Files};
use crate::hash::Digest;
use crate::optim::config::StepValues;
use crate::record::StepRow;
use crate::record::column::{table_bytes, table_rows};
use crate::toml_text;

/// The version of the format; another one is refused.
const FORMAT: u32 = 1;

const HEADER: &str = "\
# Written by `nanorun verify --bless`. Within the environment class the hashes must be equal; on another class the
# values are compared by the tolerance. The parquet beside it holds every step, so that a mismatch can be located.

";

/// What results are compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// The experiment.
    pub experiment: String,
    /// How far values may lie apart on another environment class.
    pub tolerance: Tolerance,
    /// Its runs, with their steps where the parquet beside the baseline has them.
    pub runs: Vec<RunRecord>,
    /// Why the steps are not known, where they are not.
    pub without_steps: Option<String>,
}

/// The TOML file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BaselineFile {
    format: u32,
    experiment: String,
    environment_class: String,
    numerics_version: u32,
    /// SHA-256 of the parquet beside it.
    steps_sha256: Digest,
    tolerance: Tolerance,
    #[serde(default, rename = "run")]
    runs: Vec<BaselineRun>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BaselineRun {
    arm: String,
    seed: u64,
    key: Digest,
    train_hash: Digest,
    eval_hash: Digest,
    result_hash: Digest,
    made_on: String,
    metrics: BTreeMap<String, f64>,
}

/// Why a baseline could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// It does not have the form it should have.
    #[error("the baseline `{}` cannot be read: {what}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// These results make no baseline.
    #[error("no baseline can be made of these results: {0}")]
    Unfit(String),
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<BaselineError> for Error {
    fn from(error: BaselineError) -> Self {
        match error {
            BaselineError::File(error) => error.into(),
            BaselineError::Malformed { .. } => Self::input(error.to_string())
                .help("take it from version control again, or remove it and write a new one with --bless"),
            BaselineError::Unfit(_) => Self::run(error.to_string()),
        }
    }
}

impl Baseline {
    /// Reads a baseline; none where there is no such file.
    pub fn read(files: &Files, path: &Path) -> Result<Option<Self>, BaselineError> {
        let Some(bytes) = files.read_if_there(path)? else { return Ok(None) };
        let malformed = |what: String| BaselineError::Malformed { path: path.to_owned(), what };
        let mut baseline = Self::parse(&bytes).map_err(malformed)?;
        let steps = files.read_if_there(&steps_path(path))?;
        let expected = baseline.steps_sha256;
        let steps = match steps {
            None => Err("the parquet beside the baseline is not there".to_owned()),
            Some(bytes) if Digest::of(&bytes) != expected => {
                Err("the parquet beside the baseline does not belong to it".to_owned())
            }
            Some(bytes) => table_rows::<StepRow>(&bytes),
        };
        baseline.baseline.without_steps = match steps {
            Ok(rows) => {
                baseline.baseline.add_steps(&rows);
                None
            }
            Err(why) => Some(why),
        };
        Ok(Some(baseline.baseline))
    }

    /// Reads a baseline that has to be there.
    ///
    /// # Errors
    /// A baseline that is not there or cannot be read.
    pub fn require(files: &Files, path: &Path) -> Result<Self, Error> {
        Self::read(files, path)?.ok_or_else(|| {
            Error::input("there is no such baseline")
                .file(path)
                .expected("a baseline that `nanorun verify --bless` wrote")
                .help("run the same command with --bless to write it")
        })
    }

    fn parse(bytes: &[u8]) -> Result<Parsed, String> {
        // The version first: the rest may look otherwise in another one.
        let table: toml::Table = toml_text::from_slice(bytes).map_err(|error| error.to_string())?;
        match table.get("format").and_then(toml::Value::as_integer) {
            Some(found) if found != i64::from(FORMAT) => {
                return Err(format!("it has format {found}; this nanorun reads format {FORMAT}"));
            }
            _ => {}
        }
        let file: BaselineFile = toml_text::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut runs: Vec<RunRecord> = Vec::with_capacity(file.runs.len());
        for run in file.runs {
            if runs.iter().any(|other| other.arm == run.arm && other.seed == run.seed) {
                return Err(format!("it has two runs of arm `{}`, seed {}", run.arm, run.seed));
            }
            runs.push(RunRecord {
                arm: run.arm,
                seed: run.seed,
                key: run.key,
                environment_class: file.environment_class.clone(),
                numerics_version: file.numerics_version,
                train_hash: run.train_hash,
                eval_hash: run.eval_hash,
                evaluation: None,
                result_hash: run.result_hash,
                metrics: run.metrics,
                made_on: run.made_on,
                steps: Vec::new(),
            });
        }
        let baseline =
            Self { experiment: file.experiment, tolerance: file.tolerance, runs, without_steps: None };
        Ok(Parsed { baseline, steps_sha256: file.steps_sha256 })
    }

    fn add_steps(&mut self, rows: &[StepRow]) {
        for run in &mut self.runs {
            let mut steps: Vec<_> =
                rows.iter().filter(|row| row.arm == run.arm && row.seed == run.seed).collect();
            steps.sort_by_key(|row| row.step);
            run.steps = steps.into_iter().map(step_record).collect();
        }
    }

    /// Compares results of `experiment` with it; `path` is what reports call it.
    pub fn compare(&self, experiment: &str, results: &[Candidate], path: &Path) -> Comparison {
        let reference = path.display().to_string();
        let mut comparison = compare(experiment, results, &reference, &self.runs, self.tolerance);
        if self.experiment != experiment {
            comparison.notes.push(format!("the baseline was made of experiment `{}`", self.experiment));
        }
        comparison.notes.extend(self.without_steps.clone());
        comparison
    }
}

struct Parsed {
    baseline: Baseline,
    steps_sha256: Digest,
}

/// What blessing did.
#[derive(Debug, Clone, PartialEq)]
pub struct Blessed {
    /// The baseline's file.
    pub path: PathBuf,
    /// How many runs it has now.
    pub runs: usize,
    /// The new results against the baseline before; none where there was none.
    pub changes: Option<Comparison>,
}

impl fmt::Display for Blessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = if self.runs == 1 { "run" } else { "runs" };
        writeln!(f, "blessed {} {runs} in {}", self.runs, self.path.display())?;
        match &self.changes {
            None => writeln!(f, "there was no baseline before"),
            Some(changes) if changes.passed() => writeln!(f, "nothing changed against the one before"),
            Some(changes) => write!(f, "against the one before, {changes}"),
        }
    }
}

/// Makes `results` the baseline at `path`. The tolerance of one that is there stays; one that cannot be read is
/// an error, because what changes could not be told.
pub fn bless(
    files: &Files,
    path: &Path,
    experiment: &str,
    results: &[Candidate],
) -> Result<Blessed, BaselineError> {
    let old = Baseline::read(files, path)?;
    let mut runs = Vec::with_capacity(results.len());
    for candidate in results.iter().filter(|candidate| !candidate.not_needed) {
        let unfinished =
            || BaselineError::Unfit(format!("`{}`, seed {} is unfinished", candidate.arm, candidate.seed));
        runs.push(candidate.record.as_ref().ok_or_else(unfinished)?);
    }
    let Some(first) = runs.first() else {
        return Err(BaselineError::Unfit("there is no run".to_owned()));
    };
    let home = |run: &RunRecord| (run.environment_class.clone(), run.numerics_version);
    if let Some(other) = runs.iter().find(|run| home(run) != home(first)) {
        let (a, b) = (&first.environment_class, &other.environment_class);
        let (v, w) = (first.numerics_version, other.numerics_version);
        return Err(BaselineError::Unfit(format!(
            "they were made on `{a}`, numerics version {v}, and on `{b}`, numerics version {w}"
        )));
    }
    let malformed = |what: String| BaselineError::Malformed { path: path.to_owned(), what };
    let steps =
        table_bytes(&runs.iter().flat_map(|run| step_rows(run)).collect::<Vec<_>>()).map_err(malformed)?;
    let file = BaselineFile {
        format: FORMAT,
        experiment: experiment.to_owned(),
        environment_class: first.environment_class.clone(),
        numerics_version: first.numerics_version,
        steps_sha256: Digest::of(&steps),
        tolerance: old.as_ref().map_or_else(Tolerance::default, |old| old.tolerance),
        runs: runs.iter().map(|run| baseline_run(run)).collect(),
    };
    let text = toml::to_string(&file).map_err(|error| malformed(error.to_string()))?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files.create_dir_all(parent)?;
    }
    // The parquet first: stopped in between, the old baseline stands, without its steps.
    files.deliver(&steps_path(path), &steps)?;
    files.deliver(path, format!("{HEADER}{text}").as_bytes())?;
    let changes = old.map(|old| old.compare(experiment, results, path));
    Ok(Blessed { path: path.to_owned(), runs: runs.len(), changes })
}

fn steps_path(path: &Path) -> PathBuf {
    path.with_extension("parquet")
}

fn baseline_run(run: &RunRecord) -> BaselineRun {
    BaselineRun {
        arm: run.arm.clone(),
        seed: run.seed,
        key: run.key,
        train_hash: run.train_hash,
        eval_hash: run.eval_hash,
        result_hash: run.result_hash,
        made_on: run.made_on.clone(),
        metrics: run.metrics.clone(),
    }
}

/// The rows of a run's steps. Where its schedule is not known the values are NaN, which reads as not known.
fn step_rows(run: &RunRecord) -> Vec<StepRow> {
    let unknown =
        StepValues { lr_multiplier: f64::NAN, muon_momentum: f64::NAN, muon_weight_decay: f64::NAN };
    (0..)
        .zip(&run.steps)
        .map(|(step, record)| {
            let values = record.schedule.unwrap_or(unknown);
            StepRow {
                arm: run.arm.clone(),
                seed: run.seed,
                run_key: run.key.to_string(),
                step,
                loss: record.loss,
                lr_multiplier: values.lr_multiplier,
                muon_momentum: values.muon_momentum,
                muon_weight_decay: values.muon_weight_decay,
                ..StepRow::default()
            }
        })
        .collect()
}

fn step_record(row: &StepRow) -> StepRecord {
    let values = StepValues {
        lr_multiplier: row.lr_multiplier,
        muon_momentum: row.muon_momentum,
        muon_weight_decay: row.muon_weight_decay,
    };
    StepRecord { loss: row.loss, schedule: Some(values).filter(|values| !values.lr_multiplier.is_nan()) }
}
