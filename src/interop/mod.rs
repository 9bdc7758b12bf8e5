//! Files of other programs: safetensors.

pub mod safetensors;
