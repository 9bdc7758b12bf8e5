//! Carries out a plan: cache, resume, prefixes, parallel runs, progress.

pub mod progress;
pub mod stop;
