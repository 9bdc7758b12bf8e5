//! 2c062aa: leaderboard run 3; the batch size follows the horizon.

use super::ca67eba3::RECIPE as BEFORE;
use crate::upstream::recipe::{BatchRule, DataRecipe, Recipe};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "2c062aaa949536c1cff2ffb3df2ae4aeba20dc4b",
    date: "2026-02-05",
    note: "leaderboard run 3, auto batch size",
    data: DataRecipe { total_batch_size: BatchRule::Auto, ..BEFORE.data },
    ..BEFORE
};
