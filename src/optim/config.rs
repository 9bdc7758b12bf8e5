//! Complete optimizer and schedule configurations.

use serde::{Deserialize, Serialize};

pub use crate::manifest::settings::Warmdown;
use crate::model::param::ParamGroup;
use crate::precision::Precision;
pub use crate::upstream::WeightDecayShape;

/// Which optimizer updates which group, with learning rates already scaled for width and batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    /// One entry for each group the model has.
    pub groups: Vec<(ParamGroup, GroupConfig)>,
}

/// The optimizer of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum GroupConfig {
    /// AdamW.
    Adamw(AdamWConfig),
    /// Muon with NorMuon.
    Muon(MuonConfig),
    /// SGD.
    Sgd(SgdConfig),
}

/// AdamW constants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Base learning rate, scaled; the multiplier of the step comes on top.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Epsilon, outside the root.
    pub eps: f64,
    /// Decoupled weight decay, constant.
    pub weight_decay: f64,
}

/// Muon constants; momentum and weight decay come from the schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MuonConfig {
    /// Base learning rate, scaled.
    pub lr: f64,
    /// Decay of NorMuon's second moment.
    pub beta2: f64,
    /// f in `X / (|X| * f + 1e-6)`.
    pub norm_factor: f64,
    /// Polar iterations.
    pub ns_steps: usize,
    /// MuonEq row equilibration before the polar iteration.
    pub row_equilibration: bool,
    /// Muon+ renormalisation after it.
    pub renormalize: bool,
    /// Precision of the polar iteration.
    pub polar_precision: Precision,
    /// Precision of the update after it.
    pub update_precision: Precision,
}

/// SGD constants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SgdConfig {
    /// Base learning rate.
    pub lr: f64,
    /// Momentum.
    pub momentum: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Everything that decides a step's multipliers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleConfig {
    /// N, optimizer steps that are taken.
    pub num_iterations: u64,
    /// Steps that a checkpoint of another program was trained for before: schedules count them, steps are numbered
    /// after them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps_before: u64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// W, steps of warm-down, already rounded half to even.
    pub warmdown_steps: u64,
    /// Shape of the warm-down.
    pub warmdown: Warmdown,
    /// Multiplier the warm-down approaches.
    pub final_lr_frac: f64,
    /// Muon's momentum over steps.
    pub momentum: MomentumSchedule,
    /// Muon's weight decay at the start, already scaled.
    pub weight_decay: f64,
    /// Its shape.
    pub weight_decay_shape: WeightDecayShape,
}

// Serde hands over a reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_zero(steps: &u64) -> bool {
    *steps == 0
}

impl ScheduleConfig {
    /// The steps that the schedules are made for: those before and those that are taken.
    pub fn horizon(&self) -> u64 {
        self.num_iterations.saturating_add(self.steps_before)
    }
}

/// Muon's momentum over steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MomentumSchedule {
    /// At step 0.
    pub start: f64,
    /// From step `warmup_steps` on.
    pub peak: f64,
    /// Steps from `start` to `peak`, linearly.
    pub warmup_steps: u64,
    /// Where momentum falls during the LR warm-down, its value at the end of it.
    pub warmdown_to: Option<f64>,
}

/// What step t consumes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepValues {
    /// Multiplies every group's base learning rate.
    pub lr_multiplier: f64,
    /// Muon's momentum.
    pub muon_momentum: f64,
    /// Muon's weight decay.
    pub muon_weight_decay: f64,
}
