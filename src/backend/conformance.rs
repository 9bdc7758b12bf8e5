//! One set of op tests for every backend that trains: forwards against naive float64 references, backwards against central
//! differences of those references.
//!
//! A backend's tests call [`conformance_tests`] with a way to make it and the error it may show, relative to the
//! largest value compared. Inputs are representable in bfloat16, so that only the op's own rounding shows.

#![allow(clippy::unwrap_used)]
#![expect(clippy::disallowed_methods, reason = "what is only compared within a bound may be the system's")]

mod attention;
mod loss;
mod optimizer;
mod reference;
mod rows;

pub(crate) use attention::{
    attention, attention_blocks, attention_cached, attention_cached_begun, attention_cached_sequences,
    attention_cached_window,
};
pub(crate) use loss::{cross_entropy, cross_entropy_chunks};
pub(crate) use optimizer::{adamw, muon, sgd};
pub(crate) use rows::{
    backout, embedding, linear, relu_squared, relu_squared_linear, residual_mix, rms_norm, rotary_norm,
    smear, value_embedding,
};

/// Makes one `#[test]` an op: `conformance_tests!(backend expression, tolerance)`.
macro_rules! conformance_tests {
    ($make:expr, $tolerance:expr) => {
        $crate::backend::conformance::conformance_tests!(@each $make, $tolerance;
            embedding rms_norm linear relu_squared relu_squared_linear residual_mix smear value_embedding rotary_norm
            backout attention attention_blocks attention_cached attention_cached_begun attention_cached_sequences attention_cached_window cross_entropy cross_entropy_chunks adamw sgd muon);
    };
    (@each $make:expr, $tolerance:expr; $($op:ident)*) => {
        $(#[test]
        fn $op() {
            $crate::backend::conformance::$op(&$make, $tolerance);
        })*
    };
}
pub(crate) use conformance_tests;
