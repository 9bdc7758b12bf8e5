//! dc54a1a: upstream's master of May and June 2026. Smear and backout are initialised, the horizon is 12 tokens a parameter,
//! and Muon computes in bf16 only where the run does.

use super::ca825e63::RECIPE as BEFORE;
use crate::upstream::recipe::{
    InitRecipe, MuonRecipe, OptimizerRecipe, PrecisionRule, Recipe, ScheduleRecipe,
};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "dc54a1a3077cab11d68fac4c5d1cd5c51f5d8c7a",
    date: "2026-05-05",
    note: "upstream's master of May and June 2026: smear and backout initialised, horizon of 12",
    init: InitRecipe { smear_gate_max: 0.02, backout_lambda: 0.2, ..BEFORE.init },
    optimizer: OptimizerRecipe {
        muon: MuonRecipe {
            polar_precision: PrecisionRule::Compute,
            update_precision: PrecisionRule::Compute,
            ..BEFORE.optimizer.muon
        },
        ..BEFORE.optimizer
    },
    schedule: ScheduleRecipe { param_data_ratio: 12.0, ..BEFORE.schedule },
    ..BEFORE
};
