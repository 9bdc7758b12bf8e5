//! `diverged.json`: how an attempt ended whose numbers were no longer finite. It is an end like a result: it has its
//! losses, and the run is not trained again until somebody asks.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::result::{RecordError, RunResult, Timings, read_checked, write_checked};
use crate::files::{ExactF32, ExactF64, Files};
use crate::hash::Digest;
use crate::host::HostFacts;
use crate::train::checkpoint::EvalPoint;

/// The version of the format; later ones are refused.
const FORMAT: u32 = 1;

/// A run that diverged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The version of the format.
    pub format: u32,
    /// The run key.
    pub run_key: Digest,
    /// The class it computed in.
    pub environment_class: String,
    /// The version of the engine's numerics.
    pub numerics_version: u32,
    /// Optimizer steps done before.
    pub step: u64,
    /// What was not finite: `loss`, or the name of an evaluation's value.
    pub metric: String,
    /// It.
    pub value: ExactF64,
    /// The newest checkpoint before it.
    pub last_checkpoint: Option<u64>,
    /// Mean loss of every step that was done.
    pub step_losses: Vec<ExactF32>,
    /// Every evaluation before it.
    pub evals: Vec<EvalPoint>,
    /// How long it took.
    pub timings: Timings,
    /// Where it was made.
    pub host: HostFacts,
}

impl Divergence {
    /// The version that [`Self::write`] writes.
    pub const FORMAT: u32 = FORMAT;

    /// What happened, in words: `the loss of step 5 is NaN`.
    pub fn what(&self) -> String {
        let (step, value) = (self.step, self.value.0);
        match self.metric.as_str() {
            "loss" => format!("the loss of step {step} is {value}"),
            metric => format!("{metric} at step {step} is {value}"),
        }
    }

    /// Of a result that a version wrote which took a run without finite values for finished; none where all are.
    pub fn of(result: &RunResult) -> Option<Self> {
        let (eval, metric, value) = result.not_finite()?;
        let before = |other: &&EvalPoint| other.step < eval.step;
        Some(Self {
            format: FORMAT,
            run_key: result.run_key,
            environment_class: result.environment_class.clone(),
            numerics_version: result.numerics_version,
            step: eval.step,
            metric: metric.to_owned(),
            value: ExactF64(value),
            last_checkpoint: None,
            step_losses: result.step_losses.clone(),
            evals: result.evals.iter().filter(before).cloned().collect(),
            timings: result.timings.clone(),
            host: result.host.clone(),
        })
    }

    /// Writes it, atomically, with a checksum.
    ///
    /// # Errors
    /// File failures.
    pub fn write(&self, files: &Files, path: &Path) -> Result<(), RecordError> {
        write_checked(files, path, self)
    }

    /// Reads it and its checksum; none where the attempt did not diverge.
    ///
    /// # Errors
    /// One that is damaged or of a later format.
    pub fn read(files: &Files, path: &Path) -> Result<Option<Self>, RecordError> {
        read_checked(files, path, 1..=FORMAT, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divergence_comes_back_and_no_bit_of_it_changes_unnoticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("diverged.json");
        let files = Files::new();
        assert_eq!(Divergence::read(&files, &path).unwrap(), None);
        let divergence = Divergence {
            format: FORMAT,
            run_key: Digest::of(b"key"),
            environment_class: "cpu".into(),
            numerics_version: 1,
            step: 2,
            metric: "loss".into(),
            value: ExactF64(f64::NAN),
            last_checkpoint: Some(0),
            step_losses: vec![ExactF32(3.0), ExactF32(f32::MAX)],
            evals: Vec::new(),
            timings: Timings::default(),
            host: HostFacts::default(),
        };
        divergence.write(&files, &path).unwrap();
        assert_eq!(Divergence::read(&files, &path).unwrap().as_ref(), Some(&divergence));
        assert_eq!(divergence.what(), "the loss of step 2 is NaN");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&path, bad).unwrap();
            // White space between values says nothing.
            let unnoticed = Divergence::read(&files, &path).is_ok();
            assert!(!unnoticed || good[at].is_ascii_whitespace(), "byte {at}");
        }
    }
}
