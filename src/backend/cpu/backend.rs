//! The backend's state, and how rows are shared out.

use std::ops::Range;

use super::pool::Pool;
use super::tensor::Tensor;
use super::workers::{Shared, Workers, piece};
use crate::ops::OpResult;

/// Rows of a task, and of a partial sum: a numerics constant.
pub(super) const ROW_CHUNK: usize = 32;

/// The ops on this machine's CPU.
#[derive(Debug)]
pub struct CpuBackend {
    pub(super) workers: Workers,
    pub(super) pool: Pool,
}

impl CpuBackend {
    /// A backend with `threads` threads of its own. Results do not depend on their number.
    pub fn new(threads: usize) -> OpResult<Self> {
        let pool = Pool::default();
        Ok(Self { workers: Workers::new(threads, &pool)?, pool })
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        self.workers.count()
    }
    /// How often tensor memory has been asked of the system; constant from the second step on.
    #[cfg(any(test, feature = "internals"))]
    pub fn allocations(&self) -> u64 {
        self.pool.allocations()
    }

    /// Bytes of tensor memory held, in use or waiting for reuse.
    #[cfg(any(test, feature = "internals"))]
    pub fn allocated_bytes(&self) -> u64 {
        self.pool.bytes()
    }
    /// A tensor with unspecified values.
    pub(super) fn tensor_uninit(&self, op: &'static str, rows: usize, cols: usize) -> OpResult<Tensor> {
        Ok(Tensor { rows, cols, data: self.pool.take(op, rows.saturating_mul(cols))? })
    }

    /// Runs `f` on chunks of rows.
    pub(super) fn for_row_chunks(&self, rows: usize, f: impl Fn(Range<usize>) + Send + Sync) {
        self.workers.run(rows.div_ceil(ROW_CHUNK), |task| f(piece(rows, ROW_CHUNK, task)));
    }

    /// Runs `f` on chunks of rows, each with `width` partial sums to set; -> their totals, added up in the order of the
    /// chunks.
    pub(super) fn sum_row_chunks(
        &self,
        rows: usize,
        width: usize,
        f: impl Fn(Range<usize>, &mut [f32]) + Send + Sync,
    ) -> OpResult<Vec<f64>> {
        let chunks = rows.div_ceil(ROW_CHUNK);
        let mut partial = self.pool.zeroed("sum", chunks * width)?;
        let shared = Shared::new(&mut partial);
        self.workers.run(chunks, |task| {
            // SAFETY: every task has its own sums.
            let sums = unsafe { shared.slice_mut(task * width..(task + 1) * width) };
            f(piece(rows, ROW_CHUNK, task), sums);
        });
        let mut totals = vec![0.0_f64; width];
        for sums in partial.chunks_exact(width.max(1)) {
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total += f64::from(*sum);
            }
        }
        Ok(totals)
    }
}
