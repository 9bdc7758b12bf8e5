//! 324e69c: leaderboard run 4; another dataset, and the only commit with a softcap of 20.

use super::c2f09686::RECIPE as BEFORE;
use crate::upstream::recipe::{DataRecipe, ModelRecipe, Recipe};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "324e69c45d3606095adb6b409078647145165454",
    date: "2026-03-04",
    note: "leaderboard run 4, ClimbMix data",
    model: ModelRecipe { softcap: 20.0, ..BEFORE.model },
    data: DataRecipe { eval_tokens: 80 * 524_288, ..BEFORE.data },
    ..BEFORE
};
