//! Ops that go row by row or element by element. Each reads bfloat16, computes in f32 with the very functions of the f32
//! ops, and rounds every result once.

use std::ops::Range;

use super::super::backend::{CpuBackend, ROW_CHUNK};
use super::super::elementwise::{CHUNK, add_chunk};
use super::super::norm::{self, NormSaved};
use super::super::residual::{self, lambda};
use super::super::rotary::{self, Rotary, RotarySaved};
use super::super::smear::{self, SmearSaved};
use super::super::tensor::{Param, check};
use super::super::workers::{SCRATCH_LEN, Shared, piece};
use super::convert::{narrow, widen};
use super::storage::{Half, Tensor, check_equal, check_shape};
use crate::ops::{OpResult, SequenceShape};

/// Rows that an op holds in f32 at a time, at most.
const ROWS: usize = 6;
/// Values that are held in f32 at a time where rows do not matter: they stay in the first-level cache.
const PIECE: usize = 2048;

/// A tensor with unspecified values.
pub(super) fn uninit(cpu: &CpuBackend, op: &'static str, rows: usize, cols: usize) -> OpResult<Tensor> {
    Ok(Tensor::half(rows, cols, Half::take(&cpu.pool, op, rows.saturating_mul(cols))?))
}

/// Fails where rows are too long for a thread's scratch memory.
fn check_cols(op: &'static str, cols: usize) -> OpResult<()> {
    check(op, cols <= SCRATCH_LEN / ROWS, || format!("rows of {cols} values, at most {}", SCRATCH_LEN / ROWS))
}

/// So many rows of f32 of a thread's scratch memory.
fn buffers<const N: usize>(scratch: &mut [f32], cols: usize) -> [&mut [f32]; N] {
    const { assert!(N <= ROWS) };
    let mut rest = scratch;
    std::array::from_fn(|_| {
        let (row, others) = std::mem::take(&mut rest).split_at_mut(cols);
        rest = others;
        row
    })
}

/// Runs `f(row, scratch)` on every row.
fn for_rows(cpu: &CpuBackend, rows: usize, f: impl Fn(usize, &mut [f32]) + Send + Sync) {
    cpu.workers.run_with_scratch(rows.div_ceil(ROW_CHUNK), |task, scratch| {
        for n in piece(rows, ROW_CHUNK, task) {
            f(n, scratch);
        }
    });
}

/// Runs `f(row, sums, scratch)` on every row, which adds to the `width` partial sums of its chunk; -> their totals, added
/// up in the order of the chunks.
pub(super) fn sum_rows(
    cpu: &CpuBackend,
    rows: usize,
    width: usize,
    f: impl Fn(usize, &mut [f32], &mut [f32]) + Send + Sync,
) -> OpResult<Vec<f64>> {
    let chunks = rows.div_ceil(ROW_CHUNK);
    let mut partial = cpu.pool.zeroed("sum", chunks * width)?;
    let shared = Shared::new(&mut partial);
    cpu.workers.run_with_scratch(chunks, |task, scratch| {
        // SAFETY: every task has its own sums.
        let sums = unsafe { shared.slice_mut(task * width..(task + 1) * width) };
        for n in piece(rows, ROW_CHUNK, task) {
            f(n, sums, scratch);
        }
    });
    let mut totals = vec![0.0_f64; width];
    for sums in partial.chunks_exact(width.max(1)) {
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total += f64::from(*sum);
        }
    }
    Ok(totals)
}

/// Runs `f(range, scratch)` on pieces of `0..len`.
pub(super) fn for_pieces(cpu: &CpuBackend, len: usize, f: impl Fn(Range<usize>, &mut [f32]) + Send + Sync) {
    cpu.workers.run_with_scratch(len.div_ceil(CHUNK), |task, scratch| {
        let chunk = piece(len, CHUNK, task);
        for start in chunk.clone().step_by(PIECE) {
            f(start..chunk.end.min(start + PIECE), scratch);
        }
    });
}

/// `y = f(y, x)` on pieces in f32.
fn change(
    cpu: &CpuBackend,
    op: &'static str,
    mut y: Tensor,
    x: &Tensor,
    f: impl Fn(&mut [f32], &[f32]) + Send + Sync,
) -> OpResult<Tensor> {
    check_equal(op, &y, x)?;
    let x = x.values(op)?;
    let values = y.values_mut(op)?;
    let out = Shared::new(values);
    for_pieces(cpu, values.len(), |range, scratch| {
        // SAFETY: every piece is one task's.
        let y = unsafe { out.slice_mut(range.clone()) };
        let [a, b] = buffers(scratch, range.len());
        widen(y, a);
        widen(&x[range], b);
        f(a, b);
        narrow(a, y);
    });
    Ok(y)
}

pub(super) fn add(cpu: &CpuBackend, x: Tensor, y: &Tensor) -> OpResult<Tensor> {
    change(cpu, "add", x, y, add_chunk)
}

pub(super) fn relu_squared(cpu: &CpuBackend, x: &Tensor) -> OpResult<Tensor> {
    let op = "relu_squared";
    let mut y = uninit(cpu, op, x.rows, x.cols)?;
    let x = x.values(op)?;
    let values = y.values_mut(op)?;
    let out = Shared::new(values);
    for_pieces(cpu, values.len(), |range, _| {
        // SAFETY: every piece is one task's.
        let y = unsafe { out.slice_mut(range.clone()) };
        y.copy_from_slice(&x[range]);
        super::convert::relu_squared(y);
    });
    Ok(y)
}

pub(super) fn relu_squared_backward(cpu: &CpuBackend, x: &Tensor, mut dy: Tensor) -> OpResult<Tensor> {
    let op = "relu_squared_backward";
    check_equal(op, x, &dy)?;
    let x = x.values(op)?;
    let values = dy.values_mut(op)?;
    let out = Shared::new(values);
    for_pieces(cpu, values.len(), |range, scratch| {
        // SAFETY: every piece is one task's.
        let dy = unsafe { out.slice_mut(range.clone()) };
        let [wide] = buffers(scratch, range.len());
        widen(dy, wide);
        super::convert::relu_squared_backward(wide, &x[range], dy);
    });
    Ok(dy)
}

pub(super) fn rms_norm(cpu: &CpuBackend, x: &Tensor, eps: f32) -> OpResult<(Tensor, NormSaved)> {
    let op = "rms_norm";
    let (rows, cols) = x.shape();
    check_cols(op, cols)?;
    let mut y = uninit(cpu, op, rows, cols)?;
    let mut scales = cpu.pool.take(op, rows)?;
    let x = x.values(op)?;
    let (out, saved) = (Shared::new(y.values_mut(op)?), Shared::new(&mut scales));
    for_rows(cpu, rows, |n, scratch| {
        // SAFETY: every row is one task's.
        let (y, s) = unsafe { (out.slice_mut(n * cols..(n + 1) * cols), saved.slice_mut(n..n + 1)) };
        let [a, b] = buffers(scratch, cols);
        widen(&x[n * cols..(n + 1) * cols], a);
        norm::forward_rows(a, b, s, cols, eps);
        narrow(b, y);
    });
    Ok((y, NormSaved(scales)))
}

pub(super) fn rms_norm_backward(
    cpu: &CpuBackend,
    y: &Tensor,
    saved: &NormSaved,
    dy: &Tensor,
    dresidual: Option<Tensor>,
) -> OpResult<Tensor> {
    let op = "rms_norm_backward";
    check_equal(op, y, dy)?;
    let (rows, cols) = y.shape();
    check_cols(op, cols)?;
    let add = dresidual.is_some();
    let mut dx = match dresidual {
        Some(dresidual) => {
            check_equal(op, y, &dresidual)?;
            dresidual
        }
        None => uninit(cpu, op, rows, cols)?,
    };
    let (y, dy) = (y.values(op)?, dy.values(op)?);
    let out = Shared::new(dx.values_mut(op)?);
    for_rows(cpu, rows, |n, scratch| {
        let range = n * cols..(n + 1) * cols;
        // SAFETY: every row is one task's.
        let dx = unsafe { out.slice_mut(range.clone()) };
        let [a, b, c] = buffers(scratch, cols);
        widen(&y[range.clone()], a);
        widen(&dy[range], b);
        if add {
            widen(dx, c);
        }
        norm::backward_rows(a, &saved.0[n..=n], b, c, cols, add);
        narrow(c, dx);
    });
    Ok(dx)
}

pub(super) fn residual_mix(
    cpu: &CpuBackend,
    x: &Tensor,
    x0: &Tensor,
    resid: &Param,
    x0_lambdas: &Param,
    layer: usize,
) -> OpResult<Tensor> {
    let op = "residual_mix";
    check_equal(op, x, x0)?;
    let (r, z) = (lambda(op, resid, layer)?, lambda(op, x0_lambdas, layer)?);
    let mut y = uninit(cpu, op, x.rows, x.cols)?;
    let (x, x0) = (x.values(op)?, x0.values(op)?);
    let values = y.values_mut(op)?;
    let out = Shared::new(values);
    for_pieces(cpu, values.len(), |range, scratch| {
        let [a, b, c] = buffers(scratch, range.len());
        widen(&x[range.clone()], a);
        widen(&x0[range.clone()], b);
        residual::mix_chunk(c, a, b, r, z);
        // SAFETY: every piece is one task's.
        narrow(c, unsafe { out.slice_mut(range) });
    });
    Ok(y)
}

pub(super) fn residual_mix_backward(
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
    check_cols(op, cols)?;
    let (x, x0) = (x.values(op)?, x0.values(op)?);
    let (out, out0) = (Shared::new(dy.values_mut(op)?), Shared::new(dx0.values_mut(op)?));
    let sums = sum_rows(cpu, rows, 2, |n, sums, scratch| {
        let range = n * cols..(n + 1) * cols;
        // SAFETY: every row is one task's.
        let (dy, dx0) = unsafe { (out.slice_mut(range.clone()), out0.slice_mut(range.clone())) };
        let [a, b, c, d] = buffers(scratch, cols);
        widen(&x[range.clone()], a);
        widen(&x0[range], b);
        widen(dy, c);
        widen(dx0, d);
        let mut of_row = [0.0; 2];
        residual::mix_backward_chunk(a, b, c, d, r, z, &mut of_row);
        sums.iter_mut().zip(of_row).for_each(|(sum, x)| *sum += x);
        narrow(c, dy);
        narrow(d, dx0);
    })?;
    dresid.data[layer] += sums[0] as f32;
    dx0_lambdas.data[layer] += sums[1] as f32;
    Ok(dy)
}

pub(super) fn backout(cpu: &CpuBackend, x: Tensor, kept: &Tensor, weight: &Param) -> OpResult<Tensor> {
    let mu = lambda("backout", weight, 0)?;
    change(cpu, "backout", x, kept, |x, kept| residual::backout_chunk(x, kept, mu))
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
    check_cols(op, cols)?;
    let mut dkept = uninit(cpu, op, rows, cols)?;
    let (kept, dy) = (kept.values(op)?, dy.values(op)?);
    let out = Shared::new(dkept.values_mut(op)?);
    let sums = sum_rows(cpu, rows, 1, |n, sums, scratch| {
        let range = n * cols..(n + 1) * cols;
        let [a, b, c] = buffers(scratch, cols);
        widen(&kept[range.clone()], a);
        widen(&dy[range.clone()], b);
        let mut of_row = [0.0];
        residual::backout_backward_chunk(a, b, c, mu, &mut of_row);
        sums[0] += of_row[0];
        // SAFETY: every row is one task's.
        narrow(c, unsafe { out.slice_mut(range) });
    })?;
    dlambda.data[0] -= sums[0] as f32;
    Ok(dkept)
}

fn check_smear(
    op: &'static str,
    x: &Tensor,
    gate: &Param,
    lambda: &Param,
    sequence: SequenceShape,
) -> OpResult<f32> {
    check_cols(op, x.cols)?;
    check_shape(op, "x", x, sequence.rows(), x.cols)?;
    check(op, gate.data.len() <= x.cols, || {
        format!("gate reads {} of {} channels", gate.data.len(), x.cols)
    })?;
    check(op, lambda.data.len() == 1, || format!("lambda has {} entries", lambda.data.len()))?;
    Ok(lambda.data[0])
}

pub(super) fn smear(
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
    let mut y = uninit(cpu, op, rows, cols)?;
    let mut gates = cpu.pool.take(op, rows)?;
    let x = x.values(op)?;
    let previous = previous.map(|previous| previous.values(op)).transpose()?;
    let (out, saved) = (Shared::new(y.values_mut(op)?), Shared::new(&mut gates));
    for_rows(cpu, rows, |n, scratch| {
        let row = |values: &'_ [u16], n: usize| n * cols..((n + 1) * cols).min(values.len());
        // SAFETY: every row is one task's.
        let (y, s) = unsafe { (out.slice_mut(n * cols..(n + 1) * cols), saved.slice_mut(n..n + 1)) };
        let first = || previous.map(|previous| &previous[row(previous, n / sequence.len)]);
        let before = if n % sequence.len > 0 { Some(&x[row(x, n - 1)]) } else { first() };
        let Some(before) = before else {
            y.copy_from_slice(&x[row(x, n)]);
            s[0] = 0.0;
            return;
        };
        let [a, b] = buffers(scratch, cols);
        widen(&x[row(x, n)], a);
        widen(before, b);
        s[0] = smear::gate_value(a, &gate.data);
        super::super::embedding::add_scaled(a, b, lambda * s[0]);
        narrow(a, y);
    });
    Ok((y, SmearSaved(gates)))
}

pub(super) fn smear_backward(
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
    use super::super::embedding::add_scaled;
    let op = "smear_backward";
    let lambda = check_smear(op, x, gate, lambda, sequence)?;
    check_equal(op, x, dy)?;
    check(op, dgate.data.len() == gate.data.len() && dlambda.data.len() == 1, || {
        format!("dgate has {} entries, dlambda {}", dgate.data.len(), dlambda.data.len())
    })?;
    let (rows, cols) = x.shape();
    let channels = gate.data.len();
    let mut dx = uninit(cpu, op, rows, cols)?;
    let (x, dy) = (x.values(op)?, dy.values(op)?);
    let out = Shared::new(dx.values_mut(op)?);
    let row = |n: usize| n * cols..(n + 1) * cols;
    // dgate, then dlambda.
    let sums = sum_rows(cpu, rows, channels + 1, |n, sums, scratch| {
        let t = n % sequence.len;
        let [own, other, sum] = buffers(scratch, cols);
        widen(&dy[row(n)], own);
        sum.copy_from_slice(own);
        if t + 1 < sequence.len {
            widen(&dy[row(n + 1)], other);
            add_scaled(sum, other, lambda * saved.0[n + 1]);
        }
        if t > 0 {
            let open = saved.0[n];
            widen(&x[row(n - 1)], other);
            let along = smear::dot_rows(own, other);
            let dlogit = lambda * along * open * (1.0 - open);
            add_scaled(&mut sum[..channels], &gate.data, dlogit);
            widen(&x[row(n)][..channels], &mut other[..channels]);
            add_scaled(&mut sums[..channels], &other[..channels], dlogit);
            sums[channels] += open * along;
        }
        // SAFETY: every row is one task's.
        narrow(sum, unsafe { out.slice_mut(row(n)) });
    })?;
    for (d, sum) in dgate.data.iter_mut().zip(&sums) {
        *d += *sum as f32;
    }
    dlambda.data[0] += sums[channels] as f32;
    Ok(dx)
}

fn check_rotary(
    op: &'static str,
    x: &Tensor,
    rotary: &Rotary,
    end: usize,
    sequence: SequenceShape,
    head_dim: usize,
) -> OpResult<usize> {
    check_cols(op, x.cols)?;
    check_shape(op, "x", x, sequence.rows(), x.cols)?;
    check(op, head_dim == 2 * rotary.half && x.cols.is_multiple_of(head_dim), || {
        format!("heads of {head_dim} in {} columns, tables for heads of {}", x.cols, 2 * rotary.half)
    })?;
    check(op, end <= rotary.len, || format!("positions up to {end}, tables for {}", rotary.len))?;
    Ok(x.cols / head_dim)
}

pub(super) fn rotary_norm(
    cpu: &CpuBackend,
    mut x: Tensor,
    rotary: &Rotary,
    start: usize,
    sequence: SequenceShape,
    head_dim: usize,
    scale: f32,
    eps: f32,
) -> OpResult<(Tensor, RotarySaved)> {
    let op = "rotary_norm";
    let heads = check_rotary(op, &x, rotary, start + sequence.len, sequence, head_dim)?;
    let (rows, cols) = x.shape();
    let mut scales = cpu.pool.take(op, rows * heads)?;
    let (out, saved) = (Shared::new(x.values_mut(op)?), Shared::new(&mut scales));
    for_rows(cpu, rows, |n, scratch| {
        let at = (start + n % sequence.len) * rotary.half;
        let (c, s) = (&rotary.cos[at..at + rotary.half], &rotary.sin[at..at + rotary.half]);
        // SAFETY: every row is one task's.
        let (x, r) =
            unsafe { (out.slice_mut(n * cols..(n + 1) * cols), saved.slice_mut(n * heads..(n + 1) * heads)) };
        let [wide] = buffers(scratch, cols);
        widen(x, wide);
        rotary::forward_row(wide, c, s, r, scale, eps);
        narrow(wide, x);
    });
    Ok((x, RotarySaved(scales)))
}

pub(super) fn rotary_norm_backward(
    cpu: &CpuBackend,
    y: &Tensor,
    rotary: &Rotary,
    sequence: SequenceShape,
    head_dim: usize,
    scale: f32,
    saved: &RotarySaved,
    mut dy: Tensor,
) -> OpResult<Tensor> {
    let op = "rotary_norm_backward";
    let heads = check_rotary(op, y, rotary, sequence.len, sequence, head_dim)?;
    check_shape(op, "dy", &dy, y.rows, y.cols)?;
    let (rows, cols) = y.shape();
    let y = y.values(op)?;
    let out = Shared::new(dy.values_mut(op)?);
    for_rows(cpu, rows, |n, scratch| {
        let at = (n % sequence.len) * rotary.half;
        let (c, s) = (&rotary.cos[at..at + rotary.half], &rotary.sin[at..at + rotary.half]);
        let range = n * cols..(n + 1) * cols;
        // SAFETY: every row is one task's.
        let dy = unsafe { out.slice_mut(range.clone()) };
        let [a, b] = buffers(scratch, cols);
        widen(&y[range], a);
        widen(dy, b);
        rotary::backward_row(a, b, c, s, &saved.0[n * heads..(n + 1) * heads], scale);
        narrow(b, dy);
    });
    Ok(dy)
}
