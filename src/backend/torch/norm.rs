//! RMS norm without a gain.

use tch::{Kind, Tensor};

use super::fault::TchResult;
use super::linear::float;

/// -> `(x * rstd, rstd)`, with `rstd` float32 of one column.
pub(super) fn rms_norm(x: &Tensor, eps: f64) -> TchResult<(Tensor, Tensor)> {
    let cols = x.size().last().copied().unwrap_or(1);
    x.f_internal_fused_rms_norm([cols], None::<&Tensor>, eps)
}

/// Mean over the last dimension of `a * b`, kept as one column, float32.
pub(super) fn row_mean_of_product(a: &Tensor, b: &Tensor) -> TchResult<Tensor> {
    float(a)?.f_mul(b)?.f_mean_dim([-1_i64].as_slice(), true, Kind::Float)
}

/// `rstd * (dy - y * mean(dy * y))`, added to `dresidual` if given.
pub(super) fn rms_norm_backward(
    y: &Tensor,
    rstd: &Tensor,
    dy: &Tensor,
    dresidual: Option<Tensor>,
) -> TchResult<Tensor> {
    let mut mean = row_mean_of_product(dy, y)?;
    let _ = mean.f_neg_()?;
    let mut direction = float(dy)?.f_addcmul(y, &mean)?;
    match dresidual {
        Some(mut sum) => sum.f_addcmul_(&direction, rstd),
        None => direction.f_mul_(rstd)?.f_to_dtype(dy.f_kind()?, true, false),
    }
}
