//! Keys and values decoded so far, packed as attention reads them.

use super::attention::{Group, PackedHead, check_heads, packed_len};
use super::backend::CpuBackend;
use super::gemm::{MR, NR};
use super::pool::Buffer;
use super::tensor::{Tensor, check, check_shape};
use super::workers::Shared;
use crate::ops::{AttentionShape, OpResult};

/// Keys and values of one layer, of sequences that are equally long.
#[derive(Debug)]
pub struct KvCache {
    sequences: usize,
    capacity: usize,
    cols: usize,
    /// Positions of each.
    len: usize,
    /// Rows as they came, (S, capacity, K*D): the head size is only known to attention.
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

pub(super) fn new(cpu: &CpuBackend, sequences: usize, capacity: usize, cols: usize) -> OpResult<KvCache> {
    let op = "kv_cache";
    let rows = || cpu.pool.take(op, sequences.saturating_mul(capacity).saturating_mul(cols));
    let empty = Packed { head_dim: 0, len: 0, keys: cpu.pool.take(op, 0)?, values: cpu.pool.take(op, 0)? };
    let (keys, values) = (rows()?, rows()?);
    Ok(KvCache { sequences, capacity, cols, len: 0, keys, values, packed: std::sync::Mutex::new(empty) })
}

pub(super) fn append(cache: &mut KvCache, k: &Tensor, v: &Tensor) -> OpResult<()> {
    let op = "kv_append";
    check_shape(op, "k", k, k.rows, cache.cols)?;
    check_shape(op, "v", v, k.rows, cache.cols)?;
    check(op, cache.sequences > 0 && k.rows.is_multiple_of(cache.sequences), || {
        format!("{} rows for {} sequences", k.rows, cache.sequences)
    })?;
    let count = k.rows / cache.sequences;
    check(op, cache.len + count <= cache.capacity, || {
        format!("{count} positions more than {} do not fit the capacity of {}", cache.len, cache.capacity)
    })?;
    let part = count * cache.cols;
    for s in 0..cache.sequences {
        let to = (s * cache.capacity + cache.len) * cache.cols;
        cache.keys[to..to + part].copy_from_slice(&k.data[s * part..(s + 1) * part]);
        cache.values[to..to + part].copy_from_slice(&v.data[s * part..(s + 1) * part]);
    }
    cache.len += count;
    Ok(())
}

/// Begins with the last `kept` of `positions` rows.
pub(super) fn begin(
    cache: &mut KvCache,
    k: &Tensor,
    v: &Tensor,
    positions: usize,
    kept: usize,
) -> OpResult<()> {
    let op = "kv_begin";
    check_shape(op, "k", k, positions, cache.cols)?;
    check_shape(op, "v", v, positions, cache.cols)?;
    let fits = kept <= positions && kept <= cache.capacity;
    check(op, fits && cache.sequences == 1 && cache.len == 0, || {
        format!("{kept} of {positions} positions for {} sequences with {}", cache.sequences, cache.len)
    })?;
    let rows = (positions - kept) * cache.cols..positions * cache.cols;
    cache.keys[..rows.len()].copy_from_slice(&k.data[rows.clone()]);
    cache.values[..rows.len()].copy_from_slice(&v.data[rows]);
    cache.len = kept;
    Ok(())
}

/// A cache of the same capacity with the last `positions` of these sequences. Attention packs them anew.
pub(super) fn select(
    cpu: &CpuBackend,
    cache: &KvCache,
    sequences: &[usize],
    positions: usize,
) -> OpResult<KvCache> {
    let inside = positions <= cache.len && sequences.iter().all(|&s| s < cache.sequences);
    check("kv_select", inside && !sequences.is_empty(), || {
        format!("{positions} positions of sequences {sequences:?} of {} with {}", cache.sequences, cache.len)
    })?;
    let mut found = new(cpu, sequences.len(), cache.capacity, cache.cols)?;
    let count = positions * cache.cols;
    for (to, from) in sequences.iter().enumerate() {
        let to = to * cache.capacity * cache.cols;
        let from = (from * cache.capacity + cache.len - positions) * cache.cols;
        found.keys[to..to + count].copy_from_slice(&cache.keys[from..from + count]);
        found.values[to..to + count].copy_from_slice(&cache.values[from..from + count]);
    }
    found.len = positions;
    Ok(found)
}

/// Of fewer new positions, one thread has packed all before another has woken.
pub(super) const TOGETHER: usize = 16;

impl Packed {
    /// Brings the packed form up to date with the rows.
    fn update(&mut self, cpu: &CpuBackend, cache: &KvCache, d: usize) -> OpResult<()> {
        let op = "attention_cached";
        let heads = cache.cols / d;
        let (key_len, value_len) = packed_len(cache.capacity, d);
        if self.head_dim != d {
            self.keys = cpu.pool.zeroed(op, cache.sequences * heads * key_len)?;
            self.values = cpu.pool.zeroed(op, cache.sequences * heads * value_len)?;
            (self.head_dim, self.len) = (d, 0);
        }
        let (keys, values) = (Shared::new(&mut self.keys), Shared::new(&mut self.values));
        let new = self.len..cache.len;
        let pack = |head: usize| {
            let (s, h) = (head / heads, head % heads);
            // SAFETY: every task has its own head.
            let (keys, values) = unsafe {
                (
                    keys.slice_mut(head * key_len..(head + 1) * key_len),
                    values.slice_mut(head * value_len..(head + 1) * value_len),
                )
            };
            for position in new.clone() {
                let from = (s * cache.capacity + position) * cache.cols + h * d;
                let column = keys[position / NR * d * NR + position % NR..].iter_mut().step_by(NR);
                for (to, key) in column.zip(&cache.keys[from..from + d]) {
                    *to = *key;
                }
                for (part, row) in cache.values[from..from + d].chunks(NR).enumerate() {
                    values[(part * cache.capacity + position) * NR..][..row.len()].copy_from_slice(row);
                }
            }
        };
        let tasks = cache.sequences * heads;
        if new.len() < TOGETHER {
            (0..tasks).for_each(pack);
        } else {
            cpu.workers.run(tasks, pack);
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
    check_shape(op, "q", q, s.sequence.rows(), s.n_head * s.head_dim)?;
    check(op, s.sequence.batch == cache.sequences, || {
        format!("{} sequences, a cache of {}", s.sequence.batch, cache.sequences)
    })?;
    let queries = s.sequence.len;
    check(op, cache.cols == s.n_kv_head * s.head_dim && queries <= cache.len, || {
        format!("{queries} queries of {s:?}, a cache of {} rows and {} columns", cache.len, cache.cols)
    })?;
    let d = s.head_dim;
    let mut packed = cache.packed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    packed.update(cpu, cache, d)?;
    let packed = &*packed;
    let (key_len, value_len) = packed_len(cache.capacity, d);
    let mut o = cpu.tensor_uninit(op, q.rows, q.cols)?;
    let out = Shared::new(&mut o.data);
    let groups = queries.div_ceil(MR);
    cpu.workers.run_with_scratch(cache.sequences * s.n_head * groups, |task, scratch| {
        let (head, start) = (task / groups, task % groups * MR);
        let (sequence, h) = (head / s.n_head, head % s.n_head);
        let kv_head = sequence * s.n_kv_head + h / (s.n_head / s.n_kv_head);
        let packed_head = PackedHead {
            keys: &packed.keys[kv_head * key_len..(kv_head + 1) * key_len],
            values: &packed.values[kv_head * value_len..(kv_head + 1) * value_len],
            positions: cache.capacity,
        };
        let rows = MR.min(queries - start);
        let group = Group {
            rows,
            position: cache.len - queries + start,
            stride: q.cols,
            head_dim: d,
            window: s.window,
        };
        let at = (sequence * queries + start) * q.cols + h * d;
        // SAFETY: every task has its own queries and head.
        unsafe { group.attend(&q.data[at..], &packed_head, out, at, &mut [0.0; MR], scratch) };
    });
    Ok(o)
}
