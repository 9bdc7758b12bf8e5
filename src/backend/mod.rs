//! The ops implemented.

pub mod cpu;
pub mod torch;
