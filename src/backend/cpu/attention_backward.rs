//! Backward of attention (FlashAttention-2, arXiv 2307.08691), without atomics.
//!
//! A task has some keys and queries of one sequence and key head ([`super::attention_split`]). It walks over chunks of keys
//! and, within them, over tiles of queries, so the gradients of its keys, values and queries are summed in one fixed order.
//! Scores are recomputed from q and k.

use super::attention::{AttentionSaved, MAX_HEAD_DIM, check_attention, panels, part_of};
use super::attention_scores::{Sight, score_rows, seeing};
use super::attention_split::{KEYS, Split, Task};
use super::backend::CpuBackend;
use super::gemm::pack::{self, lines};
use super::gemm::{ANY, MR, NR, Panel, ROW_STRIDE, Rows, Store, micro};
use super::query_sums::QuerySums;
use super::simd::{dot, simd_fn};
use super::tensor::{Tensor, check_shape};
use super::workers::Shared;
use crate::ops::{AttentionShape, OpResult};

/// Queries of a tile: a numerics constant.
const QUERIES: usize = 8 * MR;

const _: () = assert!(Chunk::len(MAX_HEAD_DIM) + Tile::len(MAX_HEAD_DIM) <= super::workers::SCRATCH_LEN);

pub(super) fn backward(
    cpu: &CpuBackend,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    o: &Tensor,
    saved: &AttentionSaved,
    s: &AttentionShape,
    d_o: &Tensor,
) -> OpResult<(Tensor, Tensor, Tensor)> {
    backward_by(cpu, q, k, v, o, saved, s, d_o, &Split::new(s, cpu.workers.count()))
}

/// The backward, shared out in a given way.
pub(super) fn backward_by(
    cpu: &CpuBackend,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    o: &Tensor,
    saved: &AttentionSaved,
    s: &AttentionShape,
    d_o: &Tensor,
    split: &Split,
) -> OpResult<(Tensor, Tensor, Tensor)> {
    let op = "attention_backward";
    check_attention(op, q, k, v, s)?;
    check_shape(op, "o", o, q.rows, q.cols)?;
    check_shape(op, "d_o", d_o, q.rows, q.cols)?;
    let mut dq = cpu.tensor_uninit(op, q.rows, q.cols)?;
    let mut dk = cpu.tensor_uninit(op, k.rows, k.cols)?;
    let mut dv = cpu.tensor_uninit(op, v.rows, v.cols)?;
    let mut delta = cpu.pool.take(op, s.sequence.batch * s.n_head * s.sequence.len)?;
    row_deltas(cpu, o, d_o, s, &mut delta);
    let mut apart = cpu.pool.take(op, split.apart_rows() * q.cols)?;
    let inputs = Inputs { q, k, v, d_o, lse: &saved.0, delta: &delta, shape: *s };
    let outputs = Outputs {
        dq: Shared::new(&mut dq.data),
        apart: Shared::new(&mut apart),
        dk: Shared::new(&mut dk.data),
        dv: Shared::new(&mut dv.data),
    };
    cpu.workers.run_in_order(split.count(), |task, scratch| {
        // SAFETY: every task has its own keys and queries of a sequence and its heads.
        unsafe { part_backward(&inputs, &outputs, &split.task(task), scratch) };
    });
    if split.is_apart() {
        cpu.for_row_chunks(q.rows, |rows| {
            for n in rows {
                // SAFETY: every row is of one task.
                let row = unsafe { outputs.dq.slice_mut(n * q.cols..(n + 1) * q.cols) };
                row.fill(0.0);
                for part in split.rows_of(n / s.sequence.len, n % s.sequence.len) {
                    add_row(row, &apart[part * q.cols..(part + 1) * q.cols]);
                }
            }
        });
    }
    Ok((dq, dk, dv))
}

simd_fn! {
    pub(super) fn add_row(to: &mut [f32], x: &[f32]) {
        for (to, x) in to.iter_mut().zip(x) {
            *to += x;
        }
    }
}

/// `sum_d o d_o` of every query, (B, H, T).
fn row_deltas(cpu: &CpuBackend, o: &Tensor, d_o: &Tensor, s: &AttentionShape, delta: &mut [f32]) {
    let (t, d) = (s.sequence.len, s.head_dim);
    let out = Shared::new(delta);
    cpu.for_row_chunks(o.rows, |rows| {
        for n in rows {
            for h in 0..s.n_head {
                let value = row_dot(&o.row(n)[h * d..(h + 1) * d], &d_o.row(n)[h * d..(h + 1) * d]);
                // SAFETY: every row has its own entries.
                unsafe { *out.reach((n / t * s.n_head + h) * t + n % t, 1) = value };
            }
        }
    });
}

simd_fn! {
    pub(super) fn row_dot(x: &[f32], y: &[f32]) -> f32 {
        dot(x, y)
    }
}

struct Inputs<'a> {
    q: &'a Tensor,
    k: &'a Tensor,
    v: &'a Tensor,
    d_o: &'a Tensor,
    lse: &'a [f32],
    delta: &'a [f32],
    shape: AttentionShape,
}

#[derive(Clone, Copy)]
struct Outputs {
    dq: Shared<f32>,
    /// What chunks of keys add to gradients of queries, where that is kept apart.
    apart: Shared<f32>,
    dk: Shared<f32>,
    dv: Shared<f32>,
}

/// One task.
unsafe fn part_backward(x: &Inputs<'_>, outputs: &Outputs, task: &Task, scratch: &mut [f32]) {
    let s = &x.shape;
    let (t, d) = (s.sequence.len, s.head_dim);
    let kv_cols = x.k.cols;
    let width = d.next_multiple_of(NR);
    let group = s.n_head / s.n_kv_head;
    let (b, kv_head) = (task.b, task.kv_head);
    let Outputs { dq, apart, dk, dv } = *outputs;
    let query_sums = QuerySums::new(task, s, dq, apart);
    let (chunk_room, tile_room) = scratch.split_at_mut(Chunk::len(width));
    let chunk = Chunk::new(chunk_room, width);
    // Up to here gradients of queries have begun; further ones do when their tile comes.
    let mut begun = task.queries.start;
    for first in (task.keys.start / KEYS * KEYS..task.keys.end).step_by(KEYS) {
        let (low, high) = (first.max(task.keys.start), task.keys.end.min(first + KEYS));
        let (from, to) = (low.max(task.queries.start), task.queries.end.min(high.saturating_add(s.window)));
        if from >= to {
            continue;
        }
        let at = (b * t + low) * kv_cols + kv_head * d;
        let rows = high - low;
        let (k, v) = (lines(&x.k.data[at..], kv_cols, rows, d), lines(&x.v.data[at..], kv_cols, rows, d));
        // SAFETY: rows `low .. high` of this head, asserted to be inside k and v.
        unsafe {
            pack::panels_transposed(chunk.keys_t, k, kv_cols, rows, d);
            pack::panels_transposed(chunk.values_t, v, kv_cols, rows, d);
            if task.wanted.queries() {
                pack::panels(chunk.keys, k, kv_cols, d, rows);
            }
        }
        if task.wanted.keys() {
            chunk.key_sums[..rows * width].fill(0.0);
            chunk.value_sums[..rows * width].fill(0.0);
        }
        for h in kv_head * group..(kv_head + 1) * group {
            for tile_start in (from / QUERIES * QUERIES..to).step_by(QUERIES) {
                let (start, end) = (tile_start.max(from), to.min(tile_start + QUERIES));
                let mut tile = Tile::new(tile_room, width, b, h, low, high, start, end);
                // SAFETY: this task's heads, keys and queries.
                unsafe {
                    tile.scores(x, chunk.keys_t, chunk.values_t);
                    if task.wanted.queries() {
                        query_sums.begin(begun.max(start)..end, h);
                        tile.query_gradients(x, chunk.keys, query_sums);
                    }
                    if task.wanted.keys() {
                        tile.key_gradients(x, chunk.key_sums, chunk.value_sums);
                    }
                }
            }
        }
        begun = to;
        if task.wanted.keys() {
            for row in 0..rows {
                let at = at + row * kv_cols;
                // SAFETY: this task's keys.
                unsafe {
                    dk.slice_mut(at..at + d).copy_from_slice(&chunk.key_sums[row * width..][..d]);
                    dv.slice_mut(at..at + d).copy_from_slice(&chunk.value_sums[row * width..][..d]);
                }
            }
        }
    }
}

/// A chunk of keys.
struct Chunk<'a> {
    /// Panels of keys and values as right sides of scores, and of keys as that of dq.
    keys_t: &'a mut [f32],
    values_t: &'a mut [f32],
    keys: &'a mut [f32],
    /// Sums of the gradients of keys and values: near each other, where rows of a model's are far apart and every tile adds
    /// to them.
    key_sums: &'a mut [f32],
    value_sums: &'a mut [f32],
}

impl<'a> Chunk<'a> {
    /// Scratch for one.
    const fn len(width: usize) -> usize {
        5 * KEYS * width
    }

    fn new(scratch: &'a mut [f32], width: usize) -> Self {
        let (keys_t, rest) = scratch.split_at_mut(KEYS * width);
        let (values_t, rest) = rest.split_at_mut(KEYS * width);
        let (keys, rest) = rest.split_at_mut(KEYS * width);
        let (key_sums, value_sums) = rest.split_at_mut(KEYS * width);
        Self { keys_t, values_t, keys, key_sums, value_sums }
    }
}

/// Queries `start .. end` of head h against keys `low .. high`.
struct Tile<'a> {
    /// Rows of q and d_o, `width` apart: left sides of scores, and right sides of dk and dv.
    q_rows: &'a mut [f32],
    do_rows: &'a mut [f32],
    /// Weights, and the gradients of the scores; row i of either at `i * ROW_STRIDE`.
    weights: &'a mut [f32],
    dscores: &'a mut [f32],
    width: usize,
    b: usize,
    h: usize,
    low: usize,
    high: usize,
    start: usize,
    end: usize,
}

impl<'a> Tile<'a> {
    /// Scratch for one.
    const fn len(width: usize) -> usize {
        2 * QUERIES * (width + ROW_STRIDE)
    }

    fn new(
        scratch: &'a mut [f32],
        width: usize,
        b: usize,
        h: usize,
        low: usize,
        high: usize,
        start: usize,
        end: usize,
    ) -> Self {
        let (q_rows, rest) = scratch.split_at_mut(QUERIES * width);
        let (do_rows, rest) = rest.split_at_mut(QUERIES * width);
        let (weights, rest) = rest.split_at_mut(QUERIES * ROW_STRIDE);
        let (dscores, _) = rest.split_at_mut(QUERIES * ROW_STRIDE);
        Self { q_rows, do_rows, weights, dscores, width, b, h, low, high, start, end }
    }

    fn rows(&self) -> usize {
        self.end - self.start
    }

    /// What up to `rows` queries, the first of which is the `i`-th, see of the chunk.
    fn sight(&self, i: usize, rows: usize, window: usize) -> Sight {
        let rows = rows.min(self.rows().saturating_sub(i));
        Sight::new(rows, self.start + i, window, self.low, &(self.low..self.high))
    }

    /// The same, twelve by twelve; groups behind the last query see nothing.
    fn sights(&self, window: usize) -> [Sight; QUERIES / MR] {
        std::array::from_fn(|g| self.sight(g * MR, MR, window))
    }

    /// Weights and gradients of scores; zero where masked, where half a panel was not computed, and for a panel on
    /// either side of what is seen.
    unsafe fn scores(&mut self, x: &Inputs<'_>, keys_t: &[f32], values_t: &[f32]) {
        let (t, d, window, cols) = (x.shape.sequence.len, x.shape.head_dim, x.shape.window, x.q.cols);
        let scale = 1.0 / (d as f32).sqrt();
        let from = (self.b * t + self.start) * cols + self.h * d;
        let all = self.sight(0, self.rows(), window);
        let sights = self.sights(window);
        for (source, near, right, to) in [
            (&x.q.data, &mut *self.q_rows, keys_t, &mut *self.weights),
            (&x.d_o.data, &mut *self.do_rows, values_t, &mut *self.dscores),
        ] {
            for (row, to) in near.chunks_exact_mut(self.width).enumerate().take(self.end - self.start) {
                to[..d].copy_from_slice(&source[from + row * cols..][..d]);
            }
            // Groups of twelve queries take turns at each panel of keys, which is near then.
            for panel in panels(&all.columns()) {
                for (g, sight) in seeing(&sights) {
                    let Some(keys) = part_of(&panel, &sight.columns()) else { continue };
                    // SAFETY: tiles inside the scratch, whole or half panels inside the packed chunk.
                    unsafe {
                        micro::<ANY, 1>(
                            sight.rows,
                            keys.len(),
                            d,
                            Rows { a: near[g * MR * self.width..].as_ptr(), stride: self.width },
                            Panel::packed(right[keys.start / NR * NR * d + keys.start % NR..].as_ptr()),
                            to[g * MR * ROW_STRIDE + keys.start..].as_mut_ptr(),
                            ROW_STRIDE,
                            Store::Set,
                        );
                    }
                }
            }
        }
        for (g, sight) in seeing(&sights) {
            let columns = sight.columns();
            let (left, right) = (columns.start / NR * NR, columns.end.next_multiple_of(NR));
            let cleared = left.saturating_sub(NR)..(right + NR).min(KEYS);
            let at = (self.b * x.shape.n_head + self.h) * t + self.start + g * MR;
            let (lse, delta) = (&x.lse[at..at + sight.rows], &x.delta[at..at + sight.rows]);
            let (weights, dscores) =
                (&mut self.weights[g * MR * ROW_STRIDE..], &mut self.dscores[g * MR * ROW_STRIDE..]);
            score_rows(sight, &cleared, weights, dscores, scale, lse, delta);
        }
    }

    /// `dq += dscores k`
    unsafe fn query_gradients(&self, x: &Inputs<'_>, keys: &[f32], sums: QuerySums) {
        let d = x.shape.head_dim;
        let chunk = self.high - self.low;
        let sights = self.sights(x.shape.window);
        for j in (0..d).step_by(NR) {
            let nr = NR.min(d - j);
            for (g, sight) in seeing(&sights) {
                let columns = sight.columns();
                // SAFETY: dscores and keys hold what is seen; the rows of sums are this task's.
                unsafe {
                    micro::<ROW_STRIDE, 1>(
                        sight.rows,
                        nr,
                        columns.len(),
                        Rows::at(self.dscores.as_ptr().add(g * MR * ROW_STRIDE + columns.start)),
                        Panel::packed(keys[j * chunk + columns.start * NR..].as_ptr()),
                        sums.tile(self.start + g * MR, sight.rows, self.h, j, nr),
                        sums.cols,
                        sums.store,
                    );
                }
            }
        }
    }

    /// `dv += weights^T d_o`, `dk += dscores^T q`
    unsafe fn key_gradients(&self, x: &Inputs<'_>, key_sums: &mut [f32], value_sums: &mut [f32]) {
        let (d, width) = (x.shape.head_dim, self.width);
        for (left, right, sums) in
            [(&*self.weights, &*self.do_rows, value_sums), (&*self.dscores, &*self.q_rows, key_sums)]
        {
            for j in (0..d).step_by(NR) {
                let nr = NR.min(d - j);
                for key in (self.low..self.high).step_by(MR) {
                    let keys = MR.min(self.high - key);
                    let first = key.max(self.start);
                    let end = (key + keys).saturating_add(x.shape.window).min(self.end);
                    if first >= end {
                        continue;
                    }
                    let (row, column) = (first - self.start, key - self.low);
                    // SAFETY: `scores` set these weights and dscores; right sides and sums have rows of `width`.
                    unsafe {
                        micro::<1, ROW_STRIDE>(
                            keys,
                            nr,
                            end - first,
                            Rows::at(left[row * ROW_STRIDE + column..].as_ptr()),
                            Panel { b: right[row * width + j..].as_ptr(), stride: width },
                            sums[column * width + j..].as_mut_ptr(),
                            width,
                            Store::Add,
                        );
                    }
                }
            }
        }
    }
}
