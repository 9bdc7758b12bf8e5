//! Smear: a gated share of the previous position's row.

use super::backend::CpuBackend;
use super::embedding::add_scaled;
use super::pool::Buffer;
use super::simd::{dot, simd_fn};
use super::tensor::{Param, Tensor, check, check_equal, check_shape};
use super::workers::Shared;
use crate::math::sigmoid;
use crate::ops::{OpResult, SequenceShape};

/// The gate's sigmoid at each row; 0 where there is no previous row.
#[derive(Debug)]
pub struct SmearSaved(pub(super) Buffer);

fn check_smear(
    op: &'static str,
    x: &Tensor,
    gate: &Param,
    lambda: &Param,
    sequence: SequenceShape,
) -> OpResult<f32> {
    check_shape(op, "x", x, sequence.rows(), x.cols)?;
    check(op, gate.data.len() <= x.cols, || {
        format!("gate reads {} of {} channels", gate.data.len(), x.cols)
    })?;
    check(op, lambda.data.len() == 1, || format!("lambda has {} entries", lambda.data.len()))?;
    Ok(lambda.data[0])
}

pub(super) fn forward(
    cpu: &CpuBackend,
    x: &Tensor,
    gate: &Param,
    lambda: &Param,
    sequence: SequenceShape,
    previous: Option<&Tensor>,
) -> OpResult<(Tensor, SmearSaved)> {
    let op = "smear";
    let lambda = check_smear(op, x, gate, lambda, sequence)?;
    if let Some(previous) = previous {
        check_shape(op, "previous", previous, sequence.batch, x.cols)?;
    }
    let (rows, cols) = x.shape();
    let mut y = cpu.tensor_uninit(op, rows, cols)?;
    let mut gates = cpu.pool.take(op, rows)?;
    let (out, saved) = (Shared::new(&mut y.data), Shared::new(&mut gates));
    cpu.for_row_chunks(rows, |r| {
        for n in r {
            // SAFETY: every task has its own rows.
            let (y, s) = unsafe { (out.slice_mut(n * cols..(n + 1) * cols), saved.slice_mut(n..n + 1)) };
            let first = || previous.map(|previous| previous.row(n / sequence.len));
            let before = if n % sequence.len > 0 { Some(x.row(n - 1)) } else { first() };
            y.copy_from_slice(x.row(n));
            s[0] = before.map_or(0.0, |before| {
                let open = gate_value(x.row(n), &gate.data);
                add_scaled(y, before, lambda * open);
                open
            });
        }
    });
    Ok((y, SmearSaved(gates)))
}

simd_fn! {
    pub(super) fn gate_value(x: &[f32], gate: &[f32]) -> f32 {
        sigmoid(dot(&x[..gate.len()], gate))
    }
}

pub(super) fn backward(
    cpu: &CpuBackend,
    x: &Tensor,
    gate: &Param,
    lambda: &Param,
    sequence: SequenceShape,
    saved: &SmearSaved,
    dy: &Tensor,
    dgate: &mut Param,
    dlambda: &mut Param,
) -> OpResult<Tensor> {
    let op = "smear_backward";
    let lambda = check_smear(op, x, gate, lambda, sequence)?;
    check_equal(op, x, dy)?;
    check(op, dgate.data.len() == gate.data.len() && dlambda.data.len() == 1, || {
        format!("dgate has {} entries, dlambda {}", dgate.data.len(), dlambda.data.len())
    })?;
    let (rows, cols) = x.shape();
    let channels = gate.data.len();
    let mut dx = cpu.tensor_uninit(op, rows, cols)?;
    let out = Shared::new(&mut dx.data);
    // dgate, then dlambda.
    let sums = cpu.sum_row_chunks(rows, channels + 1, |r, sums| {
        for n in r {
            let t = n % sequence.len;
            // SAFETY: every task has its own rows.
            let dx = unsafe { out.slice_mut(n * cols..(n + 1) * cols) };
            dx.copy_from_slice(dy.row(n));
            if t + 1 < sequence.len {
                add_scaled(dx, dy.row(n + 1), lambda * saved.0[n + 1]);
            }
            if t > 0 {
                let open = saved.0[n];
                let along = dot_rows(dy.row(n), x.row(n - 1));
                let dlogit = lambda * along * open * (1.0 - open);
                add_scaled(&mut dx[..channels], &gate.data, dlogit);
                add_scaled(&mut sums[..channels], &x.row(n)[..channels], dlogit);
                sums[channels] += open * along;
            }
        }
    })?;
    for (d, sum) in dgate.data.iter_mut().zip(&sums) {
        *d += *sum as f32;
    }
    dlambda.data[0] += sums[channels] as f32;
    Ok(dx)
}

simd_fn! {
    /// The fixed-shape dot product of two rows.
    pub(super) fn dot_rows(x: &[f32], y: &[f32]) -> f32 {
        dot(x, y)
    }
}
