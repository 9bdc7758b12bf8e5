//! Causal attention within a window, with an online softmax (FlashAttention, arXiv 2205.14135).
//!
//! Twelve queries at a time meet the keys they see in chunks of [`CHUNK`] positions; what lies outside the window is
//! skipped to the panel (32 keys) for scores and to the key for sums of values. Key j always falls into the same chunk
//! and the same lane of each sum, and masked keys add exact zeros, so a query's result depends neither on how queries
//! are grouped nor on whether keys come from a cache.

use super::backend::CpuBackend;
use super::gemm::{MR, NR, ROW_STRIDE, Rows, Store, micro, pack};
use super::pool::Buffer;
use super::simd::{LANES, simd_fn, tree_sum};
use super::tensor::{Tensor, check, check_shape};
use super::workers::{Shared, piece};
use crate::math::{exp, log};
use crate::ops::{AttentionShape, OpResult};

/// Keys of a chunk of the online softmax: a numerics constant.
const CHUNK: usize = super::gemm::KC;
/// Queries of a task.
const TASK_QUERIES: usize = 4 * MR;
/// The largest head.
pub(super) const MAX_HEAD_DIM: usize = super::gemm::KC;

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
                pack::panels(dst, v.data[at..].as_ptr(), kv_cols, d, t);
            } else {
                let dst = packed_k.slice_mut(head * key_len..(head + 1) * key_len);
                pack::panels_transposed(dst, k.data[at..].as_ptr(), kv_cols, t, d);
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
        for start in queries.clone().step_by(MR) {
            let rows = MR.min(queries.end - start);
            let at = (b * t + start) * q.cols + h * d;
            // SAFETY: every task has its own queries and head.
            let lse = unsafe { saved.slice_mut(head * t + start..head * t + start + rows) };
            let group = Group { rows, position: start, stride: q.cols, head_dim: d, window: s.window };
            // SAFETY: as above.
            unsafe { group.attend(&q.data[at..], &packed, out.ptr().add(at), lse, scratch) };
        }
    });
    Ok((o, AttentionSaved(lse)))
}

/// At most twelve consecutive queries of one head.
pub(super) struct Group {
    pub(super) rows: usize,
    /// Position of the first.
    pub(super) position: usize,
    /// Distance between rows of q and of the output.
    pub(super) stride: usize,
    pub(super) head_dim: usize,
    pub(super) window: usize,
}

impl Group {
    /// Writes the attention of the group to `out` and its log-sum-exps to `lse`.
    ///
    /// # Safety
    /// `out` has room for the rows, and nobody else touches them.
    pub(super) unsafe fn attend(
        &self,
        q: &[f32],
        packed: &PackedHead<'_>,
        out: *mut f32,
        lse: &mut [f32],
        scratch: &mut [f32],
    ) {
        let d = self.head_dim;
        let width = d.next_multiple_of(NR);
        let scale = 1.0 / (d as f32).sqrt();
        let (queries, rest) = scratch.split_at_mut(MR * ROW_STRIDE);
        let (scores, rest) = rest.split_at_mut(MR * ROW_STRIDE);
        let sums = &mut rest[..MR * width];
        assert!(q.len() >= (self.rows - 1) * self.stride + d);
        // SAFETY: as asserted.
        unsafe { pack::rows(queries, q.as_ptr(), self.stride, self.rows, d) };
        sums.fill(0.0);
        let mut max = [f32::NEG_INFINITY; MR];
        let mut total = [0.0_f32; MR];
        let first = self.position.saturating_sub(self.window);
        let end = self.position + self.rows;
        for chunk in (first / CHUNK * CHUNK..end).step_by(CHUNK) {
            let (low, high) = (first.max(chunk), end.min(chunk + CHUNK));
            for panel in low / NR..high.div_ceil(NR) {
                let keys = &packed.keys[panel * NR * d..(panel + 1) * NR * d];
                let to = &mut scores[panel * NR - chunk..];
                // SAFETY: the tile is inside `scores`: at most 12 rows, and 32 columns from a multiple of 32 below 256.
                unsafe {
                    micro::<ROW_STRIDE, 1>(
                        self.rows,
                        NR,
                        d,
                        Rows::at(queries.as_ptr()),
                        keys.as_ptr(),
                        to.as_mut_ptr(),
                        ROW_STRIDE,
                        Store::Set,
                    );
                }
            }
            for i in 0..self.rows {
                let position = self.position + i;
                let visible_end = (position + 1).clamp(low, high);
                let visible_start = position.saturating_sub(self.window).clamp(low, visible_end);
                let row = &mut scores[i * ROW_STRIDE..i * ROW_STRIDE + CHUNK];
                let correction = softmax_row(
                    row,
                    low - chunk,
                    high - chunk,
                    visible_start - chunk,
                    visible_end - chunk,
                    scale,
                    &mut max[i],
                    &mut total[i],
                );
                if correction != 1.0 {
                    scale_row(&mut sums[i * width..(i + 1) * width], correction);
                }
            }
            for j in (0..d).step_by(NR) {
                let values =
                    &packed.values[j * packed.positions + low * NR..j * packed.positions + high * NR];
                // SAFETY: scores and sums have the rows, `values` the panel.
                unsafe {
                    micro::<ROW_STRIDE, 1>(
                        self.rows,
                        NR,
                        high - low,
                        Rows::at(scores.as_ptr().add(low - chunk)),
                        values.as_ptr(),
                        sums.as_mut_ptr().add(j),
                        width,
                        Store::Add,
                    );
                }
            }
        }
        for i in 0..self.rows {
            // SAFETY: the caller's promise.
            let out = unsafe { std::slice::from_raw_parts_mut(out.add(i * self.stride), d) };
            divide_row(out, &sums[i * width..i * width + d], total[i]);
            lse[i] = max[i] * scale + log(total[i]);
        }
    }
}

simd_fn! {
    /// Turns scores into weights: `exp(scale * (score - max))` where visible, 0 elsewhere within `low .. high`. Updates the
    /// running maximum and total; -> the factor that earlier sums must be multiplied by.
    wide fn softmax_row(
        row: &mut [f32],
        low: usize,
        high: usize,
        start: usize,
        end: usize,
        scale: f32,
        max: &mut f32,
        total: &mut f32,
    ) -> f32 {
        if start >= end {
            row[low..high].fill(0.0);
            return 1.0;
        }
        let from = start / LANES * LANES;
        let to = end.next_multiple_of(LANES);
        row[from..start].fill(f32::NEG_INFINITY);
        row[end..to].fill(f32::NEG_INFINITY);
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for group in row[from..to].as_chunks::<LANES>().0 {
            for i in 0..LANES {
                lanes[i] = if group[i] > lanes[i] { group[i] } else { lanes[i] };
            }
        }
        let mut new_max = *max;
        for lane in lanes {
            new_max = if lane > new_max { lane } else { new_max };
        }
        let offset = -new_max * scale;
        let mut sums = [0.0_f32; LANES];
        for group in row[from..to].as_chunks_mut::<LANES>().0 {
            for i in 0..LANES {
                group[i] = exp(group[i].mul_add(scale, offset));
                sums[i] += group[i];
            }
        }
        if low < from {
            row[low..from].fill(0.0);
        }
        if to < high {
            row[to..high].fill(0.0);
        }
        let correction = if *max == new_max { 1.0 } else { exp((*max).mul_add(scale, offset)) };
        *total = total.mul_add(correction, tree_sum(sums));
        *max = new_max;
        correction
    }
}

simd_fn! {
    fn scale_row(row: &mut [f32], factor: f32) {
        for x in row {
            *x *= factor;
        }
    }
}

simd_fn! {
    fn divide_row(out: &mut [f32], row: &[f32], total: f32) {
        let factor = 1.0 / total;
        for (out, x) in out.iter_mut().zip(row) {
            *out = x * factor;
        }
    }
}
