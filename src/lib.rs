//! nanorun: a declarative, bit-exactly reproducible experiment runner for nanochat-style pretraining.
//!
//! A TOML manifest says what to compare; nanorun expands it into a run matrix, trains every run, and leaves
//! tables, hashes and a scorecard that anybody can check. Modules stand in the order in which data flows: each
//! uses what stands above it, never what stands below.

pub mod error;
pub mod text;
pub mod caught_panics;
pub mod hash;
pub mod precision;
pub mod control_word;
pub mod simd;
pub mod math;
pub mod rng;
pub mod host;
pub mod files;
pub mod stop;
pub mod tensors;
pub mod toml_text;
pub mod pickle;
pub mod torch_file;

pub mod upstream;
pub mod manifest;
pub mod data;
pub mod fetch;

pub mod ops;
pub mod model;
pub mod optim;
pub mod plan;
pub mod backend;

pub mod train;
pub mod generate;
pub mod interop;
pub mod record;
pub mod history;
pub mod run;
pub mod parity;
pub mod bench;
pub mod scorecard;
pub mod gate;
pub mod experiment;
pub mod cli;
