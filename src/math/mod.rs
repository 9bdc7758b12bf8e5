//! Portable f32 functions: the same bits on every CPU, whatever its vector width.
//!
//! [`exp()`], [`tanh()`], [`sigmoid()`] and [`log()`] use only fused multiply-adds, IEEE division and integer operations,
//! have no branches, and so vectorise inside the loops that inline them. [`sin`], [`cos`] and [`pow`], which only tables
//! use, round the `libm` crate's f64 result; [`decade`] rounds its logarithm down. What needs no speed asks that crate
//! itself. Largest errors over the ranges used, tested against f64:
//!
//! | function | range | units in the last place |
//! |---|---|---|
//! | exp | -87 .. 88.7 | 1.1 |
//! | tanh | all | 2 |
//! | sigmoid | -87 .. 87 | 2.5 |
//! | log | all positive normals | 1.5 |
//! | sin, cos, pow | all | 0.51 |

// Small functions must vanish into loops that are compiled for several instruction sets.
#![allow(clippy::inline_always)]

mod bf16;
mod exp;
mod log;
mod scalar;
mod tanh;

pub use bf16::round_bf16;
pub(crate) use exp::MAGIC;
pub use exp::exp;
pub use log::log;
pub use scalar::{cos, decade, pow, sin};
pub(crate) use tanh::by_exp as tanh_by_exp;
pub use tanh::{sigmoid, tanh};

#[cfg(test)]
mod tests;
