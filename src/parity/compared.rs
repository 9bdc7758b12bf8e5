//! What is held against what: the precision of a backend, and that of upstream's numbers.

use super::Case;
use super::tolerance::{Bf16Tolerance, Tolerance};
use crate::error::{Error, Result};
use crate::precision::Precision;

/// A backend's precision and that of the case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Float32 on both sides.
    F32,
    /// The backend's bf16 against upstream's float32.
    Bf16WithF32,
    /// bf16 on both sides.
    Bf16,
}

impl Compared {
    /// Of a backend that computes in `found`.
    ///
    /// # Errors
    /// Float32 against upstream's bf16: what would deviate is upstream.
    pub fn of(found: Precision, case: &Case) -> Result<Self> {
        match (found, case.precision) {
            (Precision::F32, Precision::F32) => Ok(Self::F32),
            (Precision::Bf16, Precision::F32) => Ok(Self::Bf16WithF32),
            (Precision::Bf16, Precision::Bf16) => Ok(Self::Bf16),
            (Precision::F32, Precision::Bf16) => Err(Error::input(
                "upstream computed this parity case in bf16, and the backend computes in f32",
            )
            .file(case.directory.join("case.json"))
            .key("dtype")
            .expected("float32")
            .help("--precision bf16 compares with it")),
        }
    }

    /// Whether the backend computes in float32.
    pub fn is_f32(self) -> bool {
        self == Self::F32
    }

    /// The tolerance of this comparison.
    #[must_use]
    pub fn pick(self, f32: Tolerance, bf16: Bf16Tolerance) -> Tolerance {
        match self {
            Self::F32 => f32,
            Self::Bf16WithF32 => bf16.with_f32,
            Self::Bf16 => bf16.with_bf16,
        }
    }
}
