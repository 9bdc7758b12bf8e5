//! The optimizers: parameter groups, schedules, and AdamW, Muon and SGD over the ops.

pub mod config;
pub mod optimizer;
pub mod schedule;
