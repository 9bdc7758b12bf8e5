//! Gated ops: smear and value embeddings. Gates are a few channels wide and computed in float32.

use tch::{Kind, Tensor};

use super::backend::TorchBackend;
use super::embedding;
use super::fault::TchResult;
use super::forward::copy;
use super::linear::float;
use super::residual::dot;
use super::tokens::Tokens;
use crate::ops::SequenceShape;

/// The first c channels of x, where gate is (heads, c), in float32.
fn gate_input(x: &Tensor, gate: &Tensor) -> TchResult<Tensor> {
    float(&x.f_narrow(-1, 0, gate.size()[1])?)
}

/// `sigmoid(x[..c] gate^T)`, (N, heads) float32.
fn open(x: &Tensor, gate: &Tensor) -> TchResult<Tensor> {
    gate_input(x, gate)?.f_mm(&gate.f_transpose(0, 1)?)?.f_sigmoid_()
}

/// Backward of [`open`] from its output `g` and `dg` (N, heads): adds to `dgate` and to the first channels of `dx`.
fn open_backward(
    x: &Tensor,
    gate: &Tensor,
    g: &Tensor,
    dg: &Tensor,
    dgate: &mut Tensor,
    dx: &Tensor,
) -> TchResult<()> {
    let dz = Tensor::f_sigmoid_backward(dg, g)?;
    let _ = dgate.f_addmm_(&dz.f_transpose(0, 1)?, &gate_input(x, gate)?)?;
    let _ = dx.f_narrow(-1, 0, gate.size()[1])?.f_add_(&dz.f_mm(gate)?)?;
    Ok(())
}

/// Positions `start ..` of each sequence of x (N, C), as a view (B, T - 1, C).
fn shifted(x: &Tensor, sequence: SequenceShape, start: i64) -> TchResult<Tensor> {
    let (batch, len) = (sequence.batch as i64, sequence.len as i64);
    x.f_view_([batch, len, -1])?.f_narrow(1, start, len - 1)
}

/// -> `x[t] + lambda * g[t] * x[t-1]`, and g (N, 1).
pub(super) fn smear(
    x: &Tensor,
    gate: &Tensor,
    lambda: &Tensor,
    sequence: SequenceShape,
    previous: Option<&Tensor>,
) -> TchResult<(Tensor, Tensor)> {
    let g = open(x, gate)?;
    let coefficient = g.f_mul(lambda)?;
    let y = copy(x)?;
    let _ = shifted(&y, sequence, 1)?
        .f_addcmul_(&shifted(x, sequence, 0)?, &shifted(&coefficient, sequence, 1)?)?;
    if let Some(previous) = previous {
        let batch = sequence.batch as i64;
        let first = |x: &Tensor| x.f_view_([batch, sequence.len as i64, -1])?.f_select(1, 0);
        let _ = first(&y)?.f_addcmul_(previous, &first(&coefficient)?)?;
    }
    Ok((y, g))
}

/// Backward of [`smear`] without `previous`.
pub(super) fn smear_backward(
    x: &Tensor,
    gate: &Tensor,
    lambda: &Tensor,
    sequence: SequenceShape,
    g: &Tensor,
    dy: &Tensor,
    dgate: &mut Tensor,
    dlambda: &mut Tensor,
) -> TchResult<Tensor> {
    let dx = copy(dy)?;
    let coefficient = g.f_mul(lambda)?;
    let _ = shifted(&dx, sequence, 0)?
        .f_addcmul_(&shifted(dy, sequence, 1)?, &shifted(&coefficient, sequence, 1)?)?;
    // d(loss)/d(lambda * g[t]); 0 at the first position of each sequence.
    let dcoefficient = g.f_zeros_like()?;
    shifted(&dcoefficient, sequence, 1)?.f_copy_(
        &float(&shifted(dy, sequence, 1)?)?.f_mul(&shifted(x, sequence, 0)?)?.f_sum_dim_intlist(
            [-1_i64].as_slice(),
            true,
            Kind::Float,
        )?,
    )?;
    let _ = dlambda.f_add_(&dot(g, &dcoefficient)?)?;
    open_backward(x, gate, g, &dcoefficient.f_mul(lambda)?, dgate, &dx)?;
    Ok(dx)
}

/// View of x (N, K * D) as (N, K, D).
fn per_head(x: &Tensor, heads: i64) -> TchResult<Tensor> {
    x.f_view_([x.size()[0], heads, -1])
}

/// -> `v + scale * g * table[token]`, and g (N, K).
pub(super) fn value_embedding(
    v: Tensor,
    h: &Tensor,
    table: &Tensor,
    tokens: &Tokens,
    gate: &Tensor,
    scale: f32,
) -> TchResult<(Tensor, Tensor)> {
    let g = open(h, gate)?;
    let heads = gate.size()[0];
    let rows = per_head(&embedding::gather(table, tokens)?, heads)?;
    let coefficient = g.f_mul_scalar(f64::from(scale))?.f_unsqueeze(-1)?;
    let _ = per_head(&v, heads)?.f_addcmul_(&rows, &coefficient)?;
    Ok((v, g))
}

/// Backward of [`value_embedding`]; the gradient of v is dv itself.
pub(super) fn value_embedding_backward(
    backend: &TorchBackend,
    h: &Tensor,
    table: &Tensor,
    tokens: &Tokens,
    gate: &Tensor,
    scale: f32,
    g: &Tensor,
    dv: &Tensor,
    dtable: &mut Tensor,
    dgate: &mut Tensor,
    dh: &Tensor,
) -> TchResult<()> {
    let heads = gate.size()[0];
    let dv = per_head(dv, heads)?;
    let coefficient = g.f_mul_scalar(f64::from(scale))?.f_unsqueeze(-1)?;
    let drows = float(&dv)?.f_mul(&coefficient)?;
    embedding::scatter(backend, tokens, &drows.f_view_([g.size()[0], -1])?, dtable)?;
    drop(drows);
    let rows = per_head(&embedding::gather(table, tokens)?, heads)?;
    let mut dg = float(&dv)?.f_mul(&rows)?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?;
    let dg = dg.f_mul_scalar_(f64::from(scale))?;
    open_backward(h, gate, g, &dg, dgate, dh)
}
