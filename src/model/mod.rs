//! The models: sizes from a configuration, parameters, forward and backward over the op traits.

pub mod config;
pub mod param;
pub mod specs;
pub mod init;
pub mod network;
pub mod gpt;
