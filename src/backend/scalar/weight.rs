//! What the scalar backend's ops take and give: weights, activations, tokens, tables and caches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::tape::Scalar;
use crate::ops::{OpError, OpResult};

/// Tells weights apart on the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WeightId(u64);

impl WeightId {
    /// An id that no other weight of the process has. Ids decide no number.
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A parameter in f64.
#[derive(Debug)]
pub struct Weight {
    id: WeightId,
    shape: Vec<usize>,
    values: Vec<f64>,
    _held: Held,
}

impl Weight {
    pub(super) fn new(shape: &[usize], values: Vec<f64>, held: Held) -> Self {
        Self { id: WeightId::new(), shape: shape.to_vec(), values, _held: held }
    }

    pub(super) fn id(&self) -> WeightId {
        self.id
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its exact values, row-major.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Its values, for the optimizer.
    pub fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// Rows and columns.
    pub(super) fn matrix(&self, op: &'static str) -> OpResult<(usize, usize)> {
        match *self.shape {
            [rows, cols] => Ok((rows, cols)),
            _ => Err(shape_error(op, format!("expected a matrix, found a weight of shape {:?}", self.shape))),
        }
    }

    /// Checks that it has an entry `index`.
    pub(super) fn check_index(&self, op: &'static str, index: usize) -> OpResult<()> {
        if index < self.values.len() {
            return Ok(());
        }
        Err(shape_error(op, format!("entry {index} of a weight of shape {:?}", self.shape)))
    }
}

/// A matrix of activations, row-major. It may be used until the tape is cleared.
#[derive(Debug)]
pub struct Tensor {
    rows: usize,
    cols: usize,
    scalars: Vec<Scalar>,
    _held: Held,
}

impl Tensor {
    pub(super) fn new(rows: usize, cols: usize, scalars: Vec<Scalar>, held: Held) -> Self {
        debug_assert_eq!(scalars.len(), rows * cols);
        Self { rows, cols, scalars, _held: held }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Its exact values, row-major.
    #[cfg(test)]
    pub fn values(&self) -> Vec<f64> {
        self.scalars.iter().map(|scalar| scalar.value()).collect()
    }

    pub(super) fn scalars(&self) -> &[Scalar] {
        &self.scalars
    }

    /// Row `row`; the ops check sizes before they come here.
    pub(super) fn row(&self, row: usize) -> &[Scalar] {
        &self.scalars[row * self.cols..][..self.cols]
    }

    /// Checks its shape.
    pub(super) fn expect(&self, op: &'static str, name: &str, rows: usize, cols: usize) -> OpResult<()> {
        if (self.rows, self.cols) == (rows, cols) {
            return Ok(());
        }
        let (r, c) = (self.rows, self.cols);
        Err(shape_error(op, format!("{name} is ({r}, {c}), expected ({rows}, {cols})")))
    }
}

/// Token ids; -1 in targets is "ignore".
#[derive(Debug)]
pub struct Tokens(pub(super) Vec<i32>);

impl Tokens {
    /// The rows of a table with `table_rows` rows that the tokens name; `count` tokens are expected.
    pub(super) fn indices(&self, op: &'static str, count: usize, table_rows: usize) -> OpResult<Vec<usize>> {
        self.expect(op, count)?;
        let index = |id: &i32| usize::try_from(*id).ok().filter(|id| *id < table_rows);
        let outside = |id: &i32| shape_error(op, format!("token {id} of a table of {table_rows} rows"));
        self.0.iter().map(|id| index(id).ok_or_else(|| outside(id))).collect()
    }

    /// Targets among `vocab_size` logits, none where ignored.
    pub(super) fn targets(
        &self,
        op: &'static str,
        count: usize,
        vocab_size: usize,
    ) -> OpResult<Vec<Option<usize>>> {
        self.expect(op, count)?;
        let target = |id: &i32| match usize::try_from(*id) {
            Ok(id) if id < vocab_size => Ok(Some(id)),
            Err(_) if *id == -1 => Ok(None),
            _ => Err(shape_error(op, format!("target {id} among {vocab_size} logits"))),
        };
        self.0.iter().map(target).collect()
    }

    fn expect(&self, op: &'static str, count: usize) -> OpResult<()> {
        if self.0.len() == count {
            return Ok(());
        }
        Err(shape_error(op, format!("{} tokens for {count} rows", self.0.len())))
    }
}

/// Cosines and sines, (positions, D / 2).
#[derive(Debug)]
pub struct Rotary {
    pub(super) cos: Vec<f64>,
    pub(super) sin: Vec<f64>,
    pub(super) len: usize,
    pub(super) half: usize,
}

/// Keys and values of the positions decoded so far, of sequences that are equally long.
#[derive(Debug)]
pub struct KvCache {
    pub(super) capacity: usize,
    pub(super) cols: usize,
    /// Keys and values of each.
    pub(super) sequences: Vec<[Vec<Scalar>; 2]>,
    pub(super) _held: Held,
}

impl KvCache {
    /// Positions of each sequence.
    pub fn len(&self) -> usize {
        self.sequences.first().map_or(0, |[keys, _]| keys.len().checked_div(self.cols).unwrap_or(0))
    }
}

/// Bytes counted as held for as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    bytes: u64,
    counter: Arc<AtomicU64>,
}

impl Held {
    pub(super) fn new(counter: &Arc<AtomicU64>, bytes: usize) -> Self {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        Self { bytes: bytes as u64, counter: Arc::clone(counter) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

pub(super) fn shape_error(op: &'static str, message: String) -> OpError {
    OpError::Shape { op, message }
}
