//! The ops implemented.

#[cfg(test)]
pub(crate) mod conformance;
pub mod cpu;
pub mod memory;
pub mod torch;
pub mod scalar;
