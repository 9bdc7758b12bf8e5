//! Checkpoints: everything a run needs to carry on bit by bit.
//!
//! A checkpoint of the state after 500 steps is the directory `step_000500/` with
//!
//! - `model.safetensors`: the parameters by upstream's state dict names;
//! - `optimizer.safetensors`: optimizer state, `<parameter>.exp_avg`, `.exp_avg_sq` (AdamW), `.momentum_buffer`,
//!   `.second_momentum_buffer` (Muon);
//! - `documents.bin`: the packing cursor's buffered documents ([`crate::data::documents_to_bytes`]);
//! - `state.json`: a [`TrainState`] without those;
//! - `MANIFEST.json`: size and SHA-256 of each of these, written last.
//!
//! That is format 2. Of a finished run's checkpoints often only the weights stay, with `state.json`: format 3.
//!
//! In format 1 the documents are in `state.json`; such checkpoints are still read.
//!
//! It is built under a temporary name and renamed as a whole. Loading verifies every hash; a
//! [`CheckpointStore`] falls back to the checkpoint before when the newest does not verify. Beside them,
//! `evaluation.json` is an [`EvalProgress`].

mod error;
mod evaluation;
mod format;
mod state;
mod store;
mod tensors;

#[cfg(test)]
mod tests;

pub use error::CheckpointError;
pub use evaluation::EvalProgress;
pub use format::{Checkpoint, FORMAT};
pub use state::{EvalPoint, TrainState};
#[cfg(test)]
pub use store::surplus;
pub use store::{CheckpointStore, Retention};
pub use tensors::{NamedTensor, Values};
#[cfg(test)]
pub use tensors::{read_safetensors, write_safetensors};
