//! The models: sizes from a configuration, parameters, forward and backward over the op traits.

pub mod bigram;
pub mod config;
pub mod gpt;
pub mod microgpt;
pub mod network;
pub mod param;
pub mod specs;
pub mod init;
