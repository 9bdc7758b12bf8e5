//! Carries out a plan: cache, resume, prefixes, parallel runs, progress.

mod admission;
pub mod batch_search;
pub mod engine;
pub mod execute;
pub mod library;
pub mod progress;
pub mod reuse;
pub mod sample;
pub mod single;
pub mod state;
pub mod task;

#[cfg(test)]
mod tests;
