//! Backward of attention (FlashAttention-2, arXiv 2307.08691), without atomics.
//!
//! A task owns one sequence and key head. It walks over chunks of keys and, within them, over tiles of queries, so the
//! gradients of its keys, values and queries are summed in one fixed order. Scores are recomputed from q and k.

use super::attention::{AttentionSaved, MAX_HEAD_DIM, check_attention, panels};
use super::backend::CpuBackend;
use super::gemm::pack::{self, lines};
use super::gemm::{ANY, KC, MR, NR, ROW_STRIDE, Rows, Store, micro, rows_near};
use super::simd::{dot, simd_fn};
use super::tensor::{Tensor, check_shape};
use super::workers::Shared;
use crate::math::exp;
use crate::ops::{AttentionShape, OpResult};

/// Keys of a chunk: a numerics constant.
const KEYS: usize = KC;
/// Queries of a tile: a numerics constant.
const QUERIES: usize = 8 * MR;

// A chunk's keys twice and its values once, and a tile.
const _: () = assert!(3 * KEYS * MAX_HEAD_DIM + Tile::len(MAX_HEAD_DIM) <= super::workers::SCRATCH_LEN);

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
    let op = "attention_backward";
    check_attention(op, q, k, v, s)?;
    check_shape(op, "o", o, q.rows, q.cols)?;
    check_shape(op, "d_o", d_o, q.rows, q.cols)?;
    let mut dq = cpu.tensor_uninit(op, q.rows, q.cols)?;
    let mut dk = cpu.tensor_uninit(op, k.rows, k.cols)?;
    let mut dv = cpu.tensor_uninit(op, v.rows, v.cols)?;
    let mut delta = cpu.pool.take(op, s.sequence.batch * s.n_head * s.sequence.len)?;
    row_deltas(cpu, o, d_o, s, &mut delta);
    let inputs = Inputs { q, k, v, d_o, lse: &saved.0, delta: &delta, shape: *s };
    let outputs = [Shared::new(&mut dq.data), Shared::new(&mut dk.data), Shared::new(&mut dv.data)];
    cpu.workers.run_with_scratch(s.sequence.batch * s.n_kv_head, |task, scratch| {
        // SAFETY: every task has its own sequence and heads.
        unsafe { head_backward(&inputs, outputs, task / s.n_kv_head, task % s.n_kv_head, scratch) };
    });
    Ok((dq, dk, dv))
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

/// All of one key head of one sequence.
unsafe fn head_backward(
    x: &Inputs<'_>,
    outputs: [Shared<f32>; 3],
    b: usize,
    kv_head: usize,
    scratch: &mut [f32],
) {
    let s = &x.shape;
    let (t, d) = (s.sequence.len, s.head_dim);
    let (q_cols, kv_cols) = (x.q.cols, x.k.cols);
    let width = d.next_multiple_of(NR);
    let group = s.n_head / s.n_kv_head;
    let [dq, dk, dv] = outputs;
    for n in b * t..(b + 1) * t {
        let (at, q_at) = (n * kv_cols + kv_head * d, n * q_cols + kv_head * group * d);
        // SAFETY: this task's heads.
        unsafe {
            dk.slice_mut(at..at + d).fill(0.0);
            dv.slice_mut(at..at + d).fill(0.0);
            dq.slice_mut(q_at..q_at + group * d).fill(0.0);
        }
    }
    let (keys_t, rest) = scratch.split_at_mut(KEYS * d);
    let (values_t, rest) = rest.split_at_mut(KEYS * d);
    let (keys, rest) = rest.split_at_mut(KEYS * width);
    let (tile, _) = rest.split_at_mut(Tile::len(width));
    for low in (0..t).step_by(KEYS) {
        let high = t.min(low + KEYS);
        let at = (b * t + low) * kv_cols + kv_head * d;
        let rows = high - low;
        let (k, v) = (lines(&x.k.data[at..], kv_cols, rows, d), lines(&x.v.data[at..], kv_cols, rows, d));
        // SAFETY: rows `low .. high` of this head, asserted to be inside k and v.
        unsafe {
            pack::panels_transposed(keys_t, k, kv_cols, rows, d);
            pack::panels_transposed(values_t, v, kv_cols, rows, d);
            pack::panels(keys, k, kv_cols, d, rows);
        }
        let last = t.min((high - 1).saturating_add(s.window).saturating_add(1));
        for h in kv_head * group..(kv_head + 1) * group {
            for tile_start in (low / QUERIES * QUERIES..last).step_by(QUERIES) {
                let (start, end) = (tile_start.max(low), last.min(tile_start + QUERIES));
                let mut tile = Tile::new(tile, width, b, h, low, high, start, end);
                // SAFETY: this task's heads.
                unsafe {
                    tile.load(x);
                    tile.scores(x, keys_t, values_t);
                    tile.query_gradients(x, keys, dq);
                    tile.key_gradients(x, kv_head, dk, dv);
                }
            }
        }
    }
}

/// Queries `start .. end` of head h against keys `low .. high`.
struct Tile<'a> {
    /// Room for rows of q and d_o for the micro-kernel's left side.
    q_rows: &'a mut [f32],
    do_rows: &'a mut [f32],
    /// Panels of them for its right side.
    q_panels: &'a mut [f32],
    do_panels: &'a mut [f32],
    /// Weights, and the gradients of the scores; row i of either at `i * ROW_STRIDE`.
    weights: &'a mut [f32],
    dscores: &'a mut [f32],
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
        2 * (MR + QUERIES) * ROW_STRIDE + 2 * QUERIES * width
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
        let (q_rows, rest) = scratch.split_at_mut(MR * ROW_STRIDE);
        let (do_rows, rest) = rest.split_at_mut(MR * ROW_STRIDE);
        let (weights, rest) = rest.split_at_mut(QUERIES * ROW_STRIDE);
        let (dscores, rest) = rest.split_at_mut(QUERIES * ROW_STRIDE);
        let (q_panels, do_panels) = rest.split_at_mut(QUERIES * width);
        Self { q_rows, do_rows, q_panels, do_panels, weights, dscores, b, h, low, high, start, end }
    }

    fn rows(&self) -> usize {
        self.end - self.start
    }

    unsafe fn load(&mut self, x: &Inputs<'_>) {
        let (t, d, cols) = (x.shape.sequence.len, x.shape.head_dim, x.q.cols);
        let at = (self.b * t + self.start) * cols + self.h * d;
        let rows = self.rows();
        let (q, d_o) = (lines(&x.q.data[at..], cols, rows, d), lines(&x.d_o.data[at..], cols, rows, d));
        // SAFETY: `rows` rows of this head, asserted to be inside q and d_o.
        unsafe {
            pack::panels(self.q_panels, q, cols, d, rows);
            pack::panels(self.do_panels, d_o, cols, d, rows);
        }
    }

    /// Keys that some of `rows` queries from `query` see, within the chunk; never none, by the choice of tiles.
    fn seen(&self, query: usize, rows: usize, window: usize) -> (usize, usize) {
        (query.saturating_sub(window).max(self.low), (query + rows).min(self.high))
    }

    /// Weights and gradients of scores; zero where masked, where half a panel was not computed, and for a panel on
    /// either side of what is seen.
    unsafe fn scores(&mut self, x: &Inputs<'_>, keys_t: &[f32], values_t: &[f32]) {
        let (t, d, window, cols) = (x.shape.sequence.len, x.shape.head_dim, x.shape.window, x.q.cols);
        let scale = 1.0 / (d as f32).sqrt();
        for i in (0..self.rows()).step_by(MR) {
            let rows = MR.min(self.rows() - i);
            let (first, end) = self.seen(self.start + i, rows, window);
            let (left, right) = ((first - self.low) / NR * NR, (end - self.low).next_multiple_of(NR));
            let at = (self.b * t + self.start + i) * cols + self.h * d;
            let (q, d_o) = (lines(&x.q.data[at..], cols, rows, d), lines(&x.d_o.data[at..], cols, rows, d));
            // SAFETY: `rows` rows of this head, asserted to be inside q and d_o.
            let (q, d_o) = unsafe {
                (rows_near(self.q_rows, q, cols, rows, d), rows_near(self.do_rows, d_o, cols, rows, d))
            };
            for keys in panels(first - self.low, end - self.low) {
                let tile = i * ROW_STRIDE + keys.start;
                let panel = keys.start / NR * NR * d + keys.start % NR;
                // SAFETY: tiles inside the scratch, whole or half panels inside the packed chunk.
                unsafe {
                    micro::<ANY, 1>(
                        rows,
                        keys.len(),
                        d,
                        q,
                        keys_t[panel..].as_ptr(),
                        self.weights.as_mut_ptr().add(tile),
                        ROW_STRIDE,
                        Store::Set,
                    );
                    micro::<ANY, 1>(
                        rows,
                        keys.len(),
                        d,
                        d_o,
                        values_t[panel..].as_ptr(),
                        self.dscores.as_mut_ptr().add(tile),
                        ROW_STRIDE,
                        Store::Set,
                    );
                }
            }
            let (zero_left, zero_right) = (left.saturating_sub(NR), (right + NR).min(KEYS));
            for row in i..i + rows {
                let query = self.start + row;
                let at = (self.b * x.shape.n_head + self.h) * t + query;
                let (first, end) = self.seen(query, 1, window);
                let range = row * ROW_STRIDE..row * ROW_STRIDE + KEYS;
                let (weights, dscores) = (&mut self.weights[range.clone()], &mut self.dscores[range]);
                let (start, end) = (first - self.low, end - self.low);
                for values in [&mut *weights, &mut *dscores] {
                    values[zero_left..start].fill(0.0);
                    values[end..zero_right].fill(0.0);
                }
                score_row(&mut weights[start..end], &mut dscores[start..end], scale, x.lse[at], x.delta[at]);
            }
        }
    }

    /// `dq += dscores k`
    unsafe fn query_gradients(&self, x: &Inputs<'_>, keys: &[f32], dq: Shared<f32>) {
        let (t, d, cols) = (x.shape.sequence.len, x.shape.head_dim, x.q.cols);
        let chunk = self.high - self.low;
        for i in (0..self.rows()).step_by(MR) {
            let rows = MR.min(self.rows() - i);
            let (first, end) = self.seen(self.start + i, rows, x.shape.window);
            for j in (0..d).step_by(NR) {
                let at = (self.b * t + self.start + i) * cols + self.h * d + j;
                let nr = NR.min(d - j);
                // SAFETY: dscores and keys hold what is seen; the rows of dq are this task's.
                unsafe {
                    micro::<ROW_STRIDE, 1>(
                        rows,
                        nr,
                        end - first,
                        Rows::at(self.dscores.as_ptr().add(i * ROW_STRIDE + first - self.low)),
                        keys[j * chunk + (first - self.low) * NR..].as_ptr(),
                        dq.reach(at, (rows - 1) * cols + nr),
                        cols,
                        Store::Add,
                    );
                }
            }
        }
    }

    /// `dv += weights^T d_o`, `dk += dscores^T q`
    unsafe fn key_gradients(&self, x: &Inputs<'_>, kv_head: usize, dk: Shared<f32>, dv: Shared<f32>) {
        let (t, d, cols) = (x.shape.sequence.len, x.shape.head_dim, x.k.cols);
        for key in (self.low..self.high).step_by(MR) {
            let keys = MR.min(self.high - key);
            let first = key.max(self.start);
            let end = (key + keys).saturating_add(x.shape.window).min(self.end);
            if first >= end {
                continue;
            }
            let a = (first - self.start) * ROW_STRIDE + key - self.low;
            for j in (0..d).step_by(NR) {
                let panel = j * self.rows() + (first - self.start) * NR;
                let at = (self.b * t + key) * cols + kv_head * d + j;
                let nr = NR.min(d - j);
                // SAFETY: `scores` set these weights and dscores; the rows of dk and dv are this task's.
                unsafe {
                    micro::<1, ROW_STRIDE>(
                        keys,
                        nr,
                        end - first,
                        Rows::at(self.weights.as_ptr().add(a)),
                        self.do_panels[panel..].as_ptr(),
                        dv.reach(at, (keys - 1) * cols + nr),
                        cols,
                        Store::Add,
                    );
                    micro::<1, ROW_STRIDE>(
                        keys,
                        nr,
                        end - first,
                        Rows::at(self.dscores.as_ptr().add(a)),
                        self.q_panels[panel..].as_ptr(),
                        dk.reach(at, (keys - 1) * cols + nr),
                        cols,
                        Store::Add,
                    );
                }
            }
        }
    }
}

simd_fn! {
    /// Scores become weights, gradients of weights become gradients of scores.
    wide pub(super) fn score_row(weights: &mut [f32], dscores: &mut [f32], scale: f32, lse: f32, delta: f32) {
        for (w, ds) in weights.iter_mut().zip(dscores) {
            *w = exp(w.mul_add(scale, -lse));
            *ds = *w * (*ds - delta) * scale;
        }
    }
}
