//! nanorun: a declarative, bit-exactly reproducible experiment runner for nanochat-style pretraining.
//!
//! A TOML manifest says what to compare; nanorun expands it into a run matrix, trains every run, and leaves
//! tables, hashes and a scorecard that anybody can check. Modules stand in the order in which data flows: each
//! uses what stands above it, never what stands below.

pub mod error;
pub mod hash;
pub mod math;
pub mod precision;
pub mod rng;

pub mod data;
pub mod manifest;
pub mod upstream;

pub mod backend;
pub mod model;
pub mod ops;
pub mod optim;
pub mod plan;

pub mod cli;
pub mod interop;
pub mod parity;
pub mod record;
pub mod run;
pub mod scorecard;
pub mod train;
