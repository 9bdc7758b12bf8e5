//! Softcapped cross-entropy over chunks of rows, so that no more than a chunk of logits exists.

use super::backend::CpuBackend;
use super::elementwise::for_chunks;
use super::gemm::{Job, PackedB, Store, gemm, matrix, prepack};
use super::pool::Buffer;
use super::simd::{LANES, Lanes, lane_maxima, larger, simd_fn, tree_sum};
use super::tensor::{Param, Tensor, Tokens, check};
use super::workers::Shared;
use crate::math::{exp, log, tanh};
use crate::ops::{HeadShape, OpResult};

/// Rows of logits held at once: a numerics constant (gradients of `lm_head` are summed chunk by chunk).
pub(super) const CHUNK_ROWS: usize = 512;
/// A softcap up to this keeps exp(logit - softcap) far from underflow, so no maximum need be found.
const FIXED_SHIFT_LIMIT: f32 = 40.0;

fn check_head(op: &'static str, x: &Tensor, lm_head: &Param, head: &HeadShape) -> OpResult<()> {
    let (rows, cols) = lm_head.matrix();
    check(op, cols == x.cols && head.vocab_size <= rows && head.vocab_size > 0, || {
        format!("x is {:?}, lm_head {:?}, vocabulary {}", x.shape(), (rows, cols), head.vocab_size)
    })
}

pub(super) fn check_targets(op: &'static str, rows: usize, targets: &Tokens, vocab: usize) -> OpResult<()> {
    let ids = targets.ids();
    check(op, ids.len() == rows, || format!("{} targets for {rows} rows", ids.len()))?;
    let bad = ids.iter().position(|&id| id < -1 || id >= vocab as i32);
    check(op, bad.is_none(), || {
        format!("target {} is not in the vocabulary of {vocab}", bad.unwrap_or_default())
    })
}

pub(super) fn logits(cpu: &CpuBackend, x: &Tensor, lm_head: &Param, head: &HeadShape) -> OpResult<Tensor> {
    check_head("logits", x, lm_head, head)?;
    let v = head.vocab_size;
    let mut y = cpu.tensor_uninit("logits", x.rows, v)?;
    gemm(&cpu.workers, &cpu.pool, lm_head.job(x.view(), v, &mut y.data), Store::Set)?;
    if let Some(cap) = head.softcap {
        for_chunks(cpu, &mut y.data, |_, y| softcap_chunk(y, cap));
    }
    Ok(y)
}

simd_fn! {
    wide by lanes, pub(super) fn softcap_chunk(y: &mut [f32], cap: f32) {
        let (groups, rest) = y.as_chunks_mut::<LANES>();
        for group in groups {
            *group = capped(lanes, *group, cap);
            for y in group {
                *y *= cap;
            }
        }
        for y in rest {
            *y = cap * tanh(*y / cap);
        }
    }
}

/// tanh(logit / cap) of each.
#[inline(always)]
fn capped(lanes: impl Lanes, mut logits: [f32; LANES], cap: f32) -> [f32; LANES] {
    for x in &mut logits {
        *x /= cap;
    }
    lanes.tanh(logits)
}

/// exp(factor * x - shift) of each.
#[inline(always)]
fn shifted_exps(lanes: impl Lanes, mut x: [f32; LANES], factor: f32, shift: f32) -> [f32; LANES] {
    for x in &mut x {
        *x = x.mul_add(factor, -shift);
    }
    lanes.exp(x)
}

/// The backward's share of a pass.
struct Gradient<'a> {
    scale: f32,
    dx: &'a mut Tensor,
    dlm_head: &'a mut Param,
}

pub(super) fn losses(
    cpu: &CpuBackend,
    x: &Tensor,
    lm_head: &Param,
    targets: &Tokens,
    head: &HeadShape,
) -> OpResult<Vec<f32>> {
    pass(cpu, "cross_entropy", x, lm_head, targets, head, None)
}

pub(super) fn train(
    cpu: &CpuBackend,
    x: &Tensor,
    lm_head: &Param,
    targets: &Tokens,
    head: &HeadShape,
    scale: f32,
    dlm_head: &mut Param,
) -> OpResult<(Vec<f32>, Tensor)> {
    let op = "cross_entropy_train";
    check(op, dlm_head.data.len() == lm_head.data.len(), || {
        "dlm_head has another shape than lm_head".to_owned()
    })?;
    let mut dx = cpu.tensor_uninit(op, x.rows, x.cols)?;
    let gradient = Gradient { scale, dx: &mut dx, dlm_head };
    let losses = pass(cpu, op, x, lm_head, targets, head, Some(gradient))?;
    Ok((losses, dx))
}

fn pass(
    cpu: &CpuBackend,
    op: &'static str,
    x: &Tensor,
    lm_head: &Param,
    targets: &Tokens,
    head: &HeadShape,
    mut gradient: Option<Gradient<'_>>,
) -> OpResult<Vec<f32>> {
    check_head(op, x, lm_head, head)?;
    check_targets(op, x.rows, targets, head.vocab_size)?;
    let (v, c) = (head.vocab_size, x.cols);
    let mut losses = vec![0.0_f32; x.rows];
    let (packed_t, packed) = packed_weights(cpu, lm_head, v, x.rows, gradient.is_some())?;
    let mut chunk: Buffer = cpu.pool.take(op, CHUNK_ROWS.min(x.rows) * v)?;
    for start in (0..x.rows).step_by(CHUNK_ROWS) {
        let rows = CHUNK_ROWS.min(x.rows - start);
        let x = matrix(&x.data[start * c..(start + rows) * c], rows, c);
        let job = match &packed_t {
            Some(packed) => Job::packed(x, packed, v, &mut chunk),
            None => lm_head.job(x, v, &mut chunk),
        };
        gemm(&cpu.workers, &cpu.pool, job, Store::Set)?;
        let scale = gradient.as_ref().map(|g| g.scale);
        chunk_losses(
            cpu,
            &mut chunk,
            v,
            &targets.ids()[start..start + rows],
            &mut losses[start..],
            head,
            scale,
        );
        if let Some(g) = &mut gradient {
            let dlogits = matrix(&chunk, rows, v);
            let dx = &mut g.dx.data[start * c..(start + rows) * c];
            let job = match &packed {
                Some(packed) => Job::packed(dlogits, packed, c, dx),
                None => Job::new(dlogits, matrix(&lm_head.data, v, c), dx),
            };
            gemm(&cpu.workers, &cpu.pool, job, Store::Set)?;
            let dw = &mut g.dlm_head.data[..v * c];
            gemm(&cpu.workers, &cpu.pool, Job::new(dlogits.reversed_axes(), x, dw), Store::Add)?;
        }
    }
    Ok(losses)
}

/// `lm_head` packed once for all chunks, if there are several: transposed for the logits, and as it is for dx.
fn packed_weights(
    cpu: &CpuBackend,
    lm_head: &Param,
    vocab: usize,
    rows: usize,
    backward: bool,
) -> OpResult<(Option<PackedB>, Option<PackedB>)> {
    if rows <= CHUNK_ROWS || lm_head.packed.is_some() {
        return Ok((None, None));
    }
    let weights = matrix(&lm_head.data, vocab, lm_head.matrix().1);
    let transposed = prepack(&cpu.workers, &cpu.pool, weights.reversed_axes())?;
    let plain = if backward { prepack(&cpu.workers, &cpu.pool, weights)? } else { None };
    Ok((transposed, plain))
}

/// Logits become losses and, given a scale, their own gradients.
fn chunk_losses(
    cpu: &CpuBackend,
    logits: &mut [f32],
    v: usize,
    targets: &[i32],
    losses: &mut [f32],
    head: &HeadShape,
    scale: Option<f32>,
) {
    let (logits, losses) = (Shared::new(logits), Shared::new(losses));
    // A few rows a task: each is long.
    cpu.workers.run(targets.len().div_ceil(4), |task| {
        for n in super::workers::piece(targets.len(), 4, task) {
            // SAFETY: every task has its own rows.
            let (row, loss) = unsafe { (logits.slice_mut(n * v..(n + 1) * v), losses.slice_mut(n..n + 1)) };
            loss[0] = row_loss(row, targets[n], head, scale);
        }
    });
}

/// The loss of a row of logits, 0 where the target is -1; given a scale, they become their own gradients.
pub(super) fn row_loss(row: &mut [f32], target: i32, head: &HeadShape, scale: Option<f32>) -> f32 {
    let Ok(target) = usize::try_from(target) else {
        if scale.is_some() {
            row.fill(0.0);
        }
        return 0.0;
    };
    let (shift, total) = match head.softcap {
        Some(cap) => capped_total(row, cap),
        None => plain_total(row),
    };
    let at_target = head.softcap.map_or(row[target], |cap| cap * row[target]);
    let loss = log(total) + (shift - at_target);
    if let Some(scale) = scale {
        let slope = head.softcap.map_or(1.0, |_| 1.0 - row[target] * row[target]);
        match head.softcap {
            Some(cap) => capped_gradient(row, cap, shift, scale / total),
            None => plain_gradient(row, shift, scale / total),
        }
        row[target] -= scale * slope;
    }
    loss
}

simd_fn! {
    /// Logits become tanh(logit / cap); -> a shift and the sum of exp(cap * tanh - shift).
    wide by lanes, fn capped_total(row: &mut [f32], cap: f32) -> (f32, f32) {
        if cap > FIXED_SHIFT_LIMIT {
            let (groups, rest) = row.as_chunks_mut::<LANES>();
            for group in groups {
                *group = capped(lanes, *group, cap);
            }
            for x in rest {
                *x = tanh(*x / cap);
            }
            let shift = cap * max_of(row);
            return (shift, exp_sum(lanes, row, cap, shift));
        }
        let mut sums = [0.0_f32; LANES];
        let (groups, rest) = row.as_chunks_mut::<LANES>();
        for group in groups {
            *group = capped(lanes, *group, cap);
            add(&mut sums, shifted_exps(lanes, *group, cap, cap));
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            *x = tanh(*x / cap);
            *sum += exp(x.mul_add(cap, -cap));
        }
        (cap, tree_sum(sums))
    }
}

simd_fn! {
    /// The maximum, and the sum of exp(logit - maximum).
    wide by lanes, fn plain_total(row: &mut [f32]) -> (f32, f32) {
        let max = max_of(row);
        (max, exp_sum(lanes, row, 1.0, max))
    }
}

#[inline(always)]
fn max_of(row: &[f32]) -> f32 {
    let rest = row.as_chunks::<LANES>().1;
    lane_maxima(row).iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| larger(x, max))
}

#[inline(always)]
fn add(sums: &mut [f32; LANES], x: [f32; LANES]) {
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum += x;
    }
}

/// Sum of exp(factor * x - shift).
#[inline(always)]
fn exp_sum(lanes: impl Lanes, row: &[f32], factor: f32, shift: f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (groups, rest) = row.as_chunks::<LANES>();
    for group in groups {
        add(&mut sums, shifted_exps(lanes, *group, factor, shift));
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += exp(x.mul_add(factor, -shift));
    }
    tree_sum(sums)
}

simd_fn! {
    /// tanh values become gradients of logits, but for the target's own share.
    wide by lanes, fn capped_gradient(row: &mut [f32], cap: f32, shift: f32, factor: f32) {
        let (groups, rest) = row.as_chunks_mut::<LANES>();
        for group in groups {
            let weights = shifted_exps(lanes, *group, cap, shift);
            for (x, weight) in group.iter_mut().zip(weights) {
                *x = weight * factor * (1.0 - *x * *x);
            }
        }
        for x in rest {
            let weight = exp(x.mul_add(cap, -shift)) * factor;
            *x = weight * (1.0 - *x * *x);
        }
    }
}

simd_fn! {
    /// Logits become their gradients, but for the target's own share.
    wide by lanes, fn plain_gradient(row: &mut [f32], shift: f32, factor: f32) {
        let (groups, rest) = row.as_chunks_mut::<LANES>();
        for group in groups {
            let mut x = *group;
            for x in &mut x {
                *x -= shift;
            }
            *group = lanes.exp(x);
            for x in group {
                *x *= factor;
            }
        }
        for x in rest {
            *x = exp(*x - shift) * factor;
        }
    }
}
