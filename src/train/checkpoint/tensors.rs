//! The tensors of a checkpoint.

pub use crate::tensors::{NamedTensor, Values, read_safetensors, write_safetensors};
