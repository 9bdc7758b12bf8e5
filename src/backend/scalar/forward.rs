//! The forward ops, each as its definition reads.

use super::ScalarBackend;
use super::tape::{Scalar, Tape};
use super::weight::{KvCache, Rotary, Tensor, Tokens, Weight, shape_error};
use crate::ops::{AttentionShape, ForwardOps, HeadShape, OpResult, SequenceShape};
use crate::precision::Precision;
use crate::tensors::Single;

impl ForwardOps for ScalarBackend {
    type Tensor = Tensor;
    type Weight = Weight;
    type Tokens = Tokens;
    type Rotary = Rotary;
    type KvCache = KvCache;
    type NormSaved = ();
    type SmearSaved = ();
    type ValueSaved = ();
    type RotarySaved = ();
    type AttentionSaved = ();

    fn weight(&self, shape: &[usize], values: &[f32]) -> OpResult<Weight> {
        self.weight_from_f64(shape, values.iter().copied().map(f64::from).collect())
    }

    /// Rounded to f32; [`Weight::values`] are the exact ones.
    fn weight_values<'a>(&self, weight: &'a Weight) -> OpResult<Single<'a>> {
        Ok(weight.values().iter().map(|value| *value as f32).collect::<Vec<_>>().into())
    }

    fn tokens(&self, ids: &[i32]) -> OpResult<Tokens> {
        Ok(Tokens(ids.to_vec()))
    }

    /// Rounded to f32; `Tensor::values` are the exact ones.
    fn tensor_values(&self, tensor: &Tensor) -> OpResult<Vec<f32>> {
        Ok(tensor.scalars().iter().map(|scalar| scalar.value() as f32).collect())
    }

    fn tensor(&self, rows: usize, cols: usize, values: &[f32]) -> OpResult<Tensor> {
        if rows * cols != values.len() {
            return Err(shape_error("tensor", format!("{} values for ({rows}, {cols})", values.len())));
        }
        let constant = |value: &f32| Scalar::constant(f64::from(*value));
        self.tensor_of("tensor", rows, cols, |_| values.iter().map(constant).collect())
    }

    fn copy(&self, x: &Tensor) -> OpResult<Tensor> {
        self.tensor_of("copy", x.rows(), x.cols(), |_| x.scalars().to_vec())
    }

    fn rows(&self, x: &Tensor, start: usize, count: usize) -> OpResult<Tensor> {
        if start.checked_add(count).is_none_or(|end| end > x.rows()) {
            return Err(shape_error("rows", format!("{count} rows from {start} on of {}", x.rows())));
        }
        let cols = x.cols();
        self.tensor_of("rows", count, cols, |_| x.scalars()[start * cols..][..count * cols].to_vec())
    }

    fn gather(&self, x: &Tensor, rows: &[usize]) -> OpResult<Tensor> {
        if rows.iter().any(|&row| row >= x.rows()) {
            return Err(shape_error("gather", format!("rows {rows:?} of {}", x.rows())));
        }
        self.tensor_of("gather", rows.len(), x.cols(), |_| {
            rows.iter().flat_map(|&row| x.row(row).iter().copied()).collect()
        })
    }

    fn rows_stand_alone(&self) -> bool {
        true
    }

    fn rotary(&self, len: usize, head_dim: usize, base: f64, precision: Precision) -> OpResult<Rotary> {
        let half = head_dim / 2;
        let (mut cos, mut sin) = (Vec::with_capacity(len * half), Vec::with_capacity(len * half));
        for position in 0..len {
            for j in 0..half {
                let frequency = libm::pow(base, -(2.0 * j as f64) / head_dim as f64);
                let angle = position as f64 * frequency;
                cos.push(round_to(precision, libm::cos(angle)));
                sin.push(round_to(precision, libm::sin(angle)));
            }
        }
        Ok(Rotary { cos, sin, len, half })
    }

    fn embedding(&self, table: &Weight, tokens: &Tokens) -> OpResult<Tensor> {
        let op = "embedding";
        let (table_rows, cols) = table.matrix(op)?;
        let ids = tokens.indices(op, tokens.0.len(), table_rows)?;
        self.tensor_of(op, ids.len(), cols, |tape| {
            let table = tape.leaves(table);
            ids.iter().flat_map(|id| table.range(id * cols, cols)).collect()
        })
    }

    fn rms_norm(&self, x: &Tensor, eps: f32) -> OpResult<(Tensor, ())> {
        let y = self.tensor_of("rms_norm", x.rows(), x.cols(), |tape| {
            (0..x.rows()).flat_map(|row| rms_norm(tape, x.row(row), eps)).collect()
        })?;
        Ok((y, ()))
    }

    fn linear(&self, x: &Tensor, w: &Weight) -> OpResult<Tensor> {
        let (out, inputs) = w.matrix("linear")?;
        x.expect("linear", "x", x.rows(), inputs)?;
        self.tensor_of("linear", x.rows(), out, |tape| {
            let w = tape.leaves(w);
            let mut y = Vec::with_capacity(x.rows() * out);
            for row in 0..x.rows() {
                for output in 0..out {
                    y.push(tape.dot(x.row(row).iter().copied().zip(w.range(output * inputs, inputs))));
                }
            }
            y
        })
    }

    fn linear_add(&self, residual: Tensor, x: &Tensor, w: &Weight) -> OpResult<Tensor> {
        let y = self.linear(x, w)?;
        self.add(residual, &y)
    }

    fn add(&self, x: Tensor, y: &Tensor) -> OpResult<Tensor> {
        y.expect("add", "y", x.rows(), x.cols())?;
        self.tensor_of("add", x.rows(), x.cols(), |tape| {
            x.scalars().iter().zip(y.scalars()).map(|(x, y)| tape.add(*x, *y)).collect()
        })
    }

    fn relu_squared(&self, x: &Tensor) -> OpResult<Tensor> {
        self.tensor_of("relu_squared", x.rows(), x.cols(), |tape| {
            let relu_squared = |x: &Scalar| {
                let relu = tape.relu(*x);
                tape.mul(relu, relu)
            };
            x.scalars().iter().map(relu_squared).collect()
        })
    }

    fn residual_mix(
        &self,
        x: &Tensor,
        x0: &Tensor,
        resid: &Weight,
        x0_lambdas: &Weight,
        layer: usize,
    ) -> OpResult<Tensor> {
        let op = "residual_mix";
        x0.expect(op, "x0", x.rows(), x.cols())?;
        resid.check_index(op, layer)?;
        x0_lambdas.check_index(op, layer)?;
        self.tensor_of(op, x.rows(), x.cols(), |tape| {
            let resid = tape.leaves(resid).get(layer);
            let x0_lambda = tape.leaves(x0_lambdas).get(layer);
            let mix = |(x, x0): (&Scalar, &Scalar)| tape.dot([(resid, *x), (x0_lambda, *x0)].into_iter());
            x.scalars().iter().zip(x0.scalars()).map(mix).collect()
        })
    }

    fn smear(
        &self,
        x: &Tensor,
        gate: &Weight,
        lambda: &Weight,
        sequence: SequenceShape,
        previous: Option<&Tensor>,
    ) -> OpResult<(Tensor, ())> {
        let op = "smear";
        x.expect(op, "x", sequence.rows(), x.cols())?;
        let channels = gate_channels(op, gate, 1, x.cols())?;
        lambda.check_index(op, 0)?;
        if let Some(previous) = previous {
            previous.expect(op, "previous", sequence.batch, x.cols())?;
        }
        let y = self.tensor_of(op, x.rows(), x.cols(), |tape| {
            let (gate, lambda) = (tape.leaves(gate), tape.leaves(lambda).get(0));
            let mut y = Vec::with_capacity(x.scalars().len());
            for row in 0..x.rows() {
                let current = x.row(row);
                let before = if row % sequence.len > 0 {
                    Some(x.row(row - 1))
                } else {
                    previous.map(|previous| previous.row(row / sequence.len))
                };
                let Some(before) = before else {
                    y.extend_from_slice(current);
                    continue;
                };
                let score = tape.dot(gate.range(0, channels).zip(current.iter().copied()));
                let open = tape.sigmoid(score);
                let amount = tape.mul(lambda, open);
                for (current, before) in current.iter().zip(before) {
                    let smeared = tape.mul(amount, *before);
                    y.push(tape.add(*current, smeared));
                }
            }
            y
        })?;
        Ok((y, ()))
    }

    fn value_embedding(
        &self,
        v: Tensor,
        h: &Tensor,
        table: &Weight,
        tokens: &Tokens,
        gate: &Weight,
        scale: f32,
    ) -> OpResult<(Tensor, ())> {
        let op = "value_embedding";
        let (table_rows, cols) = table.matrix(op)?;
        v.expect(op, "v", v.rows(), cols)?;
        h.expect(op, "h", v.rows(), h.cols())?;
        let ids = tokens.indices(op, v.rows(), table_rows)?;
        let (heads, _) = gate.matrix(op)?;
        let channels = gate_channels(op, gate, heads, h.cols())?;
        let head_dim = cols.checked_div(heads).filter(|head_dim| head_dim * heads == cols);
        let Some(head_dim) = head_dim else {
            return Err(shape_error(op, format!("{cols} channels do not divide into {heads} heads")));
        };
        let y = self.tensor_of(op, v.rows(), cols, |tape| {
            let (table, gate) = (tape.leaves(table), tape.leaves(gate));
            let mut y = Vec::with_capacity(v.scalars().len());
            for (row, id) in ids.iter().enumerate() {
                for head in 0..heads {
                    let channels_of_gate = gate.range(head * channels, channels);
                    let score = tape.dot(channels_of_gate.zip(h.row(row).iter().copied()));
                    let open = tape.sigmoid(score);
                    let amount = tape.scale(open, f64::from(scale));
                    for channel in head * head_dim..(head + 1) * head_dim {
                        let embedded = tape.mul(amount, table.get(id * cols + channel));
                        y.push(tape.add(v.row(row)[channel], embedded));
                    }
                }
            }
            y
        })?;
        Ok((y, ()))
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
    ) -> OpResult<(Tensor, ())> {
        let op = "rotary_norm";
        x.expect(op, "x", sequence.rows(), x.cols())?;
        if head_dim == 0 || rotary.half * 2 != head_dim || !x.cols().is_multiple_of(head_dim) {
            let message =
                format!("{} channels, heads of {head_dim}, tables for {}", x.cols(), rotary.half * 2);
            return Err(shape_error(op, message));
        }
        if start + sequence.len > rotary.len {
            let message = format!("positions up to {} of a table of {}", start + sequence.len, rotary.len);
            return Err(shape_error(op, message));
        }
        let y = self.tensor_of(op, x.rows(), x.cols(), |tape| {
            let mut y = Vec::with_capacity(x.scalars().len());
            for row in 0..x.rows() {
                let table = (start + row % sequence.len) * rotary.half;
                let (cos, sin) = (&rotary.cos[table..][..rotary.half], &rotary.sin[table..][..rotary.half]);
                for head in x.row(row).chunks_exact(head_dim) {
                    let rotated = rotate(tape, head, cos, sin);
                    for normed in rms_norm(tape, &rotated, eps) {
                        y.push(tape.scale(normed, f64::from(scale)));
                    }
                }
            }
            y
        })?;
        Ok((y, ()))
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: &AttentionShape,
    ) -> OpResult<(Tensor, ())> {
        let op = "attention";
        let SequenceShape { batch, len } = shape.sequence;
        let (_, kv_cols) = check_attention(op, q, shape)?;
        k.expect(op, "k", batch * len, kv_cols)?;
        v.expect(op, "v", batch * len, kv_cols)?;
        let o = self.tensor_of(op, q.rows(), q.cols(), |tape| {
            let mut o = Vec::with_capacity(q.scalars().len());
            for row in 0..q.rows() {
                let first = row - row % len;
                let keys = Keys {
                    k: &k.scalars()[first * kv_cols..][..len * kv_cols],
                    v: &v.scalars()[first * kv_cols..][..len * kv_cols],
                    cols: kv_cols,
                };
                keys.attend(tape, q.row(row), row % len, shape, &mut o);
            }
            o
        })?;
        Ok((o, ()))
    }

    fn backout(&self, x: Tensor, kept: &Tensor, lambda: &Weight) -> OpResult<Tensor> {
        kept.expect("backout", "kept", x.rows(), x.cols())?;
        lambda.check_index("backout", 0)?;
        self.tensor_of("backout", x.rows(), x.cols(), |tape| {
            let lambda = tape.leaves(lambda).get(0);
            let backout = |(x, kept): (&Scalar, &Scalar)| {
                let share = tape.mul(lambda, *kept);
                tape.sub(*x, share)
            };
            x.scalars().iter().zip(kept.scalars()).map(backout).collect()
        })
    }

    /// Rounded to f32; inside [`ScalarBackend::differentiate`] the exact losses join its sum.
    fn cross_entropy(
        &self,
        x: &Tensor,
        lm_head: &Weight,
        targets: &Tokens,
        head: &HeadShape,
    ) -> OpResult<Vec<f32>> {
        let losses = self.cross_entropy_f64(x, lm_head, targets, head)?;
        Ok(losses.into_iter().map(|loss| loss as f32).collect())
    }

    fn logits(&self, x: &Tensor, lm_head: &Weight, head: &HeadShape) -> OpResult<Tensor> {
        let op = "logits";
        let (table_rows, cols) = lm_head.matrix(op)?;
        x.expect(op, "x", x.rows(), cols)?;
        if head.vocab_size > table_rows {
            return Err(shape_error(op, format!("{} logits from {table_rows} rows", head.vocab_size)));
        }
        self.tensor_of(op, x.rows(), head.vocab_size, |tape| {
            let lm_head = tape.leaves(lm_head);
            let mut logits = Vec::with_capacity(x.rows() * head.vocab_size);
            for row in 0..x.rows() {
                for token in 0..head.vocab_size {
                    let logit = tape.dot(x.row(row).iter().copied().zip(lm_head.range(token * cols, cols)));
                    logits.push(match head.softcap {
                        Some(softcap) => cap(tape, logit, f64::from(softcap)),
                        None => logit,
                    });
                }
            }
            logits
        })
    }

    fn kv_cache(&self, capacity: usize, cols: usize) -> OpResult<KvCache> {
        Ok(self.cache(1, capacity, cols))
    }

    fn kv_append(&self, cache: &mut KvCache, k: &Tensor, v: &Tensor) -> OpResult<()> {
        let op = "kv_append";
        k.expect(op, "k", k.rows(), cache.cols)?;
        v.expect(op, "v", k.rows(), cache.cols)?;
        let (len, sequences, capacity) = (cache.len(), cache.sequences.len(), cache.capacity);
        if !k.rows().is_multiple_of(sequences) || len + k.rows() / sequences > capacity {
            let message = format!("{} rows after {len} of {sequences} sequences of {capacity}", k.rows());
            return Err(shape_error(op, message));
        }
        let part = k.rows() / sequences * cache.cols;
        for (s, [keys, values]) in cache.sequences.iter_mut().enumerate() {
            keys.extend_from_slice(&k.scalars()[s * part..(s + 1) * part]);
            values.extend_from_slice(&v.scalars()[s * part..(s + 1) * part]);
        }
        Ok(())
    }

    fn kv_select(&self, cache: &KvCache, sequences: &[usize], positions: usize) -> OpResult<KvCache> {
        let start = cache.len().checked_sub(positions).map(|start| start * cache.cols);
        let held = sequences.iter().map(|&s| cache.sequences.get(s)).collect::<Option<Vec<_>>>();
        let (Some(start), Some(held)) = (start, held.filter(|held| !held.is_empty())) else {
            let (len, count) = (cache.len(), cache.sequences.len());
            let message = format!("{positions} positions of sequences {sequences:?} of {count} with {len}");
            return Err(shape_error("kv_select", message));
        };
        let mut found = self.cache(held.len(), cache.capacity, cache.cols);
        for (to, from) in found.sequences.iter_mut().zip(held) {
            for (to, from) in to.iter_mut().zip(from) {
                to.extend_from_slice(&from[start..]);
            }
        }
        Ok(found)
    }

    fn attention_cached(&self, q: &Tensor, cache: &KvCache, shape: &AttentionShape) -> OpResult<Tensor> {
        let op = "attention_cached";
        let (rows, kv_cols) = check_attention(op, q, shape)?;
        let queries = shape.sequence.len;
        if shape.sequence.batch != cache.sequences.len() || kv_cols != cache.cols || queries > cache.len() {
            let (batch, len, cols) = (shape.sequence.batch, cache.len(), cache.cols);
            let message = format!("batch {batch}, {rows} queries, {len} cached positions of {cols} channels");
            return Err(shape_error(op, message));
        }
        self.tensor_of(op, q.rows(), q.cols(), |tape| {
            let mut o = Vec::with_capacity(q.scalars().len());
            for (s, [k, v]) in cache.sequences.iter().enumerate() {
                let keys = Keys { k, v, cols: kv_cols };
                for row in 0..queries {
                    let position = cache.len() - queries + row;
                    keys.attend(tape, q.row(s * queries + row), position, shape, &mut o);
                }
            }
            o
        })
    }
}

/// Keys and values of one sequence, (positions, cols).
struct Keys<'a> {
    k: &'a [Scalar],
    v: &'a [Scalar],
    cols: usize,
}

impl Keys<'_> {
    /// Attention of the query row at `position` over the keys it may see; appends H * D outputs.
    fn attend(
        &self,
        tape: &mut Tape,
        q: &[Scalar],
        position: usize,
        shape: &AttentionShape,
        o: &mut Vec<Scalar>,
    ) {
        let dim = shape.head_dim;
        let scale = 1.0 / (dim as f64).sqrt();
        let visible = position.saturating_sub(shape.window)..=position;
        for (head, q) in q.chunks_exact(dim).enumerate() {
            let start = head / (shape.n_head / shape.n_kv_head) * dim;
            let key = |j: usize| self.k[j * self.cols + start..][..dim].iter().copied();
            let score = |j: usize| {
                let product = tape.dot(q.iter().copied().zip(key(j)));
                tape.scale(product, scale)
            };
            let scores: Vec<Scalar> = visible.clone().map(score).collect();
            let weights = tape.softmax(&scores);
            for channel in start..start + dim {
                let values = visible.clone().map(|j| self.v[j * self.cols + channel]);
                o.push(tape.dot(weights.iter().copied().zip(values)));
            }
        }
    }
}

/// `x / sqrt(mean(x^2) + eps)`.
fn rms_norm(tape: &mut Tape, x: &[Scalar], eps: f32) -> Vec<Scalar> {
    let squares = tape.dot(x.iter().copied().zip(x.iter().copied()));
    let mean = tape.scale(squares, 1.0 / x.len() as f64);
    let shifted = tape.shift(mean, f64::from(eps));
    let rms = tape.sqrt(shifted);
    x.iter().map(|x| tape.div(*x, rms)).collect()
}

/// Rotates the pairs (j, j + D/2) of one head by minus theta.
fn rotate(tape: &mut Tape, head: &[Scalar], cos: &[f64], sin: &[f64]) -> Vec<Scalar> {
    let (first, second) = head.split_at(head.len() / 2);
    let mut turn = |pairs: [(Scalar, f64); 2]| {
        tape.dot(pairs.into_iter().map(|(x, factor)| (x, Scalar::constant(factor))))
    };
    let mut rotated = Vec::with_capacity(head.len());
    for (j, (x1, x2)) in first.iter().zip(second).enumerate() {
        rotated.push(turn([(*x1, cos[j]), (*x2, sin[j])]));
    }
    for (j, (x1, x2)) in first.iter().zip(second).enumerate() {
        rotated.push(turn([(*x2, cos[j]), (*x1, -sin[j])]));
    }
    rotated
}

/// `s * tanh(x / s)`.
fn cap(tape: &mut Tape, x: Scalar, s: f64) -> Scalar {
    let inner = tape.scale(x, 1.0 / s);
    let bounded = tape.tanh(inner);
    tape.scale(bounded, s)
}

/// Rows of q and columns of k and v, once the shape is known to be sound and to fit q.
fn check_attention(op: &'static str, q: &Tensor, shape: &AttentionShape) -> OpResult<(usize, usize)> {
    let AttentionShape { sequence, n_head, n_kv_head, head_dim, .. } = *shape;
    if head_dim == 0 || n_kv_head == 0 || !n_head.is_multiple_of(n_kv_head) {
        let message = format!("{n_head} query heads, {n_kv_head} key/value heads of {head_dim}");
        return Err(shape_error(op, message));
    }
    q.expect(op, "q", sequence.rows(), n_head * head_dim)?;
    Ok((sequence.rows(), n_kv_head * head_dim))
}

/// Channels that a gate (rows, c) reads, at most `available`.
fn gate_channels(op: &'static str, gate: &Weight, rows: usize, available: usize) -> OpResult<usize> {
    let (gate_rows, channels) = gate.matrix(op)?;
    if gate_rows != rows || channels > available {
        let message =
            format!("gate is ({gate_rows}, {channels}), expected {rows} rows of at most {available}");
        return Err(shape_error(op, message));
    }
    Ok(channels)
}

/// A table entry as the other backends hold it: f32, which rounds bf16 to nearest even where asked for.
fn round_to(precision: Precision, value: f64) -> f64 {
    let single = value as f32;
    match precision {
        Precision::F32 => f64::from(single),
        Precision::Bf16 => {
            let bits = single.to_bits();
            let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
            f64::from(f32::from_bits(rounded))
        }
    }
}
