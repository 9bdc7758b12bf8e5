//! Keys and values decoded so far, packed as attention reads them.

use std::sync::{Mutex, PoisonError};

use super::super::attention::{CHUNK, Group};
use super::super::backend::CpuBackend;
use super::super::kv_cache::TOGETHER;
use super::super::pool::Buffer;
use super::super::tensor::check;
use super::super::workers::Shared;
use super::attention::{PackedHead, attend, check_cached, packed_len};
use super::dot::{MR, NR};
use super::rows::uninit;
use super::storage::{Half, Tensor, check_shape, halves_mut, pairs};
use crate::ops::{AttentionShape, OpResult};

/// Keys and values of one layer, of sequences that are equally long.
#[derive(Debug)]
pub struct KvCache {
    sequences: usize,
    capacity: usize,
    cols: usize,
    /// Position of the first row, modulo a chunk: sums begin at the same positions as in a pass over whole sequences.
    first: usize,
    /// Positions of each.
    len: usize,
    /// Rows as they came, (S, capacity, K*D): the head size is only known to attention.
    keys: Half,
    values: Half,
    /// What attention packed of them.
    packed: Mutex<Packed>,
}

#[derive(Debug)]
struct Packed {
    head_dim: usize,
    len: usize,
    keys: Buffer,
    values: Buffer,
}

/// Positions that a packed cache has room for: its first may be any of a chunk.
pub(in super::super) fn packed_positions(capacity: usize) -> usize {
    capacity + CHUNK
}

pub(super) fn new(cpu: &CpuBackend, sequences: usize, capacity: usize, cols: usize) -> OpResult<KvCache> {
    let op = "kv_cache";
    let rows = || Half::take(&cpu.pool, op, sequences.saturating_mul(capacity).saturating_mul(cols));
    let empty = Packed { head_dim: 0, len: 0, keys: cpu.pool.take(op, 0)?, values: cpu.pool.take(op, 0)? };
    let (keys, values) = (rows()?, rows()?);
    Ok(KvCache { sequences, capacity, cols, first: 0, len: 0, keys, values, packed: Mutex::new(empty) })
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
    let (k, v) = (k.values(op)?, v.values(op)?);
    let part = count * cache.cols;
    for s in 0..cache.sequences {
        let to = (s * cache.capacity + cache.len) * cache.cols;
        cache.keys[to..to + part].copy_from_slice(&k[s * part..(s + 1) * part]);
        cache.values[to..to + part].copy_from_slice(&v[s * part..(s + 1) * part]);
    }
    cache.len += count;
    Ok(())
}

/// Begins with the last `kept` of `positions` rows. Sums begin where they would if those before were there too.
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
    cache.keys[..rows.len()].copy_from_slice(&k.values(op)?[rows.clone()]);
    cache.values[..rows.len()].copy_from_slice(&v.values(op)?[rows]);
    cache.first = (positions - kept) % CHUNK;
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
    found.first = (cache.first + cache.len - positions) % CHUNK;
    found.len = positions;
    Ok(found)
}

impl Packed {
    /// Brings the packed form up to date with the rows.
    fn update(&mut self, cpu: &CpuBackend, cache: &KvCache, d: usize) -> OpResult<()> {
        let op = "attention_cached";
        let heads = cache.cols / d;
        let positions = packed_positions(cache.capacity);
        let (key_len, value_len) = packed_len(positions, d);
        if self.head_dim != d {
            self.keys = cpu.pool.zeroed(op, cache.sequences * heads * key_len)?;
            self.values = cpu.pool.zeroed(op, cache.sequences * heads * value_len)?;
            (self.head_dim, self.len) = (d, 0);
        }
        let (depth, half) = (d.div_ceil(2), positions.div_ceil(2));
        let (keys, values) = (halves_mut(&mut self.keys), halves_mut(&mut self.values));
        let (keys, values) = (Shared::new(keys), Shared::new(values));
        let new = self.len..cache.len;
        let pack = |head: usize| {
            let (s, h) = (head / heads, head % heads);
            // SAFETY: every task has its own head.
            let (keys, values) = unsafe {
                (
                    keys.slice_mut(2 * head * key_len..2 * (head + 1) * key_len),
                    values.slice_mut(2 * head * value_len..2 * (head + 1) * value_len),
                )
            };
            for row in new.clone() {
                let position = cache.first + row;
                let from = (s * cache.capacity + row) * cache.cols + h * d;
                let key = (position / NR * depth * NR + position % NR) * 2;
                for (p, pair) in cache.keys[from..from + d].chunks(2).enumerate() {
                    keys[key + 2 * p * NR..][..pair.len()].copy_from_slice(pair);
                }
                for (part, row) in cache.values[from..from + d].chunks(NR).enumerate() {
                    let start = 2 * (part * half + position / 2) * NR + position % 2;
                    for (to, value) in values[start..].iter_mut().step_by(2).zip(row) {
                        *to = *value;
                    }
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
    check_cached(op, q, (cache.sequences, cache.cols, cache.len), s)?;
    let (queries, d, q_cols) = (s.sequence.len, s.head_dim, q.cols);
    let mut packed = cache.packed.lock().unwrap_or_else(PoisonError::into_inner);
    packed.update(cpu, cache, d)?;
    let positions = packed_positions(cache.capacity);
    let (key_len, value_len) = packed_len(positions, d);
    let (keys, values) = (pairs(&packed.keys), pairs(&packed.values));
    let mut o = uninit(cpu, op, q.rows, q_cols)?;
    let q = q.values(op)?;
    let out = Shared::new(o.values_mut(op)?);
    let groups = queries.div_ceil(MR);
    cpu.workers.run_with_scratch(cache.sequences * s.n_head * groups, |task, scratch| {
        let (head, start) = (task / groups, task % groups * MR);
        let (sequence, h) = (head / s.n_head, head % s.n_head);
        let kv_head = sequence * s.n_kv_head + h / (s.n_head / s.n_kv_head);
        let packed = PackedHead {
            keys: &keys[kv_head * key_len..(kv_head + 1) * key_len],
            values: &values[kv_head * value_len..(kv_head + 1) * value_len],
            positions,
        };
        let rows = MR.min(queries - start);
        let position = cache.first + cache.len - queries + start;
        let group = Group { rows, position, stride: q_cols, head_dim: d, window: s.window };
        let at = (sequence * queries + start) * q_cols + h * d;
        // SAFETY: every task has its own queries and head.
        unsafe { attend(&group, cache.first, &q[at..], &packed, out, at, &mut [0.0; MR], scratch) };
    });
    drop(packed);
    Ok(o)
}
