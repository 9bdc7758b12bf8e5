//! Keys and values decoded so far, packed as attention reads them.

use super::attention::{Group, PackedHead, check_heads, packed_len};
use super::backend::CpuBackend;
use super::gemm::{MR, NR};
use super::pool::Buffer;
use super::tensor::{Tensor, check, check_shape};
use super::workers::Shared;
use crate::ops::{AttentionShape, OpResult};

/// Keys and values of one layer, one sequence.
#[derive(Debug)]
pub struct KvCache {
    capacity: usize,
    cols: usize,
    len: usize,
    /// Rows as they came, (capacity, K*D): the head size is only known to attention.
    keys: Buffer,
    values: Buffer,
    /// What attention packed of them.
    packed: std::sync::Mutex<Packed>,
}

#[derive(Debug)]
struct Packed {
    head_dim: usize,
    len: usize,
    keys: Buffer,
    values: Buffer,
}

pub(super) fn new(cpu: &CpuBackend, capacity: usize, cols: usize) -> OpResult<KvCache> {
    let op = "kv_cache";
    let empty = Packed { head_dim: 0, len: 0, keys: cpu.pool.take(op, 0)?, values: cpu.pool.take(op, 0)? };
    Ok(KvCache {
        capacity,
        cols,
        len: 0,
        keys: cpu.pool.take(op, capacity.saturating_mul(cols))?,
        values: cpu.pool.take(op, capacity.saturating_mul(cols))?,
        packed: std::sync::Mutex::new(empty),
    })
}

pub(super) fn append(cache: &mut KvCache, k: &Tensor, v: &Tensor) -> OpResult<()> {
    let op = "kv_append";
    check_shape(op, "k", k, k.rows, cache.cols)?;
    check_shape(op, "v", v, k.rows, cache.cols)?;
    check(op, cache.len + k.rows <= cache.capacity, || {
        format!("{} positions more than {} do not fit the capacity of {}", k.rows, cache.len, cache.capacity)
    })?;
    let range = cache.len * cache.cols..(cache.len + k.rows) * cache.cols;
    cache.keys[range.clone()].copy_from_slice(&k.data);
    cache.values[range].copy_from_slice(&v.data);
    cache.len += k.rows;
    Ok(())
}

/// A cache of the same capacity with the last `rows` positions. Attention packs them anew.
pub(super) fn last(cpu: &CpuBackend, cache: &KvCache, rows: usize) -> OpResult<KvCache> {
    check("kv_last", rows <= cache.len, || format!("{rows} positions of {}", cache.len))?;
    let mut last = new(cpu, cache.capacity, cache.cols)?;
    let (from, count) = ((cache.len - rows) * cache.cols, rows * cache.cols);
    last.keys[..count].copy_from_slice(&cache.keys[from..from + count]);
    last.values[..count].copy_from_slice(&cache.values[from..from + count]);
    last.len = rows;
    Ok(last)
}

impl Packed {
    /// Brings the packed form up to date with the rows.
    fn update(&mut self, cpu: &CpuBackend, cache: &KvCache, d: usize) -> OpResult<()> {
        let op = "attention_cached";
        let heads = cache.cols / d;
        let (key_len, value_len) = packed_len(cache.capacity, d);
        if self.head_dim != d {
            self.keys = cpu.pool.zeroed(op, heads * key_len)?;
            self.values = cpu.pool.zeroed(op, heads * value_len)?;
            (self.head_dim, self.len) = (d, 0);
        }
        for position in self.len..cache.len {
            for h in 0..heads {
                for j in 0..d {
                    let from = position * cache.cols + h * d + j;
                    let key = (position / NR * d + j) * NR + position % NR;
                    self.keys[h * key_len + key] = cache.keys[from];
                    let value = j / NR * NR * cache.capacity + position * NR + j % NR;
                    self.values[h * value_len + value] = cache.values[from];
                }
            }
        }
        self.len = cache.len;
        Ok(())
    }
}

pub(super) fn attention(
    cpu: &CpuBackend,
    q: &Tensor,
    cache: &KvCache,
    s: &AttentionShape,
) -> OpResult<Tensor> {
    let op = "attention_cached";
    check_heads(op, s)?;
    check_shape(op, "q", q, s.sequence.len, s.n_head * s.head_dim)?;
    check(op, s.sequence.batch == 1, || format!("{} sequences, a cache holds one", s.sequence.batch))?;
    check(op, cache.cols == s.n_kv_head * s.head_dim && q.rows <= cache.len, || {
        format!("{} queries of {s:?}, a cache of {} rows and {} columns", q.rows, cache.len, cache.cols)
    })?;
    let d = s.head_dim;
    let mut packed = cache.packed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    packed.update(cpu, cache, d)?;
    let packed = &*packed;
    let (key_len, value_len) = packed_len(cache.capacity, d);
    let mut o = cpu.tensor_uninit(op, q.rows, q.cols)?;
    let out = Shared::new(&mut o.data);
    let groups = q.rows.div_ceil(MR);
    cpu.workers.run_with_scratch(s.n_head * groups, |task, scratch| {
        let (h, start) = (task / groups, task % groups * MR);
        let kv_head = h / (s.n_head / s.n_kv_head);
        let head = PackedHead {
            keys: &packed.keys[kv_head * key_len..(kv_head + 1) * key_len],
            values: &packed.values[kv_head * value_len..(kv_head + 1) * value_len],
            positions: cache.capacity,
        };
        let rows = MR.min(q.rows - start);
        let group = Group {
            rows,
            position: cache.len - q.rows + start,
            stride: q.cols,
            head_dim: d,
            window: s.window,
        };
        let at = start * q.cols + h * d;
        // SAFETY: every task has its own queries and head.
        unsafe { group.attend(&q.data[at..], &head, out, at, &mut [0.0; MR], scratch) };
    });
    Ok(o)
}
