//! A complete run: nothing in it is left to derive, and everything that decides its numbers is in it.

use serde::{Deserialize, Serialize};

pub use crate::data::config::{DataConfig, DocumentSplit, Nulls, Packing, TokenBytesRule, TokenizerChoice};
use crate::data::{Position, RowOrder};
use crate::hash::Digest;
pub use crate::manifest::settings::{BackendKind, CheckpointEnd};
use crate::model::config::ModelConfig;
use crate::optim::config::{OptimizerConfig, ScheduleConfig};
use crate::precision::Precision;

/// What `train` carries out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// All 40 digits of the pinned upstream commit.
    pub commit: String,
    /// Seed of the initial weights.
    pub seed: u64,
    /// Where initial weights come from.
    pub init: InitSource,
    /// Which ops.
    pub backend: BackendChoice,
    /// Model sizes and switches.
    pub model: ModelConfig,
    /// Optimizer groups.
    pub optimizer: OptimizerConfig,
    /// Schedules.
    pub schedule: ScheduleConfig,
    /// Batch sizes.
    pub batch: BatchConfig,
    /// What it trains on.
    pub data: DataConfig,
    /// In which order, and as how many ranks.
    // Left out where it is what every run had before, so that recorded configurations keep their digests.
    #[serde(default, skip_serializing_if = "RowOrder::is_default")]
    pub row_order: RowOrder,
    /// Validation.
    pub eval: EvalConfig,
    /// Checkpoints.
    pub checkpoint: CheckpointConfig,
}

/// Where initial weights come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitSource {
    /// torch's CPU generator and upstream's draw order.
    Torch,
    /// A safetensors file with every parameter by its name.
    File {
        /// Its path.
        path: String,
        /// SHA-256 of its bytes.
        sha256: Digest,
    },
    /// The weights of a checkpoint.
    Checkpoint {
        /// Its path.
        path: String,
        /// Digest of its model's file.
        sha256: Digest,
    },
    /// A checkpoint of upstream's, trained on.
    Resume {
        /// Its path.
        path: String,
        /// Digest of all its files, those of the optimizer among them.
        sha256: Digest,
        /// Steps it was trained for before.
        step: u64,
        /// Where its data go on; none where it does not say.
        data: Option<Position>,
    },
}

/// Backend, device and precision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendChoice {
    /// Which implementation.
    pub kind: BackendKind,
    /// Device of the tch backend: `cpu` or `cuda:N`.
    pub device: String,
    /// Compute precision.
    pub precision: Precision,
}

impl RunConfig {
    /// Rows of an optimizer step that each rank has.
    pub fn rows_of_rank(&self) -> usize {
        self.batch.device_batch_size * self.batch.grad_accum_steps / self.row_order.ranks.max(1)
    }

    /// Micro-batches of a step that each rank has.
    pub fn turn(&self) -> u64 {
        (self.batch.grad_accum_steps / self.row_order.ranks.max(1)).max(1) as u64
    }

    /// Batches of an evaluation that each rank has; 0 where `eval.tokens` are too few.
    pub fn eval_turn(&self) -> u64 {
        let batch = (self.batch.device_batch_size * self.model.sequence_len()) as u64;
        self.eval.tokens / batch.saturating_mul(self.row_order.ranks as u64).max(1)
    }
}

/// Batch sizes. `total_batch_size = device_batch_size * sequence_len * grad_accum_steps`, in tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchConfig {
    /// B, rows of a micro-batch.
    pub device_batch_size: usize,
    /// Tokens of an optimizer step.
    pub total_batch_size: usize,
    /// Micro-batches of a step, over all ranks: a multiple of their number.
    pub grad_accum_steps: usize,
}

/// Validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalConfig {
    /// Every so many steps, besides the first and the last; 0 is only those two.
    pub every: u64,
    /// Tokens of a validation; `tokens / (B * T * ranks)` batches a rank.
    pub tokens: u64,
    /// Bytes that an evaluation may leave behind before the drift guard stops the run.
    pub max_drift_bytes: u64,
    /// The CORE metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<CoreConfig>,
}

/// The CORE metric in training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreConfig {
    /// The evaluation bundle.
    pub bundle: String,
    /// Every so many steps, besides the last; 0 is only that one.
    pub every: u64,
    /// Examples of a task; none is all.
    pub max_per_task: Option<u64>,
    /// Hash of its files and of how much of them is evaluated; none while it is not here.
    pub sha256: Option<Digest>,
}

/// Checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointConfig {
    /// Kept every so many steps; 0 keeps the last one alone.
    pub every: u64,
    /// How many of the kept ones stay; 0 is all.
    pub keep: usize,
    /// What stays of them once the run is finished.
    #[serde(default, rename = "final")]
    pub at_end: CheckpointEnd,
    /// Minutes after which one is written whatever the step, in place of the last such one; 0 is after every step, none
    /// is never. Which steps that hits depends on the machine, so nothing but a resume may start from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
}
