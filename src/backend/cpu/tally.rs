//! The ops without their numbers: they take from a pool of claims what the real ones take of memory, and give it back
//! when those do. So the memory of a run is counted by the code that will train it, before anything is computed.
//!
//! Each op here names what its namesake allocates; tests hold the sums of both equal over many shapes.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use super::attention::packed_len;
use super::attention_split::Split;
use super::backend::ROW_CHUNK;
use super::bf16;
use super::cross_entropy::CHUNK_ROWS;
use super::gemm;
use super::muon::BATCH;
use super::pool::{Buffer, Claim, Pool};
use super::workers::{SCRATCH_LEN, scratch_room};
use crate::model::param::ParamSpec;
use crate::ops::{
    AdamWStep, AttentionShape, ForwardOps, HeadShape, MuonParam, MuonStep, OpError, OpResult, SequenceShape,
    SgdStep, TrainOps,
};
use crate::precision::Precision;
use crate::tensors::Single;

type Room = Buffer<Claim>;

/// A matrix of activations that is only counted.
#[derive(Debug)]
pub(super) struct Counted {
    rows: usize,
    cols: usize,
    _room: Room,
}

/// A weight, gradient or state that is only counted.
#[derive(Debug)]
pub(super) struct CountedParam {
    shape: Vec<usize>,
    /// Whether products read it as it is.
    packed: bool,
    _room: Room,
}

impl CountedParam {
    /// Rows and columns, as the backend's own.
    fn matrix(&self) -> (usize, usize) {
        match self.shape[..] {
            [rows, cols] => (rows, cols),
            _ => (1, self.len()),
        }
    }

    fn len(&self) -> usize {
        len(&self.shape)
    }
}

/// Token ids that are only counted.
#[derive(Debug)]
pub(super) struct CountedTokens {
    count: usize,
    _room: Room,
}

/// Keys and values that are only counted.
#[derive(Debug)]
pub(super) struct CountedCache {
    sequences: usize,
    capacity: usize,
    cols: usize,
    _rows: [Room; 2],
    packed: Mutex<Option<[Room; 2]>>,
}

/// What a backend of so many threads would hold.
#[derive(Debug)]
pub(super) struct Tally {
    pool: Pool<Claim>,
    threads: usize,
    /// Of its activations, tables and products.
    half: bool,
    /// For as long as the threads live.
    _scratch: Vec<Room>,
}

fn len(shape: &[usize]) -> usize {
    shape.iter().fold(1, |len: usize, &size| len.saturating_mul(size))
}

/// Values are what there are none of.
fn no_values<T>() -> OpResult<T> {
    Err(OpError::Backend { op: "tally", message: "what is only counted has no values".to_owned() })
}

impl Tally {
    pub(super) fn new(threads: usize, precision: Precision) -> OpResult<Self> {
        let (pool, threads) = (Pool::default(), threads.max(1));
        let half = precision == Precision::Bf16;
        let len = if half { bf16::SCRATCH } else { SCRATCH_LEN };
        let room = scratch_room(len);
        let scratch = (0..threads).map(|_| pool.take("scratch", room)).collect::<OpResult<_>>()?;
        Ok(Self { pool, threads, half, _scratch: scratch })
    }

    /// Values that are in bfloat16 where activations are.
    fn values(&self, op: &'static str, len: usize) -> OpResult<Room> {
        if self.half { bf16::room(&self.pool, op, len) } else { self.pool.take(op, len) }
    }

    /// Rows of keys and of values as attention packs them: those of so many positions.
    fn packed_len(&self, positions: usize, head_dim: usize) -> (usize, usize) {
        if self.half { bf16::packed_len(positions, head_dim) } else { packed_len(positions, head_dim) }
    }

    fn prepack(&self, n: usize, k: usize) -> OpResult<Option<Room>> {
        if self.half {
            bf16::gemm::prepack_room(&self.pool, n, k)
        } else {
            gemm::prepack_room(&self.pool, n, k)
        }
    }

    /// What is as large as a parameter that may be a table, as [`crate::train`] makes it.
    pub(super) fn stored(&self, spec: &ParamSpec) -> OpResult<CountedParam> {
        if spec.group.is_table() { self.table_room(&spec.shape) } else { self.param(&spec.shape) }
    }

    fn table_room(&self, shape: &[usize]) -> OpResult<CountedParam> {
        Ok(CountedParam { shape: shape.to_vec(), packed: false, _room: self.values("table", len(shape))? })
    }

    /// Bytes held, in use or waiting.
    pub(super) fn held_bytes(&self) -> u64 {
        self.pool.bytes()
    }

    /// The most bytes held so far.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.pool.peak_bytes()
    }

    /// Gives back what waits, as the backend does before it decodes.
    pub(super) fn trim(&self) {
        self.pool.trim();
    }

    /// An empty cache of so many sequences.
    fn cache(&self, sequences: usize, capacity: usize, cols: usize) -> OpResult<CountedCache> {
        let len = sequences.saturating_mul(capacity).saturating_mul(cols);
        let rows = || self.values("kv_cache", len);
        Ok(CountedCache { sequences, capacity, cols, _rows: [rows()?, rows()?], packed: Mutex::new(None) })
    }

    /// So many tokens.
    pub(super) fn some_tokens(&self, count: usize) -> OpResult<CountedTokens> {
        Ok(CountedTokens { count, _room: self.pool.take("tokens", count)? })
    }

    /// A parameter or what is as large.
    pub(super) fn param(&self, shape: &[usize]) -> OpResult<CountedParam> {
        Ok(CountedParam { shape: shape.to_vec(), packed: false, _room: self.pool.take("param", len(shape))? })
    }

    /// A weight that is never changed.
    pub(super) fn fixed(&self, spec: &ParamSpec) -> OpResult<CountedParam> {
        match spec.shape[..] {
            [rows, cols] if spec.is_factor() => {
                let packed = if self.half { bf16::gemm::packed_room } else { gemm::packed_room };
                let room = packed(&self.pool, rows, cols)?;
                Ok(CountedParam { shape: spec.shape.clone(), packed: true, _room: room })
            }
            _ => self.stored(spec),
        }
    }

    /// A product of `m` rows with a weight (n, k).
    fn product_with(&self, w: &CountedParam, m: usize, n: usize, k: usize) -> OpResult<()> {
        if w.packed { Ok(()) } else { self.product(m, n, k) }
    }

    fn matrix(&self, rows: usize, cols: usize) -> OpResult<Counted> {
        Ok(Counted { rows, cols, _room: self.values("tensor", rows.saturating_mul(cols))? })
    }

    fn product(&self, m: usize, n: usize, k: usize) -> OpResult<()> {
        self.products(m, n, k, 1)
    }

    fn products(&self, m: usize, n: usize, k: usize, count: usize) -> OpResult<()> {
        let claim = if self.half { bf16::gemm::claim } else { gemm::claim };
        claim(&self.pool, (m, n, k), count, self.threads)
    }

    fn row_sums(&self, rows: usize, width: usize) -> OpResult<()> {
        self.pool.take("sum", rows.div_ceil(ROW_CHUNK).saturating_mul(width)).map(drop)
    }

    fn cross_entropy_pass(
        &self,
        x: &Counted,
        lm_head: &CountedParam,
        head: &HeadShape,
        backward: bool,
    ) -> OpResult<Vec<f32>> {
        let (rows, v, c) = (x.rows, head.vocab_size, x.cols);
        let (mut transposed, mut plain) = (None, None);
        if rows > CHUNK_ROWS && !lm_head.packed {
            transposed = self.prepack(v, c)?;
            plain = if backward { self.prepack(c, v)? } else { None };
        }
        let _chunk = self.values("cross_entropy", CHUNK_ROWS.min(rows) * v)?;
        // All chunks are alike but the last.
        for chunk in [CHUNK_ROWS.min(rows), rows % CHUNK_ROWS].into_iter().filter(|&rows| rows > 0) {
            if transposed.is_none() {
                self.product_with(lm_head, chunk, v, c)?;
            }
            if self.half && v > SCRATCH_LEN {
                self.pool.take("cross_entropy", v)?;
            }
            if backward {
                if plain.is_none() {
                    self.product(chunk, c, v)?;
                }
                self.product(v, c, chunk)?;
            }
        }
        Ok(Vec::new())
    }
}

impl ForwardOps for Tally {
    type Tensor = Counted;
    type Weight = CountedParam;
    type Tokens = CountedTokens;
    type Rotary = [Room; 2];
    type KvCache = CountedCache;
    type NormSaved = Room;
    type SmearSaved = Room;
    type ValueSaved = Room;
    type RotarySaved = Room;
    type AttentionSaved = Room;

    fn weight(&self, shape: &[usize], _: &[f32]) -> OpResult<CountedParam> {
        self.param(shape)
    }

    fn table(&self, shape: &[usize], _: &[f32]) -> OpResult<CountedParam> {
        self.table_room(shape)
    }

    fn weight_values<'a>(&self, _: &'a CountedParam) -> OpResult<Single<'a>> {
        no_values()
    }

    fn tokens(&self, ids: &[i32]) -> OpResult<CountedTokens> {
        self.some_tokens(ids.len())
    }

    fn tensor_values(&self, _: &Counted) -> OpResult<Vec<f32>> {
        no_values()
    }

    fn tensor(&self, rows: usize, cols: usize, _: &[f32]) -> OpResult<Counted> {
        self.matrix(rows, cols)
    }

    fn zeros(&self, rows: usize, cols: usize) -> OpResult<Counted> {
        self.matrix(rows, cols)
    }

    fn copy(&self, x: &Counted) -> OpResult<Counted> {
        self.matrix(x.rows, x.cols)
    }

    fn rows(&self, x: &Counted, _: usize, count: usize) -> OpResult<Counted> {
        self.matrix(count, x.cols)
    }

    fn gather(&self, x: &Counted, rows: &[usize]) -> OpResult<Counted> {
        self.matrix(rows.len(), x.cols)
    }

    fn rotary(&self, len: usize, head_dim: usize, _: f64, _: Precision) -> OpResult<[Room; 2]> {
        let half = head_dim / 2;
        let table = || self.pool.take("rotary", len.saturating_mul(half));
        let tables = [table()?, table()?];
        self.pool.take("rotary", half)?;
        Ok(tables)
    }

    fn embedding(&self, table: &CountedParam, tokens: &CountedTokens) -> OpResult<Counted> {
        self.matrix(tokens.count, table.matrix().1)
    }

    fn rms_norm(&self, x: &Counted, _: f32) -> OpResult<(Counted, Room)> {
        Ok((self.matrix(x.rows, x.cols)?, self.pool.take("rms_norm", x.rows)?))
    }

    fn linear(&self, x: &Counted, w: &CountedParam) -> OpResult<Counted> {
        let (out, inputs) = w.matrix();
        let y = self.matrix(x.rows, out)?;
        self.product_with(w, x.rows, out, inputs)?;
        Ok(y)
    }

    fn linear_add(&self, residual: Counted, x: &Counted, w: &CountedParam) -> OpResult<Counted> {
        let (out, inputs) = w.matrix();
        self.product_with(w, x.rows, out, inputs)?;
        Ok(residual)
    }

    fn add(&self, x: Counted, _: &Counted) -> OpResult<Counted> {
        Ok(x)
    }

    fn relu_squared(&self, x: &Counted) -> OpResult<Counted> {
        self.matrix(x.rows, x.cols)
    }

    fn relu_squared_linear_add(&self, residual: Counted, u: &Counted, w: &CountedParam) -> OpResult<Counted> {
        self.linear_add(residual, u, w)
    }

    fn residual_mix(
        &self,
        x: &Counted,
        _: &Counted,
        _: &CountedParam,
        _: &CountedParam,
        _: usize,
    ) -> OpResult<Counted> {
        self.matrix(x.rows, x.cols)
    }

    fn smear(
        &self,
        x: &Counted,
        _: &CountedParam,
        _: &CountedParam,
        _: SequenceShape,
        _: Option<&Counted>,
    ) -> OpResult<(Counted, Room)> {
        Ok((self.matrix(x.rows, x.cols)?, self.pool.take("smear", x.rows)?))
    }

    fn value_embedding(
        &self,
        v: Counted,
        _: &Counted,
        _: &CountedParam,
        _: &CountedTokens,
        gate: &CountedParam,
        _: f32,
    ) -> OpResult<(Counted, Room)> {
        let gates = self.pool.take("value_embedding", v.rows * gate.matrix().0)?;
        Ok((v, gates))
    }

    fn rotary_norm(
        &self,
        x: Counted,
        _: &[Room; 2],
        _: usize,
        _: SequenceShape,
        head_dim: usize,
        _: f32,
        _: f32,
    ) -> OpResult<(Counted, Room)> {
        let scales = self.pool.take("rotary_norm", x.rows * (x.cols / head_dim.max(1)))?;
        Ok((x, scales))
    }

    fn attention(
        &self,
        q: &Counted,
        _: &Counted,
        _: &Counted,
        s: &AttentionShape,
    ) -> OpResult<(Counted, Room)> {
        let heads = s.sequence.batch * s.n_kv_head;
        let (key_len, value_len) = self.packed_len(s.sequence.len, s.head_dim);
        let _keys = self.pool.take("attention", heads.saturating_mul(key_len))?;
        let _values = self.pool.take("attention", heads.saturating_mul(value_len))?;
        let o = self.matrix(q.rows, q.cols)?;
        Ok((o, self.pool.take("attention", s.sequence.rows() * s.n_head)?))
    }

    fn backout(&self, x: Counted, _: &Counted, _: &CountedParam) -> OpResult<Counted> {
        Ok(x)
    }

    fn cross_entropy(
        &self,
        x: &Counted,
        lm_head: &CountedParam,
        _: &CountedTokens,
        head: &HeadShape,
    ) -> OpResult<Vec<f32>> {
        self.cross_entropy_pass(x, lm_head, head, false)
    }

    fn logits(&self, x: &Counted, lm_head: &CountedParam, head: &HeadShape) -> OpResult<Counted> {
        let y = self.matrix(x.rows, head.vocab_size)?;
        self.product_with(lm_head, x.rows, head.vocab_size, x.cols)?;
        if self.half {
            // The product beside the logits, which are f32.
            let room = self.pool.take("logits", x.rows.saturating_mul(head.vocab_size))?;
            return Ok(Counted { _room: room, ..y });
        }
        Ok(y)
    }

    fn kv_cache(&self, capacity: usize, cols: usize) -> OpResult<CountedCache> {
        self.cache(1, capacity, cols)
    }

    fn kv_append(&self, _: &mut CountedCache, _: &Counted, _: &Counted) -> OpResult<()> {
        Ok(())
    }

    fn kv_begin(&self, _: &mut CountedCache, _: &Counted, _: &Counted, _: usize, _: usize) -> OpResult<()> {
        Ok(())
    }

    fn kv_select(&self, cache: &CountedCache, sequences: &[usize], _: usize) -> OpResult<CountedCache> {
        self.cache(sequences.len(), cache.capacity, cache.cols)
    }

    fn attention_cached(&self, q: &Counted, cache: &CountedCache, s: &AttentionShape) -> OpResult<Counted> {
        let mut packed = cache.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if packed.is_none() {
            let heads = cache.sequences * (cache.cols / s.head_dim.max(1));
            let positions = if self.half { bf16::packed_positions(cache.capacity) } else { cache.capacity };
            let (key_len, value_len) = self.packed_len(positions, s.head_dim);
            let room = |len: usize| self.pool.take("attention_cached", heads.saturating_mul(len));
            *packed = Some([room(key_len)?, room(value_len)?]);
        }
        self.matrix(q.rows, q.cols)
    }
}

impl TrainOps for Tally {
    type Grad = CountedParam;
    type State = CountedParam;

    fn grad(&self, shape: &[usize]) -> OpResult<CountedParam> {
        self.param(shape)
    }

    fn table_grad(&self, shape: &[usize]) -> OpResult<CountedParam> {
        self.table_room(shape)
    }

    fn zero_grad(&self, _: &mut CountedParam) -> OpResult<()> {
        Ok(())
    }

    fn grad_values<'a>(&self, _: &'a CountedParam) -> OpResult<Cow<'a, [f32]>> {
        no_values()
    }

    fn state(&self, shape: &[usize], _: &[f32]) -> OpResult<CountedParam> {
        self.param(shape)
    }

    fn table_state(&self, shape: &[usize], _: &[f32]) -> OpResult<CountedParam> {
        self.table_room(shape)
    }

    fn zero_state(&self, shape: &[usize], table: bool) -> OpResult<CountedParam> {
        if table { self.table_room(shape) } else { self.param(shape) }
    }

    /// None: but names and shapes are wanted of it.
    fn state_values<'a>(&self, _: &'a CountedParam) -> OpResult<Single<'a>> {
        Ok(Single::Half(&[]))
    }

    fn embedding_backward(&self, _: &CountedTokens, _: &Counted, _: &mut CountedParam) -> OpResult<()> {
        Ok(())
    }

    fn rms_norm_backward(
        &self,
        y: &Counted,
        _: &Room,
        _: &Counted,
        dresidual: Option<Counted>,
    ) -> OpResult<Counted> {
        dresidual.map_or_else(|| self.matrix(y.rows, y.cols), Ok)
    }

    fn linear_backward(
        &self,
        x: &Counted,
        w: &CountedParam,
        _: &Counted,
        _: &mut CountedParam,
        dx: Option<Counted>,
    ) -> OpResult<Counted> {
        let (out, inputs) = w.matrix();
        self.product(out, inputs, x.rows)?;
        let dx = dx.map_or_else(|| self.matrix(x.rows, inputs), Ok)?;
        self.product(x.rows, inputs, out)?;
        Ok(dx)
    }

    fn relu_squared_backward(&self, _: &Counted, dy: Counted) -> OpResult<Counted> {
        Ok(dy)
    }

    fn relu_squared_linear_backward(
        &self,
        u: &Counted,
        w: &CountedParam,
        dy: &Counted,
        dw: &mut CountedParam,
    ) -> OpResult<Counted> {
        self.linear_backward(u, w, dy, dw, None)
    }

    fn residual_mix_backward(
        &self,
        x: &Counted,
        _: &Counted,
        _: &CountedParam,
        _: &CountedParam,
        _: usize,
        dy: Counted,
        _: &mut Counted,
        _: &mut CountedParam,
        _: &mut CountedParam,
    ) -> OpResult<Counted> {
        self.row_sums(x.rows, 2)?;
        Ok(dy)
    }

    fn smear_backward(
        &self,
        x: &Counted,
        gate: &CountedParam,
        _: &CountedParam,
        _: SequenceShape,
        _: &Room,
        _: &Counted,
        _: &mut CountedParam,
        _: &mut CountedParam,
    ) -> OpResult<Counted> {
        let dx = self.matrix(x.rows, x.cols)?;
        self.row_sums(x.rows, gate.len() + 1)?;
        Ok(dx)
    }

    fn value_embedding_backward(
        &self,
        h: &Counted,
        _: &CountedParam,
        _: &CountedTokens,
        gate: &CountedParam,
        _: f32,
        _: &Room,
        _: &Counted,
        _: &mut CountedParam,
        _: &mut CountedParam,
        _: &mut Counted,
    ) -> OpResult<()> {
        self.row_sums(h.rows, gate.len())
    }

    fn rotary_norm_backward(
        &self,
        _: &Counted,
        _: &[Room; 2],
        _: SequenceShape,
        _: usize,
        _: f32,
        _: &Room,
        dy: Counted,
    ) -> OpResult<Counted> {
        Ok(dy)
    }

    fn attention_backward(
        &self,
        q: &Counted,
        k: &Counted,
        v: &Counted,
        _: &Counted,
        _: &Room,
        s: &AttentionShape,
        _: &Counted,
    ) -> OpResult<(Counted, Counted, Counted)> {
        let [dq, dk, dv] = [q, k, v].map(|x| self.matrix(x.rows, x.cols));
        let [dq, dk, dv] = [dq?, dk?, dv?];
        let _delta = self.pool.take("attention_backward", s.sequence.rows() * s.n_head)?;
        let split = Split::new(s, self.threads);
        let in_place = if self.half && !split.is_apart() { q.rows } else { 0 };
        let _sums = self.pool.take("attention_backward", in_place * q.cols)?;
        let _apart = self.pool.take("attention_backward", split.apart_rows() * q.cols)?;
        Ok((dq, dk, dv))
    }

    fn backout_backward(
        &self,
        kept: &Counted,
        _: &CountedParam,
        _: &Counted,
        _: &mut CountedParam,
    ) -> OpResult<Counted> {
        let dkept = self.matrix(kept.rows, kept.cols)?;
        self.row_sums(kept.rows, 1)?;
        Ok(dkept)
    }

    fn cross_entropy_train(
        &self,
        x: &Counted,
        lm_head: &CountedParam,
        _: &CountedTokens,
        head: &HeadShape,
        _: f32,
        _: &mut CountedParam,
    ) -> OpResult<(Vec<f32>, Counted)> {
        let dx = self.matrix(x.rows, x.cols)?;
        Ok((self.cross_entropy_pass(x, lm_head, head, true)?, dx))
    }

    fn adamw(
        &self,
        _: &mut CountedParam,
        _: &CountedParam,
        _: &mut CountedParam,
        _: &mut CountedParam,
        _: &AdamWStep,
    ) -> OpResult<()> {
        Ok(())
    }

    fn muon(
        &self,
        params: &mut [MuonParam<'_, CountedParam, CountedParam, CountedParam>],
        step: &MuonStep,
    ) -> OpResult<()> {
        let Some((rows, cols)) = params.first().map(|first| first.weight.matrix()) else { return Ok(()) };
        if rows * cols == 0 {
            return Ok(());
        }
        let n = rows.min(cols);
        for batch in params.chunks(BATCH) {
            let count = batch.len();
            let half = self.half && step.polar_precision == Precision::Bf16;
            let spare = |rows: usize, cols: usize| self.pool.spare("muon", count * rows * cols);
            let matrices = |rows: usize, cols: usize| {
                let len = count * rows * cols;
                self.pool.spare("muon", if half { bf16::floats(len) } else { len })
            };
            let products = |m, n, k| {
                let claim = if half { bf16::gemm::claim } else { gemm::claim };
                claim(&self.pool, (m, n, k), count, self.threads)
            };
            let _x = matrices(rows, cols)?;
            if step.row_equilibration {
                spare(rows, 1)?;
            }
            spare(rows, 1)?;
            {
                let (_gram, _square, _next) = (matrices(n, n)?, matrices(n, n)?, matrices(rows, cols)?);
                for _ in 0..step.ns_steps {
                    products(n, n, rows.max(cols))?;
                    products(n, n, n)?;
                    products(rows, cols, n)?;
                }
            }
            if step.renormalize {
                spare(rows, 1)?;
            }
            let _factors = spare(if rows >= cols { rows } else { cols }, 1)?;
        }
        Ok(())
    }

    fn sgd(&self, _: &mut CountedParam, _: &CountedParam, _: &mut CountedParam, _: &SgdStep) -> OpResult<()> {
        Ok(())
    }
}
