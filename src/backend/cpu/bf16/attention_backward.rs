//! Backward of attention on bfloat16, without atomics.
//!
//! A task owns one sequence and key head. It walks over chunks of 256 keys and, within them, over tiles of 256 queries;
//! scores are recomputed. Weights and the gradients of scores are rounded to bfloat16 before they are multiplied, and the
//! gradients of queries, keys and values once, when all of their f32 sums are there.

use super::super::attention::{AttentionSaved, MAX_HEAD_DIM, panels};
use super::super::attention_backward::{row_dot, score_row};
use super::super::backend::{CpuBackend, ROW_CHUNK};
use super::super::workers::{Shared, piece};
use super::attention::{SCORE_STRIDE, check_attention, lines};
use super::convert::{narrow, widen};
use super::dot::{ANY, CHAIN, MR, NR, Store, Tile as Product, micro};
use super::pack::{self, ROW_STRIDE};
use super::rows::uninit;
use super::storage::{Tensor, check_shape, pairs_mut};
use crate::ops::{AttentionShape, OpResult};

/// Keys of a chunk, and queries of a tile: chains of the gradients begin at multiples.
const SIDE: usize = 2 * CHAIN;

/// Scratch of a thread for heads of the largest size.
pub(in super::super) const SCRATCH: usize = scratch_len(MAX_HEAD_DIM);

/// In this order: keys and values transposed, keys, queries, gradients of outputs, gradients of scores by rows, weights
/// and gradients of scores by columns, sums for keys and values, scores, gradients of weights, rows of q and d_o.
const fn scratch_len(width: usize) -> usize {
    5 * CHAIN * width + 3 * CHAIN * SCORE_STRIDE + 2 * SIDE * width + 2 * MR * (SCORE_STRIDE + ROW_STRIDE)
}

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
    let mut dq = uninit(cpu, op, q.rows, q.cols)?;
    let mut dk = uninit(cpu, op, k.rows, k.cols)?;
    let mut dv = uninit(cpu, op, v.rows, v.cols)?;
    let mut delta = cpu.pool.take(op, s.sequence.batch * s.n_head * s.sequence.len)?;
    row_deltas(cpu, (o.rows, o.cols), o.values(op)?, d_o.values(op)?, s, &mut delta);
    // Sums over all chunks of keys.
    let mut query_sums = cpu.pool.take(op, q.rows * q.cols)?;
    let inputs = Inputs {
        q: q.values(op)?,
        k: k.values(op)?,
        v: v.values(op)?,
        d_o: d_o.values(op)?,
        lse: &saved.0,
        delta: &delta,
        q_cols: q.cols,
        kv_cols: k.cols,
        shape: *s,
    };
    let sums = Shared::new(&mut query_sums);
    let (out_k, out_v) = (Shared::new(dk.values_mut(op)?), Shared::new(dv.values_mut(op)?));
    let out_q = Shared::new(dq.values_mut(op)?);
    cpu.workers.run_with_scratch(s.sequence.batch * s.n_kv_head, |task, scratch| {
        // SAFETY: every task has its own sequence and heads.
        unsafe {
            head_backward(
                &inputs,
                sums,
                [out_q, out_k, out_v],
                task / s.n_kv_head,
                task % s.n_kv_head,
                scratch,
            );
        };
    });
    Ok((dq, dk, dv))
}

/// `sum_d o d_o` of every query, (B, H, T).
fn row_deltas(
    cpu: &CpuBackend,
    (rows, cols): (usize, usize),
    o: &[u16],
    d_o: &[u16],
    s: &AttentionShape,
    delta: &mut [f32],
) {
    let (t, d) = (s.sequence.len, s.head_dim);
    let out = Shared::new(delta);
    cpu.workers.run_with_scratch(rows.div_ceil(ROW_CHUNK), |task, scratch| {
        let (a, rest) = scratch.split_at_mut(d);
        let b = &mut rest[..d];
        for n in piece(rows, ROW_CHUNK, task) {
            for h in 0..s.n_head {
                let at = n * cols + h * d;
                widen(&o[at..at + d], a);
                widen(&d_o[at..at + d], b);
                // SAFETY: every row has its own entries.
                unsafe { *out.reach((n / t * s.n_head + h) * t + n % t, 1) = row_dot(a, b) };
            }
        }
    });
}

struct Inputs<'a> {
    q: &'a [u16],
    k: &'a [u16],
    v: &'a [u16],
    d_o: &'a [u16],
    lse: &'a [f32],
    delta: &'a [f32],
    q_cols: usize,
    kv_cols: usize,
    shape: AttentionShape,
}

/// A thread's scratch memory.
struct Room<'a> {
    /// Panels of the chunk's keys and values as right sides of scores, and of its keys as right side of dq.
    keys_t: &'a mut [u32],
    values_t: &'a mut [u32],
    keys: &'a mut [u32],
    /// Panels of the tile's queries and output gradients as right sides of dk and dv.
    queries: &'a mut [u32],
    do_panels: &'a mut [u32],
    /// Gradients of scores, row i at `i * SCORE_STRIDE / 2` pairs along keys.
    dscores: &'a mut [u32],
    /// Weights and gradients of scores, pair p of queries at `p * SCORE_STRIDE`.
    weights_t: &'a mut [u32],
    dscores_t: &'a mut [u32],
    /// Sums of the chunk's key and value gradients.
    key_sums: &'a mut [f32],
    value_sums: &'a mut [f32],
    /// Of twelve queries.
    scores: &'a mut [f32],
    dweights: &'a mut [f32],
    q_rows: &'a mut [u32],
    do_rows: &'a mut [u32],
}

/// Distance in pairs of rows of gradients of scores along keys.
const DSCORE_STRIDE: usize = SCORE_STRIDE / 2;

impl<'a> Room<'a> {
    fn new(scratch: &'a mut [f32], width: usize) -> Self {
        let mut rest = scratch;
        let mut take = |len: usize| {
            let (part, others) = std::mem::take(&mut rest).split_at_mut(len);
            rest = others;
            part
        };
        let panel = CHAIN * width;
        Self {
            keys_t: pairs_mut(take(panel)),
            values_t: pairs_mut(take(panel)),
            keys: pairs_mut(take(panel)),
            queries: pairs_mut(take(panel)),
            do_panels: pairs_mut(take(panel)),
            dscores: pairs_mut(take(SIDE * DSCORE_STRIDE)),
            weights_t: pairs_mut(take(CHAIN * SCORE_STRIDE)),
            dscores_t: pairs_mut(take(CHAIN * SCORE_STRIDE)),
            key_sums: take(SIDE * width),
            value_sums: take(SIDE * width),
            scores: take(MR * SCORE_STRIDE),
            dweights: take(MR * SCORE_STRIDE),
            q_rows: pairs_mut(take(MR * ROW_STRIDE)),
            do_rows: pairs_mut(take(MR * ROW_STRIDE)),
        }
    }
}

/// All of one key head of one sequence.
unsafe fn head_backward(
    x: &Inputs<'_>,
    query_sums: Shared<f32>,
    [dq, dk, dv]: [Shared<u16>; 3],
    b: usize,
    kv_head: usize,
    scratch: &mut [f32],
) {
    let s = &x.shape;
    let (t, d) = (s.sequence.len, s.head_dim);
    let width = d.next_multiple_of(NR);
    let group = s.n_head / s.n_kv_head;
    let own = |n: usize| {
        (b * t + n) * x.q_cols + kv_head * group * d..(b * t + n) * x.q_cols + (kv_head + 1) * group * d
    };
    for n in 0..t {
        // SAFETY: this task's heads.
        unsafe { query_sums.slice_mut(own(n)) }.fill(0.0);
    }
    let mut room = Room::new(scratch, width);
    for low in (0..t).step_by(SIDE) {
        let high = t.min(low + SIDE);
        let rows = high - low;
        let at = (b * t + low) * x.kv_cols + kv_head * d;
        let (k, v) = (lines(&x.k[at..], x.kv_cols, rows, d), lines(&x.v[at..], x.kv_cols, rows, d));
        // SAFETY: rows `low .. high` of this head, asserted to be inside k and v.
        unsafe {
            pack::panels_transposed(room.keys_t, k, x.kv_cols, rows, d);
            pack::panels_transposed(room.values_t, v, x.kv_cols, rows, d);
            pack::panels(room.keys, k, x.kv_cols, d, rows);
        }
        room.key_sums[..rows * width].fill(0.0);
        room.value_sums[..rows * width].fill(0.0);
        let last = t.min((high - 1).saturating_add(s.window).saturating_add(1));
        for h in kv_head * group..(kv_head + 1) * group {
            for tile_start in (low / SIDE * SIDE..last).step_by(SIDE) {
                let tile =
                    Tile { b, h, low, high, start: tile_start, end: last.min(tile_start + SIDE), width };
                // SAFETY: this task's heads.
                unsafe {
                    tile.load(x, &mut room);
                    tile.scores(x, &mut room);
                    tile.query_gradients(x, &room, query_sums);
                    tile.key_gradients(x, &mut room);
                }
            }
        }
        for row in 0..rows {
            let at = at + row * x.kv_cols;
            // SAFETY: this task's heads.
            unsafe {
                narrow(&room.key_sums[row * width..][..d], dk.slice_mut(at..at + d));
                narrow(&room.value_sums[row * width..][..d], dv.slice_mut(at..at + d));
            }
        }
    }
    for n in 0..t {
        // SAFETY: this task's heads.
        unsafe { narrow(query_sums.slice_mut(own(n)), dq.slice_mut(own(n))) };
    }
}

/// Queries `start .. end` of head h against keys `low .. high`; both begin at multiples of a side.
struct Tile {
    b: usize,
    h: usize,
    low: usize,
    high: usize,
    start: usize,
    end: usize,
    width: usize,
}

impl Tile {
    fn rows(&self) -> usize {
        self.end - self.start
    }

    fn at(&self, x: &Inputs<'_>, query: usize) -> usize {
        (self.b * x.shape.sequence.len + query) * x.q_cols + self.h * x.shape.head_dim
    }

    unsafe fn load(&self, x: &Inputs<'_>, room: &mut Room<'_>) {
        let (d, cols, rows) = (x.shape.head_dim, x.q_cols, self.rows());
        let at = self.at(x, self.start);
        let (q, d_o) = (lines(&x.q[at..], cols, rows, d), lines(&x.d_o[at..], cols, rows, d));
        // SAFETY: `rows` rows of this head, asserted to be inside q and d_o.
        unsafe {
            pack::panels(room.queries, q, cols, d, rows);
            pack::panels(room.do_panels, d_o, cols, d, rows);
        }
    }

    /// Keys that some of `rows` queries from `query` see, within the chunk: `first .. end`, none where those are equal.
    fn seen(&self, query: usize, rows: usize, window: usize) -> (usize, usize) {
        let first = query.saturating_sub(window).max(self.low);
        (first, (query + rows).min(self.high).max(first))
    }

    /// Weights and gradients of scores; zero where masked.
    unsafe fn scores(&self, x: &Inputs<'_>, room: &mut Room<'_>) {
        let (t, d, window, cols) = (x.shape.sequence.len, x.shape.head_dim, x.shape.window, x.q_cols);
        let depth = d.div_ceil(2);
        let scale = 1.0 / (d as f32).sqrt();
        let chunk = self.high - self.low;
        for i in (0..self.rows()).step_by(MR) {
            let rows = MR.min(self.rows() - i);
            let (first, end) = self.seen(self.start + i, rows, window);
            let at = self.at(x, self.start + i);
            // SAFETY: `rows` rows of this head, asserted to be inside q and d_o.
            unsafe {
                pack::rows(room.q_rows, lines(&x.q[at..], cols, rows, d), cols, rows, d, None);
                pack::rows(room.do_rows, lines(&x.d_o[at..], cols, rows, d), cols, rows, d, None);
            }
            if first < end {
                for keys in panels(first - self.low, end - self.low) {
                    let panel = keys.start / NR * NR * depth + keys.start % NR;
                    let product = Product {
                        nr: keys.len(),
                        pairs: depth,
                        a: room.q_rows.as_ptr(),
                        rs: ROW_STRIDE,
                        ks: 1,
                        b: room.keys_t[panel..].as_ptr(),
                        c: room.scores[keys.start..].as_mut_ptr(),
                        ldc: SCORE_STRIDE,
                        store: Store::Set,
                    };
                    let other = Product {
                        a: room.do_rows.as_ptr(),
                        b: room.values_t[panel..].as_ptr(),
                        c: room.dweights[keys.start..].as_mut_ptr(),
                        ..product
                    };
                    // SAFETY: tiles inside the scratch, whole or half panels inside the packed chunk.
                    unsafe {
                        micro::<ANY>(rows, &product);
                        micro::<ANY>(rows, &other);
                    }
                }
            }
            for row in 0..rows {
                let query = self.start + i + row;
                let at = (self.b * x.shape.n_head + self.h) * t + query;
                let (first, end) = self.seen(query, 1, window);
                let (start, end) = (first - self.low, end - self.low);
                let scores = &mut room.scores[row * SCORE_STRIDE..][..chunk];
                let dweights = &mut room.dweights[row * SCORE_STRIDE..][..chunk];
                for values in [&mut *scores, &mut *dweights] {
                    values[..start].fill(0.0);
                    values[end..].fill(0.0);
                }
                score_row(&mut scores[start..end], &mut dweights[start..end], scale, x.lse[at], x.delta[at]);
                // By rows, whole pairs.
                let to = pack::halves(&mut room.dscores[(i + row) * DSCORE_STRIDE..][..DSCORE_STRIDE]);
                narrow(dweights, &mut to[..chunk]);
                to[chunk..chunk.next_multiple_of(2)].fill(0);
            }
            // By columns: a group begins at an even query, and begins a pair.
            for p in 0..rows.div_ceil(2) {
                let at = (i / 2 + p) * SCORE_STRIDE;
                let both = 2 * p + 1 < rows;
                for (from, to) in
                    [(&*room.scores, &mut *room.weights_t), (&*room.dweights, &mut *room.dscores_t)]
                {
                    let row = |r: usize| &from[r * SCORE_STRIDE..][..chunk];
                    let to = &mut to[at..at + chunk];
                    if both {
                        pack::combine_rounded(row(2 * p), row(2 * p + 1), to);
                    } else {
                        pack::round_low(row(2 * p), to);
                    }
                }
            }
        }
    }

    /// `dq += dscores k`
    unsafe fn query_gradients(&self, x: &Inputs<'_>, room: &Room<'_>, dq: Shared<f32>) {
        let (d, window) = (x.shape.head_dim, x.shape.window);
        let half = (self.high - self.low).div_ceil(2);
        for i in (0..self.rows()).step_by(MR) {
            let rows = MR.min(self.rows() - i);
            let (first, end) = self.seen(self.start + i, rows, window);
            if first == end {
                continue;
            }
            let (from, to) = ((first - self.low) / 2, (end - self.low).div_ceil(2));
            for j in (0..d).step_by(NR) {
                let nr = NR.min(d - j);
                let product = Product {
                    nr,
                    pairs: to - from,
                    a: room.dscores[i * DSCORE_STRIDE + from..].as_ptr(),
                    rs: DSCORE_STRIDE,
                    ks: 1,
                    b: room.keys[j * half + from * NR..].as_ptr(),
                    c: dq.reach(self.at(x, self.start + i) + j, (rows - 1) * x.q_cols + nr),
                    ldc: x.q_cols,
                    store: Store::Add,
                };
                // SAFETY: dscores and keys hold what is seen; the rows of dq are this task's.
                unsafe { micro::<ANY>(rows, &product) };
            }
        }
    }

    /// `dv += weights^T d_o`, `dk += dscores^T q`
    unsafe fn key_gradients(&self, x: &Inputs<'_>, room: &mut Room<'_>) {
        let d = x.shape.head_dim;
        let half = self.rows().div_ceil(2);
        for key in (self.low..self.high).step_by(MR) {
            let keys = MR.min(self.high - key);
            let first = key.max(self.start) - self.start;
            let end = (key + keys).saturating_add(x.shape.window).min(self.end).saturating_sub(self.start);
            if first >= end {
                continue;
            }
            let (from, to) = (first / 2, end.div_ceil(2));
            let a = from * SCORE_STRIDE + key - self.low;
            for j in (0..d).step_by(NR) {
                let panel = j * half + from * NR;
                let at = (key - self.low) * self.width + j;
                let product = Product {
                    nr: NR,
                    pairs: to - from,
                    a: room.weights_t[a..].as_ptr(),
                    rs: 1,
                    ks: SCORE_STRIDE,
                    b: room.do_panels[panel..].as_ptr(),
                    c: room.value_sums[at..].as_mut_ptr(),
                    ldc: self.width,
                    store: Store::Add,
                };
                let other = Product {
                    a: room.dscores_t[a..].as_ptr(),
                    b: room.queries[panel..].as_ptr(),
                    c: room.key_sums[at..].as_mut_ptr(),
                    ..product
                };
                // SAFETY: `scores` set these weights and gradients; the sums have the rows.
                unsafe {
                    micro::<1>(keys, &product);
                    micro::<1>(keys, &other);
                }
            }
        }
    }
}
