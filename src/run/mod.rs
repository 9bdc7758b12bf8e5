//! Carries out a plan: cache, resume, prefixes, parallel runs, progress.

mod admission;
pub mod batch_search;
mod board;
pub mod core_metric;
pub mod engine;
pub mod evaluate;
pub mod export;
pub mod import;
pub mod execute;
mod initial;
pub mod library;
pub mod progress;
pub mod reuse;
pub mod room;
pub mod sample;
pub mod single;
pub mod state;
pub mod task;
pub mod trained;

#[cfg(test)]
mod tests;
