//! Muon: Nesterov momentum, polar iteration (Polar Express, arXiv 2505.16932), NorMuon (arXiv 2510.05491) and cautious
//! decay; optionally MuonEq's row equilibration (arXiv 2603.28254) and Muon+'s renormalisation (arXiv 2602.21545).
//!
//! Matrices of one shape go through each phase together, a few at a time. With bf16 precision every value that
//! upstream's eager kernels round to bf16 is rounded here, and sums are f32 as there.

use ndarray::ArrayView2;

use super::adamw::lerp;
use super::backend::{CpuBackend, ROW_CHUNK};
use super::gemm::{Job, Part, Store, gemm_batch, matrix};
use super::pool::Buffer;
use super::simd::{dot, simd_fn};
use super::symmetric::complete;
use super::tensor::{Param, check};
use super::workers::{Shared, piece};
use crate::math::round_bf16;
use crate::ops::{MuonParam, MuonStep, OpResult};
use crate::precision::Precision;

/// Matrices that go through the phases together: bounds the scratch memory.
pub(super) const BATCH: usize = 4;

/// (a, b, c) of each iteration `X <- aX + (bA + cA^2)X`, `A = X X^T`. arXiv 2505.16932, for five iterations with a
/// safety factor of 0.02 and cushion 2, as nanochat uses them.
#[allow(clippy::excessive_precision)]
pub(super) const POLAR_EXPRESS: [(f32, f32, f32); 5] = [
    (8.156_554_524_902_461, -22.483_292_925_577_95, 15.878_769_915_207_462),
    (4.042_929_935_166_739, -2.808_917_465_908_714, 0.500_017_845_105_131_6),
    (3.891_667_802_292_660_7, -2.772_484_153_217_685, 0.506_064_817_850_339_3),
    (3.285_753_657_755_655, -2.368_129_493_342_537_6, 0.464_490_242_330_031_06),
    (2.346_541_325_859_637_7, -1.709_782_838_268_708_1, 0.423_235_511_693_053_23),
];

pub(super) fn update(
    cpu: &CpuBackend,
    params: &mut [MuonParam<'_, Param, Param, Param>],
    step: &MuonStep,
) -> OpResult<()> {
    let Some((rows, cols)) = check_params(params, step)? else { return Ok(()) };
    for batch in params.chunks_mut(BATCH) {
        let mut x = momentum(cpu, batch, rows, cols, step)?;
        if step.row_equilibration {
            equilibrate_rows(cpu, &mut x, step)?;
        }
        normalise(cpu, &mut x, step)?;
        polar(cpu, &mut x, step)?;
        if step.renormalize {
            renormalise(cpu, &mut x, step)?;
        }
        let factors = second_moment(cpu, &x, batch, step)?;
        apply(cpu, &x, &factors, batch, step);
    }
    Ok(())
}

/// Rows and columns of all of them; none where there is nothing to update.
pub(super) fn check_params(
    params: &[MuonParam<'_, Param, Param, Param>],
    step: &MuonStep,
) -> OpResult<Option<(usize, usize)>> {
    let Some(first) = params.first() else { return Ok(None) };
    let (rows, cols) = first.weight.matrix();
    let seconds = if rows >= cols { rows } else { cols };
    for p in params {
        let len = rows * cols;
        let sizes = [p.grad.data.len(), p.momentum.data.len(), p.second_moment.data.len()];
        check("muon", p.weight.matrix() == (rows, cols) && sizes == [len, len, seconds], || {
            format!("{:?} among matrices of {:?}, or its state does not fit", p.weight.shape, (rows, cols))
        })?;
    }
    check("muon", step.ns_steps <= POLAR_EXPRESS.len(), || {
        format!("{} polar iterations, at most 5", step.ns_steps)
    })?;
    Ok((rows * cols > 0).then_some((rows, cols)))
}

/// The matrices of a batch, one after another.
struct Matrices {
    data: Buffer,
    count: usize,
    rows: usize,
    cols: usize,
}

impl Matrices {
    fn new(cpu: &CpuBackend, count: usize, rows: usize, cols: usize) -> OpResult<Self> {
        Ok(Self { data: cpu.pool.spare("muon", count * rows * cols)?, count, rows, cols })
    }

    fn values(&self, index: usize) -> &[f32] {
        let len = self.rows * self.cols;
        &self.data[index * len..(index + 1) * len]
    }

    fn get(&self, index: usize) -> ArrayView2<'_, f32> {
        matrix(self.values(index), self.rows, self.cols)
    }

    /// Runs `f(matrix, first row, elements)` on chunks of rows.
    fn for_rows(&mut self, cpu: &CpuBackend, f: impl Fn(usize, usize, &mut [f32]) + Send + Sync) {
        let (rows, cols) = (self.rows, self.cols);
        let shared = Shared::new(&mut self.data);
        let chunks = rows.div_ceil(ROW_CHUNK);
        cpu.workers.run(self.count * chunks, |task| {
            let r = piece(rows, ROW_CHUNK, task % chunks);
            let start = task / chunks * rows * cols;
            // SAFETY: every task has its own rows.
            f(task / chunks, r.start, unsafe {
                shared.slice_mut(start + r.start * cols..start + r.end * cols)
            });
        });
    }

    /// Sum of squares of every row of every matrix.
    fn row_squares(&self, cpu: &CpuBackend) -> OpResult<Buffer> {
        let mut sums = cpu.pool.spare("muon", self.count * self.rows)?;
        let shared = Shared::new(&mut sums);
        let chunks = (self.count * self.rows).div_ceil(ROW_CHUNK);
        cpu.workers.run(chunks, |task| {
            let r = piece(self.count * self.rows, ROW_CHUNK, task);
            // SAFETY: every task has its own rows.
            let sums = unsafe { shared.slice_mut(r.clone()) };
            row_squares(&self.data[r.start * self.cols..r.end * self.cols], self.cols, sums);
        });
        Ok(sums)
    }

    /// Frobenius norm of each matrix.
    fn norms(&self, cpu: &CpuBackend) -> OpResult<[f32; BATCH]> {
        let squares = self.row_squares(cpu)?;
        Ok(std::array::from_fn(|i| {
            if i < self.count { root_of_sum(&squares[i * self.rows..(i + 1) * self.rows]) } else { 0.0 }
        }))
    }
}

/// The root of a sum, added up in order in f64.
pub(super) fn root_of_sum(values: &[f32]) -> f32 {
    values.iter().map(|&v| f64::from(v)).sum::<f64>().sqrt() as f32
}

simd_fn! {
    pub(super) fn row_squares(x: &[f32], cols: usize, sums: &mut [f32]) {
        for (row, sum) in x.chunks_exact(cols).zip(sums) {
            *sum = dot(row, row);
        }
    }
}

/// Rounds if the precision is bf16.
#[inline(always)]
pub(super) fn rounded(x: f32, bf16: bool) -> f32 {
    if bf16 { round_bf16(x) } else { x }
}

fn polar_bf16(step: &MuonStep) -> bool {
    step.polar_precision == Precision::Bf16
}

fn update_bf16(step: &MuonStep) -> bool {
    step.update_precision == Precision::Bf16
}

/// `m <- lerp(m, g, 1 - mu)`, -> `lerp(g, m, mu)`
fn momentum(
    cpu: &CpuBackend,
    batch: &mut [MuonParam<'_, Param, Param, Param>],
    rows: usize,
    cols: usize,
    step: &MuonStep,
) -> OpResult<Matrices> {
    let mut x = Matrices::new(cpu, batch.len(), rows, cols)?;
    let mut moments = [Shared::new(&mut []); BATCH];
    for (slot, p) in moments.iter_mut().zip(&mut *batch) {
        *slot = Shared::new(&mut p.momentum.data);
    }
    let grads: [&[f32]; BATCH] = std::array::from_fn(|i| batch.get(i).map_or(&[][..], |p| &p.grad.data[..]));
    let bf16 = polar_bf16(step);
    x.for_rows(cpu, |i, first, x| {
        let range = first * cols..first * cols + x.len();
        // SAFETY: the rows of x are this task's, and so are those of its momentum.
        let m = unsafe { moments[i].slice_mut(range.clone()) };
        momentum_chunk(x, m, &grads[i][range], step.momentum, bf16);
    });
    Ok(x)
}

simd_fn! {
    pub(super) fn momentum_chunk(x: &mut [f32], m: &mut [f32], g: &[f32], mu: f32, bf16: bool) {
        for ((x, m), g) in x.iter_mut().zip(m).zip(g) {
            *m = lerp(*m, *g, 1.0 - mu);
            *x = rounded(lerp(*g, *m, mu), bf16);
        }
    }
}

/// Scales every row to the mean row norm.
fn equilibrate_rows(cpu: &CpuBackend, x: &mut Matrices, step: &MuonStep) -> OpResult<()> {
    let squares = x.row_squares(cpu)?;
    let (rows, cols) = (x.rows, x.cols);
    let targets: [f32; BATCH] = std::array::from_fn(|i| {
        if i < x.count { root_of_sum(&squares[i * rows..(i + 1) * rows]) / (rows as f32).sqrt() } else { 0.0 }
    });
    let bf16 = polar_bf16(step);
    x.for_rows(cpu, |i, first, x| {
        for (r, row) in x.chunks_exact_mut(cols).enumerate() {
            let norm = squares[i * rows + first + r].sqrt().max(1e-6);
            scale(row, rounded(targets[i] / norm, bf16), bf16);
        }
    });
    Ok(())
}

simd_fn! {
    pub(super) fn scale(x: &mut [f32], factor: f32, bf16: bool) {
        for x in x {
            *x = rounded(*x * factor, bf16);
        }
    }
}

/// `X / (|X| f + 1e-6)`
fn normalise(cpu: &CpuBackend, x: &mut Matrices, step: &MuonStep) -> OpResult<()> {
    let bf16 = polar_bf16(step);
    let divisors =
        x.norms(cpu)?.map(|norm| rounded(rounded(rounded(norm, bf16) * step.norm_factor, bf16) + 1e-6, bf16));
    x.for_rows(cpu, |i, _, x| divide(x, divisors[i], bf16));
    Ok(())
}

simd_fn! {
    fn divide(x: &mut [f32], divisor: f32, bf16: bool) {
        for x in x {
            *x = rounded(*x / divisor, bf16);
        }
    }
}

/// The nearest (semi-)orthogonal matrices, roughly.
fn polar(cpu: &CpuBackend, x: &mut Matrices, step: &MuonStep) -> OpResult<()> {
    let tall = x.rows > x.cols;
    let n = x.rows.min(x.cols);
    let bf16 = polar_bf16(step);
    let mut gram = Matrices::new(cpu, x.count, n, n)?;
    let mut square = Matrices::new(cpu, x.count, n, n)?;
    let mut next = Matrices::new(cpu, x.count, x.rows, x.cols)?;
    for &(a, b, c) in &POLAR_EXPRESS[..step.ns_steps] {
        let jobs = products(&mut gram, |i| {
            if tall { (x.get(i).reversed_axes(), x.get(i)) } else { (x.get(i), x.get(i).reversed_axes()) }
        });
        gemm_batch(&cpu.workers, &cpu.pool, jobs, Store::Set, Part::Upper)?;
        complete(&cpu.workers, &mut gram.data, n, |_, g| {
            if bf16 {
                round(g);
            }
        });
        // As it is symmetric, its rows are packed more cheaply than its columns would be.
        let jobs = products(&mut square, |i| (gram.get(i), gram.get(i)));
        gemm_batch(&cpu.workers, &cpu.pool, jobs, Store::Set, Part::Upper)?;
        complete(&cpu.workers, &mut square.data, n, |at, s| {
            combine(s, &gram.data[at..at + s.len()], b, c, bf16);
        });
        // a X + B X, or a X + X B, put together while the product is near.
        let finishes: Vec<_> = (0..x.count)
            .map(|i| {
                let x = x.values(i);
                move |at: usize, y: &mut [f32]| combine(y, &x[at..at + y.len()], a, 1.0, bf16)
            })
            .collect();
        let jobs =
            products(&mut next, |i| if tall { (x.get(i), square.get(i)) } else { (square.get(i), x.get(i)) });
        let jobs = jobs.into_iter().zip(&finishes).map(|(job, finish)| job.finished_by(finish)).collect();
        gemm_batch(&cpu.workers, &cpu.pool, jobs, Store::Set, Part::All)?;
        drop(finishes);
        std::mem::swap(x, &mut next);
    }
    Ok(())
}

/// The products of pairs, one a matrix.
fn products<'a>(
    out: &'a mut Matrices,
    pair: impl Fn(usize) -> (ArrayView2<'a, f32>, ArrayView2<'a, f32>),
) -> Vec<Job<'a>> {
    let len = out.rows * out.cols;
    let product = |(i, c): (usize, &'a mut [f32])| {
        let (a, b) = pair(i);
        Job::new(a, b, c)
    };
    out.data.chunks_exact_mut(len).enumerate().map(product).collect()
}

simd_fn! {
    fn round(x: &mut [f32]) {
        for x in x {
            *x = round_bf16(*x);
        }
    }
}

simd_fn! {
    /// `y = p x + q y`
    fn combine(y: &mut [f32], x: &[f32], p: f32, q: f32, bf16: bool) {
        for (y, x) in y.iter_mut().zip(x) {
            let product = rounded(*y, bf16);
            *y = rounded(rounded(p * x, bf16) + rounded(q * product, bf16), bf16);
        }
    }
}

/// Scales to Frobenius norm `sqrt(min(R, K))`.
fn renormalise(cpu: &CpuBackend, x: &mut Matrices, step: &MuonStep) -> OpResult<()> {
    let bf16 = update_bf16(step);
    let target = (x.rows.min(x.cols) as f32).sqrt();
    let factors = x.norms(cpu)?.map(|norm| rounded(target / norm.max(1e-6), bf16));
    x.for_rows(cpu, |i, _, x| scale(x, factors[i], bf16));
    Ok(())
}

/// NorMuon: updates the second moments, -> the factor of every row (R >= K) or column.
fn second_moment(
    cpu: &CpuBackend,
    x: &Matrices,
    batch: &mut [MuonParam<'_, Param, Param, Param>],
    step: &MuonStep,
) -> OpResult<Buffer> {
    let by_rows = x.rows >= x.cols;
    let (mut squares, reduced) =
        if by_rows { (x.row_squares(cpu)?, x.cols) } else { (column_squares(cpu, x)?, x.rows) };
    normuon(&mut squares, batch, step, reduced);
    Ok(squares)
}

/// Sums of squares over `reduced` elements become the factors of their rows or columns.
pub(super) fn normuon(
    squares: &mut [f32],
    batch: &mut [MuonParam<'_, Param, Param, Param>],
    step: &MuonStep,
    reduced: usize,
) {
    let bf16 = update_bf16(step);
    let new = 1.0 - rounded(step.beta2, bf16);
    let entries = squares.len() / batch.len().max(1);
    for (p, factors) in batch.iter_mut().zip(squares.chunks_exact_mut(entries.max(1))) {
        let (mut norm, mut new_norm) = (0.0_f64, 0.0_f64);
        for (moment, factor) in p.second_moment.data.iter_mut().zip(factors.iter_mut()) {
            let mean = *factor / reduced as f32;
            *moment = lerp(*moment, mean, new);
            let scale = 1.0 / moment.max(1e-10).sqrt();
            norm += f64::from(mean);
            new_norm += f64::from(mean * reduced as f32 * (scale * scale));
            *factor = scale;
        }
        let norm = (norm * reduced as f64).sqrt() as f32;
        let ratio = norm / (new_norm.sqrt() as f32).max(1e-10);
        for factor in factors {
            *factor = rounded(*factor * ratio, bf16);
        }
    }
}

/// Sum of squares of every column of every matrix, rows in order.
fn column_squares(cpu: &CpuBackend, x: &Matrices) -> OpResult<Buffer> {
    const COLUMNS: usize = 64;
    let mut sums = cpu.pool.spare("muon", x.count * x.cols)?;
    let shared = Shared::new(&mut sums);
    let pieces = x.cols.div_ceil(COLUMNS);
    cpu.workers.run(x.count * pieces, |task| {
        let c = piece(x.cols, COLUMNS, task % pieces);
        let i = task / pieces;
        // SAFETY: every task has its own columns.
        let sums = unsafe { shared.slice_mut(i * x.cols + c.start..i * x.cols + c.end) };
        column_squares_chunk(x.values(i), x.cols, c.start, sums);
    });
    Ok(sums)
}

simd_fn! {
    fn column_squares_chunk(x: &[f32], cols: usize, first: usize, sums: &mut [f32]) {
        sums.fill(0.0);
        for row in x.chunks_exact(cols) {
            for (sum, x) in sums.iter_mut().zip(&row[first..]) {
                *sum = x.mul_add(*x, *sum);
            }
        }
    }
}

/// `w -= lr u + lr wd w [u w >= 0]`, u the scaled direction.
fn apply(
    cpu: &CpuBackend,
    x: &Matrices,
    factors: &[f32],
    batch: &mut [MuonParam<'_, Param, Param, Param>],
    step: &MuonStep,
) {
    let (rows, cols) = (x.rows, x.cols);
    let by_rows = rows >= cols;
    let bf16 = update_bf16(step);
    let lr = rounded(step.lr, bf16);
    let decay = rounded(lr * rounded(step.weight_decay, bf16), bf16);
    let mut weights = [Shared::new(&mut []); BATCH];
    for (slot, p) in weights.iter_mut().zip(&mut *batch) {
        *slot = Shared::new(&mut p.weight.data);
    }
    let chunks = rows.div_ceil(ROW_CHUNK);
    cpu.workers.run(x.count * chunks, |task| {
        let i = task / chunks;
        for r in piece(rows, ROW_CHUNK, task % chunks) {
            // SAFETY: every task has its own rows.
            let w = unsafe { weights[i].slice_mut(r * cols..(r + 1) * cols) };
            let at = (i * rows + r) * cols;
            let x = &x.data[at..at + cols];
            if by_rows {
                apply_row(w, x, factors[i * rows + r], &[], lr, decay, bf16);
            } else {
                apply_row(w, x, 0.0, &factors[i * cols..(i + 1) * cols], lr, decay, bf16);
            }
        }
    });
}

simd_fn! {
    pub(super) fn apply_row(w: &mut [f32], x: &[f32], factor: f32, by_column: &[f32], lr: f32, decay: f32, bf16: bool) {
        if by_column.is_empty() {
            for (w, x) in w.iter_mut().zip(x) {
                apply_one(w, *x * factor, lr, decay, bf16);
            }
        } else {
            for ((w, x), factor) in w.iter_mut().zip(x).zip(by_column) {
                apply_one(w, *x * *factor, lr, decay, bf16);
            }
        }
    }
}

#[inline(always)]
fn apply_one(w: &mut f32, direction: f32, lr: f32, decay: f32, bf16: bool) {
    let u = rounded(direction, bf16);
    let shrink = if u * *w >= 0.0 { decay * *w } else { 0.0 };
    *w -= rounded(lr * u, bf16) + shrink;
}
