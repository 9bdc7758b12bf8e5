//! [`ForwardOps`] on libtorch.

use tch::{Device, Kind, Tensor};

use super::backend::TorchBackend;
use super::fault::{TchResult, shape_error};
use super::linear::linear;
use super::rotary::Rotary;
use super::tokens::Tokens;
use super::weight::Weight;
use super::{attention, embedding, gate, loss, norm, residual, rotary};
use crate::ops::{AttentionShape, ForwardOps, HeadShape, OpResult, SequenceShape};
use crate::precision::Precision;
use crate::tensors::Single;

/// Keys and values decoded so far.
#[derive(Debug)]
pub struct KvCache {
    /// (S, capacity, K * D)
    keys: Tensor,
    values: Tensor,
    /// Positions of each sequence.
    len: usize,
}

impl KvCache {
    fn empty(sizes: &[usize; 3], of: (Kind, Device)) -> TchResult<Self> {
        let zeros = || Tensor::f_zeros(dims(sizes), of);
        Ok(Self { keys: zeros()?, values: zeros()?, len: 0 })
    }
}

/// Indices of rows, where `device` has them.
fn indices(rows: &[usize], device: Device) -> TchResult<Tensor> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    Tensor::f_from_slice(&rows)?.f_to_device(device)
}

/// Values of a tensor, row-major.
pub(super) fn values(tensor: &Tensor) -> TchResult<Vec<f32>> {
    let host = tensor.f_to_device_(Device::Cpu, Kind::Float, false, false)?.f_contiguous()?;
    let mut values = vec![0.0; host.numel()];
    let count = values.len();
    host.f_copy_data(&mut values, count)?;
    Ok(values)
}

/// A copy.
pub(super) fn copy(x: &Tensor) -> TchResult<Tensor> {
    x.f_to_dtype(x.f_kind()?, true, true)
}

/// Shape as libtorch wants it.
pub(super) fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&n| n as i64).collect()
}

/// Refuses values that do not fill the shape.
pub(super) fn fits(shape: &[usize], values: usize) -> TchResult<()> {
    if shape.iter().product::<usize>() == values {
        Ok(())
    } else {
        Err(shape_error(format!("{values} values for shape {shape:?}")))
    }
}

impl ForwardOps for TorchBackend {
    type Tensor = Tensor;
    type Weight = Weight;
    type Tokens = Tokens;
    type Rotary = Rotary;
    type KvCache = KvCache;
    type NormSaved = Tensor;
    type SmearSaved = Tensor;
    type ValueSaved = Tensor;
    type RotarySaved = Tensor;
    type AttentionSaved = attention::Saved;

    fn weight(&self, shape: &[usize], values: &[f32]) -> OpResult<Weight> {
        self.run("weight", || {
            fits(shape, values.len())?;
            Weight::new(self.upload(values, &dims(shape), Kind::Float)?, self.kind())
        })
    }

    fn table(&self, shape: &[usize], values: &[f32]) -> OpResult<Weight> {
        self.run("table", || {
            fits(shape, values.len())?;
            Weight::new(self.upload(values, &dims(shape), self.kind())?, self.kind())
        })
    }

    fn weight_values<'a>(&self, weight: &'a Weight) -> OpResult<Single<'a>> {
        self.run("weight_values", || values(&weight.master)).map(Single::from)
    }

    fn tokens(&self, ids: &[i32]) -> OpResult<Tokens> {
        self.run("tokens", || Tokens::new(ids, self))
    }

    fn tensor_values(&self, tensor: &Tensor) -> OpResult<Vec<f32>> {
        self.run("tensor_values", || values(tensor))
    }

    fn tensor(&self, rows: usize, cols: usize, values: &[f32]) -> OpResult<Tensor> {
        self.run("tensor", || {
            fits(&[rows, cols], values.len())?;
            self.upload(values, &dims(&[rows, cols]), self.kind())
        })
    }

    fn zeros(&self, rows: usize, cols: usize) -> OpResult<Tensor> {
        self.run("zeros", || Tensor::f_zeros(dims(&[rows, cols]), (self.kind(), self.tch_device())))
    }

    fn copy(&self, x: &Tensor) -> OpResult<Tensor> {
        self.run("copy", || copy(x))
    }

    fn rows(&self, x: &Tensor, start: usize, count: usize) -> OpResult<Tensor> {
        self.run("rows", || copy(&x.f_narrow(0, start as i64, count as i64)?))
    }

    fn gather(&self, x: &Tensor, rows: &[usize]) -> OpResult<Tensor> {
        self.run("gather", || x.f_index_select(0, &indices(rows, x.device())?))
    }

    fn rotary(&self, len: usize, head_dim: usize, base: f64, precision: Precision) -> OpResult<Rotary> {
        self.run("rotary", || Rotary::new(len, head_dim, base, precision, self.tch_device()))
    }

    fn embedding(&self, table: &Weight, tokens: &Tokens) -> OpResult<Tensor> {
        self.run("embedding", || embedding::gather(table.compute(), tokens))
    }

    fn rms_norm(&self, x: &Tensor, eps: f32) -> OpResult<(Tensor, Tensor)> {
        self.run("rms_norm", || norm::rms_norm(x, f64::from(eps)))
    }

    fn linear(&self, x: &Tensor, w: &Weight) -> OpResult<Tensor> {
        self.run("linear", || linear(x, w.compute()))
    }

    fn linear_add(&self, mut residual: Tensor, x: &Tensor, w: &Weight) -> OpResult<Tensor> {
        self.run("linear_add", || residual.f_addmm_(x, &w.compute().f_transpose(0, 1)?))
    }

    fn add(&self, mut x: Tensor, y: &Tensor) -> OpResult<Tensor> {
        self.run("add", || x.f_add_(y))
    }

    fn relu_squared(&self, x: &Tensor) -> OpResult<Tensor> {
        self.run("relu_squared", || x.f_relu()?.f_square_())
    }

    fn residual_mix(
        &self,
        x: &Tensor,
        x0: &Tensor,
        resid: &Weight,
        x0_lambdas: &Weight,
        layer: usize,
    ) -> OpResult<Tensor> {
        self.run("residual_mix", || {
            let (a, b) =
                (residual::entry(&resid.master, layer)?, residual::entry(&x0_lambdas.master, layer)?);
            residual::mix(x, &a, x0, &b)
        })
    }

    fn smear(
        &self,
        x: &Tensor,
        gate: &Weight,
        lambda: &Weight,
        sequence: SequenceShape,
        previous: Option<&Tensor>,
    ) -> OpResult<(Tensor, Tensor)> {
        self.run("smear", || gate::smear(x, &gate.master, &lambda.master, sequence, previous))
    }

    fn value_embedding(
        &self,
        v: Tensor,
        h: &Tensor,
        table: &Weight,
        tokens: &Tokens,
        gate: &Weight,
        scale: f32,
    ) -> OpResult<(Tensor, Tensor)> {
        self.run("value_embedding", || {
            gate::value_embedding(v, h, table.compute(), tokens, &gate.master, scale)
        })
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
    ) -> OpResult<(Tensor, Tensor)> {
        self.run("rotary_norm", || rotary::rotary_norm(&x, rotary, start, sequence, head_dim, scale, eps))
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: &AttentionShape,
    ) -> OpResult<(Tensor, attention::Saved)> {
        self.run("attention", || attention::forward(q, k, v, shape, self.flash))
    }

    fn backout(&self, mut x: Tensor, kept: &Tensor, lambda: &Weight) -> OpResult<Tensor> {
        self.run("backout", || x.f_addcmul_(kept, &lambda.master.f_neg()?))
    }

    fn cross_entropy(
        &self,
        x: &Tensor,
        lm_head: &Weight,
        targets: &Tokens,
        head: &HeadShape,
    ) -> OpResult<Vec<f32>> {
        self.run("cross_entropy", || {
            values(&loss::cross_entropy(x, lm_head.compute(), targets, head, None)?.0)
        })
    }

    fn logits(&self, x: &Tensor, lm_head: &Weight, head: &HeadShape) -> OpResult<Tensor> {
        self.run("logits", || loss::logits(x, lm_head.compute(), head))
    }

    fn kv_cache(&self, capacity: usize, cols: usize) -> OpResult<KvCache> {
        self.run("kv_cache", || KvCache::empty(&[1, capacity, cols], (self.kind(), self.tch_device())))
    }

    fn kv_append(&self, cache: &mut KvCache, k: &Tensor, v: &Tensor) -> OpResult<()> {
        self.run("kv_append", || {
            let ((rows, cols), (sequences, capacity, _)) = (k.size2()?, cache.keys.size3()?);
            let count = rows / sequences.max(1);
            if count * sequences != rows || cache.len as i64 + count > capacity {
                let len = cache.len;
                let message =
                    format!("{rows} rows after {len} of {capacity} positions of {sequences} sequences");
                return Err(shape_error(message));
            }
            for (held, new) in [(&cache.keys, k), (&cache.values, v)] {
                let new = new.f_view_([sequences, count, cols])?;
                held.f_narrow(1, cache.len as i64, count)?.f_copy_(&new)?;
            }
            cache.len += count as usize;
            Ok(())
        })
    }

    fn kv_select(&self, cache: &KvCache, sequences: &[usize], positions: usize) -> OpResult<KvCache> {
        self.run("kv_select", || {
            let (count, capacity, cols) = cache.keys.size3()?;
            let inside = sequences.iter().all(|&s| (s as i64) < count) && !sequences.is_empty();
            if positions > cache.len || !inside {
                let len = cache.len;
                let message =
                    format!("{positions} positions of sequences {sequences:?} of {count} with {len}");
                return Err(shape_error(message));
            }
            let sizes = [sequences.len(), capacity as usize, cols as usize];
            let mut found = KvCache::empty(&sizes, (self.kind(), self.tch_device()))?;
            let wanted = indices(sequences, cache.keys.device())?;
            let (start, len) = ((cache.len - positions) as i64, positions as i64);
            for (to, from) in [(&found.keys, &cache.keys), (&found.values, &cache.values)] {
                let from = from.f_narrow(1, start, len)?.f_index_select(0, &wanted)?;
                to.f_narrow(1, 0, len)?.f_copy_(&from)?;
            }
            found.len = positions;
            Ok(found)
        })
    }

    fn attention_cached(&self, q: &Tensor, cache: &KvCache, shape: &AttentionShape) -> OpResult<Tensor> {
        self.run("attention_cached", || {
            let (sequences, _, cols) = cache.keys.size3()?;
            if sequences != shape.sequence.batch as i64 {
                let message = format!("{} sequences, a cache of {sequences}", shape.sequence.batch);
                return Err(shape_error(message));
            }
            let held = |x: &Tensor| x.f_narrow(1, 0, cache.len as i64)?.f_reshape([-1, cols]);
            attention::cached(q, &held(&cache.keys)?, &held(&cache.values)?, cache.len, shape)
        })
    }
}
