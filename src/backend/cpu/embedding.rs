//! Embedding gather and its backward.

use super::backend::CpuBackend;
use super::simd::simd_fn;
use super::tensor::{Param, Tensor, Tokens, check};
use super::workers::{Shared, piece};
use crate::ops::OpResult;

/// Columns of a task of the backward.
const COLUMNS: usize = 64;

/// Fails if an id is outside the table.
pub(super) fn check_ids(op: &'static str, tokens: &Tokens, rows: usize) -> OpResult<()> {
    match tokens.ids().iter().position(|&id| id < 0 || id as usize >= rows) {
        None => Ok(()),
        Some(at) => {
            check(op, false, || format!("token {at} has id {}, the table {rows} rows", tokens.ids()[at]))
        }
    }
}

pub(super) fn forward(cpu: &CpuBackend, table: &Param, tokens: &Tokens) -> OpResult<Tensor> {
    let (vocab, cols) = table.matrix();
    check_ids("embedding", tokens, vocab)?;
    let ids = tokens.ids();
    let mut y = cpu.tensor_uninit("embedding", ids.len(), cols)?;
    let out = Shared::new(&mut y.data);
    cpu.for_row_chunks(ids.len(), |r| {
        // SAFETY: every task has its own rows.
        let y = unsafe { out.slice_mut(r.start * cols..r.end * cols) };
        for (y, &id) in y.chunks_exact_mut(cols.max(1)).zip(&ids[r]) {
            y.copy_from_slice(&table.data[id as usize * cols..][..cols]);
        }
    });
    Ok(y)
}

/// Every element of the table sums its tokens in their order; tasks split the columns.
pub(super) fn backward(cpu: &CpuBackend, tokens: &Tokens, dy: &Tensor, dtable: &mut Param) -> OpResult<()> {
    let (vocab, cols) = dtable.matrix();
    check_ids("embedding_backward", tokens, vocab)?;
    let ids = tokens.ids();
    check("embedding_backward", dy.shape() == (ids.len(), cols), || {
        format!("dy is {:?} for {} tokens and a table of {cols} columns", dy.shape(), ids.len())
    })?;
    let out = Shared::new(&mut dtable.data);
    cpu.workers.run(cols.div_ceil(COLUMNS), |task| {
        let c = piece(cols, COLUMNS, task);
        for (n, &id) in ids.iter().enumerate() {
            let at = id as usize * cols;
            // SAFETY: every task has its own columns.
            let target = unsafe { out.slice_mut(at + c.start..at + c.end) };
            add_scaled(target, &dy.row(n)[c.clone()], 1.0);
        }
    });
    Ok(())
}

simd_fn! {
    /// `y += a x`
    pub(super) fn add_scaled(y: &mut [f32], x: &[f32], a: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = a.mul_add(*x, *y);
        }
    }
}
