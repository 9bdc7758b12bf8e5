//! a67eba3: leaderboard run 2, with FP8 as an option.

use super::c348fbb3::RECIPE as BEFORE;
use crate::upstream::recipe::{DataRecipe, Recipe};

pub(super) const RECIPE: Recipe = Recipe {
    commit: "a67eba35dce1ce3f7276b6913bcedf4cbb75b506",
    date: "2026-02-03",
    note: "leaderboard run 2",
    data: DataRecipe { eval_tokens: 40 * 524_288, ..BEFORE.data },
    ..BEFORE
};
