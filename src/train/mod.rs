//! The step loop, checkpoints, evaluation and guards.

pub mod bpb;
pub mod causality;
pub mod engine;
pub mod guard;
pub mod ops_engine;
pub mod scalar_engine;
