//! Causal attention within a window, with an online softmax (FlashAttention, arXiv 2205.14135).
//!
//! Twelve queries at a time meet the keys they see in chunks of [`CHUNK`] positions; what lies outside the window is
//! skipped to the half panel (16 keys) for scores and to the key for sums of values. Key j always falls into the same
//! chunk and the same lane of each sum, and masked keys add exact zeros, so a query's result depends neither on how
//! queries are grouped nor on whether keys come from a cache.

use std::ops::Range;

use super::attention_scores::{Sight, Softmax, divide_row, log_sum_exps, seeing, softmax_chunk};
use super::backend::CpuBackend;
use super::gemm::pack::{self, lines};
use super::gemm::{ANY, HALF, MR, NR, Panel, ROW_STRIDE, Rows, Store, micro, rows_near};
use super::pool::Buffer;
use super::tensor::{Tensor, check, check_shape};
use super::workers::{Shared, piece};
use crate::ops::{AttentionShape, OpResult};

/// Keys of a chunk of the online softmax: a numerics constant.
pub(super) const CHUNK: usize = super::gemm::KC;
/// Queries of a task.
pub(super) const TASK_QUERIES: usize = 4 * MR;
/// The largest head.
pub(super) const MAX_HEAD_DIM: usize = super::gemm::KC;

// The plan refuses larger ones.
const _: () = assert!(MAX_HEAD_DIM == crate::plan::limits::CPU_HEAD_DIM);

/// Log-sum-exp of every query's scaled scores, (B, H, T).
#[derive(Debug)]
pub struct AttentionSaved(pub(super) Buffer);

/// Fails unless heads, sizes and tensors fit.
pub(super) fn check_attention(
    op: &'static str,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    s: &AttentionShape,
) -> OpResult<()> {
    check_heads(op, s)?;
    check_shape(op, "q", q, s.sequence.rows(), s.n_head * s.head_dim)?;
    check_shape(op, "k", k, s.sequence.rows(), s.n_kv_head * s.head_dim)?;
    check_shape(op, "v", v, s.sequence.rows(), s.n_kv_head * s.head_dim)
}

pub(super) fn check_heads(op: &'static str, s: &AttentionShape) -> OpResult<()> {
    check(op, s.n_kv_head > 0 && s.n_head.is_multiple_of(s.n_kv_head), || {
        format!("{} query heads do not divide among {} key heads", s.n_head, s.n_kv_head)
    })?;
    check(op, s.head_dim > 0 && s.head_dim <= MAX_HEAD_DIM, || {
        format!("head_dim {} is not within 1 and {MAX_HEAD_DIM}", s.head_dim)
    })
}

/// Keys and values of one sequence and head, packed for the micro-kernel.
#[derive(Clone, Copy)]
pub(super) struct PackedHead<'a> {
    /// Panels of 32 keys, each D x 32.
    pub(super) keys: &'a [f32],
    /// Panels of 32 channels, each `positions` x 32.
    pub(super) values: &'a [f32],
    /// Positions there is room for.
    pub(super) positions: usize,
}

/// Room for `positions` keys, or as many values.
pub(super) fn packed_len(positions: usize, head_dim: usize) -> (usize, usize) {
    (positions.next_multiple_of(NR) * head_dim, positions * head_dim.next_multiple_of(NR))
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
    let (packed_k, packed_v) = (Shared::new(&mut keys), Shared::new(&mut values));
    let kv_cols = k.cols;
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
                pack::panels(dst, lines(&v.data[at..], kv_cols, t, d), kv_cols, d, t);
            } else {
                let dst = packed_k.slice_mut(head * key_len..(head + 1) * key_len);
                pack::panels_transposed(dst, lines(&k.data[at..], kv_cols, t, d), kv_cols, t, d);
            }
        }
    });
    let mut o = cpu.tensor_uninit(op, q.rows, q.cols)?;
    let mut lse = cpu.pool.take(op, s.sequence.batch * s.n_head * t)?;
    let (out, saved) = (Shared::new(&mut o.data), Shared::new(&mut lse));
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
        let at = (b * t + queries.start) * q.cols + h * d;
        // SAFETY: every task has its own queries and head.
        let lse = unsafe { saved.slice_mut(head * t + queries.start..head * t + queries.end) };
        let (rows, position) = (queries.len(), queries.start);
        let group = Group { rows, position, stride: q.cols, head_dim: d, window: s.window };
        // SAFETY: as above.
        unsafe { group.attend(&q.data[at..], &packed, out, at, lse, scratch) };
    });
    Ok((o, AttentionSaved(lse)))
}

/// Consecutive queries of one head: as many as a task has, or the twelve at most that go through the kernel together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) rows: usize,
    /// Position of the first.
    pub(super) position: usize,
    /// Distance between rows of q and of the output.
    pub(super) stride: usize,
    pub(super) head_dim: usize,
    pub(super) window: usize,
}

/// Groups of twelve of a task.
pub(super) const GROUPS: usize = TASK_QUERIES / MR;

impl Group {
    /// How many go through the kernel one after another.
    pub(super) fn count(&self) -> usize {
        self.rows.div_ceil(MR)
    }

    /// They, twelve by twelve; fewer or none at the end.
    pub(super) fn twelves(&self) -> [Self; GROUPS] {
        std::array::from_fn(|index| {
            let rows = MR.min(self.rows.saturating_sub(index * MR));
            Self { rows, position: self.position + index * MR, ..*self }
        })
    }

    /// Where the chunks begin that hold keys from `first_key` on which some of them see.
    pub(super) fn chunks(&self, first_key: usize) -> impl Iterator<Item = usize> {
        let all = first_key..self.position + self.rows;
        let keys = Sight::new(self.rows, self.position, self.window, first_key, &all).keys;
        (keys.start / CHUNK * CHUNK..keys.end).step_by(CHUNK)
    }

    /// What they see of a chunk's keys from `first_key` on.
    pub(super) fn sight(&self, first_key: usize, chunk: usize) -> Sight {
        Sight::new(self.rows, self.position, self.window, chunk, &(first_key.max(chunk)..chunk + CHUNK))
    }

    /// Writes the attention of at most [`TASK_QUERIES`] queries to `out` from element `at` on, a row every `stride`, and their
    /// log-sum-exps to `lse`. Groups of twelve take turns at each panel of keys and of values, which is near then.
    ///
    /// # Safety
    /// Nobody else touches those rows of `out`.
    ///
    /// # Panics
    /// Rows that are not in bounds: the kernels read and write by pointers from here on.
    pub(super) unsafe fn attend(
        &self,
        q: &[f32],
        packed: &PackedHead<'_>,
        out: Shared<f32>,
        at: usize,
        lse: &mut [f32],
        scratch: &mut [f32],
    ) {
        let d = self.head_dim;
        let width = d.next_multiple_of(NR);
        let scale = 1.0 / (d as f32).sqrt();
        let (queries, rest) = scratch.split_at_mut(TASK_QUERIES * ROW_STRIDE);
        let (scores, rest) = rest.split_at_mut(TASK_QUERIES * ROW_STRIDE);
        let sums = &mut rest[..TASK_QUERIES * width];
        let mut near = [Rows::at(queries.as_ptr()); GROUPS];
        for (g, (near, group)) in near.iter_mut().zip(self.twelves()).enumerate().take(self.count()) {
            let q = lines(&q[g * MR * self.stride..], self.stride, group.rows, d);
            // SAFETY: as `lines` asserts.
            *near = unsafe { rows_near(&mut queries[g * MR * ROW_STRIDE..], q, self.stride, group.rows, d) };
        }
        sums[..self.rows * width].fill(0.0);
        let mut softmax = [Softmax::new(); GROUPS];
        for chunk in self.chunks(0) {
            let sights = self.twelves().map(|group| group.sight(0, chunk));
            for panel in panels(&self.sight(0, chunk).keys) {
                for (g, sight) in seeing(&sights) {
                    let Some(part) = part_of(&panel, &sight.keys) else { continue };
                    let (first, lane) = (part.start / NR, part.start % NR);
                    let keys = &packed.keys[first * NR * d + lane..(first + 1) * NR * d];
                    let to = &mut scores[g * MR * ROW_STRIDE + part.start - chunk..];
                    // SAFETY: q has the rows; the tile is inside `scores`: at most 12 rows, and columns below 256.
                    unsafe {
                        micro::<ANY, 1>(
                            sight.rows,
                            part.len(),
                            d,
                            near[g],
                            Panel::packed(keys.as_ptr()),
                            to.as_mut_ptr(),
                            ROW_STRIDE,
                            Store::Set,
                        );
                    }
                }
            }
            for (g, sight) in seeing(&sights) {
                let scores = &mut scores[g * MR * ROW_STRIDE..];
                let sums = &mut sums[g * MR * width..];
                softmax_chunk(sight, scale, scores, sums, width, &mut softmax[g]);
            }
            for j in (0..d).step_by(NR) {
                for (g, sight) in seeing(&sights) {
                    let keys = &sight.keys;
                    let column = j * packed.positions;
                    let values = &packed.values[column + keys.start * NR..column + keys.end * NR];
                    let weights = &scores[g * MR * ROW_STRIDE + keys.start - chunk..];
                    // SAFETY: scores and sums have the rows, `values` the panel.
                    unsafe {
                        micro::<ROW_STRIDE, 1>(
                            sight.rows,
                            NR,
                            keys.len(),
                            Rows::at(weights.as_ptr()),
                            Panel::packed(values.as_ptr()),
                            sums[g * MR * width + j..].as_mut_ptr(),
                            width,
                            Store::Add,
                        );
                    }
                }
            }
        }
        for (i, sums) in sums.chunks_exact(width).enumerate().take(self.rows) {
            // SAFETY: the caller's promise.
            let out = unsafe { out.slice_mut(at + i * self.stride..at + i * self.stride + d) };
            divide_row(out, &sums[..d], softmax[i / MR].total[i % MR]);
        }
        for (lse, softmax) in lse[..self.rows].chunks_mut(MR).zip(&softmax) {
            lse.copy_from_slice(&log_sum_exps(softmax, scale)[..lse.len()]);
        }
    }
}

/// Of a panel of 32 keys, the halves that hold some of `keys`.
pub(super) fn part_of(panel: &Range<usize>, keys: &Range<usize>) -> Option<Range<usize>> {
    let part = panel.start.max(keys.start / HALF * HALF)..panel.end.min(keys.end.next_multiple_of(HALF));
    (!keys.is_empty() && !part.is_empty()).then_some(part)
}

/// Keys by panels of 32; at the ends by halves, where nothing is wanted of the other half.
pub(super) fn panels(keys: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let (low, high) = (keys.start / HALF * HALF, keys.end.next_multiple_of(HALF));
    (low / NR..high.div_ceil(NR)).map(move |panel| low.max(panel * NR)..high.min((panel + 1) * NR))
}
