//! Softcapped cross-entropy over chunks of logits.

use tch::{Kind, Tensor};

use super::chunks;
use super::fault::{TchResult, shape_error};
use super::linear::{self, float};
use super::tokens::Tokens;
use crate::ops::HeadShape;

/// Up to this softcap `exp(logit)` cannot overflow float32, so the largest logit need not be found.
const SAFE_SOFTCAP: f32 = 60.0;

/// The rows of `lm_head` that stand for tokens.
fn head_rows(lm_head: &Tensor, head: &HeadShape) -> TchResult<Tensor> {
    lm_head.f_narrow(0, 0, head.vocab_size as i64)
}

/// Logits after the softcap, (N, V) float32.
pub(super) fn logits(x: &Tensor, lm_head: &Tensor, head: &HeadShape) -> TchResult<Tensor> {
    let mut logits = float(&linear::linear(x, &head_rows(lm_head, head)?)?)?;
    match head.softcap {
        Some(cap) => logits.f_mul_scalar_(1.0 / f64::from(cap))?.f_tanh_()?.f_mul_scalar_(f64::from(cap)),
        None => Ok(logits),
    }
}

/// What a training loss hands to the backward.
pub(super) struct Backward<'a> {
    /// Gradient of every loss.
    pub(super) scale: f32,
    /// Gradient of `lm_head`, accumulated.
    pub(super) dlm_head: &'a mut Tensor,
    pub(super) mixed_addmm: bool,
}

/// Losses (N) on the device, and dx (N, C) if a backward is asked for.
pub(super) fn cross_entropy(
    x: &Tensor,
    lm_head: &Tensor,
    targets: &Tokens,
    head: &HeadShape,
    mut backward: Option<Backward<'_>>,
) -> TchResult<(Tensor, Option<Tensor>)> {
    let (rows, _) = x.size2()?;
    let vocab = head.vocab_size as i64;
    if targets.host.len() as i64 != rows {
        return Err(shape_error(format!("{} targets for {rows} rows", targets.host.len())));
    }
    if let Some(id) = targets.host.iter().find(|&&id| id < -1 || i64::from(id) >= vocab) {
        return Err(shape_error(format!("target {id} in a vocabulary of {vocab}")));
    }
    let w = head_rows(lm_head, head)?;
    let mut dw = match &backward {
        Some(backward) => Some(backward.dlm_head.f_narrow(0, 0, vocab)?),
        None => None,
    };
    let dx = match &backward {
        Some(_) => Some(x.f_empty_like()?),
        None => None,
    };
    let losses = Tensor::f_empty([rows, 1], (Kind::Float, x.device()))?;
    let chunk =
        (chunks::logits(x.device().into()) / head.vocab_size.max(1)).clamp(1, rows.max(1) as usize) as i64;
    for start in (0..rows).step_by(chunk as usize) {
        let count = chunk.min(rows - start);
        let x = x.f_narrow(0, start, count)?;
        let ids = targets.ids.f_narrow(0, start, count)?.f_view_([count, 1])?;
        let valid = ids.f_ge(0)?.f_to_dtype(Kind::Float, true, false)?;
        let ids = ids.f_clamp_min(0)?;
        let Normalised { mut p, sum, tanh, target, max } = normalise(&x, &w, &ids, head)?;
        let mut loss = sum.f_log()?.f_sub_(&target)?;
        if let Some(max) = max {
            loss = loss.f_add_(&max)?;
        }
        losses.f_narrow(0, start, count)?.f_copy_(&loss.f_mul_(&valid)?)?;
        let (Some(backward), Some(dx), Some(dw)) = (&mut backward, &dx, &mut dw) else { continue };
        // p becomes the gradient of the logits: (softmax - onehot) * scale, 0 where the target is ignored.
        let scale = valid.f_mul_scalar(f64::from(backward.scale))?;
        let _ = p.f_mul_(&scale.f_div(&sum)?)?;
        let at_target = p.f_gather(1, &ids, false)?.f_sub_(&scale)?;
        let _ = p.f_scatter_(1, &ids, &at_target)?;
        if let Some(tanh) = tanh {
            p = Tensor::f_tanh_backward(&p, &tanh)?;
        }
        let dlogits = p.f_to_dtype(x.f_kind()?, true, false)?;
        drop(p);
        linear::accumulate(dw, &dlogits, &x, backward.mixed_addmm)?;
        let _ = dlogits.f_mm_out(&dx.f_narrow(0, start, count)?, &w)?;
    }
    Ok((losses, dx))
}

/// Exponentials of a chunk's logits, and what leads from them to losses and gradients. Float32.
struct Normalised {
    /// `exp(logit - max)`.
    p: Tensor,
    /// Its sum over each row.
    sum: Tensor,
    /// `logit / softcap`, where there is one.
    tanh: Option<Tensor>,
    /// The logit of each target.
    target: Tensor,
    /// The largest logit of each row, where it was subtracted.
    max: Option<Tensor>,
}

fn normalise(x: &Tensor, w: &Tensor, ids: &Tensor, head: &HeadShape) -> TchResult<Normalised> {
    let mut raw = float(&linear::linear(x, w)?)?;
    let (mut p, tanh, target) = if let Some(cap) = head.softcap {
        let tanh = raw.f_mul_scalar_(1.0 / f64::from(cap))?.f_tanh_()?;
        let target = tanh.f_gather(1, ids, false)?.f_mul_scalar_(f64::from(cap))?;
        (tanh.f_mul_scalar(f64::from(cap))?, Some(tanh), target)
    } else {
        let target = raw.f_gather(1, ids, false)?;
        (raw, None, target)
    };
    let max = match head.softcap {
        Some(cap) if cap <= SAFE_SOFTCAP => None,
        _ => {
            let max = p.f_amax([-1_i64].as_slice(), true)?;
            p = p.f_sub_(&max)?;
            Some(max)
        }
    };
    let p = p.f_exp_()?;
    let sum = p.f_sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float)?;
    Ok(Normalised { p, sum, tanh, target, max })
}
