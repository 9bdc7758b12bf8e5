//! The ops implemented.

pub mod cpu;
