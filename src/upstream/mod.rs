//! What each pinned commit of karpathy/nanochat means: every named number of its recipe, one table a commit, and
//! the laws that derive sizes, horizon, batch and decay from a depth. Knows nothing of manifests or models.

mod commits;
mod horizon;
mod recipe;
mod sizes;
mod special;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub use commits::UnknownCommit;
pub use commits::{RECIPES, find, newest};
pub use horizon::{
    DEPTH_REF, auto_batch_size, batch_lr_factor, round_half_even, steps_for_flops, steps_for_tokens,
    target_tokens, weight_decay_factor, width_lr_factor,
};
pub use recipe::{
    AdamWRecipe, BatchRule, ModelRecipe, PrecisionRule, Recipe, ShortWindow, TokenBytesRule, WarmupRule,
    WeightDecayLaw, WeightDecayShape,
};
pub use sizes::{GptShape, ParamCounts, windows};
pub use special::{BOS, MIN_VOCAB_SIZE, SPECIAL_TOKENS};
