//! Floating-point precisions a value can be computed or rounded in.

use serde::{Deserialize, Serialize};

/// IEEE binary32 or bfloat16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16: 8 exponent bits, 7 fraction bits.
    Bf16,
}
