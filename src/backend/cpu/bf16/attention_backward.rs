//! Backward of attention on bfloat16, without atomics.
//!
//! A task has some keys and queries of one sequence and key head ([`super::super::attention_split`]). It walks over chunks of
//! 256 keys and, within them, over tiles of 256 queries; scores are recomputed. Weights and the gradients of scores are
//! rounded to bfloat16 before they are multiplied, and the gradients of queries, keys and values once, when all of their
//! f32 sums are there.

use super::super::attention::{AttentionSaved, MAX_HEAD_DIM, panels, part_of};
use super::super::attention_backward::{add_row, row_dot};
use super::super::attention_scores::{Sight, score_rows};
use super::super::attention_split::{KEYS, Split, Task, Wanted};
use super::super::backend::{CpuBackend, ROW_CHUNK};
use super::super::query_sums::QuerySums;
use super::super::workers::{Shared, piece};
use super::attention::{SCORE_STRIDE, check_attention, lines};
use super::convert::{narrow, widen};
use super::dot::{ANY, CHAIN, Left, MR, NR, Store, Tile as Product, WIDE_LEN, Wide, micro};
use super::pack::{self, ROW_STRIDE};
use super::rows::uninit;
use super::storage::{Tensor, check_shape, pairs_mut};
use crate::ops::{AttentionShape, OpResult};

/// Keys of a chunk, and queries of a tile: chains of the gradients begin at multiples.
const SIDE: usize = 2 * CHAIN;

const _: () = assert!(SIDE == KEYS);

/// Queries whose scores are there at a time.
const BLOCK: usize = GROUPS * MR;
/// Groups of twelve of them.
const GROUPS: usize = 4;

/// Scratch of a thread for heads of the largest size.
pub(in super::super) const SCRATCH: usize = scratch_len(MAX_HEAD_DIM);

/// In this order: keys and values transposed, keys, queries, gradients of outputs, gradients of scores by rows, weights
/// and gradients of scores by columns, sums for keys and values, scores, gradients of weights, rows of q and d_o, widened
/// rows.
const fn scratch_len(width: usize) -> usize {
    5 * CHAIN * width
        + 3 * CHAIN * SCORE_STRIDE
        + 2 * SIDE * width
        + 2 * BLOCK * (SCORE_STRIDE + ROW_STRIDE)
        + GROUPS * WIDE_LEN
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
    let mut dq = uninit(cpu, op, q.rows, q.cols)?;
    let mut dk = uninit(cpu, op, k.rows, k.cols)?;
    let mut dv = uninit(cpu, op, v.rows, v.cols)?;
    let mut delta = cpu.pool.take(op, s.sequence.batch * s.n_head * s.sequence.len)?;
    row_deltas(cpu, (o.rows, o.cols), o.values(op)?, d_o.values(op)?, s, &mut delta);
    // Sums over all chunks of keys, or those of each.
    let mut query_sums = cpu.pool.take(op, if split.is_apart() { 0 } else { q.rows * q.cols })?;
    let mut apart = cpu.pool.take(op, split.apart_rows() * q.cols)?;
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
    let outputs = Outputs {
        query_sums: Shared::new(&mut query_sums),
        apart: Shared::new(&mut apart),
        dq: Shared::new(dq.values_mut(op)?),
        dk: Shared::new(dk.values_mut(op)?),
        dv: Shared::new(dv.values_mut(op)?),
    };
    cpu.workers.run_in_order(split.count(), |task, scratch| {
        // SAFETY: every task has its own keys and queries of a sequence and its heads.
        unsafe { part_backward(&inputs, &outputs, &split.task(task), scratch) };
    });
    if split.is_apart() {
        cpu.workers.run_with_scratch(q.rows.div_ceil(ROW_CHUNK), |task, scratch| {
            for n in piece(q.rows, ROW_CHUNK, task) {
                for h in 0..s.n_head {
                    let row = &mut scratch[..s.head_dim];
                    row.fill(0.0);
                    for part in split.rows_of(n / s.sequence.len, n % s.sequence.len) {
                        let at = part * q.cols + h * s.head_dim;
                        add_row(row, &apart[at..at + s.head_dim]);
                    }
                    let at = n * q.cols + h * s.head_dim;
                    // SAFETY: every row is of one task.
                    narrow(row, unsafe { outputs.dq.slice_mut(at..at + s.head_dim) });
                }
            }
        });
    }
    Ok((dq, dk, dv))
}

#[derive(Clone, Copy)]
struct Outputs {
    query_sums: Shared<f32>,
    /// What chunks of keys add to gradients of queries, where that is kept apart.
    apart: Shared<f32>,
    dq: Shared<u16>,
    dk: Shared<u16>,
    dv: Shared<u16>,
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
    /// Of a block of queries.
    scores: &'a mut [f32],
    dweights: &'a mut [f32],
    q_rows: &'a mut [u32],
    do_rows: &'a mut [u32],
    /// Rows that meet several panels.
    wides: &'a mut [Wide],
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
            scores: take(BLOCK * SCORE_STRIDE),
            dweights: take(BLOCK * SCORE_STRIDE),
            q_rows: pairs_mut(take(BLOCK * ROW_STRIDE)),
            do_rows: pairs_mut(take(BLOCK * ROW_STRIDE)),
            wides: Wide::in_scratch(take(GROUPS * WIDE_LEN)),
        }
    }
}

/// One task.
unsafe fn part_backward(x: &Inputs<'_>, outputs: &Outputs, task: &Task, scratch: &mut [f32]) {
    let s = &x.shape;
    let (t, d) = (s.sequence.len, s.head_dim);
    let width = d.next_multiple_of(NR);
    let group = s.n_head / s.n_kv_head;
    let (b, kv_head) = (task.b, task.kv_head);
    let Outputs { query_sums, apart, dq, dk, dv } = *outputs;
    let own = |n: usize| {
        (b * t + n) * x.q_cols + kv_head * group * d..(b * t + n) * x.q_cols + (kv_head + 1) * group * d
    };
    let in_place = task.wanted.queries() && task.apart.is_none();
    let sums = QuerySums::new(task, s, query_sums, apart);
    let mut room = Room::new(scratch, width);
    // Up to here gradients of queries have begun; further ones do when their tile comes.
    let mut begun = task.queries.start;
    for chunk in (task.keys.start / SIDE * SIDE..task.keys.end).step_by(SIDE) {
        let (low, high) = (chunk.max(task.keys.start), task.keys.end.min(chunk + SIDE));
        let (from, to) = (low.max(task.queries.start), task.queries.end.min(high.saturating_add(s.window)));
        if from >= to {
            continue;
        }
        let rows = high - low;
        let at = (b * t + low) * x.kv_cols + kv_head * d;
        let (k, v) = (lines(&x.k[at..], x.kv_cols, rows, d), lines(&x.v[at..], x.kv_cols, rows, d));
        // SAFETY: rows `low .. high` of this head, asserted to be inside k and v.
        unsafe {
            pack::panels_transposed(room.keys_t, k, x.kv_cols, rows, d);
            pack::panels_transposed(room.values_t, v, x.kv_cols, rows, d);
            if task.wanted.queries() {
                pack::panels(room.keys, k, x.kv_cols, d, rows);
            }
        }
        room.key_sums[..rows * width].fill(0.0);
        room.value_sums[..rows * width].fill(0.0);
        for h in kv_head * group..(kv_head + 1) * group {
            for tile_start in (from / SIDE * SIDE..to).step_by(SIDE) {
                let (start, end) = (tile_start.max(from), to.min(tile_start + SIDE));
                let tile = Tile { b, h, low, high, start, end, width };
                // SAFETY: this task's heads, keys and queries.
                unsafe {
                    tile.scores(x, &mut room, task.wanted);
                    if task.wanted.queries() {
                        sums.begin(begun.max(start)..end, h);
                        tile.query_gradients(x, &mut room, sums);
                    }
                    if task.wanted.keys() {
                        tile.load(x, &mut room);
                        tile.key_gradients(x, &mut room);
                    }
                }
            }
        }
        begun = to;
        if task.wanted.keys() {
            for row in 0..rows {
                let at = at + row * x.kv_cols;
                // SAFETY: this task's keys.
                unsafe {
                    narrow(&room.key_sums[row * width..][..d], dk.slice_mut(at..at + d));
                    narrow(&room.value_sums[row * width..][..d], dv.slice_mut(at..at + d));
                }
            }
        }
    }
    if in_place {
        for n in task.queries.clone() {
            // SAFETY: this task's queries.
            unsafe { narrow(query_sums.slice_mut(own(n)), dq.slice_mut(own(n))) };
        }
    }
}

/// Queries `start .. end` of head h against keys `low .. high`, the first of which is no later than the first query; both
/// begin at even positions, as pairs do.
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

    /// What up to `rows` queries, the first of which is the `i`-th, see of the chunk.
    fn sight(&self, i: usize, rows: usize, window: usize) -> Sight {
        let rows = rows.min(self.rows() - i);
        Sight::new(rows, self.start + i, window, self.low, &(self.low..self.high))
    }

    /// Weights and gradients of scores as the wanted products read them; zero where masked.
    unsafe fn scores(&self, x: &Inputs<'_>, room: &mut Room<'_>, wanted: Wanted) {
        let (t, d, window, cols) = (x.shape.sequence.len, x.shape.head_dim, x.shape.window, x.q_cols);
        let depth = d.div_ceil(2);
        let scale = 1.0 / (d as f32).sqrt();
        let chunk = self.high - self.low;
        for i in (0..self.rows()).step_by(BLOCK) {
            let rows = BLOCK.min(self.rows() - i);
            let all = self.sight(i, rows, window).columns();
            let at = self.at(x, self.start + i);
            // SAFETY: `rows` rows of this head, asserted to be inside q and d_o.
            unsafe {
                pack::rows(room.q_rows, lines(&x.q[at..], cols, rows, d), cols, rows, d, None);
                pack::rows(room.do_rows, lines(&x.d_o[at..], cols, rows, d), cols, rows, d, None);
            }
            for (left, right, to) in [
                (&*room.q_rows, &*room.keys_t, &mut *room.scores),
                (&*room.do_rows, &*room.values_t, &mut *room.dweights),
            ] {
                let mut lefts = [Left::rows(left.as_ptr(), ROW_STRIDE); GROUPS];
                for ((r, group), wide) in (0..rows).step_by(MR).zip(&mut lefts).zip(&mut *room.wides) {
                    let left = Left::rows(left[r * ROW_STRIDE..].as_ptr(), ROW_STRIDE);
                    // SAFETY: rows that were packed just now.
                    *group = unsafe { left.shared::<ANY>(MR.min(rows - r), depth, wide) };
                }
                // Groups of twelve queries take turns at each panel of keys, which is near then.
                for panel in panels(&all) {
                    for r in (0..rows).step_by(MR) {
                        let sight = self.sight(i + r, MR.min(rows - r), window);
                        let Some(keys) = part_of(&panel, &sight.columns()) else { continue };
                        let product = Product {
                            nr: keys.len(),
                            pairs: depth,
                            left: lefts[r / MR],
                            b: right[keys.start / NR * NR * depth + keys.start % NR..].as_ptr(),
                            c: to[r * SCORE_STRIDE + keys.start..].as_mut_ptr(),
                            ldc: SCORE_STRIDE,
                            store: Store::Set,
                        };
                        // SAFETY: tiles inside the scratch, whole or half panels inside the packed chunk.
                        unsafe { micro::<ANY>(sight.rows, &product) };
                    }
                }
            }
            // Whole pairs of keys. The products of keys go over twelve at once, so some that the block sees nothing of are
            // read with others.
            let left = all.start.saturating_sub(MR) / 2 * 2;
            let right = (all.end + MR).next_multiple_of(2).min(chunk);
            for r in (0..rows).step_by(MR) {
                let sight = self.sight(i + r, MR.min(rows - r), window);
                let at = (self.b * x.shape.n_head + self.h) * t + self.start + i + r;
                let (lse, delta) = (&x.lse[at..at + sight.rows], &x.delta[at..at + sight.rows]);
                let (scores, dweights) =
                    (&mut room.scores[r * SCORE_STRIDE..], &mut room.dweights[r * SCORE_STRIDE..]);
                score_rows(&sight, &(left..right), scores, dweights, scale, lse, delta);
            }
            for row in 0..if wanted.queries() { rows } else { 0 } {
                // By rows, whole pairs.
                let dweights = &room.dweights[row * SCORE_STRIDE..];
                let to = pack::halves(&mut room.dscores[(i + row) * DSCORE_STRIDE..][..DSCORE_STRIDE]);
                narrow(&dweights[left..right], &mut to[left..right]);
                to[right..right.next_multiple_of(2)].fill(0);
            }
            // By columns: a block begins at an even query, and begins a pair.
            for p in 0..if wanted.keys() { rows.div_ceil(2) } else { 0 } {
                let at = (i / 2 + p) * SCORE_STRIDE;
                let both = 2 * p + 1 < rows;
                for (from, to) in
                    [(&*room.scores, &mut *room.weights_t), (&*room.dweights, &mut *room.dscores_t)]
                {
                    let row = |r: usize| &from[r * SCORE_STRIDE + left..r * SCORE_STRIDE + right];
                    let to = &mut to[at + left..at + right];
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
    unsafe fn query_gradients(&self, x: &Inputs<'_>, room: &mut Room<'_>, sums: QuerySums) {
        let (d, window) = (x.shape.head_dim, x.shape.window);
        let half = (self.high - self.low).div_ceil(2);
        for i in (0..self.rows()).step_by(MR) {
            let sight = self.sight(i, MR, window);
            let (rows, columns) = (sight.rows, sight.columns());
            if columns.is_empty() {
                continue;
            }
            let (from, to) = (columns.start / 2, columns.end.div_ceil(2));
            let left = Left::rows(room.dscores[i * DSCORE_STRIDE + from..].as_ptr(), DSCORE_STRIDE);
            // SAFETY: dscores hold what is seen.
            let left = unsafe { left.shared::<ANY>(rows, to - from, &mut room.wides[0]) };
            for j in (0..d).step_by(NR) {
                let nr = NR.min(d - j);
                let product = Product {
                    nr,
                    pairs: to - from,
                    left,
                    b: room.keys[j * half + from * NR..].as_ptr(),
                    c: sums.tile(self.start + i, rows, self.h, j, nr),
                    ldc: sums.cols,
                    store: sums.store,
                };
                // SAFETY: dscores and keys hold what is seen; the rows of sums are this task's.
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
            let (weights, dscores) = (room.weights_t[a..].as_ptr(), room.dscores_t[a..].as_ptr());
            // SAFETY: `scores` set these weights and gradients.
            let (weights, dscores) = unsafe {
                (
                    Left::new(weights, 1, SCORE_STRIDE).shared::<1>(keys, to - from, &mut room.wides[0]),
                    Left::new(dscores, 1, SCORE_STRIDE).shared::<1>(keys, to - from, &mut room.wides[1]),
                )
            };
            for j in (0..d).step_by(NR) {
                let panel = j * half + from * NR;
                let at = (key - self.low) * self.width + j;
                let product = Product {
                    nr: NR,
                    pairs: to - from,
                    left: weights,
                    b: room.do_panels[panel..].as_ptr(),
                    c: room.value_sums[at..].as_mut_ptr(),
                    ldc: self.width,
                    store: Store::Add,
                };
                let other = Product {
                    left: dscores,
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
