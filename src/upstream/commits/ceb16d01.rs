//! eb16d01: float32 optimizer maths, raw token bytes, one optimizer for one and many GPUs.

use super::c4e014d3::RECIPE as BEFORE;
use crate::upstream::recipe::{
    DataRecipe, MuonRecipe, OptimizerRecipe, PrecisionRule, Recipe, TokenBytesRule,
};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "eb16d017f28f9642958e09ca9b2c42667159031f",
    date: "2026-07-03",
    note: "float32 optimizer maths, raw token bytes, one optimizer for one and many GPUs",
    optimizer: OptimizerRecipe {
        muon: MuonRecipe { update_precision: PrecisionRule::F32, ..BEFORE.optimizer.muon },
        ..BEFORE.optimizer
    },
    data: DataRecipe { token_bytes: TokenBytesRule::Raw, ..BEFORE.data },
    ..BEFORE
};
