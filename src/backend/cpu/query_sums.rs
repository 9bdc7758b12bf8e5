//! Where the backward of attention sums gradients of queries: in place, or what a chunk of keys adds to them apart.

use std::ops::Range;

use super::attention_split::Task;
use super::gemm::Store;
use super::workers::Shared;
use crate::ops::AttentionShape;

/// Where those of a task are summed, in rows of all heads.
#[derive(Clone, Copy)]
pub(super) struct QuerySums {
    to: Shared<f32>,
    /// The row of the query at position `first`.
    row: usize,
    first: usize,
    /// Distance of rows.
    pub(super) cols: usize,
    head_dim: usize,
    /// What becomes of the products of a chunk of keys.
    pub(super) store: Store,
}

impl QuerySums {
    /// Those of `task`: rows of `in_place`, which has one for every position of every sequence, or of `apart`.
    pub(super) fn new(task: &Task, s: &AttentionShape, in_place: Shared<f32>, apart: Shared<f32>) -> Self {
        let (to, row, first, store) = match task.apart {
            Some(row) => (apart, row, task.queries.start, Store::Set),
            None => (in_place, task.b * s.sequence.len, 0, Store::Add),
        };
        Self { to, row, first, cols: s.n_head * s.head_dim, head_dim: s.head_dim, store }
    }

    fn at(&self, query: usize, head: usize) -> usize {
        (self.row + query - self.first) * self.cols + head * self.head_dim
    }

    /// Sums of these queries and a head begin at zero, where chunks of keys are added up in place. Right before the first
    /// product is added they are near for it; all of a task before its first one would go through memory once more.
    ///
    /// # Safety
    /// Nobody else touches those sums.
    pub(super) unsafe fn begin(&self, queries: Range<usize>, head: usize) {
        if self.store == Store::Set {
            return;
        }
        for query in queries {
            let at = self.at(query, head);
            // SAFETY: the caller's promise.
            unsafe { self.to.slice_mut(at..at + self.head_dim) }.fill(0.0);
        }
    }

    /// Sums of `rows` queries from `query` on and a head, columns from `j` on, of which `nr` are asserted to be there.
    pub(super) fn tile(&self, query: usize, rows: usize, head: usize, j: usize, nr: usize) -> *mut f32 {
        self.to.reach(self.at(query, head) + j, (rows - 1) * self.cols + nr)
    }
}
