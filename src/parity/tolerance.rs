//! The tolerances, in one table, each with its reason.
//!
//! | check | tolerance | of |
//! |---|---|---|
//! | parameter counts, FLOPs, uniform initial weights, greedy tokens | 0 | values that differ |
//! | normal initial weights | 4 | units in the last place |
//! | schedule | 1e-12 | absolute |
//! | token loss | 4e-6 | absolute |
//! | mean loss | 1.5e-6 | absolute |
//! | logits | 6e-7 times the largest logit, at least 1 | absolute |
//! | gradients | 2e-6; of lambdas and the smear gate 4e-5 | relative, Frobenius norm, each tensor |
//! | val bpb before | 2e-6 | absolute |
//! | warm: losses | 6e-6, or 4 times upstream's noise | absolute, each micro-batch |
//! | warm: parameters after step 0 | 4e-6, or 1/16 of the step where Muon rounds to bf16 | relative, each tensor |
//! | warm: parameters at the end | 1e-5, or 4 times upstream's noise | relative, each tensor |
//! | warm: val bpb after | 2e-6, or 4 times upstream's noise | absolute |
//! | train: losses | 6e-6, or 4 times upstream's noise, while that is below 1e-5 | absolute, each micro-batch |
//! | train: parameters after step 0 | 1e-5, or 1/16 of the step where Muon rounds to bf16 | relative, each tensor |
//! | gradients of idle lambdas | 1e-8 | absolute, of either side |
//! | train: first step of idle lambdas | 1.001 | learning rates, of either side |
//!
//! Each is two to four times what `cpu` (README) or `tch` reaches on the project's cases, so that another order of
//! summation has room and an error has none: torch against itself on another CPU deviates by as much. Models wider than
//! the project's 64 channels sum more terms, so losses, logits, gradients and bpb get the root of the width more, up to
//! 2e-5, 1e-4 and 1e-5. Why `idle` lambdas are not compared: see `idle.rs`.
//!
//! In bf16 (8 bits of mantissa: a value is rounded by up to 2^-9 of itself, in every product and activation), against
//! the same float32 numbers, and against upstream's own bf16 on the CPU (`NANOCHAT_DTYPE=bfloat16`), which starts from the same
//! rounded tables, and eager rounds more often: a product and what is added to it, each step of the rotary embedding, of gates and of
//! the mix with the first layer's input, where nanorun rounds the result:
//!
//! | check | with float32 | with bf16 | of |
//! |---|---|---|---|
//! | token loss, logits | 0.02 | 0.008 | absolute |
//! | mean loss, val bpb | 0.01 | 0.002 | absolute |
//! | warm: losses | 0.02 | 0.002 | absolute |
//! | gradients, warm: parameters | 0.05 | 0.03 | relative, Frobenius norm, each tensor; over 20 steps twice that |
//! | warm: embedding tables at the end | 0.1 | 0.03 | likewise |
//! | gradients of lambdas | 0.3 | 0.3 | relative, sums over everything that cancel |
//!
//! Upstream's own bf16 (92d63d4_d3, CPU, eager) is off its float32 by 3.6e-3 in a token's loss, 5.3e-5 in the mean
//! loss, 1.6e-2 in a gradient and 7.5e-2 in a lambda's: the same size as what is found here. Along a trajectory it is
//! further off than nanorun's (92d63d4_d4: 0.024 in a loss, 0.014 in val bpb, 0.17 in a table).
//!
//! *Upstream's noise* is the largest move of upstream's own numbers when its starting parameters are multiplied by
//! `1 + 1e-7 N(0, 1)`, over three draws; a case brings it along, a number for each step and tensor. At the float32-era
//! commits it is so small that the first of the two tolerances always holds.

/// How far a number may be off, and why so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Largest deviation that passes.
    pub limit: f64,
    /// Why it is not smaller.
    pub reason: &'static str,
}

/// How far a number of a backend that computes in bf16 may be off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bf16Tolerance {
    /// From upstream's float32.
    pub with_f32: Tolerance,
    /// From upstream's own bf16, from the same rounded tables.
    pub with_bf16: Tolerance,
}

impl Bf16Tolerance {
    /// As much of `whole` as this is.
    #[must_use]
    pub fn of(self, whole: f64) -> Self {
        Self { with_f32: self.with_f32.of(whole), with_bf16: self.with_bf16.of(whole) }
    }
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

/// Losses of single tokens.
pub const TOKEN_LOSS: Tolerance =
    Tolerance { limit: 4e-6, reason: "8 units in the last place of losses near 6, summed in another order" };

/// Mean losses of a batch.
pub const MEAN_LOSS: Tolerance = Tolerance {
    limit: 1.5e-6,
    reason: "3 units in the last place: upstream averages and gives them in float32",
};

/// Logits, times the largest of them where that is more than 1.
pub const LOGIT: Tolerance =
    Tolerance { limit: 6e-7, reason: "float32 sums over the channels in another order" };

/// Gradients.
pub const GRADIENT: Tolerance =
    Tolerance { limit: 2e-6, reason: "float32 sums over all tokens in another order" };

/// Gradients of lambdas and of the smear gate.
pub const LAMBDA_GRADIENT: Tolerance = Tolerance {
    limit: 4e-5,
    reason: "one number from a sum over all activations that cancels: cpu reaches 5e-6, tch 1.7e-5",
};

/// The most that losses and logits get at any width.
pub const LOSS_MOST: f64 = 2e-5;
/// The most that gradients get at any width.
pub const GRADIENT_MOST: f64 = 1e-4;
/// The most that bits per byte get at any width.
pub const BPB_MOST: f64 = 1e-5;

/// Losses over a trajectory from warm parameters.
pub const WARM_LOSS: Tolerance = Tolerance {
    limit: 6e-6,
    reason: "as the forward pass, grown over the steps, or 4 times upstream's own noise",
};

/// Parameters after the first step from warm parameters.
pub const STEP_0: Tolerance = Tolerance {
    limit: 4e-6,
    reason: "Adam's and Muon's normalised steps carry the rounding of gradients into weights",
};

/// An update that is orthogonalised in bf16, relative to the step. Upstream's 2f09686 run again on another CPU
/// (`tests/fixtures/generate/parity_case.py`) leaves 20 of its 26 tensors equal to the bit, four within 1.4e-6 of their
/// step, one 0.012 and one 0.033 off: a rounding of the gradient that flips is lifted by all five iterations.
pub const BF16_STEP: Tolerance = Tolerance {
    limit: 0.0625,
    reason: "twice what upstream's own step moves by from one CPU to another: bf16 roundings that flip are lifted",
};

/// Parameters at the end of a trajectory from warm parameters.
pub const WARM_PARAMS: Tolerance = Tolerance {
    limit: 1e-5,
    reason: "normalised steps carry rounding into weights, step by step, or 4 times upstream's noise",
};

/// Validation bits per byte.
pub const BPB: Tolerance = Tolerance {
    limit: 2e-6,
    reason: "upstream sums thousands of losses in float32; along a trajectory 4 times upstream's own noise, if more",
};

/// Losses and logits of single tokens in bf16.
pub const FORWARD_BF16: Bf16Tolerance = Bf16Tolerance {
    with_f32: Tolerance {
        limit: 0.02,
        reason: "bf16 activations: three decimal digits, through every layer",
    },
    with_bf16: Tolerance {
        limit: 0.008,
        reason: "what eager upstream rounds two or three times in a row is rounded once here, and sums have another order",
    },
};

/// Mean losses and bits per byte in bf16, one forward pass or along a trajectory. Upstream's own bits per byte after a
/// trajectory are 6.4e-4 off with the bf16 instruction and without.
pub const MEAN_BF16: Bf16Tolerance = Bf16Tolerance {
    with_f32: Tolerance {
        limit: 0.01,
        reason: "bf16 rounding averages out over tokens, and does not add up over ten steps",
    },
    with_bf16: Tolerance {
        limit: 0.002,
        reason: "three times what upstream's own moves by from one instruction set to another",
    },
};

/// Mean losses along a trajectory in bf16. Upstream's own is off its float32 by 0.024 at a step of `92d63d4_d4`, and by
/// 0.0013 in `92d63d4_gqa`; nanorun's by 0.014 and 0.0002 on `cpu`.
pub const LOSSES_BF16: Bf16Tolerance = Bf16Tolerance {
    with_f32: Tolerance {
        limit: 0.02,
        reason: "bf16 weights of tables move otherwise; upstream's own bf16 leaves its float32 by 0.024",
    },
    with_bf16: Tolerance {
        limit: 0.002,
        reason: "four times what upstream's own move by from one instruction set to another",
    },
};

/// Embedding tables along a trajectory in bf16. Upstream's own are off its float32 by 0.17 at the end of `92d63d4_d4`,
/// and by 0.13 in `92d63d4_gqa`; nanorun's by 0.024 and 0.051 on `cpu`.
pub const TABLE_BF16: Bf16Tolerance = Bf16Tolerance {
    with_f32: Tolerance {
        limit: 0.1,
        reason: "tables, their gradients and moments in bf16; upstream's own are off its float32 by 0.13 and more",
    },
    with_bf16: Tolerance {
        limit: 0.03,
        reason: "a rounding of a table that falls otherwise is 2^-8 of its value",
    },
};

/// Gradients and parameters in bf16.
pub const TENSOR_BF16: Bf16Tolerance = Bf16Tolerance {
    with_f32: Tolerance {
        limit: 0.05,
        reason: "bf16 activations and gradients; Muon's direction is orthogonalised in bf16",
    },
    with_bf16: Tolerance {
        limit: 0.03,
        reason: "roundings of activations and gradients that upstream makes more of, or that fall otherwise",
    },
};

/// Gradients and parameters of lambdas in bf16.
pub const LAMBDA_BF16: Bf16Tolerance = {
    let both = Tolerance { limit: 0.3, reason: "one number from a sum over all activations that cancels" };
    Bf16Tolerance { with_f32: both, with_bf16: both }
};

/// How many times upstream's own noise a trajectory may be off: the noise is the largest of only three draws, and
/// another order of summation moves every step, not the start alone.
pub const NOISE_FACTOR: f64 = 4.0;

/// Losses over a trajectory from upstream's initialisation.
pub const TRAIN_LOSS: Tolerance = Tolerance {
    limit: 6e-6,
    reason: "or 4 times upstream's own noise, which explodes (Muon lifts the rounding noise of zero projections)",
};

/// From the first step whose noise reaches this, a trajectory from upstream's initialisation is not compared.
pub const TRAIN_NOISE_LIMIT: f64 = 1e-5;

/// Parameters after the first step from upstream's initialisation.
pub const TRAIN_STEP_0: Tolerance = Tolerance {
    limit: 1e-5,
    reason: "zero projections become a direction alone, in which Muon lifts what is small; torch itself reaches 2e-6",
};

/// Gradients that vanish in exact arithmetic.
pub const IDLE_GRADIENT: Tolerance =
    Tolerance { limit: 1e-8, reason: "zero in exact arithmetic; rounding, where others have 1e-3" };

/// Steps that Adam takes on such gradients, in learning rates: the sign is rounding's, the length at most 1.
pub const IDLE_STEP: Tolerance = Tolerance {
    limit: 1.001,
    reason: "Adam's first step is no longer than the learning rate, whatever rounding makes of a zero gradient",
};

impl Tolerance {
    /// For a model of this width: wider than the project's cases, by the root of the width, up to `most`.
    #[must_use]
    pub fn wide(self, n_embd: usize, most: f64) -> Self {
        let growth = (n_embd as f64 / 64.0).sqrt().max(1.0);
        Self { limit: (self.limit * growth).min(most.max(self.limit)), ..self }
    }

    /// As much of `whole` as this is.
    #[must_use]
    pub fn of(self, whole: f64) -> Self {
        Self { limit: self.limit * whole, ..self }
    }

    /// The wider of two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if other.limit > self.limit { other } else { self }
    }

    /// Widened to [`NOISE_FACTOR`] times upstream's noise, if that is more.
    #[must_use]
    pub fn or_noise(self, noise: f64) -> Self {
        Self { limit: self.limit.max(NOISE_FACTOR * noise), ..self }
    }
}
