//! 4e014d3: MuonEq and Muon+.

use super::cdc54a1a::RECIPE as BEFORE;
use crate::upstream::recipe::{MuonRecipe, OptimizerRecipe, Recipe};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "4e014d31b1d57a6c7f38c5db578a2292bc7c3429",
    date: "2026-07-03",
    note: "MuonEq and Muon+",
    optimizer: OptimizerRecipe {
        muon: MuonRecipe { row_equilibration: true, renormalize: true, ..BEFORE.optimizer.muon },
        ..BEFORE.optimizer
    },
    ..BEFORE
};
