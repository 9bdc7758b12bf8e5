//! 2f09686: Muon's weight decay follows horizon and batch instead of depth.

use super::c2c062aa::RECIPE as BEFORE;
use crate::upstream::recipe::{OptimizerRecipe, Recipe, WeightDecayLaw};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "2f096867244e3d00a50284d1be05fa3f5dcfb84b",
    date: "2026-02-10",
    note: "weight decay by horizon and batch",
    optimizer: OptimizerRecipe { weight_decay_law: WeightDecayLaw::Horizon, ..BEFORE.optimizer },
    ..BEFORE
};
