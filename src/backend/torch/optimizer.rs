//! AdamW, Muon and SGD updates, in the order of operations of upstream's eager kernels.

use tch::{Kind, Tensor};

use super::chunks;
use super::fault::{TchResult, shape_error};
use super::linear::float;
use super::weight::{Grad, State, Weight};
use crate::ops::{AdamWStep, MuonParam, MuonStep, SgdStep};
use crate::precision::Precision;

/// Polar Express coefficients (arXiv 2505.16932) for five iterations, safety factor 2e-2, cushion 2.
const POLAR: [(f64, f64, f64); 5] = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
];

/// `w *= 1 - lr*wd`, moments by EMA, `w -= lr/bias1 * m / (sqrt(v/bias2) + eps)`; mathematics in float32. The state of
/// a bfloat16 table is kept in bfloat16, as upstream does.
pub(super) fn adamw(
    weight: &mut Weight,
    grad: &Grad,
    exp_avg: &mut State,
    exp_avg_sq: &mut State,
    step: &AdamWStep,
) -> TchResult<()> {
    let kind = weight.master.f_kind()?;
    for state in [&mut *exp_avg, &mut *exp_avg_sq] {
        if state.0.f_kind()? != kind {
            state.0 = state.0.f_to_dtype(kind, true, false)?;
        }
    }
    let (mut w, mut m, mut v) = (float(&weight.master)?, float(&exp_avg.0)?, float(&exp_avg_sq.0)?);
    if step.weight_decay != 0.0 {
        let _ = w.f_mul_scalar_(f64::from(1.0 - step.lr * step.weight_decay))?;
    }
    let _ = m.f_lerp_(&grad.0, f64::from(1.0 - step.beta1))?;
    let _ = v.f_lerp_(&grad.0.f_square()?, f64::from(1.0 - step.beta2))?;
    let mut denominator = v.f_mul_scalar(1.0 / f64::from(step.bias2))?;
    let denominator = denominator.f_sqrt_()?.f_add_scalar_(f64::from(step.eps))?;
    let mut update = m.f_div(&denominator)?;
    let _ = w.f_add_(&update.f_mul_scalar_(f64::from(-(step.lr / step.bias1)))?)?;
    if kind != Kind::Float {
        weight.master.f_copy_(&w)?;
        exp_avg.0.f_copy_(&m)?;
        exp_avg_sq.0.f_copy_(&v)?;
    }
    weight.refresh()
}

/// `w *= 1 - lr*wd`, `m = momentum*m + g`, `w -= lr*m`.
pub(super) fn sgd(weight: &mut Weight, grad: &Grad, momentum: &mut State, step: &SgdStep) -> TchResult<()> {
    let kind = weight.master.f_kind()?;
    let mut w = float(&weight.master)?;
    if step.weight_decay != 0.0 {
        let _ = w.f_mul_scalar_(f64::from(1.0 - step.lr * step.weight_decay))?;
    }
    let update = if step.momentum == 0.0 {
        grad.0.f_mul_scalar(f64::from(-step.lr))?
    } else {
        let m = momentum.0.f_mul_scalar_(f64::from(step.momentum))?.f_add_(&grad.0)?;
        m.f_mul_scalar(f64::from(-step.lr))?
    };
    let _ = w.f_add_(&update)?;
    if kind != Kind::Float {
        weight.master.f_copy_(&w)?;
    }
    weight.refresh()
}

/// Muon with NorMuon on matrices of one shape, a stack at a time; the matrices do not influence each other.
pub(super) fn muon(params: &mut [MuonParam<'_, Weight, Grad, State>], step: &MuonStep) -> TchResult<()> {
    let Some(first) = params.first() else { return Ok(()) };
    let size = first.weight.master.size();
    let [rows, cols] = size[..] else {
        return Err(shape_error(format!("Muon on a tensor of shape {size:?}")));
    };
    if let Some(other) = params.iter().map(|p| p.weight.master.size()).find(|other| *other != size) {
        return Err(shape_error(format!("Muon on {size:?} and {other:?} in one call")));
    }
    let budget = chunks::stacked(first.weight.master.device().into()) as i64;
    let count = (budget / (rows * cols).max(1)).max(1) as usize;
    params.chunks_mut(count).try_for_each(|params| muon_stack(params, step, rows, cols))
}

fn muon_stack(
    params: &mut [MuonParam<'_, Weight, Grad, State>],
    step: &MuonStep,
    rows: i64,
    cols: i64,
) -> TchResult<()> {
    // NorMuon averages over columns of a tall or square matrix, over rows of a wide one.
    let reduced: i64 = if rows >= cols { -1 } else { -2 };
    let second_shape = if rows >= cols { [rows, 1] } else { [1, cols] };
    for param in &mut *params {
        let (momentum, gradient) = (&mut param.momentum.0, &mut param.grad.0);
        let _ = momentum.f_lerp_(gradient, f64::from(1.0 - step.momentum))?;
        let _ = gradient.f_lerp_(momentum, f64::from(step.momentum))?;
    }
    let mut x = stack(params.iter().map(|p| &p.grad.0), [rows, cols])?;
    if step.polar_precision == Precision::Bf16 {
        x = x.f_to_dtype(Kind::BFloat16, true, false)?;
    }
    if step.row_equilibration {
        let mut target = norm(&x, &[-2, -1])?;
        let target = target.f_mul_scalar_(1.0 / (rows as f64).sqrt())?;
        let ratio = target.f_div(&norm(&x, &[-1])?.f_clamp_min_(1e-6)?)?;
        let ratio = ratio.f_to_dtype(x.f_kind()?, true, false)?;
        x = x.f_mul_(&ratio)?;
    }
    x = polar(x, step, rows > cols)?;
    if step.update_precision == Precision::F32 {
        x = float(&x)?;
    }
    if step.renormalize {
        let mut scale = norm(&x, &[-2, -1])?.f_clamp_min_(1e-6)?.f_reciprocal_()?;
        let scale =
            scale.f_mul_scalar_((rows.min(cols) as f64).sqrt())?.f_to_dtype(x.f_kind()?, true, false)?;
        x = x.f_mul_(&scale)?;
    }
    let mut second = stack(params.iter().map(|p| &p.second_moment.0), second_shape)?;
    x = normuon(x, &mut second, step, reduced)?;
    let (lr, lr_wd) = rates(step, x.f_kind()?);
    for (index, param) in params.iter_mut().enumerate() {
        let x = x.f_select(0, index as i64)?;
        param
            .second_moment
            .0
            .f_copy_(&second.f_select(0, index as i64)?.f_view_(param.second_moment.0.size())?)?;
        let w = &mut param.weight.master;
        // Decay only where update and weight agree in sign.
        let agree = x.f_mul(w)?.f_ge(0.0)?;
        let decay = w.f_mul_scalar(lr_wd)?.f_mul_(&agree)?;
        let mut update = x.f_mul_scalar(lr)?;
        let update =
            if update.f_kind()? == Kind::Float { update.f_add_(&decay)? } else { decay.f_add(&update)? };
        let _ = w.f_sub_(&update)?;
        param.weight.refresh()?;
    }
    Ok(())
}

/// Matrices of one shape as one tensor.
fn stack<'a>(tensors: impl Iterator<Item = &'a Tensor>, shape: [i64; 2]) -> TchResult<Tensor> {
    let views = tensors.map(|tensor| tensor.f_view_(shape)).collect::<TchResult<Vec<_>>>()?;
    Tensor::f_stack(&views, 0)
}

/// Frobenius norm over `dims`, float32.
fn norm(x: &Tensor, dims: &[i64]) -> TchResult<Tensor> {
    x.f_norm_scalaropt_dim_dtype(2.0, dims, true, Kind::Float)
}

/// Polar Express iterations on a stack of matrices, each elementwise operation rounded as eager kernels round it.
/// Products with scalars are not in place: libtorch's in-place form rounds the scalar itself to bfloat16.
fn polar(mut x: Tensor, step: &MuonStep, tall: bool) -> TchResult<Tensor> {
    let size = norm(&x, &[-2, -1])?.f_to_dtype(x.f_kind()?, true, false)?;
    let mut size = size.f_mul_scalar(f64::from(step.norm_factor))?;
    let mut x = x.f_div_(&size.f_add_scalar_(1e-6)?)?;
    for (a, b, c) in POLAR.into_iter().take(step.ns_steps) {
        let transposed = x.f_transpose(1, 2)?;
        let gram = if tall { transposed.f_bmm(&x)? } else { x.f_bmm(&transposed)? };
        let mut polynomial = gram.f_bmm(&gram)?.f_mul_scalar(c)?;
        let polynomial = polynomial.f_add_(&gram.f_mul_scalar(b)?)?;
        let product = if tall { x.f_bmm(&polynomial)? } else { polynomial.f_bmm(&x)? };
        x = x.f_mul_scalar(a)?.f_add_(&product)?;
    }
    Ok(x)
}

/// NorMuon: equalises the sizes of rows or columns and keeps the Frobenius norm. `second` has no bias correction.
fn normuon(mut x: Tensor, second: &mut Tensor, step: &MuonStep, reduced: i64) -> TchResult<Tensor> {
    let count = x.size()[if reduced == -1 { 2 } else { 1 }] as f64;
    let both = [-2_i64, -1];
    let mean = float(&x)?.f_square()?.f_mean_dim([reduced].as_slice(), true, Kind::Float)?;
    let before =
        mean.f_sum_dim_intlist(both.as_slice(), true, Kind::Float)?.f_mul_scalar_(count)?.f_sqrt_()?;
    let beta2 = match x.f_kind()? {
        Kind::BFloat16 => bf16(1.0 - bf16(step.beta2)),
        _ => 1.0 - step.beta2,
    };
    let _ = second.f_lerp_(&mean, f64::from(beta2))?;
    let scale = second.f_clamp_min(1e-10)?.f_rsqrt_()?;
    let after = mean.f_mul_scalar(count)?.f_mul_(&scale.f_square()?)?;
    let mut after = after.f_sum_dim_intlist(both.as_slice(), true, Kind::Float)?.f_sqrt_()?;
    let ratio = before.f_div(&after.f_clamp_min_(1e-10)?)?;
    let scale = scale.f_mul(&ratio)?.f_to_dtype(x.f_kind()?, true, false)?;
    x.f_mul_(&scale)
}

/// Learning rate and `lr * wd` as the update consumes them: rounded to bfloat16 where the direction is bfloat16.
fn rates(step: &MuonStep, kind: Kind) -> (f64, f64) {
    let (lr, lr_wd) = match kind {
        Kind::BFloat16 => (bf16(step.lr), bf16(bf16(step.lr) * bf16(step.weight_decay))),
        _ => (step.lr, step.lr * step.weight_decay),
    };
    (f64::from(lr), f64::from(lr_wd))
}

/// Rounds to bfloat16, ties to even.
fn bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}
