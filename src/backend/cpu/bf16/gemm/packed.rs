//! The right side of products, packed once for several of them.

use super::super::super::gemm::KC;
use super::super::super::pool::{Buffer, Pool};
use super::super::super::workers::Workers;
use super::super::convert::wide;
use super::super::dot::NR;
use super::super::storage::pairs;
use super::{Factor, PAIRS, Right, pack_b, packed_room};
use crate::ops::OpResult;

/// A right side packed once for several products.
#[derive(Debug)]
pub(in super::super) struct PackedB {
    pub(super) values: Buffer,
    pub(super) n: usize,
    pub(super) k: usize,
}

impl PackedB {
    /// Packs `b`, whatever its size.
    pub(in super::super) fn new(workers: &Workers, pool: &Pool, b: Factor<'_>) -> OpResult<Self> {
        let (n, k) = (b.outer, b.k);
        let mut values = packed_room(pool, n, k)?;
        pack_b(workers, &mut values, &[b]);
        Ok(Self { values, n, k })
    }

    /// The first `n` columns.
    ///
    /// # Panics
    /// There are fewer.
    pub(in super::super) fn first(&self, n: usize) -> Right<'_> {
        assert!(n <= self.n, "sizes do not fit");
        Right::Packed { of: self, n }
    }

    /// The values it was made of as it has them, column after column: (n, k) row-major.
    pub(in super::super) fn columns(&self) -> Vec<f32> {
        let (n, k) = (self.n, self.k);
        let packed = pairs(&self.values);
        let mut columns = vec![0.0; n * k];
        for (j, column) in columns.chunks_exact_mut(k.max(1)).enumerate() {
            for (p, values) in column.chunks_mut(KC).enumerate() {
                let block = p * PAIRS * n.next_multiple_of(NR) + j / NR * NR * values.len().div_ceil(2);
                for (q, value) in values.iter_mut().enumerate() {
                    let pair = packed[block + q / 2 * NR + j % NR];
                    *value = wide((pair >> (16 * (q % 2))) as u16);
                }
            }
        }
        columns
    }
}
