//! [`ForwardOps`] in bfloat16.

use super::super::attention::AttentionSaved;
use super::super::norm::NormSaved;
use super::super::rotary::{self, Rotary, RotarySaved};
use super::super::smear::SmearSaved;
use super::super::tensor::{Tokens, check};
use super::super::value_embedding::ValueSaved;
use super::gemm::{Factor, Job, PackedB, added, gemm, rounded};
use super::kv_cache::{self, KvCache};
use super::loss::{self, transposed};
use super::rows::{self, uninit};
use super::storage::{Data, Half, Stored, Table, Tensor, check_shape, narrowed};
use super::{Bf16Backend, attention, convert, tables};
use crate::ops::{AttentionShape, ForwardOps, HeadShape, OpResult, SequenceShape};
use crate::precision::Precision;
use crate::tensors::Single;

impl Bf16Backend {
    /// A table of these values, rounded.
    pub(super) fn rounded_table(
        &self,
        op: &'static str,
        shape: &[usize],
        values: &[f32],
    ) -> OpResult<Stored> {
        let len: usize = shape.iter().product();
        check(op, len == values.len() && shape.len() <= 2, || {
            format!("{} values for shape {shape:?}", values.len())
        })?;
        let mut data = Half::take(&self.0.pool, op, len)?;
        narrowed(values, &mut data);
        Ok(Stored::Table(Table { shape: shape.to_vec(), data, packed: None }))
    }

    /// Whether a product has these factors: -> (rows, outputs, inputs).
    pub(super) fn check_linear(op: &'static str, x: &Tensor, w: &Stored) -> OpResult<(usize, usize, usize)> {
        let (out, inputs) = w.matrix();
        check(op, inputs == x.cols, || format!("x is {:?}, w {:?}", x.shape(), (out, inputs)))?;
        Ok((x.rows, out, inputs))
    }

    /// `residual + f(x) w^T`
    fn add_product(
        &self,
        op: &'static str,
        mut residual: Tensor,
        x: &Tensor,
        w: &Stored,
        map: Option<fn(&mut [u16])>,
    ) -> OpResult<Tensor> {
        let (n, out, inputs) = Self::check_linear(op, x, w)?;
        check_shape(op, "residual", &residual, n, out)?;
        let a = Factor::along(x.values(op)?, n, inputs);
        let a = map.map_or(a, |map| a.mapped(map));
        let b = transposed(w, out, inputs);
        gemm(&self.0.workers, &self.0.pool, Job::setting(a, b, residual.values_mut(op)?, &added))?;
        Ok(residual)
    }

    fn picked(
        &self,
        op: &'static str,
        x: &Tensor,
        rows: impl ExactSizeIterator<Item = usize>,
    ) -> OpResult<Tensor> {
        let count = rows.len();
        match &x.data {
            Data::Half(values) => {
                let mut y = uninit(&self.0, op, count, x.cols)?;
                for (row, to) in rows.zip(y.values_mut(op)?.chunks_exact_mut(x.cols.max(1))) {
                    to.copy_from_slice(&values[row * x.cols..(row + 1) * x.cols]);
                }
                Ok(y)
            }
            Data::Single(values) => {
                let mut data = self.0.pool.take(op, count * x.cols)?;
                for (row, to) in rows.zip(data.chunks_exact_mut(x.cols.max(1))) {
                    to.copy_from_slice(&values[row * x.cols..(row + 1) * x.cols]);
                }
                Ok(Tensor { rows: count, cols: x.cols, data: Data::Single(data) })
            }
        }
    }
}

impl ForwardOps for Bf16Backend {
    type Tensor = Tensor;
    type Weight = Stored;
    type Tokens = Tokens;
    type Rotary = Rotary;
    type KvCache = KvCache;
    type NormSaved = NormSaved;
    type SmearSaved = SmearSaved;
    type ValueSaved = ValueSaved;
    type RotarySaved = RotarySaved;
    type AttentionSaved = AttentionSaved;

    fn weight(&self, shape: &[usize], values: &[f32]) -> OpResult<Stored> {
        self.0.param("weight", shape, values).map(Stored::Single)
    }

    fn table(&self, shape: &[usize], values: &[f32]) -> OpResult<Stored> {
        self.rounded_table("table", shape, values)
    }

    /// Rounded, turned and packed once, so that products read it as it comes: two bytes a value, and nothing else to do
    /// for a token that is decoded alone. What it was rounded from is not kept.
    fn factor(&self, shape: &[usize], values: &[f32]) -> OpResult<Stored> {
        let &[rows, cols] = shape else { return self.weight(shape, values) };
        check("factor", rows * cols == values.len(), || {
            format!("{} values for shape {shape:?}", values.len())
        })?;
        let packed = PackedB::new(&self.0.workers, &self.0.pool, Factor::along(values, rows, cols))?;
        let data = Half::take(&self.0.pool, "factor", 0)?;
        Ok(Stored::Table(Table { shape: shape.to_vec(), data, packed: Some(packed) }))
    }

    fn weight_values<'a>(&self, weight: &'a Stored) -> OpResult<Single<'a>> {
        Ok(weight.values())
    }

    fn tokens(&self, ids: &[i32]) -> OpResult<Tokens> {
        self.0.tokens(ids)
    }

    fn tensor_values(&self, tensor: &Tensor) -> OpResult<Vec<f32>> {
        Ok(match &tensor.data {
            Data::Half(values) => values.wide(),
            Data::Single(values) => values.to_vec(),
        })
    }

    fn tensor(&self, rows: usize, cols: usize, values: &[f32]) -> OpResult<Tensor> {
        check("tensor", rows * cols == values.len(), || {
            format!("{} values for {rows} x {cols}", values.len())
        })?;
        let mut x = uninit(&self.0, "tensor", rows, cols)?;
        narrowed(values, x.values_mut("tensor")?);
        Ok(x)
    }

    fn zeros(&self, rows: usize, cols: usize) -> OpResult<Tensor> {
        let mut x = uninit(&self.0, "zeros", rows, cols)?;
        x.values_mut("zeros")?.fill(0);
        Ok(x)
    }

    fn copy(&self, x: &Tensor) -> OpResult<Tensor> {
        self.rows(x, 0, x.rows)
    }

    fn rows(&self, x: &Tensor, start: usize, count: usize) -> OpResult<Tensor> {
        check("rows", start + count <= x.rows, || format!("rows {start} + {count} of {}", x.rows))?;
        self.picked("rows", x, start..start + count)
    }

    fn gather(&self, x: &Tensor, rows: &[usize]) -> OpResult<Tensor> {
        check("gather", rows.iter().all(|&row| row < x.rows), || format!("rows {rows:?} of {}", x.rows))?;
        self.picked("gather", x, rows.iter().copied())
    }

    /// Sums have a shape that the other rows are no part of.
    fn rows_stand_alone(&self) -> bool {
        true
    }

    fn rotary(&self, len: usize, head_dim: usize, base: f64, precision: Precision) -> OpResult<Rotary> {
        rotary::table(&self.0, len, head_dim, base, precision)
    }

    fn embedding(&self, table: &Stored, tokens: &Tokens) -> OpResult<Tensor> {
        tables::embedding(&self.0, table, tokens)
    }

    fn rms_norm(&self, x: &Tensor, eps: f32) -> OpResult<(Tensor, NormSaved)> {
        rows::rms_norm(&self.0, x, eps)
    }

    fn linear(&self, x: &Tensor, w: &Stored) -> OpResult<Tensor> {
        let op = "linear";
        let (n, out, inputs) = Self::check_linear(op, x, w)?;
        let mut y = uninit(&self.0, op, n, out)?;
        let (a, b) = (Factor::along(x.values(op)?, n, inputs), transposed(w, out, inputs));
        gemm(&self.0.workers, &self.0.pool, Job::setting(a, b, y.values_mut(op)?, &rounded))?;
        Ok(y)
    }

    fn linear_add(&self, residual: Tensor, x: &Tensor, w: &Stored) -> OpResult<Tensor> {
        self.add_product("linear_add", residual, x, w, None)
    }

    fn add(&self, x: Tensor, y: &Tensor) -> OpResult<Tensor> {
        rows::add(&self.0, x, y)
    }

    fn relu_squared(&self, x: &Tensor) -> OpResult<Tensor> {
        rows::relu_squared(&self.0, x)
    }

    fn relu_squared_linear_add(&self, residual: Tensor, u: &Tensor, w: &Stored) -> OpResult<Tensor> {
        self.add_product("relu_squared_linear_add", residual, u, w, Some(convert::relu_squared))
    }

    fn residual_mix(
        &self,
        x: &Tensor,
        x0: &Tensor,
        resid: &Stored,
        x0_lambdas: &Stored,
        layer: usize,
    ) -> OpResult<Tensor> {
        let op = "residual_mix";
        rows::residual_mix(&self.0, x, x0, resid.single(op)?, x0_lambdas.single(op)?, layer)
    }

    fn smear(
        &self,
        x: &Tensor,
        gate: &Stored,
        lambda: &Stored,
        sequence: SequenceShape,
        previous: Option<&Tensor>,
    ) -> OpResult<(Tensor, SmearSaved)> {
        rows::smear(&self.0, x, gate.single("smear")?, lambda.single("smear")?, sequence, previous)
    }

    fn value_embedding(
        &self,
        v: Tensor,
        h: &Tensor,
        table: &Stored,
        tokens: &Tokens,
        gate: &Stored,
        scale: f32,
    ) -> OpResult<(Tensor, ValueSaved)> {
        tables::value_embedding(&self.0, v, h, table, tokens, gate.single("value_embedding")?, scale)
    }

    fn rotary_norm(
        &self,
        x: Tensor,
        rotary: &Rotary,
        start: usize,
        sequence: SequenceShape,
        head_dim: usize,
        scale: f32,
        eps: f32,
    ) -> OpResult<(Tensor, RotarySaved)> {
        rows::rotary_norm(&self.0, x, rotary, start, sequence, head_dim, scale, eps)
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: &AttentionShape,
    ) -> OpResult<(Tensor, AttentionSaved)> {
        attention::forward(&self.0, q, k, v, shape)
    }

    fn backout(&self, x: Tensor, kept: &Tensor, lambda: &Stored) -> OpResult<Tensor> {
        rows::backout(&self.0, x, kept, lambda.single("backout")?)
    }

    fn cross_entropy(
        &self,
        x: &Tensor,
        lm_head: &Stored,
        targets: &Tokens,
        head: &HeadShape,
    ) -> OpResult<Vec<f32>> {
        loss::losses(&self.0, x, lm_head, targets, head)
    }

    fn logits(&self, x: &Tensor, lm_head: &Stored, head: &HeadShape) -> OpResult<Tensor> {
        loss::logits(&self.0, x, lm_head, head)
    }

    fn kv_cache(&self, capacity: usize, cols: usize) -> OpResult<KvCache> {
        kv_cache::new(&self.0, 1, capacity, cols)
    }

    fn kv_append(&self, cache: &mut KvCache, k: &Tensor, v: &Tensor) -> OpResult<()> {
        kv_cache::append(cache, k, v)
    }

    fn kv_begin(
        &self,
        cache: &mut KvCache,
        k: &Tensor,
        v: &Tensor,
        positions: usize,
        kept: usize,
    ) -> OpResult<()> {
        kv_cache::begin(cache, k, v, positions, kept)
    }

    fn kv_select(&self, cache: &KvCache, sequences: &[usize], positions: usize) -> OpResult<KvCache> {
        kv_cache::select(&self.0, cache, sequences, positions)
    }

    fn attention_cached(&self, q: &Tensor, cache: &KvCache, shape: &AttentionShape) -> OpResult<Tensor> {
        kv_cache::attention(&self.0, q, cache, shape)
    }
}
