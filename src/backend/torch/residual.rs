//! Mixing of residual streams by learned scalars, and the gradients of those scalars.

use tch::{Kind, Tensor};

use super::fault::TchResult;
use super::linear::float;

/// One entry of a vector as a tensor of one dimension: float32 through type promotion, so that a lambda is never
/// rounded to bfloat16, and on the device, so that nothing waits for it.
pub(super) fn entry(vector: &Tensor, index: usize) -> TchResult<Tensor> {
    vector.f_narrow(0, index as i64, 1)
}

/// Sum over all elements of `a * b`, float32, shape (1).
pub(super) fn dot(a: &Tensor, b: &Tensor) -> TchResult<Tensor> {
    // Columns first, then rows: the shape of the sum is that of the matrix.
    let columns = float(a)?.f_mul(b)?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?;
    columns.f_sum(Kind::Float)?.f_view_([1])
}

/// `a * x + b * y` for scalars a and b (1), rounded once.
pub(super) fn mix(x: &Tensor, a: &Tensor, y: &Tensor, b: &Tensor) -> TchResult<Tensor> {
    let scaled = x.f_mul(a)?;
    let out = x.f_empty_like()?;
    scaled.f_addcmul_out(&out, y, b)
}

/// `x * a` in place for a scalar a (1).
pub(super) fn scale(mut x: Tensor, a: &Tensor) -> TchResult<Tensor> {
    x.f_mul_(a)
}
