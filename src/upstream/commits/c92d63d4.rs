//! 92d63d4: optimizer maths in float32, raw token bytes.

use super::c4e014d3::RECIPE as BEFORE;
use crate::upstream::recipe::{
    DataRecipe, ModelRecipe, MuonRecipe, OptimizerRecipe, PrecisionRule, Recipe, TokenBytesRule,
};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "92d63d4e8bb4df75c3b71618f31ddde2378b2bcd",
    date: "2026-07-03",
    note: "float32 optimizer maths, raw token bytes",
    model: ModelRecipe { flops_count_smear_gate: true, ..BEFORE.model },
    optimizer: OptimizerRecipe {
        muon: MuonRecipe { update_precision: PrecisionRule::F32, ..BEFORE.optimizer.muon },
        ..BEFORE.optimizer
    },
    data: DataRecipe { token_bytes: TokenBytesRule::Raw, ..BEFORE.data },
    ..BEFORE
};
