//! What the ops work on.

use ndarray::ArrayView2;

use super::gemm::{Factor, Job, PackedB, matrix};
use super::pool::Buffer;
use crate::ops::{OpError, OpResult};

/// A row-major matrix of activations.
#[derive(Debug)]
pub struct Tensor {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) data: Buffer,
}

impl Tensor {
    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// The values, row-major.
    #[cfg(any(test, feature = "internals"))]
    pub fn values(&self) -> &[f32] {
        &self.data
    }

    /// (rows, cols).
    pub fn view(&self) -> ArrayView2<'_, f32> {
        matrix(&self.data, self.rows, self.cols)
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }
}

/// Values that live as long as a run: a weight, its gradient, or optimizer state.
#[derive(Debug)]
pub struct Param {
    pub(super) shape: Vec<usize>,
    pub(super) data: Buffer,
    /// Instead of the values of a weight that only takes part in products: the transposed matrix, packed for them.
    pub(super) packed: Option<PackedB>,
}

impl Param {
    /// The product of rows of `a` with the first `n` rows of this matrix, added to or stored in `c`.
    pub(super) fn job<'a>(&'a self, a: impl Into<Factor<'a>>, n: usize, c: &'a mut [f32]) -> Job<'a> {
        match &self.packed {
            Some(packed) => Job::packed(a, packed, n, c),
            None => Job::new(a, matrix(&self.data, n, self.matrix().1).reversed_axes(), c),
        }
    }

    /// Its shape.
    #[cfg(any(test, feature = "internals"))]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.data
    }

    /// As a matrix: a vector is one row.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        let (rows, cols) = self.matrix();
        matrix(&self.data, rows, cols)
    }

    /// Rows and columns of the matrix.
    pub(super) fn matrix(&self) -> (usize, usize) {
        match self.shape[..] {
            [rows, cols] => (rows, cols),
            _ => (1, self.data.len()),
        }
    }
}

/// Token ids.
#[derive(Debug)]
pub struct Tokens {
    pub(super) data: Buffer,
}

impl Tokens {
    /// The ids.
    pub fn ids(&self) -> &[i32] {
        self.data.as_i32()
    }
}

/// Fails with the message unless the shapes fit.
pub(super) fn check(op: &'static str, fits: bool, message: impl FnOnce() -> String) -> OpResult<()> {
    if fits { Ok(()) } else { Err(OpError::Shape { op, message: message() }) }
}

/// Fails unless both have one shape.
pub(super) fn check_equal(op: &'static str, a: &Tensor, b: &Tensor) -> OpResult<()> {
    check(op, a.shape() == b.shape(), || format!("{:?} and {:?} differ", a.shape(), b.shape()))
}

/// Fails unless it has the shape.
pub(super) fn check_shape(
    op: &'static str,
    name: &str,
    x: &Tensor,
    rows: usize,
    cols: usize,
) -> OpResult<()> {
    check(op, x.shape() == (rows, cols), || format!("{name} is {:?}, expected {:?}", x.shape(), (rows, cols)))
}
