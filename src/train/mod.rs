//! The step loop, checkpoints, evaluation and guards.

pub mod bpb;
pub mod causality;
pub mod checkpoint;
mod decoding;
pub mod engine;
mod even_growth;
pub mod footprint;
pub mod guard;
pub mod observer;
pub mod ops_engine;
pub mod result_hash;
pub mod scalar_engine;
mod saves;
pub mod session;
