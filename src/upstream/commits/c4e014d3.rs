//! 4e014d3: MuonEq and Muon+; smear and backout initialised; bf16 only where the run computes in it.

use super::ca825e63::RECIPE as BEFORE;
use crate::upstream::recipe::{
    InitRecipe, MuonRecipe, OptimizerRecipe, PrecisionRule, Recipe, ScheduleRecipe,
};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "4e014d31b1d57a6c7f38c5db578a2292bc7c3429",
    date: "2026-07-03",
    note: "MuonEq and Muon+",
    init: InitRecipe { smear_gate_max: 0.02, smear_lambda: 0.0, backout_lambda: 0.2, ..BEFORE.init },
    optimizer: OptimizerRecipe {
        muon: MuonRecipe {
            row_equilibration: true,
            renormalize: true,
            polar_precision: PrecisionRule::Compute,
            update_precision: PrecisionRule::Compute,
            ..BEFORE.optimizer.muon
        },
        ..BEFORE.optimizer
    },
    schedule: ScheduleRecipe { param_data_ratio: 12.0, ..BEFORE.schedule },
    ..BEFORE
};
