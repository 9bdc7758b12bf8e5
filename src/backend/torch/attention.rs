//! Causal attention within a window.
//!
//! On CUDA in bfloat16, flash attention with its deterministic backward, where it takes the heads' size. Elsewhere
//! blocks of queries against the keys they see, in float32: one block's scores for some of the heads are all that is
//! ever held.

use tch::{Device, Kind, Tensor};

use super::chunks;
use super::fault::{TchResult, shape_error};
use super::flash;
use super::linear::float;
use super::shim::{self, Flash};
use crate::ops::AttentionShape;

/// Queries of a block.
const QUERY_BLOCK: i64 = chunks::QUERIES as i64;

/// What the backward needs besides inputs and output.
#[derive(Debug)]
pub enum Saved {
    /// Logsumexp of the scores, (B * K, H / K, T) float32.
    Chunked(Tensor),
    /// The kernel's own.
    Flash(Box<Flashed>),
}

/// State of a flash attention, opaque.
#[derive(Debug)]
pub struct Flashed(Flash);

/// Sizes as libtorch wants them. `offset` is the position of the first query among the keys.
#[derive(Clone, Copy)]
struct Sizes {
    batch: i64,
    queries: i64,
    keys: i64,
    kv_heads: i64,
    /// Query heads of a key/value head.
    group: i64,
    head_dim: i64,
    window: i64,
    offset: i64,
}

impl Sizes {
    fn new(shape: &AttentionShape, keys: usize) -> TchResult<Self> {
        if shape.n_kv_head == 0 || !shape.n_head.is_multiple_of(shape.n_kv_head) || keys < shape.sequence.len
        {
            return Err(shape_error(format!("{shape:?} over {keys} keys")));
        }
        Ok(Self {
            batch: shape.sequence.batch as i64,
            queries: shape.sequence.len as i64,
            keys: keys as i64,
            kv_heads: shape.n_kv_head as i64,
            group: (shape.n_head / shape.n_kv_head) as i64,
            head_dim: shape.head_dim as i64,
            window: shape.window.min(keys) as i64,
            offset: (keys - shape.sequence.len) as i64,
        })
    }

    fn scale(self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }

    /// x (B * T, K * G * D) as (B * K, G, T, D) float32, contiguous.
    fn split(self, x: &Tensor, len: i64, group: i64) -> TchResult<Tensor> {
        float(x)?
            .f_view_([self.batch, len, self.kv_heads, group, self.head_dim])?
            .f_permute([0, 2, 3, 1, 4])?
            .f_reshape([self.batch * self.kv_heads, group, len, self.head_dim])
    }

    /// The inverse of [`Self::split`], in `kind`.
    fn join(self, x: &Tensor, len: i64, group: i64, kind: Kind) -> TchResult<Tensor> {
        x.f_view_([self.batch, self.kv_heads, group, len, self.head_dim])?
            .f_permute([0, 3, 1, 2, 4])?
            .f_to_dtype(kind, true, false)?
            .f_reshape([self.batch * len, -1])
    }

    /// Blocks of queries, each for a range of key/value heads of the batch.
    fn blocks(self, device: Device) -> impl Iterator<Item = Block> {
        let all = self.batch * self.kv_heads;
        (0..self.queries).step_by(QUERY_BLOCK as usize).flat_map(move |first| {
            let rows = QUERY_BLOCK.min(self.queries - first);
            let position = self.offset + first;
            let key = (position - self.window).max(0);
            let cols = position + rows - key;
            let scores = (self.group * rows * cols) as usize;
            let heads = chunks::heads(device.into(), scores, all as usize) as i64;
            (0..all).step_by(heads as usize).map(move |head| Block {
                head,
                heads: heads.min(all - head),
                first,
                rows,
                key,
                cols,
            })
        })
    }
}

/// Queries `first .. first + rows` of some heads against keys `key .. key + cols`.
#[derive(Clone, Copy)]
struct Block {
    head: i64,
    heads: i64,
    first: i64,
    rows: i64,
    key: i64,
    cols: i64,
}

impl Block {
    /// Of x (B * K, G, T, D), this block's queries as (heads, G * rows, D).
    fn queries(self, x: &Tensor) -> TchResult<Tensor> {
        let (_, group, _, head_dim) = x.size4()?;
        x.f_narrow(0, self.head, self.heads)?.f_narrow(2, self.first, self.rows)?.f_reshape([
            self.heads,
            group * self.rows,
            head_dim,
        ])
    }

    /// Of x (B * K, T, D), this block's keys as (heads, cols, D).
    fn keys(self, x: &Tensor) -> TchResult<Tensor> {
        x.f_narrow(0, self.head, self.heads)?.f_narrow(1, self.key, self.cols)
    }

    /// Writes `values` (heads, G * rows, D) to this block's place in x (B * K, G, T, D).
    fn put(self, x: &Tensor, values: &Tensor) -> TchResult<()> {
        let (_, group, _, last) = x.size4()?;
        x.f_narrow(0, self.head, self.heads)?
            .f_narrow(2, self.first, self.rows)?
            .f_copy_(&values.f_view_([self.heads, group, self.rows, last])?)
    }

    /// Scores `q k^T` (heads, G * rows, cols) with what is not seen at minus infinity. q is already scaled.
    fn scores(self, q: &Tensor, k: &Tensor, sizes: Sizes) -> TchResult<Tensor> {
        let scores = q.f_bmm(&k.f_transpose(1, 2)?)?;
        let view = scores.f_view_([self.heads, sizes.group, self.rows, self.cols])?;
        let masked = |columns: i64, from: i64, mask: Tensor| -> TchResult<()> {
            let _ = view.f_narrow(-1, from, columns)?.f_masked_fill_(&mask, f64::NEG_INFINITY)?;
            Ok(())
        };
        let ones = |columns| Tensor::f_ones([self.rows, columns], (Kind::Bool, scores.device()));
        // The last `rows` columns are the queries' own positions: those after a query are hidden.
        if self.rows > 1 {
            masked(self.rows, self.cols - self.rows, ones(self.rows)?.f_triu(1)?)?;
        }
        // Row r sees from key `position + r - window` on.
        let lead = (sizes.offset + self.first - sizes.window) - self.key;
        let hidden = (self.rows + lead - 1).min(self.cols);
        if hidden > 0 {
            masked(hidden, 0, ones(hidden)?.f_tril(lead - 1)?)?;
        }
        Ok(scores)
    }
}

/// -> output (N, H * D) in the kind of q, and what the backward needs.
pub(super) fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: &AttentionShape,
    flash_works: bool,
) -> TchResult<(Tensor, Saved)> {
    let sizes = Sizes::new(shape, shape.sequence.len)?;
    if flash_works && flash::takes(shape.head_dim) && q.f_kind()? == Kind::BFloat16 {
        let view = |x: &Tensor| x.f_view_([sizes.batch, sizes.queries, -1, sizes.head_dim]);
        let saved = shim::flash_forward(&view(q)?, &view(k)?, &view(v)?, sizes.scale(), flash_window(sizes))?;
        let output = saved.output.f_reshape([sizes.batch * sizes.queries, -1])?;
        return Ok((output, Saved::Flash(Box::new(Flashed(saved)))));
    }
    let (output, lse) = chunked(q, k, v, sizes)?;
    Ok((output, Saved::Chunked(lse)))
}

/// Attention of the last queries of each sequence over all of its `keys` keys in a cache.
pub(super) fn cached(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    keys: usize,
    shape: &AttentionShape,
) -> TchResult<Tensor> {
    Ok(chunked(q, k, v, Sizes::new(shape, keys)?)?.0)
}

/// The kernel takes -1 for "no limit".
fn flash_window(sizes: Sizes) -> i64 {
    if sizes.window >= sizes.queries { -1 } else { sizes.window }
}

fn chunked(q: &Tensor, k: &Tensor, v: &Tensor, sizes: Sizes) -> TchResult<(Tensor, Tensor)> {
    let kind = q.f_kind()?;
    let q = sizes.split(q, sizes.queries, sizes.group)?.f_mul_scalar(sizes.scale())?;
    let k = sizes.split(k, sizes.keys, 1)?.f_squeeze_dim(1)?;
    let v = sizes.split(v, sizes.keys, 1)?.f_squeeze_dim(1)?;
    let output = q.f_empty_like()?;
    let heads = sizes.batch * sizes.kv_heads;
    let lse = Tensor::f_empty([heads, sizes.group, sizes.queries, 1], (Kind::Float, q.device()))?;
    for block in sizes.blocks(q.device()) {
        let mut scores = block.scores(&block.queries(&q)?, &block.keys(&k)?, sizes)?;
        let max = scores.f_amax([-1_i64].as_slice(), true)?;
        let p = scores.f_sub_(&max)?.f_exp_()?;
        let sum = p.f_sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float)?;
        let mut o = p.f_bmm(&block.keys(&v)?)?;
        block.put(&output, &o.f_div_(&sum)?)?;
        block.put(&lse, &sum.f_log()?.f_add_(&max)?)?;
    }
    Ok((sizes.join(&output, sizes.queries, sizes.group, kind)?, lse))
}

/// -> (dq, dk, dv), each shaped like its input.
pub(super) fn backward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    o: &Tensor,
    saved: &Saved,
    shape: &AttentionShape,
    d_o: &Tensor,
) -> TchResult<(Tensor, Tensor, Tensor)> {
    let sizes = Sizes::new(shape, shape.sequence.len)?;
    match saved {
        Saved::Flash(flashed) => {
            let view = |x: &Tensor| x.f_view_([sizes.batch, sizes.queries, -1, sizes.head_dim]);
            let flat = |x: &Tensor| x.f_reshape([sizes.batch * sizes.queries, -1]);
            let [dq, dk, dv] = shim::flash_backward(
                &view(d_o)?,
                &view(q)?,
                &view(k)?,
                &view(v)?,
                &view(o)?,
                &flashed.0,
                sizes.scale(),
                flash_window(sizes),
            )?;
            Ok((flat(&dq)?, flat(&dk)?, flat(&dv)?))
        }
        Saved::Chunked(lse) => chunked_backward(q, k, v, o, lse, sizes, d_o),
    }
}

fn chunked_backward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    o: &Tensor,
    lse: &Tensor,
    sizes: Sizes,
    d_o: &Tensor,
) -> TchResult<(Tensor, Tensor, Tensor)> {
    let (kind, len) = (q.f_kind()?, sizes.queries);
    let d_o = sizes.split(d_o, len, sizes.group)?;
    let delta = sizes.split(o, len, sizes.group)?.f_mul(&d_o)?.f_sum_dim_intlist(
        [-1_i64].as_slice(),
        true,
        Kind::Float,
    )?;
    let q = sizes.split(q, len, sizes.group)?.f_mul_scalar(sizes.scale())?;
    let k = sizes.split(k, len, 1)?.f_squeeze_dim(1)?;
    let v = sizes.split(v, len, 1)?.f_squeeze_dim(1)?;
    let (mut dq, mut dk, dv) = (q.f_empty_like()?, k.f_zeros_like()?, v.f_zeros_like()?);
    for block in sizes.blocks(q.device()) {
        let (q, d_o) = (block.queries(&q)?, block.queries(&d_o)?);
        let (k, v) = (block.keys(&k)?, block.keys(&v)?);
        let mut scores = block.scores(&q, &k, sizes)?;
        let p = scores.f_sub_(&block.queries(lse)?)?.f_exp_()?;
        let _ = block.keys(&dv)?.f_add_(&p.f_transpose(1, 2)?.f_bmm(&d_o)?)?;
        let mut ds = d_o.f_bmm(&v.f_transpose(1, 2)?)?;
        let ds = ds.f_sub_(&block.queries(&delta)?)?.f_mul_(&p)?;
        block.put(&dq, &ds.f_bmm(&k)?)?;
        let _ = block.keys(&dk)?.f_add_(&ds.f_transpose(1, 2)?.f_bmm(&q)?)?;
    }
    // dk came out of the scaled queries; dq still lacks the scale.
    let dq = dq.f_mul_scalar_(sizes.scale())?;
    let dk = dk.f_unsqueeze_(1)?;
    let dq = sizes.join(&dq, len, sizes.group, kind)?;
    Ok((dq, sizes.join(&dk, len, 1, kind)?, sizes.join(&dv, len, 1, kind)?))
}
