//! 6ed7d1d: leaderboard run 5, autoresearch round 1.

use super::c324e69c::RECIPE as BEFORE;
use crate::upstream::recipe::{
    AdamWRecipe, InitRecipe, ModelRecipe, MomentumRecipe, MuonRecipe, OptimizerRecipe, PrecisionRule, Recipe,
    ScheduleRecipe, ShortWindow, WarmupRule, WeightDecayShape,
};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "6ed7d1d82cee16c2e26f45d559ad3338447a6c1b",
    date: "2026-03-09",
    note: "leaderboard run 5, autoresearch round 1",
    model: ModelRecipe {
        short_window: ShortWindow::Third,
        rope_base: 100_000.0,
        rotary_precision: PrecisionRule::Compute,
        qk_scale: 1.15,
        softcap: 15.0,
        ve_gate_channels: 12,
        ve_gate_scale: 3.0,
        ..BEFORE.model
    },
    init: InitRecipe { wte_std: 0.8, c_fc_scale: 0.5, ve_gate_max: 0.02, ..BEFORE.init },
    optimizer: OptimizerRecipe {
        unembedding: AdamWRecipe { lr: 0.008, betas: (0.8, 0.96), weight_decay: 0.01 },
        embedding: AdamWRecipe { lr: 0.3, betas: (0.8, 0.995), weight_decay: 0.001 },
        value_embeds: AdamWRecipe { lr: 0.5, betas: (0.8, 0.995), weight_decay: 0.01 },
        resid: AdamWRecipe { weight_decay: 0.05, ..BEFORE.optimizer.resid },
        muon: MuonRecipe {
            beta2: 0.9,
            norm_factor: 1.01,
            weight_decay: 0.28,
            momentum: MomentumRecipe { peak: 0.97, warmup_steps: 400, ..BEFORE.optimizer.muon.momentum },
            ..BEFORE.optimizer.muon
        },
        ..BEFORE.optimizer
    },
    schedule: ScheduleRecipe {
        warmup: WarmupRule::Steps(40),
        warmdown_ratio: 0.65,
        final_lr_frac: 0.05,
        weight_decay_shape: WeightDecayShape::Cosine,
        ..BEFORE.schedule
    },
    ..BEFORE
};
