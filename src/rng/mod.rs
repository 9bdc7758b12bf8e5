//! torch's CPU random generator, reproduced: a seed alone gives the initial weights upstream has.
//!
//! Uniform draws equal torch's bit for bit on any x86 CPU with FMA (torch's `AVX2` and `AVX512` kernels contract
//! `x * (to - from) + from` into one rounding; so does this). Normal draws follow torch's within 4 units in the last
//! place: torch takes logarithm, sine and cosine from the CPU's vector maths, this takes them from portable
//! arithmetic, so that a seed gives the same bits everywhere.

mod mt19937;
mod torch;

pub use torch::{GeneratorState, StateError, TorchGenerator};
