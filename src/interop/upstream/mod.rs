//! Upstream's run directories: what `scripts.base_train` leaves under `$NANOCHAT_BASE_DIR`.
//!
//! ```text
//! base_checkpoints/<tag>/  model_000500.pt  meta_000500.json  optim_000500_rank0.pt ...
//! tokenizer/               tokenizer.pkl  token_bytes.pt
//! ```
//!
//! Nothing in them is executed. They do not say by which commit they were made: that is told by their tensors and
//! metadata, as far as it matters.

mod directory;
mod export;
mod flags;
mod json;
mod manifest;
mod meta;
mod optimizer;
mod recipe;
mod saved_optimizer;
mod start;
mod tokenizer;
mod weights;

#[cfg(test)]
mod tests;

pub use directory::UpstreamCheckpoint;
pub use export::export;
pub use flags::{Flags, SEED};
pub use manifest::{Described, Purpose, describe};
pub use meta::Meta;
pub use tokenizer::token_bytes_rule;
pub use weights::{TOKEN_TABLE, Weights};
