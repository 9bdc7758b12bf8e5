//! Muon where the polar iteration is in bfloat16: momentum and weights stay in f32, the iterate and its products are two
//! bytes a value. Every value that upstream's eager kernels round is rounded here.
//!
//! Matrices of one shape go through each phase together, a few at a time; see [`super::super::muon`].

use std::ops::Range;

use super::super::backend::{CpuBackend, ROW_CHUNK};
use super::super::gemm::Part;
use super::super::muon::{
    self, BATCH, POLAR_EXPRESS, apply_row, momentum_chunk, root_of_sum, rounded, row_squares,
};
use super::super::pool::Buffer;
use super::super::simd::simd_fn;
use super::super::tensor::{Param, check};
use super::super::workers::{SCRATCH_LEN, Shared, piece};
use super::convert::{narrow, near, wide, widen};
use super::gemm::{Factor, Job, gemm_batch, rounded as round_sums};
use super::storage::{Half, Stored};
use crate::math::round_bf16;
use crate::ops::{MuonParam, MuonStep, OpResult};
use crate::precision::Precision;

/// Columns of a task of sums over columns.
const COLUMNS: usize = 64;

type Params<'a> = [MuonParam<'a, Param, Param, Param>];

pub(super) fn update(
    cpu: &CpuBackend,
    params: &mut [MuonParam<'_, Stored, Stored, Stored>],
    step: &MuonStep,
) -> OpResult<()> {
    let op = "muon";
    let mut singles = Vec::with_capacity(params.len());
    for p in params {
        singles.push(MuonParam {
            weight: p.weight.single_mut(op)?,
            grad: p.grad.single_mut(op)?,
            momentum: p.momentum.single_mut(op)?,
            second_moment: p.second_moment.single_mut(op)?,
        });
    }
    if step.polar_precision == Precision::F32 {
        return muon::update(cpu, &mut singles, step);
    }
    let Some((rows, cols)) = muon::check_params(&singles, step)? else { return Ok(()) };
    check(op, 2 * cols <= SCRATCH_LEN, || format!("rows of {cols} values"))?;
    for batch in singles.chunks_mut(BATCH) {
        let mut x = momentum(cpu, batch, rows, cols, step)?;
        if step.row_equilibration {
            equilibrate_rows(cpu, &mut x)?;
        }
        normalise(cpu, &mut x, step)?;
        polar(cpu, &mut x, step)?;
        finish(cpu, &x, batch, step)?;
    }
    Ok(())
}

/// The matrices of a batch, one after another.
struct Matrices {
    data: Half,
    count: usize,
    rows: usize,
    cols: usize,
}

impl Matrices {
    fn new(cpu: &CpuBackend, count: usize, rows: usize, cols: usize) -> OpResult<Self> {
        Ok(Self { data: Half::spare(&cpu.pool, "muon", count * rows * cols)?, count, rows, cols })
    }

    fn get(&self, index: usize) -> &[u16] {
        let len = self.rows * self.cols;
        &self.data[index * len..(index + 1) * len]
    }

    /// Runs `f(matrix, row, values, scratch)` on every row.
    fn for_rows(&mut self, cpu: &CpuBackend, f: impl Fn(usize, usize, &mut [u16], &mut [f32]) + Send + Sync) {
        let (rows, cols) = (self.rows, self.cols);
        let shared = Shared::new(&mut self.data);
        let chunks = rows.div_ceil(ROW_CHUNK);
        cpu.workers.run_with_scratch(self.count * chunks, |task, scratch| {
            let i = task / chunks;
            for r in piece(rows, ROW_CHUNK, task % chunks) {
                let at = (i * rows + r) * cols;
                // SAFETY: every task has its own rows.
                f(i, r, unsafe { shared.slice_mut(at..at + cols) }, scratch);
            }
        });
    }

    /// Sum of squares of every row of every matrix.
    fn row_squares(&self, cpu: &CpuBackend) -> OpResult<Buffer> {
        let mut sums = cpu.pool.spare("muon", self.count * self.rows)?;
        let shared = Shared::new(&mut sums);
        let all = self.count * self.rows;
        cpu.workers.run_with_scratch(all.div_ceil(ROW_CHUNK), |task, scratch| {
            let row = &mut scratch[..self.cols];
            for r in piece(all, ROW_CHUNK, task) {
                widen(&self.data[r * self.cols..(r + 1) * self.cols], row);
                // SAFETY: every task has its own rows.
                row_squares(row, self.cols, unsafe { shared.slice_mut(r..r + 1) });
            }
        });
        Ok(sums)
    }
}

/// The root of the sum of each matrix's squares.
fn norms(squares: &[f32], count: usize, rows: usize) -> [f32; BATCH] {
    std::array::from_fn(|i| if i < count { root_of_sum(&squares[i * rows..(i + 1) * rows]) } else { 0.0 })
}

/// `m <- lerp(m, g, 1 - mu)`, -> `lerp(g, m, mu)`
fn momentum(
    cpu: &CpuBackend,
    batch: &mut Params<'_>,
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
    x.for_rows(cpu, |i, r, x, scratch| {
        let range = r * cols..(r + 1) * cols;
        // SAFETY: the row of x is this task's, and so is that of its momentum.
        let m = unsafe { moments[i].slice_mut(range.clone()) };
        let row = &mut scratch[..cols];
        momentum_chunk(row, m, &grads[i][range], step.momentum, false);
        narrow(row, x);
    });
    Ok(x)
}

simd_fn! {
    wide fn scale(x: &mut [u16], factor: f32) {
        for x in x {
            *x = near(wide(*x) * factor);
        }
    }
}

simd_fn! {
    wide fn divide(x: &mut [u16], divisor: f32) {
        for x in x {
            *x = near(wide(*x) / divisor);
        }
    }
}

/// Scales every row to the mean row norm.
fn equilibrate_rows(cpu: &CpuBackend, x: &mut Matrices) -> OpResult<()> {
    let squares = x.row_squares(cpu)?;
    let rows = x.rows;
    let targets = norms(&squares, x.count, rows).map(|norm| norm / (rows as f32).sqrt());
    x.for_rows(cpu, |i, r, x, _| {
        let norm = squares[i * rows + r].sqrt().max(1e-6);
        scale(x, rounded(targets[i] / norm, true));
    });
    Ok(())
}

/// `X / (|X| f + 1e-6)`
fn normalise(cpu: &CpuBackend, x: &mut Matrices, step: &MuonStep) -> OpResult<()> {
    let squares = x.row_squares(cpu)?;
    let divisors = norms(&squares, x.count, x.rows)
        .map(|norm| rounded(rounded(rounded(norm, true) * step.norm_factor, true) + 1e-6, true));
    x.for_rows(cpu, |i, _, x, _| divide(x, divisors[i]));
    Ok(())
}

simd_fn! {
    /// `y = p x + q sum`, each operation rounded.
    wide fn combine(sums: &[f32], x: &[u16], p: f32, q: f32, y: &mut [u16]) {
        for ((y, x), sum) in y.iter_mut().zip(x).zip(sums) {
            *y = near(round_bf16(p * wide(*x)) + round_bf16(q * round_bf16(*sum)));
        }
    }
}

/// The nearest (semi-)orthogonal matrices, roughly.
fn polar(cpu: &CpuBackend, x: &mut Matrices, step: &MuonStep) -> OpResult<()> {
    let tall = x.rows > x.cols;
    let (n, long) = (x.rows.min(x.cols), x.rows.max(x.cols));
    let mut gram = Matrices::new(cpu, x.count, n, n)?;
    let mut square = Matrices::new(cpu, x.count, n, n)?;
    let mut next = Matrices::new(cpu, x.count, x.rows, x.cols)?;
    for &(a, b, c) in &POLAR_EXPRESS[..step.ns_steps] {
        // X X^T, or X^T X of a tall matrix.
        let jobs: Vec<_> = each(&mut gram)
            .enumerate()
            .map(|(i, g)| {
                let side =
                    if tall { Factor::across(x.get(i), n, long) } else { Factor::along(x.get(i), n, long) };
                Job::setting(side, side, g, &round_sums)
            })
            .collect();
        gemm_batch(&cpu.workers, &cpu.pool, &jobs, Part::Upper)?;
        drop(jobs);
        // b A + c A^2.
        let finishes: Vec<_> = (0..x.count)
            .map(|i| {
                let gram = gram.get(i);
                move |at: usize, sums: &[f32], y: &mut [u16]| combine(sums, &gram[at..at + y.len()], b, c, y)
            })
            .collect();
        let jobs: Vec<_> = each(&mut square)
            .zip(&finishes)
            .enumerate()
            .map(|(i, (s, finish))| {
                // As it is symmetric, its columns are its rows.
                Job::setting(Factor::along(gram.get(i), n, n), Factor::across(gram.get(i), n, n), s, finish)
            })
            .collect();
        gemm_batch(&cpu.workers, &cpu.pool, &jobs, Part::Upper)?;
        drop(jobs);
        // a X + B X, or a X + X B.
        let finishes: Vec<_> = (0..x.count)
            .map(|i| {
                let x = x.get(i);
                move |at: usize, sums: &[f32], y: &mut [u16]| combine(sums, &x[at..at + y.len()], a, 1.0, y)
            })
            .collect();
        let jobs: Vec<_> = each(&mut next)
            .zip(&finishes)
            .enumerate()
            .map(|(i, (y, finish))| {
                let (left, right) = if tall {
                    (Factor::along(x.get(i), long, n), Factor::across(square.get(i), n, n))
                } else {
                    (Factor::along(square.get(i), n, n), Factor::across(x.get(i), long, n))
                };
                Job::setting(left, right, y, finish)
            })
            .collect();
        gemm_batch(&cpu.workers, &cpu.pool, &jobs, Part::All)?;
        drop(jobs);
        drop(finishes);
        std::mem::swap(x, &mut next);
    }
    Ok(())
}

fn each(matrices: &mut Matrices) -> std::slice::ChunksExactMut<'_, u16> {
    let len = matrices.rows * matrices.cols;
    matrices.data.chunks_exact_mut(len)
}

/// What follows the iteration: Muon+, NorMuon, and the update of the weights.
fn finish(cpu: &CpuBackend, x: &Matrices, batch: &mut Params<'_>, step: &MuonStep) -> OpResult<()> {
    let bf16 = step.update_precision == Precision::Bf16;
    let (rows, cols) = (x.rows, x.cols);
    let by_rows = rows >= cols;
    // Muon+: to Frobenius norm sqrt(min(R, K)). As every other pass over X reads it once more, it is done on the way.
    let scales = if step.renormalize {
        let squares = x.row_squares(cpu)?;
        let target = (rows.min(cols) as f32).sqrt();
        norms(&squares, x.count, rows).map(|norm| rounded(target / norm.max(1e-6), bf16))
    } else {
        [1.0; BATCH]
    };
    let part = |i: usize, r: usize, c: Range<usize>, to: &mut [f32]| {
        widen(&x.get(i)[r * cols + c.start..r * cols + c.end], to);
        if step.renormalize {
            muon::scale(to, scales[i], bf16);
        }
    };
    let mut squares = squares_of(cpu, x, by_rows, &part)?;
    muon::normuon(&mut squares, batch, step, if by_rows { cols } else { rows });
    let lr = rounded(step.lr, bf16);
    let decay = rounded(lr * rounded(step.weight_decay, bf16), bf16);
    let mut weights = [Shared::new(&mut []); BATCH];
    for (slot, p) in weights.iter_mut().zip(&mut *batch) {
        *slot = Shared::new(&mut p.weight.data);
    }
    let chunks = rows.div_ceil(ROW_CHUNK);
    cpu.workers.run_with_scratch(x.count * chunks, |task, scratch| {
        let i = task / chunks;
        let values = &mut scratch[..cols];
        for r in piece(rows, ROW_CHUNK, task % chunks) {
            part(i, r, 0..cols, values);
            // SAFETY: every task has its own rows.
            let w = unsafe { weights[i].slice_mut(r * cols..(r + 1) * cols) };
            if by_rows {
                apply_row(w, values, squares[i * rows + r], &[], lr, decay, bf16);
            } else {
                apply_row(w, values, 0.0, &squares[i * cols..(i + 1) * cols], lr, decay, bf16);
            }
        }
    });
    Ok(())
}

/// Sums of squares over each row, or over each column with rows in order.
fn squares_of(
    cpu: &CpuBackend,
    x: &Matrices,
    by_rows: bool,
    part: &(impl Fn(usize, usize, Range<usize>, &mut [f32]) + Send + Sync),
) -> OpResult<Buffer> {
    let (rows, cols) = (x.rows, x.cols);
    let mut sums = cpu.pool.spare("muon", x.count * if by_rows { rows } else { cols })?;
    let shared = Shared::new(&mut sums);
    if by_rows {
        let all = x.count * rows;
        cpu.workers.run_with_scratch(all.div_ceil(ROW_CHUNK), |task, scratch| {
            let values = &mut scratch[..cols];
            for r in piece(all, ROW_CHUNK, task) {
                part(r / rows, r % rows, 0..cols, values);
                // SAFETY: every task has its own rows.
                row_squares(values, cols, unsafe { shared.slice_mut(r..r + 1) });
            }
        });
        return Ok(sums);
    }
    let pieces = cols.div_ceil(COLUMNS);
    cpu.workers.run_with_scratch(x.count * pieces, |task, scratch| {
        let (i, c) = (task / pieces, piece(cols, COLUMNS, task % pieces));
        let values = &mut scratch[..c.len()];
        // SAFETY: every task has its own columns.
        let sums = unsafe { shared.slice_mut(i * cols + c.start..i * cols + c.end) };
        sums.fill(0.0);
        for r in 0..rows {
            part(i, r, c.clone(), values);
            add_squares(values, sums);
        }
    });
    Ok(sums)
}

simd_fn! {
    fn add_squares(x: &[f32], sums: &mut [f32]) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = x.mul_add(*x, *sum);
        }
    }
}
