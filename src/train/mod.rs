//! The step loop, checkpoints, evaluation and guards.

pub mod checkpoint;
pub mod result_hash;
