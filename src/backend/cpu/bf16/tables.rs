//! Embedding tables: gathering rows, gated value embeddings, and gradients. A table, its gradient and its moments are in
//! bfloat16 where the model says that it is one; other weights are taken as they are.

use std::ops::Range;

use super::super::backend::{CpuBackend, ROW_CHUNK};
use super::super::embedding::{add_scaled, check_ids};
use super::super::smear::dot_rows;
use super::super::tensor::{Param, Tokens, check};
use super::super::value_embedding::{self, ValueSaved};
use super::super::workers::{SCRATCH_LEN, Shared, piece};
use super::convert::{narrow, widen};
use super::rows::{sum_rows, uninit};
use super::storage::{Stored, Tensor, check_shape};
use crate::ops::OpResult;

/// Columns of a task of the backward.
const COLUMNS: usize = 64;

/// Reads part of a table into f32.
fn read(table: &Stored, range: Range<usize>, to: &mut [f32]) {
    match table {
        Stored::Single(param) => to.copy_from_slice(&param.data[range]),
        Stored::Table(table) => widen(&table.data[range], to),
    }
}

pub(super) fn embedding(cpu: &CpuBackend, table: &Stored, tokens: &Tokens) -> OpResult<Tensor> {
    let op = "embedding";
    let (vocab, cols) = table.matrix();
    check_ids(op, tokens, vocab)?;
    let ids = tokens.ids();
    let mut y = uninit(cpu, op, ids.len(), cols)?;
    let out = Shared::new(y.values_mut(op)?);
    cpu.for_row_chunks(ids.len(), |r| {
        // SAFETY: every task has its own rows.
        let y = unsafe { out.slice_mut(r.start * cols..r.end * cols) };
        for (y, &id) in y.chunks_exact_mut(cols.max(1)).zip(&ids[r]) {
            let row = id as usize * cols..(id as usize + 1) * cols;
            match table {
                Stored::Single(param) => narrow(&param.data[row], y),
                Stored::Table(table) => y.copy_from_slice(&table.data[row]),
            }
        }
    });
    Ok(y)
}

/// Where tokens stand, those of one id together and in their order.
fn by_id(ids: &[i32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&n| ids[n as usize]);
    order
}

/// The gradient of a table, whose columns several tasks add to.
#[derive(Clone, Copy)]
enum Rows {
    Single(Shared<f32>),
    Table(Shared<u16>),
}

/// Adds to rows of a table's gradient what `add(token, columns, sums)` adds to f32 sums for each of its tokens, in their
/// order: a row is read, added to, and rounded once. `columns` are one task's.
fn scatter(
    cpu: &CpuBackend,
    ids: &[i32],
    cols: usize,
    width: usize,
    dtable: &mut Stored,
    add: impl Fn(usize, Range<usize>, &mut [f32], &mut [f32]) + Send + Sync,
) {
    let order = by_id(ids);
    let out = match dtable {
        Stored::Single(param) => Rows::Single(Shared::new(&mut param.data)),
        Stored::Table(table) => Rows::Table(Shared::new(&mut table.data)),
    };
    cpu.workers.run_with_scratch(cols.div_ceil(width.max(1)), |task, scratch| {
        let c = piece(cols, width, task);
        let (sums, scratch) = scratch.split_at_mut(c.len());
        for tokens in order.chunk_by(|&a, &b| ids[a as usize] == ids[b as usize]) {
            let at = ids[tokens[0] as usize] as usize * cols;
            let range = at + c.start..at + c.end;
            match out {
                Rows::Single(rows) => {
                    // SAFETY: every task has its own columns.
                    let row = unsafe { rows.slice_mut(range) };
                    for &n in tokens {
                        add(n as usize, c.clone(), row, scratch);
                    }
                }
                Rows::Table(rows) => {
                    // SAFETY: every task has its own columns.
                    let row = unsafe { rows.slice_mut(range) };
                    widen(row, sums);
                    for &n in tokens {
                        add(n as usize, c.clone(), sums, scratch);
                    }
                    narrow(sums, row);
                }
            }
        }
    });
}

pub(super) fn embedding_backward(
    cpu: &CpuBackend,
    tokens: &Tokens,
    dy: &Tensor,
    dtable: &mut Stored,
) -> OpResult<()> {
    let op = "embedding_backward";
    let (vocab, cols) = dtable.matrix();
    check_ids(op, tokens, vocab)?;
    let ids = tokens.ids();
    check(op, dy.shape() == (ids.len(), cols), || {
        format!("dy is {:?} for {} tokens and a table of {cols} columns", dy.shape(), ids.len())
    })?;
    let dy = dy.values(op)?;
    scatter(cpu, ids, cols, COLUMNS, dtable, |n, c, sums, scratch| {
        let row = &mut scratch[..c.len()];
        widen(&dy[n * cols + c.start..n * cols + c.end], row);
        add_scaled(sums, row, 1.0);
    });
    Ok(())
}

struct Sizes {
    rows: usize,
    cols: usize,
    heads: usize,
    head_dim: usize,
    channels: usize,
}

fn sizes(
    op: &'static str,
    v: &Tensor,
    h: &Tensor,
    table: &Stored,
    tokens: &Tokens,
    gate: &Param,
) -> OpResult<Sizes> {
    let (rows, cols) = v.shape();
    let (vocab, width) = table.matrix();
    let (heads, channels) = gate.matrix();
    check_ids(op, tokens, vocab)?;
    check(op, tokens.ids().len() == rows && h.rows == rows, || {
        format!("{rows} rows of v, {} of h, {} tokens", h.rows, tokens.ids().len())
    })?;
    check(op, width == cols && heads > 0 && cols % heads == 0 && channels <= h.cols, || {
        format!("v has {cols} columns, the table {width}, the gate {heads} heads of {channels} channels")
    })?;
    check(op, 2 * cols + channels <= SCRATCH_LEN, || format!("rows of {cols} values"))?;
    Ok(Sizes { rows, cols, heads, head_dim: cols / heads, channels })
}

pub(super) fn value_embedding(
    cpu: &CpuBackend,
    mut v: Tensor,
    h: &Tensor,
    table: &Stored,
    tokens: &Tokens,
    gate: &Param,
    scale: f32,
) -> OpResult<(Tensor, ValueSaved)> {
    let op = "value_embedding";
    let s = sizes(op, &v, h, table, tokens, gate)?;
    let ids = tokens.ids();
    let h_cols = h.cols;
    let h = h.values(op)?;
    let mut gates = cpu.pool.take(op, s.rows * s.heads)?;
    let (out, saved) = (Shared::new(v.values_mut(op)?), Shared::new(&mut gates));
    cpu.workers.run_with_scratch(s.rows.div_ceil(ROW_CHUNK), |task, scratch| {
        let (wide, rest) = scratch.split_at_mut(s.cols);
        let (row, rest) = rest.split_at_mut(s.cols);
        let input = &mut rest[..s.channels];
        for n in piece(s.rows, ROW_CHUNK, task) {
            // SAFETY: every task has its own rows.
            let (v, open) = unsafe {
                (out.slice_mut(n * s.cols..(n + 1) * s.cols), saved.slice_mut(n * s.heads..(n + 1) * s.heads))
            };
            let at = ids[n] as usize * s.cols;
            read(table, at..at + s.cols, row);
            widen(&h[n * h_cols..][..s.channels], input);
            widen(v, wide);
            value_embedding::forward_row(wide, row, input, &gate.data, open, scale);
            narrow(wide, v);
        }
    });
    Ok((v, ValueSaved(gates)))
}

pub(super) fn value_embedding_backward(
    cpu: &CpuBackend,
    h: &Tensor,
    table: &Stored,
    tokens: &Tokens,
    gate: &Param,
    scale: f32,
    saved: &ValueSaved,
    dv: &Tensor,
    dtable: &mut Stored,
    dgate: &mut Param,
    dh: &mut Tensor,
) -> OpResult<()> {
    let op = "value_embedding_backward";
    let s = sizes(op, dv, h, table, tokens, gate)?;
    check_shape(op, "dh", dh, h.rows, h.cols)?;
    check(op, dtable.len() == table.len() && dgate.data.len() == gate.data.len(), || {
        "gradients of another shape than their weights".to_owned()
    })?;
    let ids = tokens.ids();
    let h_cols = h.cols;
    let (h, dv) = (h.values(op)?, dv.values(op)?);
    let out = Shared::new(dh.values_mut(op)?);
    let sums = sum_rows(cpu, s.rows, s.heads * s.channels, |n, sums, scratch| {
        let (row, rest) = scratch.split_at_mut(s.cols);
        let (dv_row, rest) = rest.split_at_mut(s.cols);
        let (input, rest) = rest.split_at_mut(s.channels);
        let dinput = &mut rest[..s.channels];
        // SAFETY: every row is one task's.
        let dh = unsafe { out.slice_mut(n * h_cols..n * h_cols + s.channels) };
        let at = ids[n] as usize * s.cols;
        read(table, at..at + s.cols, row);
        widen(&dv[n * s.cols..(n + 1) * s.cols], dv_row);
        widen(&h[n * h_cols..][..s.channels], input);
        widen(dh, dinput);
        for k in 0..s.heads {
            let range = k * s.head_dim..(k + 1) * s.head_dim;
            let open = saved.0[n * s.heads + k];
            let along = dot_rows(&dv_row[range.clone()], &row[range]);
            let dlogit = scale * along * open * (1.0 - open);
            let gate_row = k * s.channels..(k + 1) * s.channels;
            add_scaled(dinput, &gate.data[gate_row.clone()], dlogit);
            add_scaled(&mut sums[gate_row], input, dlogit);
        }
        narrow(dinput, dh);
    })?;
    for (d, sum) in dgate.data.iter_mut().zip(&sums) {
        *d += *sum as f32;
    }
    // A task has the columns of one head.
    scatter(cpu, ids, s.cols, s.head_dim, dtable, |n, c, sums, scratch| {
        let row = &mut scratch[..c.len()];
        widen(&dv[n * s.cols + c.start..n * s.cols + c.end], row);
        add_scaled(sums, row, scale * saved.0[n * s.heads + c.start / s.head_dim]);
    });
    Ok(())
}
