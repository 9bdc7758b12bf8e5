//! What the ops work on: two bytes a value where upstream's mixed precision has bfloat16, four where it has float32.

use std::ops::{Deref, DerefMut};

use super::super::pool::{Buffer, Pool, Room};
use super::super::tensor::{Param, check};
use super::convert::{narrow, widen};
use super::gemm::PackedB;
use crate::ops::{OpError, OpResult};
use crate::tensors::Single;

/// Floats of memory that `len` values of two bytes take.
pub(in super::super) const fn floats(len: usize) -> usize {
    len.div_ceil(2)
}

/// Room for `len` values of two bytes.
pub(in super::super) fn room<M: Room>(pool: &Pool<M>, op: &'static str, len: usize) -> OpResult<Buffer<M>> {
    pool.take(op, floats(len))
}

/// Bfloat16 values, aligned to cache lines; back to their pool on drop.
#[derive(Debug)]
pub(in super::super) struct Half {
    buffer: Buffer,
    len: usize,
}

impl Half {
    /// `len` unspecified values.
    pub(super) fn take(pool: &Pool, op: &'static str, len: usize) -> OpResult<Self> {
        Ok(Self { buffer: room(pool, op, len)?, len })
    }

    /// `len` unspecified values for less than an op.
    pub(super) fn spare(pool: &Pool, op: &'static str, len: usize) -> OpResult<Self> {
        Ok(Self { buffer: pool.spare(op, floats(len))?, len })
    }

    /// `len` zeros.
    pub(super) fn zeroed(pool: &Pool, op: &'static str, len: usize) -> OpResult<Self> {
        Ok(Self { buffer: pool.zeroed(op, floats(len))?, len })
    }

    /// As f32.
    pub(super) fn wide(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        widen(self, &mut values);
        values
    }
}

impl Deref for Half {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        // SAFETY: the buffer has room for `len` values of two bytes, any bits of which are one.
        unsafe { std::slice::from_raw_parts(self.buffer.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Half {
    fn deref_mut(&mut self) -> &mut [u16] {
        // SAFETY: as in `deref`; any bits are a valid f32 too.
        unsafe { std::slice::from_raw_parts_mut(self.buffer.as_mut_ptr().cast(), self.len) }
    }
}

/// The same memory as pairs of bfloat16.
pub(super) fn pairs(floats: &[f32]) -> &[u32] {
    // SAFETY: f32 and u32 have one size and alignment, and any bits are a valid u32.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len()) }
}

/// The same memory as pairs of bfloat16.
pub(super) fn pairs_mut(floats: &mut [f32]) -> &mut [u32] {
    // SAFETY: as in `pairs`; any bits are a valid f32 too.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}

/// The same memory as bfloat16, the low halves first.
pub(super) fn halves_mut(floats: &mut [f32]) -> &mut [u16] {
    // SAFETY: two u16 are as large as an f32, are aligned less strictly, and any bits are valid for either.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), 2 * floats.len()) }
}

/// A row-major matrix of activations in bfloat16; of logits, in float32.
#[derive(Debug)]
pub struct Tensor {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) data: Data,
}

/// The values of a tensor.
#[derive(Debug)]
pub(super) enum Data {
    Half(Half),
    Single(Buffer),
}

impl Tensor {
    /// Bfloat16 values.
    pub(super) fn half(rows: usize, cols: usize, data: Half) -> Self {
        Self { rows, cols, data: Data::Half(data) }
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Its bfloat16 values.
    ///
    /// # Errors
    /// Logits, which no op takes.
    pub(super) fn values(&self, op: &'static str) -> OpResult<&[u16]> {
        match &self.data {
            Data::Half(values) => Ok(values),
            Data::Single(_) => Err(logits(op)),
        }
    }

    /// Its bfloat16 values.
    ///
    /// # Errors
    /// As [`Self::values`].
    pub(super) fn values_mut(&mut self, op: &'static str) -> OpResult<&mut [u16]> {
        match &mut self.data {
            Data::Half(values) => Ok(values),
            Data::Single(_) => Err(logits(op)),
        }
    }
}

fn logits(op: &'static str) -> OpError {
    OpError::Backend { op, message: "logits are no activations".to_owned() }
}

/// Values that live as long as a run: a weight, its gradient, or optimizer state.
#[derive(Debug)]
pub enum Stored {
    /// In float32.
    Single(Param),
    /// Of an embedding table, or of a weight that never changes: in bfloat16.
    Table(Table),
}

/// An embedding table, its gradient, or a moment of it; or a weight that only takes part in products.
#[derive(Debug)]
pub struct Table {
    pub(super) shape: Vec<usize>,
    pub(super) data: Half,
    /// Instead of the values of a weight that only takes part in products: the transposed matrix, packed for them.
    pub(super) packed: Option<PackedB>,
}

impl Stored {
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Single(param) => &param.shape,
            Self::Table(table) => &table.shape,
        }
    }

    /// Its values, exactly as they are stored.
    pub(super) fn values(&self) -> Single<'_> {
        match self {
            Self::Single(param) => param.values().into(),
            Self::Table(Table { packed: Some(packed), .. }) => packed.columns().into(),
            Self::Table(table) => Single::Half(&table.data),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Single(param) => param.data.len(),
            Self::Table(table) => table.data.len(),
        }
    }

    /// Rows and columns of the matrix: a vector is one row.
    pub(super) fn matrix(&self) -> (usize, usize) {
        match self.shape()[..] {
            [rows, cols] => (rows, cols),
            _ => (1, self.len()),
        }
    }

    /// What is in float32.
    ///
    /// # Errors
    /// A table.
    pub(super) fn single(&self, op: &'static str) -> OpResult<&Param> {
        match self {
            Self::Single(param) => Ok(param),
            Self::Table(_) => Err(table(op)),
        }
    }

    /// What is in float32.
    ///
    /// # Errors
    /// As [`Self::single`].
    pub(super) fn single_mut(&mut self, op: &'static str) -> OpResult<&mut Param> {
        match self {
            Self::Single(param) => Ok(param),
            Self::Table(_) => Err(table(op)),
        }
    }
}

fn table(op: &'static str) -> OpError {
    OpError::Backend { op, message: "a table is in bfloat16".to_owned() }
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

/// Bfloat16 of f32 values.
pub(super) fn narrowed(values: &[f32], to: &mut [u16]) {
    narrow(values, to);
}
