//! Rotary position embedding followed by the norm of each head.

use tch::{Device, Kind, Tensor};

use super::fault::{TchResult, shape_error};
use super::linear::float;
use super::norm::row_mean_of_product;
use crate::ops::SequenceShape;
use crate::precision::Precision;

/// Cosines and sines, (positions, D/2), float32.
#[derive(Debug)]
pub struct Rotary {
    cos: Tensor,
    sin: Tensor,
    minus_sin: Tensor,
}

impl Rotary {
    /// Tables for `len` positions. Frequencies and angles are rounded to float32 as upstream's are.
    pub(super) fn new(
        len: usize,
        head_dim: usize,
        base: f64,
        precision: Precision,
        device: Device,
    ) -> TchResult<Self> {
        let half = head_dim / 2;
        let (mut cos, mut sin) = (Vec::with_capacity(len * half), Vec::with_capacity(len * half));
        for position in 0..len {
            for j in 0..half {
                let exponent = (2 * j) as f32 / head_dim as f32;
                let frequency = 1.0 / libm::pow(base, f64::from(exponent)) as f32;
                let angle = f64::from(position as f32 * frequency);
                cos.push(libm::cos(angle) as f32);
                sin.push(libm::sin(angle) as f32);
            }
        }
        let table = |values: &[f32]| {
            let table = Tensor::f_from_slice(values)?.f_reshape([len as i64, half as i64])?;
            let table = match precision {
                Precision::F32 => table,
                Precision::Bf16 => table.f_to_dtype(Kind::BFloat16, false, false)?,
            };
            table.f_to_device_(device, Kind::Float, true, false)
        };
        let (cos, sin) = (table(&cos)?, table(&sin)?);
        let minus_sin = sin.f_neg()?;
        Ok(Self { cos, sin, minus_sin })
    }

    /// Rotates x (B, T, heads, D) by minus theta, or by theta if `inverse`, into float32.
    fn rotate(&self, x: &Tensor, start: usize, inverse: bool) -> TchResult<Tensor> {
        let [_, len, _, head_dim] = x.size()[..] else { return Err(shape_error("not four dimensions")) };
        let half = head_dim / 2;
        if start as i64 + len > self.cos.size()[0] {
            return Err(shape_error(format!(
                "positions {start}..{} of {} in the tables",
                start as i64 + len,
                self.cos.size()[0]
            )));
        }
        let at = |table: &Tensor| table.f_narrow(0, start as i64, len)?.f_unsqueeze(1);
        let cos = at(&self.cos)?;
        let (sin, minus_sin) =
            if inverse { (&self.minus_sin, &self.sin) } else { (&self.sin, &self.minus_sin) };
        let (x1, x2) = (x.f_narrow(-1, 0, half)?, x.f_narrow(-1, half, half)?);
        let y = Tensor::f_empty(x.size(), (Kind::Float, x.device()))?;
        let mut y1 = x1.f_mul_out(&y.f_narrow(-1, 0, half)?, &cos)?;
        let _ = y1.f_addcmul_(&x2, &at(sin)?)?;
        let mut y2 = x2.f_mul_out(&y.f_narrow(-1, half, half)?, &cos)?;
        let _ = y2.f_addcmul_(&x1, &at(minus_sin)?)?;
        Ok(y)
    }
}

/// View of x (N, heads * D) as (B, T, heads, D).
fn heads(x: &Tensor, sequence: SequenceShape, head_dim: usize) -> TchResult<Tensor> {
    x.f_view_([sequence.batch as i64, sequence.len as i64, -1, head_dim as i64])
}

/// -> (N, heads * D) in the kind of x, and `rstd` (B, T, heads, 1) float32.
pub(super) fn rotary_norm(
    x: &Tensor,
    rotary: &Rotary,
    start: usize,
    sequence: SequenceShape,
    head_dim: usize,
    scale: f32,
    eps: f32,
) -> TchResult<(Tensor, Tensor)> {
    let mut y = rotary.rotate(&heads(x, sequence, head_dim)?, start, false)?;
    let mut rstd = y.f_square()?.f_mean_dim([-1_i64].as_slice(), true, Kind::Float)?;
    let rstd = rstd.f_add_scalar_(f64::from(eps))?.f_rsqrt_()?;
    let y = y.f_mul_(&rstd.f_mul_scalar(f64::from(scale))?)?;
    let y = y.f_to_dtype(x.f_kind()?, true, false)?.f_view_(x.size())?;
    Ok((y, rstd))
}

/// From the output `y`: `R^-1 (rstd * scale * (dy - y * mean(dy * y) / scale^2))`.
pub(super) fn rotary_norm_backward(
    y: &Tensor,
    rotary: &Rotary,
    sequence: SequenceShape,
    head_dim: usize,
    scale: f32,
    rstd: &Tensor,
    dy: &Tensor,
) -> TchResult<Tensor> {
    let (y, dy) = (heads(y, sequence, head_dim)?, heads(dy, sequence, head_dim)?);
    let scale = f64::from(scale);
    let mut mean = row_mean_of_product(&dy, &y)?;
    let _ = mean.f_mul_scalar_(-1.0 / (scale * scale))?;
    let mut du = float(&dy)?.f_addcmul(&y, &mean)?;
    let _ = du.f_mul_(&rstd.f_mul_scalar(scale)?)?;
    let dx = rotary.rotate(&du, 0, true)?;
    dx.f_to_dtype(dy.f_kind()?, true, false)?.f_view_([sequence.rows() as i64, -1])
}
