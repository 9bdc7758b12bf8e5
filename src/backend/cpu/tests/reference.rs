//! The ops as their definitions read, in f64.

use crate::ops::{AttentionShape, HeadShape, SequenceShape};

pub(super) type Values = Vec<f64>;

pub(super) fn rms_norm(x: &[f64], cols: usize, eps: f64) -> Values {
    x.chunks(cols)
        .flat_map(|row| {
            let scale = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / cols as f64 + eps).sqrt();
            row.iter().map(move |v| v * scale)
        })
        .collect()
}

/// x (n, inputs) w (out, inputs)^T
pub(super) fn linear(x: &[f64], w: &[f64], inputs: usize) -> Values {
    x.chunks(inputs)
        .flat_map(|x| w.chunks(inputs).map(move |w| x.iter().zip(w).map(|(a, b)| a * b).sum()))
        .collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

pub(super) fn smear(
    x: &[f64],
    gate: &[f64],
    lambda: f64,
    s: SequenceShape,
    previous: Option<&[f64]>,
) -> Values {
    let cols = x.len() / s.rows();
    let mut y = x.to_vec();
    for n in 0..s.rows() {
        let row = &x[n * cols..(n + 1) * cols];
        let before = if n % s.len > 0 { Some(&x[(n - 1) * cols..n * cols]) } else { previous };
        if let Some(before) = before {
            let open = sigmoid(row.iter().zip(gate).map(|(a, b)| a * b).sum());
            for j in 0..cols {
                y[n * cols + j] += lambda * open * before[j];
            }
        }
    }
    y
}

pub(super) fn value_embedding(
    v: &[f64],
    h: &[f64],
    table: &[f64],
    ids: &[i32],
    gate: &[f64],
    heads: usize,
    scale: f64,
) -> Values {
    let (cols, h_cols, channels) = (v.len() / ids.len(), h.len() / ids.len(), gate.len() / heads);
    let d = cols / heads;
    let mut y = v.to_vec();
    for (n, &id) in ids.iter().enumerate() {
        for k in 0..heads {
            let logit: f64 = (0..channels).map(|c| h[n * h_cols + c] * gate[k * channels + c]).sum();
            for j in k * d..(k + 1) * d {
                y[n * cols + j] += scale * sigmoid(logit) * table[id as usize * cols + j];
            }
        }
    }
    y
}

pub(super) fn rotary_norm(
    x: &[f64],
    base: f64,
    start: usize,
    s: SequenceShape,
    d: usize,
    scale: f64,
    eps: f64,
) -> Values {
    let cols = x.len() / s.rows();
    let mut y = x.to_vec();
    for n in 0..s.rows() {
        for h in 0..cols / d {
            let at = n * cols + h * d;
            for j in 0..d / 2 {
                let inv_freq = 1.0 / (libm::pow(base, (2 * j) as f64 / d as f64) as f32);
                let angle = f64::from((start + n % s.len) as f32 * inv_freq);
                let (c, s) = (libm::cos(angle), libm::sin(angle));
                let (a, b) = (x[at + j], x[at + d / 2 + j]);
                y[at + j] = a * c + b * s;
                y[at + d / 2 + j] = b * c - a * s;
            }
        }
    }
    rms_norm(&y, d, eps).into_iter().map(|v| v * scale).collect()
}

pub(super) fn attention(q: &[f64], k: &[f64], v: &[f64], s: &AttentionShape) -> Values {
    let (t, d) = (s.sequence.len, s.head_dim);
    let (q_cols, kv_cols) = (s.n_head * d, s.n_kv_head * d);
    let mut o = vec![0.0; q.len()];
    for b in 0..s.sequence.batch {
        for h in 0..s.n_head {
            let kv = h / (s.n_head / s.n_kv_head);
            for i in 0..t {
                let query = &q[(b * t + i) * q_cols + h * d..][..d];
                let keys = i.saturating_sub(s.window)..i + 1;
                let scores: Values = keys
                    .clone()
                    .map(|j| {
                        let key = &k[(b * t + j) * kv_cols + kv * d..][..d];
                        query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt()
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Values = scores.iter().map(|s| libm::exp(s - max)).collect();
                let total: f64 = weights.iter().sum();
                for (j, w) in keys.zip(&weights) {
                    for c in 0..d {
                        o[(b * t + i) * q_cols + h * d + c] +=
                            w / total * v[(b * t + j) * kv_cols + kv * d + c];
                    }
                }
            }
        }
    }
    o
}

pub(super) fn logits(x: &[f64], lm_head: &[f64], cols: usize, head: &HeadShape) -> Values {
    let raw = linear(x, &lm_head[..head.vocab_size * cols], cols);
    match head.softcap.map(f64::from) {
        Some(cap) => raw.into_iter().map(|l| cap * libm::tanh(l / cap)).collect(),
        None => raw,
    }
}

pub(super) fn cross_entropy(
    x: &[f64],
    lm_head: &[f64],
    targets: &[i32],
    cols: usize,
    head: &HeadShape,
) -> Values {
    logits(x, lm_head, cols, head)
        .chunks(head.vocab_size)
        .zip(targets)
        .map(|(row, &target)| {
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = row.iter().map(|l| libm::exp(l - max)).sum();
            usize::try_from(target).map_or(0.0, |target| libm::log(total) + max - row[target])
        })
        .collect()
}
