//! The step loop, checkpoints, evaluation and guards.

pub mod bpb;
pub mod cadence;
pub mod causality;
pub mod checkpoint;
mod decoding;
pub mod document_losses;
pub mod engine;
pub mod evaluation;
mod even_growth;
pub mod footprint;
pub mod guard;
pub mod named_tensors;
pub mod observer;
pub mod ops_engine;
pub mod result_hash;
pub mod rows;
pub mod scalar_engine;
mod saves;
pub mod session;
mod step;
