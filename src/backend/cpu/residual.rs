//! Mixing of the residual stream with its beginning, and backout.

use super::backend::CpuBackend;
use super::elementwise::for_chunks;
use super::simd::{dot, simd_fn};
use super::tensor::{Param, Tensor, check, check_equal};
use super::workers::Shared;
use crate::ops::OpResult;

pub(super) fn lambda(op: &'static str, lambdas: &Param, index: usize) -> OpResult<f32> {
    let value = lambdas.data.get(index).copied();
    check(op, value.is_some(), || format!("no entry {index} among {} lambdas", lambdas.data.len()))?;
    Ok(value.unwrap_or_default())
}

pub(super) fn mix(
    cpu: &CpuBackend,
    x: &Tensor,
    x0: &Tensor,
    resid: &Param,
    x0_lambdas: &Param,
    layer: usize,
) -> OpResult<Tensor> {
    check_equal("residual_mix", x, x0)?;
    let (r, z) = (lambda("residual_mix", resid, layer)?, lambda("residual_mix", x0_lambdas, layer)?);
    let mut y = cpu.tensor_uninit("residual_mix", x.rows, x.cols)?;
    for_chunks(cpu, &mut y.data, |at, y| {
        mix_chunk(y, &x.data[at..at + y.len()], &x0.data[at..at + y.len()], r, z);
    });
    Ok(y)
}

simd_fn! {
    pub(super) fn mix_chunk(y: &mut [f32], x: &[f32], x0: &[f32], r: f32, z: f32) {
        for ((y, x), x0) in y.iter_mut().zip(x).zip(x0) {
            *y = r * x + z * x0;
        }
    }
}

pub(super) fn mix_backward(
    cpu: &CpuBackend,
    x: &Tensor,
    x0: &Tensor,
    resid: &Param,
    x0_lambdas: &Param,
    layer: usize,
    mut dy: Tensor,
    dx0: &mut Tensor,
    dresid: &mut Param,
    dx0_lambdas: &mut Param,
) -> OpResult<Tensor> {
    let op = "residual_mix_backward";
    for other in [x0, &dy, dx0] {
        check_equal(op, x, other)?;
    }
    let (r, z) = (lambda(op, resid, layer)?, lambda(op, x0_lambdas, layer)?);
    lambda(op, dresid, layer)?;
    lambda(op, dx0_lambdas, layer)?;
    let (rows, cols) = x.shape();
    let (out, out0) = (Shared::new(&mut dy.data), Shared::new(&mut dx0.data));
    let sums = cpu.sum_row_chunks(rows, 2, |rows, sums| {
        let range = rows.start * cols..rows.end * cols;
        // SAFETY: every task has its own rows.
        let (dy, dx0) = unsafe { (out.slice_mut(range.clone()), out0.slice_mut(range.clone())) };
        mix_backward_chunk(&x.data[range.clone()], &x0.data[range], dy, dx0, r, z, sums);
    })?;
    dresid.data[layer] += sums[0] as f32;
    dx0_lambdas.data[layer] += sums[1] as f32;
    Ok(dy)
}

simd_fn! {
    pub(super) fn mix_backward_chunk(x: &[f32], x0: &[f32], dy: &mut [f32], dx0: &mut [f32], r: f32, z: f32, sums: &mut [f32]) {
        sums[0] = dot(x, dy);
        sums[1] = dot(x0, dy);
        for (dy, dx0) in dy.iter_mut().zip(dx0) {
            *dx0 = z.mul_add(*dy, *dx0);
            *dy *= r;
        }
    }
}

pub(super) fn backout(cpu: &CpuBackend, mut x: Tensor, kept: &Tensor, weight: &Param) -> OpResult<Tensor> {
    check_equal("backout", &x, kept)?;
    let mu = lambda("backout", weight, 0)?;
    for_chunks(cpu, &mut x.data, |at, x| backout_chunk(x, &kept.data[at..at + x.len()], mu));
    Ok(x)
}

simd_fn! {
    pub(super) fn backout_chunk(x: &mut [f32], kept: &[f32], mu: f32) {
        for (x, kept) in x.iter_mut().zip(kept) {
            *x -= mu * kept;
        }
    }
}

pub(super) fn backout_backward(
    cpu: &CpuBackend,
    kept: &Tensor,
    weight: &Param,
    dy: &Tensor,
    dlambda: &mut Param,
) -> OpResult<Tensor> {
    let op = "backout_backward";
    check_equal(op, kept, dy)?;
    let mu = lambda(op, weight, 0)?;
    lambda(op, dlambda, 0)?;
    let (rows, cols) = kept.shape();
    let mut dkept = cpu.tensor_uninit(op, rows, cols)?;
    let out = Shared::new(&mut dkept.data);
    let sums = cpu.sum_row_chunks(rows, 1, |rows, sums| {
        let range = rows.start * cols..rows.end * cols;
        // SAFETY: every task has its own rows.
        let dkept = unsafe { out.slice_mut(range.clone()) };
        backout_backward_chunk(&kept.data[range.clone()], &dy.data[range], dkept, mu, sums);
    })?;
    dlambda.data[0] -= sums[0] as f32;
    Ok(dkept)
}

simd_fn! {
    pub(super) fn backout_backward_chunk(kept: &[f32], dy: &[f32], dkept: &mut [f32], mu: f32, sums: &mut [f32]) {
        sums[0] = dot(kept, dy);
        for (dkept, dy) in dkept.iter_mut().zip(dy) {
            *dkept = -mu * dy;
        }
    }
}
