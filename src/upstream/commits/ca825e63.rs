//! a825e63: leaderboard run 6, autoresearch round 2. Upstream leaves smear gate, smear lambda and backout lambda
//! uninitialised here; by this project's convention they start at 0.

use super::c6ed7d1d::RECIPE as BEFORE;
use crate::upstream::recipe::{
    InitRecipe, LayerRamp, ModelRecipe, MomentumRecipe, MuonRecipe, OptimizerRecipe, Recipe, ShortWindow,
};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "a825e63f81e62e2e9fd38655e9b2e39417620545",
    date: "2026-03-14",
    note: "leaderboard run 6, autoresearch round 2; three parameters upstream leaves uninitialised start at 0",
    model: ModelRecipe {
        short_window: ShortWindow::Quarter,
        qk_scale: 1.2,
        smear: true,
        backout: true,
        ..BEFORE.model
    },
    init: InitRecipe {
        c_fc_scale: 0.4,
        resid_lambda: LayerRamp { first: 1.15, fall: 0.1 },
        x0_lambda: LayerRamp { first: 0.2, fall: 0.15 },
        smear_gate_max: 0.0,
        backout_lambda: 0.0,
        ..BEFORE.init
    },
    optimizer: OptimizerRecipe {
        muon: MuonRecipe {
            momentum: MomentumRecipe { warmdown_to: Some(0.9), ..BEFORE.optimizer.muon.momentum },
            ..BEFORE.optimizer.muon
        },
        ..BEFORE.optimizer
    },
    ..BEFORE
};
