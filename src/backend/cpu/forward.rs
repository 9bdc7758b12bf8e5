//! [`ForwardOps`] on the CPU: each op is a module.

use super::attention::AttentionSaved;
use super::backend::CpuBackend;
use super::gemm::{Factor, PackedB, Store, gemm, matrix};
use super::kv_cache::KvCache;
use super::norm::NormSaved;
use super::rotary::{Rotary, RotarySaved};
use super::smear::SmearSaved;
use super::tensor::{Param, Tensor, Tokens, check, check_shape};
use super::value_embedding::ValueSaved;
use super::{
    attention, cross_entropy, elementwise, embedding, kv_cache, norm, residual, rotary, smear,
    value_embedding,
};
use crate::ops::{AttentionShape, ForwardOps, HeadShape, OpResult, SequenceShape};
use crate::precision::Precision;
use crate::tensors::Single;

impl CpuBackend {
    pub(super) fn param(&self, op: &'static str, shape: &[usize], values: &[f32]) -> OpResult<Param> {
        let len: usize = shape.iter().product();
        check(op, len == values.len() && shape.len() <= 2, || {
            format!("{} values for shape {shape:?}", values.len())
        })?;
        let mut data = self.pool.take(op, len)?;
        elementwise::copy(self, values, &mut data);
        Ok(Param { shape: shape.to_vec(), data, packed: None })
    }
}

fn check_linear(op: &'static str, x: &Tensor, w: &Param) -> OpResult<usize> {
    let (out, inputs) = w.matrix();
    check(op, inputs == x.cols, || format!("x is {:?}, w {:?}", x.shape(), (out, inputs)))?;
    Ok(out)
}

impl ForwardOps for CpuBackend {
    type Tensor = Tensor;
    type Weight = Param;
    type Tokens = Tokens;
    type Rotary = Rotary;
    type KvCache = KvCache;
    type NormSaved = NormSaved;
    type SmearSaved = SmearSaved;
    type ValueSaved = ValueSaved;
    type RotarySaved = RotarySaved;
    type AttentionSaved = AttentionSaved;

    fn weight(&self, shape: &[usize], values: &[f32]) -> OpResult<Param> {
        self.param("weight", shape, values)
    }

    /// Turned and packed once, so that products read it as it comes: a token decoded alone takes the time of reading.
    fn factor(&self, shape: &[usize], values: &[f32]) -> OpResult<Param> {
        let &[rows, cols] = shape else { return self.weight(shape, values) };
        check("factor", rows * cols == values.len(), || {
            format!("{} values for shape {shape:?}", values.len())
        })?;
        let packed = PackedB::new(&self.workers, &self.pool, matrix(values, rows, cols).reversed_axes())?;
        Ok(Param { shape: shape.to_vec(), data: self.pool.take("factor", 0)?, packed: Some(packed) })
    }

    fn weight_values<'a>(&self, weight: &'a Param) -> OpResult<Single<'a>> {
        Ok(match &weight.packed {
            Some(packed) => packed.columns().into(),
            None => weight.values().into(),
        })
    }

    fn tokens(&self, ids: &[i32]) -> OpResult<Tokens> {
        let mut data = self.pool.take("tokens", ids.len())?;
        data.as_i32_mut().copy_from_slice(ids);
        Ok(Tokens { data })
    }

    fn tensor_values(&self, tensor: &Tensor) -> OpResult<Vec<f32>> {
        Ok(tensor.data.to_vec())
    }

    fn tensor(&self, rows: usize, cols: usize, values: &[f32]) -> OpResult<Tensor> {
        check("tensor", rows * cols == values.len(), || {
            format!("{} values for {rows} x {cols}", values.len())
        })?;
        let mut x = self.tensor_uninit("tensor", rows, cols)?;
        elementwise::copy(self, values, &mut x.data);
        Ok(x)
    }

    fn zeros(&self, rows: usize, cols: usize) -> OpResult<Tensor> {
        let mut x = self.tensor_uninit("zeros", rows, cols)?;
        x.data.fill(0.0);
        Ok(x)
    }

    fn copy(&self, x: &Tensor) -> OpResult<Tensor> {
        self.rows(x, 0, x.rows)
    }

    fn rows(&self, x: &Tensor, start: usize, count: usize) -> OpResult<Tensor> {
        check("rows", start + count <= x.rows, || format!("rows {start} + {count} of {}", x.rows))?;
        let mut y = self.tensor_uninit("rows", count, x.cols)?;
        elementwise::copy(self, &x.data[start * x.cols..(start + count) * x.cols], &mut y.data);
        Ok(y)
    }

    fn gather(&self, x: &Tensor, rows: &[usize]) -> OpResult<Tensor> {
        check("gather", rows.iter().all(|&row| row < x.rows), || format!("rows {rows:?} of {}", x.rows))?;
        let mut y = self.tensor_uninit("gather", rows.len(), x.cols)?;
        for (&row, to) in rows.iter().zip(y.data.chunks_exact_mut(x.cols.max(1))) {
            to.copy_from_slice(x.row(row));
        }
        Ok(y)
    }

    /// Sums have a shape that the other rows are no part of.
    fn rows_stand_alone(&self) -> bool {
        true
    }

    fn rotary(&self, len: usize, head_dim: usize, base: f64, precision: Precision) -> OpResult<Rotary> {
        rotary::table(self, len, head_dim, base, precision)
    }

    fn embedding(&self, table: &Param, tokens: &Tokens) -> OpResult<Tensor> {
        embedding::forward(self, table, tokens)
    }

    fn rms_norm(&self, x: &Tensor, eps: f32) -> OpResult<(Tensor, NormSaved)> {
        norm::forward(self, x, eps)
    }

    fn linear(&self, x: &Tensor, w: &Param) -> OpResult<Tensor> {
        let out = check_linear("linear", x, w)?;
        let mut y = self.tensor_uninit("linear", x.rows, out)?;
        gemm(&self.workers, &self.pool, w.job(x.view(), out, &mut y.data), Store::Set)?;
        Ok(y)
    }

    fn linear_add(&self, mut residual: Tensor, x: &Tensor, w: &Param) -> OpResult<Tensor> {
        let out = check_linear("linear_add", x, w)?;
        check_shape("linear_add", "residual", &residual, x.rows, out)?;
        gemm(&self.workers, &self.pool, w.job(x.view(), out, &mut residual.data), Store::Add)?;
        Ok(residual)
    }

    fn add(&self, x: Tensor, y: &Tensor) -> OpResult<Tensor> {
        elementwise::add(self, x, y)
    }

    fn relu_squared(&self, x: &Tensor) -> OpResult<Tensor> {
        elementwise::relu_squared(self, x)
    }

    fn relu_squared_linear_add(&self, mut residual: Tensor, u: &Tensor, w: &Param) -> OpResult<Tensor> {
        let op = "relu_squared_linear_add";
        let out = check_linear(op, u, w)?;
        check_shape(op, "residual", &residual, u.rows, out)?;
        let a = Factor::mapped(u.view(), elementwise::relu_squared_in_place);
        gemm(&self.workers, &self.pool, w.job(a, out, &mut residual.data), Store::Add)?;
        Ok(residual)
    }

    fn residual_mix(
        &self,
        x: &Tensor,
        x0: &Tensor,
        resid: &Param,
        x0_lambdas: &Param,
        layer: usize,
    ) -> OpResult<Tensor> {
        residual::mix(self, x, x0, resid, x0_lambdas, layer)
    }

    fn smear(
        &self,
        x: &Tensor,
        gate: &Param,
        lambda: &Param,
        sequence: SequenceShape,
        previous: Option<&Tensor>,
    ) -> OpResult<(Tensor, SmearSaved)> {
        smear::forward(self, x, gate, lambda, sequence, previous)
    }

    fn value_embedding(
        &self,
        v: Tensor,
        h: &Tensor,
        table: &Param,
        tokens: &Tokens,
        gate: &Param,
        scale: f32,
    ) -> OpResult<(Tensor, ValueSaved)> {
        value_embedding::forward(self, v, h, table, tokens, gate, scale)
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
        rotary::forward(self, x, rotary, start, sequence, head_dim, scale, eps)
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: &AttentionShape,
    ) -> OpResult<(Tensor, AttentionSaved)> {
        attention::forward(self, q, k, v, shape)
    }

    fn backout(&self, x: Tensor, kept: &Tensor, lambda: &Param) -> OpResult<Tensor> {
        residual::backout(self, x, kept, lambda)
    }

    fn cross_entropy(
        &self,
        x: &Tensor,
        lm_head: &Param,
        targets: &Tokens,
        head: &HeadShape,
    ) -> OpResult<Vec<f32>> {
        cross_entropy::losses(self, x, lm_head, targets, head)
    }

    fn logits(&self, x: &Tensor, lm_head: &Param, head: &HeadShape) -> OpResult<Tensor> {
        cross_entropy::logits(self, x, lm_head, head)
    }

    fn kv_cache(&self, capacity: usize, cols: usize) -> OpResult<KvCache> {
        kv_cache::new(self, 1, capacity, cols)
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
        kv_cache::select(self, cache, sequences, positions)
    }

    fn attention_cached(&self, q: &Tensor, cache: &KvCache, shape: &AttentionShape) -> OpResult<Tensor> {
        kv_cache::attention(self, q, cache, shape)
    }
}
