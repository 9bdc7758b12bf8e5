//! torch's CPU random generator, reproduced: a seed alone gives the initial weights upstream has. And Python's, which
//! upstream draws evaluation examples with.
//!
//! Draws equal, bit for bit, those of torch 2.11 on an x86 CPU with AVX2 or AVX-512, and are the same on every CPU here.
//! (Elsewhere torch's own differ by a few units in the last place: its kernels without FMA round
//! `x * (to - from) + from` twice and take their logarithms from the platform.)

mod box_muller;
mod mt19937;
mod python;
mod split_mix;
mod torch;

pub use python::PythonRandom;
pub use split_mix::SplitMix64;
pub use torch::TorchGenerator;
