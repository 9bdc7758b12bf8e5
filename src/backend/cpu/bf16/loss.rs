//! Softcapped cross-entropy over chunks of rows, so that no more than a chunk of logits exists.
//!
//! Logits are rounded to bfloat16 as the product that they are; from there on a row goes through f32, and its gradients
//! are rounded again before they are multiplied.

use super::super::backend::CpuBackend;
use super::super::cross_entropy::{CHUNK_ROWS, check_targets, row_loss, softcap_chunk};
use super::super::elementwise::for_chunks;
use super::super::tensor::{Tokens, check};
use super::super::workers::{SCRATCH_LEN, Shared, piece};
use super::convert::{narrow, widen};
use super::gemm::{Factor, Job, Right, Source, gemm, prepack, rounded};
use super::rows::uninit;
use super::storage::{Data, Half, Stored, Table, Tensor};
use crate::ops::{HeadShape, OpResult};

/// Rows of a task: each is long.
const TASK_ROWS: usize = 4;

fn check_head(op: &'static str, x: &Tensor, lm_head: &Stored, head: &HeadShape) -> OpResult<()> {
    let (rows, cols) = lm_head.matrix();
    check(op, cols == x.cols && head.vocab_size <= rows && head.vocab_size > 0, || {
        format!("x is {:?}, lm_head {:?}, vocabulary {}", x.shape(), (rows, cols), head.vocab_size)
    })
}

/// The first `n` rows of a weight with `k` columns as a product with their transposed matrix reads them.
pub(super) fn transposed(weight: &Stored, n: usize, k: usize) -> Right<'_> {
    match weight {
        Stored::Table(Table { packed: Some(packed), .. }) => packed.first(n),
        _ => Factor::along(source(weight), n, k).into(),
    }
}

/// Whether a weight is packed for such products.
fn is_packed(weight: &Stored) -> bool {
    matches!(weight, Stored::Table(Table { packed: Some(_), .. }))
}

/// The values of a weight, which is not packed, as products read them.
pub(super) fn source(weight: &Stored) -> Source<'_> {
    match weight {
        Stored::Single(param) => Source::Single(&param.data),
        Stored::Table(table) => Source::Half(&table.data),
    }
}

pub(super) fn logits(cpu: &CpuBackend, x: &Tensor, lm_head: &Stored, head: &HeadShape) -> OpResult<Tensor> {
    let op = "logits";
    check_head(op, x, lm_head, head)?;
    let (rows, v, c) = (x.rows, head.vocab_size, x.cols);
    let mut product = Half::take(&cpu.pool, op, rows * v)?;
    let (a, b) = (Factor::along(x.values(op)?, rows, c), transposed(lm_head, v, c));
    gemm(&cpu.workers, &cpu.pool, Job::setting(a, b, &mut product, &rounded))?;
    let mut y = cpu.pool.take(op, rows * v)?;
    for_chunks(cpu, &mut y, |at, y| {
        widen(&product[at..at + y.len()], y);
        if let Some(cap) = head.softcap {
            softcap_chunk(y, cap);
        }
    });
    Ok(Tensor { rows, cols: v, data: Data::Single(y) })
}

/// The backward's share of a pass.
struct Gradient<'a> {
    scale: f32,
    dx: &'a mut Tensor,
    dlm_head: &'a mut Stored,
}

pub(super) fn losses(
    cpu: &CpuBackend,
    x: &Tensor,
    lm_head: &Stored,
    targets: &Tokens,
    head: &HeadShape,
) -> OpResult<Vec<f32>> {
    pass(cpu, "cross_entropy", x, lm_head, targets, head, None)
}

pub(super) fn train(
    cpu: &CpuBackend,
    x: &Tensor,
    lm_head: &Stored,
    targets: &Tokens,
    head: &HeadShape,
    scale: f32,
    dlm_head: &mut Stored,
) -> OpResult<(Vec<f32>, Tensor)> {
    let op = "cross_entropy_train";
    check(op, dlm_head.len() == lm_head.len(), || "dlm_head has another shape than lm_head".to_owned())?;
    let mut dx = uninit(cpu, op, x.rows, x.cols)?;
    let gradient = Gradient { scale, dx: &mut dx, dlm_head };
    let losses = pass(cpu, op, x, lm_head, targets, head, Some(gradient))?;
    Ok((losses, dx))
}

fn pass(
    cpu: &CpuBackend,
    op: &'static str,
    x: &Tensor,
    lm_head: &Stored,
    targets: &Tokens,
    head: &HeadShape,
    mut gradient: Option<Gradient<'_>>,
) -> OpResult<Vec<f32>> {
    check_head(op, x, lm_head, head)?;
    check_targets(op, x.rows, targets, head.vocab_size)?;
    let (v, c) = (head.vocab_size, x.cols);
    let mut losses = vec![0.0_f32; x.rows];
    let across = || Factor::across(source(lm_head), c, v);
    let (mut packed_t, mut packed) = (None, None);
    if x.rows > CHUNK_ROWS && !is_packed(lm_head) {
        packed_t = prepack(&cpu.workers, &cpu.pool, Factor::along(source(lm_head), v, c))?;
        if gradient.is_some() {
            packed = prepack(&cpu.workers, &cpu.pool, across())?;
        }
    }
    let mut chunk = Half::take(&cpu.pool, op, CHUNK_ROWS.min(x.rows) * v)?;
    let rows_all = x.rows;
    let values = x.values(op)?;
    for start in (0..rows_all).step_by(CHUNK_ROWS) {
        let rows = CHUNK_ROWS.min(rows_all - start);
        let x = &values[start * c..(start + rows) * c];
        let weights = packed_t.as_ref().map_or_else(|| transposed(lm_head, v, c), |packed| packed.first(v));
        let job = Job::setting(Factor::along(x, rows, c), weights, &mut chunk, &rounded);
        gemm(&cpu.workers, &cpu.pool, job)?;
        let scale = gradient.as_ref().map(|g| g.scale);
        let ids = &targets.ids()[start..start + rows];
        chunk_losses(cpu, op, &mut chunk, v, ids, &mut losses[start..], head, scale)?;
        if let Some(g) = &mut gradient {
            let dx = &mut g.dx.values_mut(op)?[start * c..(start + rows) * c];
            let weights = packed.as_ref().map_or_else(|| across().into(), |packed| packed.first(c));
            let job = Job::setting(Factor::along(&chunk[..], rows, v), weights, dx, &rounded);
            gemm(&cpu.workers, &cpu.pool, job)?;
            let (a, b) = (Factor::across(&chunk[..], v, rows), Factor::across(x, c, rows));
            accumulate(cpu, a, b, g.dlm_head)?;
        }
    }
    Ok(losses)
}

/// `dw += a b`: block after block in f32; in a table, all of it at once, rounded.
pub(super) fn accumulate(cpu: &CpuBackend, a: Factor<'_>, b: Factor<'_>, dw: &mut Stored) -> OpResult<()> {
    match dw {
        Stored::Single(param) => gemm(&cpu.workers, &cpu.pool, Job::adding(a, b, &mut param.data)),
        Stored::Table(table) => {
            gemm(&cpu.workers, &cpu.pool, Job::setting(a, b, &mut table.data, &super::gemm::added))
        }
    }
}

/// Logits become losses and, given a scale, their own gradients.
fn chunk_losses(
    cpu: &CpuBackend,
    op: &'static str,
    logits: &mut [u16],
    v: usize,
    targets: &[i32],
    losses: &mut [f32],
    head: &HeadShape,
    scale: Option<f32>,
) -> OpResult<()> {
    let row_of = |row: &mut [u16], wide: &mut [f32], target: i32| {
        if target < 0 && scale.is_none() {
            return 0.0;
        }
        widen(row, wide);
        let loss = row_loss(wide, target, head, scale);
        if scale.is_some() {
            narrow(wide, row);
        }
        loss
    };
    if v > SCRATCH_LEN {
        // Rows that no thread has the memory for go one after another.
        let mut wide = cpu.pool.take(op, v)?;
        for ((row, loss), &target) in logits.chunks_exact_mut(v).zip(losses).zip(targets) {
            *loss = row_of(row, &mut wide, target);
        }
        return Ok(());
    }
    let (logits, losses) = (Shared::new(logits), Shared::new(losses));
    cpu.workers.run_with_scratch(targets.len().div_ceil(TASK_ROWS), |task, scratch| {
        for n in piece(targets.len(), TASK_ROWS, task) {
            // SAFETY: every task has its own rows.
            let (row, loss) = unsafe { (logits.slice_mut(n * v..(n + 1) * v), losses.slice_mut(n..n + 1)) };
            loss[0] = row_of(row, &mut scratch[..v], targets[n]);
        }
    });
    Ok(())
}
