//! How long a run takes: its steps, its evaluations and its checkpoints, from rates measured here or recorded.

use serde::Serialize;

use super::PlannedRun;
use super::run_config::{BackendKind, RunConfig};
use crate::precision::Precision;

/// How fast this machine trains, evaluates and saves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// Training, by upstream's formula of FLOPs.
    pub flops_per_second: f64,
    /// Evaluating, by the forward third of that formula.
    pub eval_flops_per_second: f64,
    /// Writing checkpoints.
    pub checkpoint_bytes_per_second: f64,
    /// Where the figures are from, such as "measured now" or "recorded on 2026-01-31".
    pub source: String,
}

/// What goes into the time of a run, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RunTime {
    /// Optimizer steps.
    pub training: f64,
    /// Evaluations, the first and the last among them.
    pub evaluations: f64,
    /// Checkpoints.
    pub checkpoints: f64,
}

/// Bytes a second of serialising, hashing, writing and syncing a checkpoint: what a present disk and one core make of it.
const CHECKPOINT_BYTES_PER_SECOND: f64 = 5e8;
/// Bytes of a checkpoint for each parameter: its value and at most two moments, in float32.
const CHECKPOINT_BYTES_PER_PARAMETER: f64 = 12.0;
/// Of the rate of large matrix products, what training steps of a GPT reach by upstream's formula: 0.78 to 0.91 at depths
/// 4 to 12 (results/benchmarks/2026-11-21-epyc-2-cores), less for smaller ones.
const SHARE_OF_PRODUCTS: f64 = 0.8;

impl Speed {
    /// What follows from training alone.
    pub fn of_training(flops_per_second: f64, source: String) -> Self {
        Self {
            flops_per_second,
            // The forward pass alone has the same products as a third of training, and nothing else to wait for.
            eval_flops_per_second: flops_per_second,
            checkpoint_bytes_per_second: CHECKPOINT_BYTES_PER_SECOND,
            source,
        }
    }

    /// Of the cpu backend, whose kernels were measured: `products` is the rate of large matrix products, FLOP/s.
    pub fn of_products(products: f64, threads: usize) -> Self {
        let s = if threads == 1 { "" } else { "s" };
        let source =
            format!("matrix products measured now on {threads} thread{s}; nothing has finished here yet");
        Self::of_training(SHARE_OF_PRODUCTS * products, source)
    }

    /// What is usual for a backend whose kernels cannot be measured in a moment: orders of magnitude, no measurement.
    pub fn usual(config: &RunConfig, threads: usize) -> Self {
        let cores = threads.max(1) as f64;
        let (flops_per_second, what) = match (config.backend.kind, config.backend.device.as_str()) {
            (BackendKind::Cpu, _) => (25e9 * cores, format!("25 GFLOP/s on each of {threads} threads")),
            (BackendKind::Tch, "cpu") => (30e9 * cores, format!("30 GFLOP/s on each of {threads} threads")),
            (BackendKind::Tch, _) => match config.backend.precision {
                Precision::Bf16 => (300e12, "300 TFLOP/s on a datacentre GPU in bf16".to_owned()),
                Precision::F32 => (30e12, "30 TFLOP/s on a datacentre GPU in f32".to_owned()),
            },
            (BackendKind::Scalar, _) => (20e6, "20 MFLOP/s on one thread".to_owned()),
        };
        Self::of_training(flops_per_second, format!("assumed: {what}; nothing has finished here yet"))
    }

    /// The time of a run that shares nothing with others.
    pub fn time(&self, run: &PlannedRun) -> RunTime {
        let config = &run.config;
        let evaluations = evaluations(config);
        let eval_flops = evaluations as f64 * evaluation_flops(run);
        // One before every evaluation, and those that are kept.
        let kept = match config.checkpoint.every {
            0 => 0,
            every => run.sizes.steps / every,
        };
        let bytes = CHECKPOINT_BYTES_PER_PARAMETER * run.sizes.params.total as f64;
        RunTime {
            training: run.sizes.flops / self.flops_per_second,
            evaluations: eval_flops / self.eval_flops_per_second,
            checkpoints: (evaluations + kept) as f64 * bytes / self.checkpoint_bytes_per_second,
        }
    }
}

impl RunTime {
    /// All of it.
    pub fn total(self) -> f64 {
        self.training + self.evaluations + self.checkpoints
    }
}

/// How often a run is evaluated: at step 0, at its end, and by its cadence in between.
pub fn evaluations(config: &RunConfig) -> u64 {
    let steps = config.schedule.num_iterations;
    let between = match config.eval.every {
        0 => 0,
        every => steps.saturating_sub(1) / every,
    };
    1 + u64::from(steps > 0) + between
}

/// FLOPs of one evaluation: a third of training's for each of its tokens, whole batches of them.
pub fn evaluation_flops(run: &PlannedRun) -> f64 {
    let config = &run.config;
    let batch = (config.batch.device_batch_size * config.model.sequence_len()).max(1) as u64;
    let tokens = config.eval.tokens / batch * batch;
    tokens as f64 * run.sizes.flops_per_token as f64 / 3.0
}
