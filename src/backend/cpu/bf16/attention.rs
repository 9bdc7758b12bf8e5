//! Causal attention within a window, with an online softmax, on bfloat16 queries, keys and values.
//!
//! As [`super::super::attention`]: scores, their exponentials and all sums are f32. Weights `exp(score - maximum)` are
//! rounded to bfloat16 before they meet the values, whose sums go over pairs of positions: chunks, chains and pairs begin
//! at positions that are multiples of 256 and 2 whatever the window and wherever keys are kept, and what is masked adds
//! exact zeros.

use super::super::attention::Group as Queries;
use super::super::attention::{AttentionSaved, CHUNK, GROUPS, MAX_HEAD_DIM, TASK_QUERIES, panels, part_of};
use super::super::attention_scores::{Softmax, divide_row, log_sum_exps, seeing, softmax_chunk};
use super::super::backend::CpuBackend;
use super::super::tensor::check;
use super::super::workers::{Shared, piece};
use super::convert::narrow;
use super::dot::{ANY, Left, MR, NR, Store, Tile, Wide, micro};
use super::pack::{self, From, ROW_STRIDE};
use super::rows::uninit;
use super::storage::{Tensor, check_shape, pairs, pairs_mut};
use crate::ops::{AttentionShape, OpResult};

/// Distance of rows of scores.
pub(super) const SCORE_STRIDE: usize = super::super::gemm::ROW_STRIDE;

const _: () = assert!(CHUNK == 2 * super::dot::CHAIN && MAX_HEAD_DIM <= CHUNK);
// What `attend` takes of a thread's scratch.
const _: () = assert!(
    (TASK_QUERIES + MR) * ROW_STRIDE
        + TASK_QUERIES * (SCORE_STRIDE + MAX_HEAD_DIM)
        + (GROUPS + 1) * super::dot::WIDE_LEN
        <= super::super::workers::SCRATCH_LEN
);

/// Fails unless heads, sizes and tensors fit.
pub(super) fn check_attention(
    op: &'static str,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    s: &AttentionShape,
) -> OpResult<()> {
    super::super::attention::check_heads(op, s)?;
    check_shape(op, "q", q, s.sequence.rows(), s.n_head * s.head_dim)?;
    check_shape(op, "k", k, s.sequence.rows(), s.n_kv_head * s.head_dim)?;
    check_shape(op, "v", v, s.sequence.rows(), s.n_kv_head * s.head_dim)
}

/// Keys and values of one sequence and head, packed for the micro-kernel.
#[derive(Clone, Copy)]
pub(super) struct PackedHead<'a> {
    /// Panels of 32 keys, each D / 2 x 32 pairs.
    pub(super) keys: &'a [u32],
    /// Panels of 32 channels, each `positions` / 2 x 32 pairs.
    pub(super) values: &'a [u32],
    /// Positions there is room for.
    pub(super) positions: usize,
}

/// Room in pairs for `positions` keys, or as many values.
pub(in super::super) fn packed_len(positions: usize, head_dim: usize) -> (usize, usize) {
    (
        positions.next_multiple_of(NR) * head_dim.div_ceil(2),
        positions.div_ceil(2) * head_dim.next_multiple_of(NR),
    )
}

/// Where `count` lines of `len` values begin, `stride` apart, asserted to be inside `data`.
pub(super) fn lines(data: &[u16], stride: usize, count: usize, len: usize) -> From {
    let end = count.checked_sub(1).map_or(0, |last| last * stride + len);
    assert!(end <= data.len(), "a kernel would read out of bounds");
    From::Half(data.as_ptr())
}

pub(super) fn forward(
    cpu: &CpuBackend,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    s: &AttentionShape,
) -> OpResult<(Tensor, AttentionSaved)> {
    let op = "attention";
    check_attention(op, q, k, v, s)?;
    let (t, d) = (s.sequence.len, s.head_dim);
    let heads = s.sequence.batch * s.n_kv_head;
    let (key_len, value_len) = packed_len(t, d);
    let mut keys = cpu.pool.take(op, heads * key_len)?;
    let mut values = cpu.pool.take(op, heads * value_len)?;
    let (packed_k, packed_v) = (Shared::new(pairs_mut(&mut keys)), Shared::new(pairs_mut(&mut values)));
    let (kv_cols, q_cols) = (k.cols, q.cols);
    let (q_values, k_values, v_values) = (q.values(op)?, k.values(op)?, v.values(op)?);
    cpu.workers.run(2 * heads, |task| {
        let (head, is_value) = (task / 2, task % 2 == 1);
        let at = (head / s.n_kv_head) * t * kv_cols + (head % s.n_kv_head) * d;
        if t == 0 {
            return;
        }
        // SAFETY: every task packs its own head, whose T rows of D values are inside k and v.
        unsafe {
            if is_value {
                let dst = packed_v.slice_mut(head * value_len..(head + 1) * value_len);
                pack::panels(dst, lines(&v_values[at..], kv_cols, t, d), kv_cols, d, t);
            } else {
                let dst = packed_k.slice_mut(head * key_len..(head + 1) * key_len);
                pack::panels_transposed(dst, lines(&k_values[at..], kv_cols, t, d), kv_cols, t, d);
            }
        }
    });
    let mut o = uninit(cpu, op, q.rows, q_cols)?;
    let mut lse = cpu.pool.take(op, s.sequence.batch * s.n_head * t)?;
    let (out, saved) = (Shared::new(o.values_mut(op)?), Shared::new(&mut lse));
    let (keys, values) = (pairs(&keys), pairs(&values));
    let pieces = t.div_ceil(TASK_QUERIES);
    cpu.workers.run_with_scratch(s.sequence.batch * s.n_head * pieces, |task, scratch| {
        let (head, queries) = (task / pieces, piece(t, TASK_QUERIES, task % pieces));
        let (b, h) = (head / s.n_head, head % s.n_head);
        let kv_head = b * s.n_kv_head + h / (s.n_head / s.n_kv_head);
        let packed = PackedHead {
            keys: &keys[kv_head * key_len..(kv_head + 1) * key_len],
            values: &values[kv_head * value_len..(kv_head + 1) * value_len],
            positions: t,
        };
        let at = (b * t + queries.start) * q_cols + h * d;
        // SAFETY: every task has its own queries and head.
        let lse = unsafe { saved.slice_mut(head * t + queries.start..head * t + queries.end) };
        let (rows, position) = (queries.len(), queries.start);
        let group = Queries { rows, position, stride: q_cols, head_dim: d, window: s.window };
        // SAFETY: as above.
        unsafe { attend(&group, 0, &q_values[at..], &packed, out, at, lse, scratch) };
    });
    Ok((o, AttentionSaved(lse)))
}

/// Writes the attention of at most [`TASK_QUERIES`] queries to `out` from element `at` on, a row every `stride`, and their
/// log-sum-exps to `lse`. Keys begin at position `first_key`. Groups of twelve take turns as in f32.
///
/// # Safety
/// Nobody else touches those rows of `out`.
///
/// # Panics
/// Rows that are not in bounds: the kernels read and write by pointers from here on.
pub(super) unsafe fn attend(
    queries: &Queries,
    first_key: usize,
    q: &[u16],
    packed: &PackedHead<'_>,
    out: Shared<u16>,
    at: usize,
    lse: &mut [f32],
    scratch: &mut [f32],
) {
    let (d, rows) = (queries.head_dim, queries.rows);
    let depth = d.div_ceil(2);
    let width = d.next_multiple_of(NR);
    let scale = 1.0 / (d as f32).sqrt();
    let (near, rest) = scratch.split_at_mut(TASK_QUERIES * ROW_STRIDE);
    let (weights, rest) = rest.split_at_mut(MR * ROW_STRIDE);
    let (scores, rest) = rest.split_at_mut(TASK_QUERIES * SCORE_STRIDE);
    let (sums, rest) = rest.split_at_mut(TASK_QUERIES * width);
    let (near, weights) = (pairs_mut(near), pairs_mut(weights));
    // SAFETY: as `lines` asserts.
    unsafe { pack::rows(near, lines(q, queries.stride, rows, d), queries.stride, rows, d, None) };
    sums[..rows * width].fill(0.0);
    let mut softmax = [Softmax::new(); GROUPS];
    // Rows that meet several panels: queries those of keys, weights those of values.
    let (wides, wide) = Wide::in_scratch(rest).split_at_mut(GROUPS);
    let wide = &mut wide[0];
    let mut lefts = [Left::rows(near.as_ptr(), ROW_STRIDE); GROUPS];
    for (g, (left, wide)) in lefts.iter_mut().zip(wides).enumerate().take(queries.count()) {
        let rows = MR.min(rows - g * MR);
        // SAFETY: `near` has the rows of the group.
        *left = unsafe {
            Left::rows(near[g * MR * ROW_STRIDE..].as_ptr(), ROW_STRIDE).shared::<ANY>(rows, depth, wide)
        };
    }
    for chunk in queries.chunks(first_key) {
        let sights = queries.twelves().map(|group| group.sight(first_key, chunk));
        for panel in panels(&queries.sight(first_key, chunk).keys) {
            for (g, sight) in seeing(&sights) {
                let Some(part) = part_of(&panel, &sight.keys) else { continue };
                let (first, lane) = (part.start / NR, part.start % NR);
                let keys = &packed.keys[first * NR * depth + lane..(first + 1) * NR * depth];
                let tile = Tile {
                    nr: part.len(),
                    pairs: depth,
                    left: lefts[g],
                    b: keys.as_ptr(),
                    c: scores[g * MR * SCORE_STRIDE + part.start - chunk..].as_mut_ptr(),
                    ldc: SCORE_STRIDE,
                    store: Store::Set,
                };
                // SAFETY: the tile is inside `scores`: at most 12 rows, and columns below 256.
                unsafe { micro::<ANY>(sight.rows, &tile) };
            }
        }
        for (g, sight) in seeing(&sights) {
            let (low, high) = (sight.keys.start, sight.keys.end);
            let scores = &mut scores[g * MR * SCORE_STRIDE..];
            let sums = &mut sums[g * MR * width..];
            softmax_chunk(sight, scale, scores, sums, width, &mut softmax[g]);
            // Whole pairs of positions, with zeros for those that are no keys.
            let (from, to) = (low / 2, high.div_ceil(2));
            for i in 0..sight.rows {
                let row = &mut pack::halves(&mut weights[i * ROW_STRIDE..])[..2 * (to - from)];
                row[0] = 0;
                row[2 * (to - from) - 1] = 0;
                narrow(
                    &scores[i * SCORE_STRIDE + low - chunk..i * SCORE_STRIDE + high - chunk],
                    &mut row[low - 2 * from..],
                );
            }
            let left = Left::rows(weights.as_ptr(), ROW_STRIDE);
            // SAFETY: these pairs of the group's rows were set just now.
            let left = unsafe { left.shared::<ANY>(sight.rows, to - from, wide) };
            for j in (0..d).step_by(NR) {
                let half = packed.positions.div_ceil(2);
                let values = &packed.values[j * half + from * NR..j * half + to * NR];
                let tile = Tile {
                    nr: NR,
                    pairs: to - from,
                    left,
                    b: values.as_ptr(),
                    c: sums[j..].as_mut_ptr(),
                    ldc: width,
                    store: Store::Add,
                };
                // SAFETY: weights and sums have the rows, `values` the panel.
                unsafe { micro::<ANY>(sight.rows, &tile) };
            }
        }
    }
    for (i, sums) in sums.chunks_exact(width).enumerate().take(rows) {
        // The scores are done with.
        let row = &mut scores[..d];
        divide_row(row, &sums[..d], softmax[i / MR].total[i % MR]);
        // SAFETY: the caller's promise.
        narrow(row, unsafe { out.slice_mut(at + i * queries.stride..at + i * queries.stride + d) });
    }
    for (lse, softmax) in lse[..rows].chunks_mut(MR).zip(&softmax) {
        lse.copy_from_slice(&log_sum_exps(softmax, scale)[..lse.len()]);
    }
}

/// Fails unless a cache's queries and keys fit.
pub(super) fn check_cached(
    op: &'static str,
    q: &Tensor,
    (sequences, cols, len): (usize, usize, usize),
    s: &AttentionShape,
) -> OpResult<()> {
    super::super::attention::check_heads(op, s)?;
    check_shape(op, "q", q, s.sequence.rows(), s.n_head * s.head_dim)?;
    check(op, s.sequence.batch == sequences, || {
        format!("{} sequences, a cache of {sequences}", s.sequence.batch)
    })?;
    check(op, cols == s.n_kv_head * s.head_dim && s.sequence.len <= len, || {
        format!("{} queries of {s:?}, a cache of {len} rows and {cols} columns", s.sequence.len)
    })
}
