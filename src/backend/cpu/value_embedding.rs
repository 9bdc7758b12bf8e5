//! Gated value embeddings.

use super::backend::CpuBackend;
use super::embedding::{add_scaled, check_ids};
use super::pool::Buffer;
use super::simd::{dot, simd_fn};
use super::smear::dot_rows;
use super::tensor::{Param, Tensor, Tokens, check, check_shape};
use super::workers::Shared;
use crate::math::sigmoid;
use crate::ops::OpResult;

/// The sigmoid of every row's gate for every head (N, K).
#[derive(Debug)]
pub struct ValueSaved(pub(super) Buffer);

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
    table: &Param,
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
    Ok(Sizes { rows, cols, heads, head_dim: cols / heads, channels })
}

pub(super) fn forward(
    cpu: &CpuBackend,
    mut v: Tensor,
    h: &Tensor,
    table: &Param,
    tokens: &Tokens,
    gate: &Param,
    scale: f32,
) -> OpResult<(Tensor, ValueSaved)> {
    let s = sizes("value_embedding", &v, h, table, tokens, gate)?;
    let ids = tokens.ids();
    let mut gates = cpu.pool.take("value_embedding", s.rows * s.heads)?;
    let (out, saved) = (Shared::new(&mut v.data), Shared::new(&mut gates));
    cpu.for_row_chunks(s.rows, |r| {
        for n in r {
            // SAFETY: every task has its own rows.
            let (v, open) = unsafe {
                (out.slice_mut(n * s.cols..(n + 1) * s.cols), saved.slice_mut(n * s.heads..(n + 1) * s.heads))
            };
            let row = &table.data[ids[n] as usize * s.cols..][..s.cols];
            forward_row(v, row, &h.row(n)[..s.channels], &gate.data, open, scale);
        }
    });
    Ok((v, ValueSaved(gates)))
}

simd_fn! {
    pub(super) fn forward_row(v: &mut [f32], row: &[f32], h: &[f32], gate: &[f32], open: &mut [f32], scale: f32) {
        let head_dim = v.len() / open.len();
        for (k, open) in open.iter_mut().enumerate() {
            *open = sigmoid(dot(h, &gate[k * h.len()..(k + 1) * h.len()]));
            let factor = scale * *open;
            let range = k * head_dim..(k + 1) * head_dim;
            for (v, x) in v[range.clone()].iter_mut().zip(&row[range]) {
                *v = factor.mul_add(*x, *v);
            }
        }
    }
}

pub(super) fn backward(
    cpu: &CpuBackend,
    h: &Tensor,
    table: &Param,
    tokens: &Tokens,
    gate: &Param,
    scale: f32,
    saved: &ValueSaved,
    dv: &Tensor,
    dtable: &mut Param,
    dgate: &mut Param,
    dh: &mut Tensor,
) -> OpResult<()> {
    let op = "value_embedding_backward";
    let s = sizes(op, dv, h, table, tokens, gate)?;
    check_shape(op, "dh", dh, h.rows, h.cols)?;
    check(op, dtable.data.len() == table.data.len() && dgate.data.len() == gate.data.len(), || {
        "gradients of another shape than their weights".to_owned()
    })?;
    let ids = tokens.ids();
    let h_cols = h.cols;
    let out = Shared::new(&mut dh.data);
    let sums = cpu.sum_row_chunks(s.rows, s.heads * s.channels, |r, sums| {
        for n in r {
            // SAFETY: every task has its own rows.
            let dh = unsafe { out.slice_mut(n * h_cols..n * h_cols + s.channels) };
            let row = &table.data[ids[n] as usize * s.cols..][..s.cols];
            for k in 0..s.heads {
                let range = k * s.head_dim..(k + 1) * s.head_dim;
                let open = saved.0[n * s.heads + k];
                let along = dot_rows(&dv.row(n)[range.clone()], &row[range]);
                let dlogit = scale * along * open * (1.0 - open);
                let gate_row = k * s.channels..(k + 1) * s.channels;
                add_scaled(dh, &gate.data[gate_row.clone()], dlogit);
                add_scaled(&mut sums[gate_row], &h.row(n)[..s.channels], dlogit);
            }
        }
    })?;
    for (d, sum) in dgate.data.iter_mut().zip(&sums) {
        *d += *sum as f32;
    }
    // Tokens in order within each head's columns.
    let table_grad = Shared::new(&mut dtable.data);
    cpu.workers.run(s.heads, |k| {
        for (n, &id) in ids.iter().enumerate() {
            let at = id as usize * s.cols + k * s.head_dim;
            // SAFETY: every task has its own columns.
            let target = unsafe { table_grad.slice_mut(at..at + s.head_dim) };
            let factor = scale * saved.0[n * s.heads + k];
            add_scaled(target, &dv.row(n)[k * s.head_dim..(k + 1) * s.head_dim], factor);
        }
    });
    Ok(())
}
