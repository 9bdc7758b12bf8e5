//! The step loop, checkpoints, evaluation and guards.

pub mod bpb;
pub mod engine;
pub mod ops_engine;
pub mod scalar_engine;
