//! Files of other programs: safetensors, and upstream's run directories.

pub mod exported;
pub mod huggingface;
pub mod onnx;
pub mod safetensors;
pub mod tensorboard;
pub mod tokenizers;
pub mod upstream;
