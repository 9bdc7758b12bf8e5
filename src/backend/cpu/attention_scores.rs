//! What becomes of attention's scores: rows of queries, a chunk of keys wide, between two products.

use std::ops::Range;

use super::gemm::{MR, ROW_STRIDE};
use super::simd::{LANES, larger, simd_fn};
use crate::math::log;

/// Some keys of a chunk, and the few consecutive queries, twelve at most, whose scores against them are looked at: row i at
/// `i * ROW_STRIDE`, the chunk's first key in column 0.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    pub(super) rows: usize,
    /// Position of the first query.
    query: usize,
    window: usize,
    /// Position of the chunk's first key.
    chunk: usize,
    /// Positions of the keys that some of the queries see.
    pub(super) keys: Range<usize>,
}

impl Sight {
    /// `rows` consecutive queries from position `query` on, of which each sees itself and `window` keys before it, and what
    /// they see of the keys `among`, which lie in the chunk that begins at `chunk`: nothing where there are no queries.
    pub(super) fn new(rows: usize, query: usize, window: usize, chunk: usize, among: &Range<usize>) -> Self {
        let first = query.saturating_sub(window).max(among.start);
        let end = if rows == 0 { first } else { (query + rows).min(among.end).max(first) };
        Self { rows, query, window, chunk, keys: first..end }
    }

    /// Columns of the keys.
    #[inline(always)]
    pub(super) fn columns(&self) -> Range<usize> {
        self.keys.start - self.chunk..self.keys.end - self.chunk
    }

    /// Columns of the keys, by whole vectors.
    #[inline(always)]
    fn vectors(&self) -> Range<usize> {
        let columns = self.columns();
        columns.start / LANES..columns.end.div_ceil(LANES)
    }

    /// Columns that query `i` sees of these keys: an empty range at one of their ends where it sees none.
    #[inline(always)]
    fn seen(&self, i: usize) -> Range<usize> {
        let position = self.query + i;
        let end = (position + 1).clamp(self.keys.start, self.keys.end);
        let start = position.saturating_sub(self.window).clamp(self.keys.start, end);
        start - self.chunk..end - self.chunk
    }
}

/// Groups of queries that see some key of the chunk, each with its number.
#[inline(always)]
pub(super) fn seeing(sights: &[Sight]) -> impl Iterator<Item = (usize, &Sight)> {
    sights.iter().enumerate().filter(|(_, sight)| !sight.keys.is_empty())
}

/// Of every query of a group, over the keys so far; room for a whole vector of them.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    /// The largest score.
    max: [f32; LANES],
    /// The sum of weights.
    pub(super) total: [f32; LANES],
}

impl Softmax {
    /// Before the first key.
    pub(super) fn new() -> Self {
        Self { max: [f32::NEG_INFINITY; LANES], total: [0.0; LANES] }
    }
}

const _: () = assert!(MR <= LANES && ROW_STRIDE.is_multiple_of(LANES));

/// Scores of a row, whose vectors from `first` on these are, become minus infinity outside the columns `seen`.
#[inline(always)]
fn hide(vectors: &mut [[f32; LANES]], first: usize, seen: &Range<usize>) {
    let (before, behind) = (seen.start - first * LANES, seen.end - first * LANES);
    let left = before.div_ceil(LANES);
    // No `fill`: what is to be hidden is short or nothing, and each is a call.
    for v in (0..left).chain(left.max(behind / LANES)..vectors.len()) {
        for (i, x) in vectors[v].iter_mut().enumerate() {
            let column = v * LANES + i;
            *x = if column < before || column >= behind { f32::NEG_INFINITY } else { *x };
        }
    }
}

simd_fn! {
    /// Turns scores into weights, `exp(scale * (score - max))` where visible and 0 elsewhere, and scales earlier sums, a row
    /// every `width`, to the new maxima.
    wide by lanes, pub(super) fn softmax_chunk(
        sight: &Sight,
        scale: f32,
        scores: &mut [f32],
        sums: &mut [f32],
        width: usize,
        softmax: &mut Softmax,
    ) {
        let vectors = sight.vectors();
        let rows = &mut scores.as_chunks_mut::<ROW_STRIDE>().0[..sight.rows];
        let mut parts = [[f32::NEG_INFINITY; LANES]; LANES];
        for (i, (row, part)) in rows.iter_mut().zip(&mut parts).enumerate() {
            let row = &mut row.as_chunks_mut::<LANES>().0[vectors.clone()];
            // The weight of minus infinity is an exact 0.
            hide(row, vectors.start, &sight.seen(i));
            for vector in row {
                for i in 0..LANES {
                    part[i] = larger(vector[i], part[i]);
                }
            }
        }
        let old = softmax.max;
        let maxima = lanes.tree_maxima(&parts);
        let (mut offsets, mut corrections) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        for i in 0..LANES {
            let max = larger(maxima[i], old[i]);
            softmax.max[i] = max;
            // Who has seen nothing has nothing but minus infinity here, and weights of 0.
            offsets[i] = if max == f32::NEG_INFINITY { 0.0 } else { -max * scale };
            corrections[i] = old[i].mul_add(scale, offsets[i]);
        }
        corrections = lanes.exp(corrections);
        for i in 0..LANES {
            // Before the first key all sums are 0.
            let same = old[i] == softmax.max[i] || old[i] == f32::NEG_INFINITY;
            corrections[i] = if same { 1.0 } else { corrections[i] };
        }
        parts = [[0.0; LANES]; LANES];
        for ((row, part), &offset) in rows.iter_mut().zip(&mut parts).zip(&offsets) {
            for vector in &mut row.as_chunks_mut::<LANES>().0[vectors.clone()] {
                for x in &mut *vector {
                    *x = x.mul_add(scale, offset);
                }
                *vector = lanes.exp(*vector);
                for i in 0..LANES {
                    part[i] += vector[i];
                }
            }
        }
        let totals = lanes.tree_sums(&parts);
        for i in 0..LANES {
            softmax.total[i] = softmax.total[i].mul_add(corrections[i], totals[i]);
        }
        for (sums, &correction) in sums.chunks_exact_mut(width).zip(&corrections[..sight.rows]) {
            if correction != 1.0 {
                for x in sums {
                    *x *= correction;
                }
            }
        }
    }
}

simd_fn! {
    pub(super) fn divide_row(out: &mut [f32], row: &[f32], total: f32) {
        let factor = 1.0 / total;
        for (out, x) in out.iter_mut().zip(row) {
            *out = x * factor;
        }
    }
}

simd_fn! {
    /// Log-sum-exps of the scaled scores.
    wide pub(super) fn log_sum_exps(softmax: &Softmax, scale: f32) -> [f32; LANES] {
        // No `map`: its closure would be compiled for the baseline, where a fused multiply-add is a call.
        let mut sums = softmax.max;
        for (sum, &total) in sums.iter_mut().zip(&softmax.total) {
            *sum = *sum * scale + log(total);
        }
        sums
    }
}

simd_fn! {
    /// Scores become weights, gradients of weights become gradients of scores; of what is not seen, the columns `cleared`
    /// become 0.
    wide by lanes, pub(super) fn score_rows(
        sight: &Sight,
        cleared: &Range<usize>,
        weights: &mut [f32],
        dscores: &mut [f32],
        scale: f32,
        lse: &[f32],
        delta: &[f32],
    ) {
        let vectors = sight.vectors();
        let weights = &mut weights.as_chunks_mut::<ROW_STRIDE>().0[..sight.rows];
        let dscores = &mut dscores.as_chunks_mut::<ROW_STRIDE>().0[..sight.rows];
        for (i, (weights, dscores)) in weights.iter_mut().zip(dscores).enumerate() {
            let (lse, delta) = (lse[i], delta[i]);
            let row = weights.as_chunks_mut::<LANES>().0[vectors.clone()].iter_mut();
            for (w, ds) in row.zip(&mut dscores.as_chunks_mut::<LANES>().0[vectors.clone()]) {
                for w in &mut *w {
                    *w = w.mul_add(scale, -lse);
                }
                *w = lanes.exp(*w);
                for i in 0..LANES {
                    ds[i] = w[i] * (ds[i] - delta) * scale;
                }
            }
            let seen = sight.seen(i);
            for values in [weights, dscores] {
                if cleared.start < seen.start {
                    values[cleared.start..seen.start].fill(0.0);
                }
                if seen.end < cleared.end {
                    values[seen.end..cleared.end].fill(0.0);
                }
            }
        }
    }
}
