//! The tolerances, in one table, each with its reason.
//!
//! | check | tolerance | of |
//! |---|---|---|
//! | parameter counts, uniform initial weights, greedy tokens | 0 | values that differ |
//! | normal initial weights | 4 | units in the last place |
//! | schedule | 1e-12 | absolute |
//! | token loss, mean loss, logits | 2e-5 | absolute |
//! | gradients | 1e-4 | relative, Frobenius norm, each tensor |
//! | warm: losses | 2e-5, or 4 times upstream's noise | absolute, each micro-batch |
//! | warm: parameters | 2e-5, or 4 times upstream's noise | relative, Frobenius norm, each tensor |
//! | warm: val bpb | 1e-5, or 4 times upstream's noise | absolute |
//! | train: losses | 1e-4, while upstream's noise is below 1e-5 | absolute, each micro-batch |
//! | train: parameters after step 0 | 1e-4; 2^-8 where the polar iteration is bf16 | relative, Frobenius norm |
//! | the same of lambdas and zero projections | or 4 times upstream's noise in the final ones | relative |
//! | train: val bpb before | 1e-5 | absolute |
//!
//! In bf16 (8 bits of mantissa: a value is rounded by up to 2^-9 of itself, in every product and activation), against the
//! same float32 numbers:
//!
//! | check | tolerance | of |
//! |---|---|---|
//! | token loss, logits | 0.02 | absolute |
//! | mean loss, warm: losses, val bpb | 0.01 | absolute |
//! | gradients, warm: parameters | 0.05 | relative, Frobenius norm, each tensor |
//! | gradients of lambdas | 0.3 | relative, sums over everything that cancel |
//!
//! Upstream's own bf16 (92d63d4_d3, CPU, eager) is off its float32 by 3.6e-3 in a token's loss, 5.3e-5 in the mean loss,
//! 1.6e-2 in a gradient and 7.5e-2 in a lambda's: the same size as what is found here.
//!
//! *Upstream's noise* is the largest move of upstream's own numbers when its starting parameters are multiplied by
//! `1 + 1e-7 N(0, 1)`, over three draws; a case brings it along, a number for each step and tensor. At the float32-era
//! commits it is so small that the first of the two tolerances always holds.

use crate::precision::Precision;

/// How far a number may be off, and why so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Largest deviation that passes.
    pub limit: f64,
    /// Why it is not smaller.
    pub reason: &'static str,
}

/// Counts and bits that have to be equal.
pub const EXACT: Tolerance = Tolerance { limit: 0.0, reason: "integers and bits are equal or wrong" };

/// Normal initial weights, in units in the last place.
pub const NORMAL_ULPS: Tolerance = Tolerance {
    limit: 4.0,
    reason: "equal to torch on x86 with AVX2; on other CPUs torch's own logarithms and sines differ in the last places",
};

/// Step values of the schedule.
pub const SCHEDULE: Tolerance =
    Tolerance { limit: 1e-12, reason: "the same float64 formulas; cosines may differ in the last place" };

/// Losses and logits of one forward pass.
pub const FORWARD: Tolerance =
    Tolerance { limit: 2e-5, reason: "float32 sums of a few hundred terms in another order, losses near 6" };

/// Gradients.
pub const GRADIENT: Tolerance = Tolerance {
    limit: 1e-4,
    reason: "float32 sums in another order, of terms that cancel in the smallest tensors",
};

/// Losses over a trajectory from warm parameters.
pub const WARM_LOSS: Tolerance =
    Tolerance { limit: 2e-5, reason: "as the forward pass, or 4 times upstream's own noise" };

/// Parameters along a trajectory from warm parameters.
pub const WARM_PARAMS: Tolerance = Tolerance {
    limit: 2e-5,
    reason: "Adam's and Muon's normalised steps carry rounding of gradients into weights, or 4 times upstream's noise",
};

/// Validation bits per byte along a trajectory from warm parameters.
pub const WARM_BPB: Tolerance =
    Tolerance { limit: 1e-5, reason: "a mean over thousands of tokens, or 4 times upstream's own noise" };

/// Losses and logits of single tokens in bf16.
pub const FORWARD_BF16: Tolerance =
    Tolerance { limit: 0.02, reason: "bf16 activations: three decimal digits, through every layer" };

/// Mean losses and bits per byte in bf16, one forward pass or along a trajectory.
pub const MEAN_BF16: Tolerance = Tolerance {
    limit: 0.01,
    reason: "bf16 rounding averages out over tokens, and does not add up over ten steps",
};

/// Gradients and parameters in bf16.
pub const TENSOR_BF16: Tolerance = Tolerance {
    limit: 0.05,
    reason: "bf16 activations and gradients; Muon's direction is orthogonalised in bf16",
};

/// Gradients and parameters of lambdas in bf16.
pub const LAMBDA_BF16: Tolerance =
    Tolerance { limit: 0.3, reason: "one number from a sum over all activations that cancels" };

/// How many times upstream's own noise a trajectory may be off: the noise is the largest of only three draws, and
/// another order of summation moves every step, not the start alone.
pub const NOISE_FACTOR: f64 = 4.0;

/// Losses over a trajectory from upstream's initialisation.
pub const TRAIN_LOSS: Tolerance = Tolerance {
    limit: 1e-4,
    reason: "chaotic in upstream itself (Muon normalises the rounding noise of zero projections)",
};

/// From the first step whose noise reaches this, a trajectory from upstream's initialisation is not compared.
pub const TRAIN_NOISE_LIMIT: f64 = 1e-5;

/// Parameters after the first step from upstream's initialisation.
pub const TRAIN_STEP_0: Tolerance = Tolerance {
    limit: 1e-4,
    reason: "zero projections and lambdas without effect are normalised rounding: 4 times upstream's noise",
};

/// The same where the polar iteration is rounded to bf16.
pub const TRAIN_STEP_0_BF16: Tolerance = Tolerance {
    limit: 0.00390625,
    reason: "projections start at zero: they are a direction in bf16, one unit of which is 2^-8, or 4 times the noise",
};

impl Tolerance {
    /// This in float32, `bf16` in bf16.
    #[must_use]
    pub fn or_bf16(self, bf16: Self, precision: Precision) -> Self {
        match precision {
            Precision::F32 => self,
            Precision::Bf16 => bf16,
        }
    }

    /// Widened to [`NOISE_FACTOR`] times upstream's noise, if that is more.
    #[must_use]
    pub fn or_noise(self, noise: f64) -> Self {
        Self { limit: self.limit.max(NOISE_FACTOR * noise), ..self }
    }
}
