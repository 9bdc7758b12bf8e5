//! 92d63d4: FLOPs count the gate of smear.

use super::ceb16d01::RECIPE as BEFORE;
use crate::upstream::recipe::{ModelRecipe, Recipe};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "92d63d4e8bb4df75c3b71618f31ddde2378b2bcd",
    date: "2026-07-03",
    note: "FLOPs count the gate of smear",
    model: ModelRecipe { flops_count_smear_gate: true, ..BEFORE.model },
    ..BEFORE
};
