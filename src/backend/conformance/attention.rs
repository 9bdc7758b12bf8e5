//! Windowed causal attention.

use super::reference::{assert_close, dot, gradient, values, wide};
use crate::ops::{AttentionShape, OpError, SequenceShape, TrainOps};

/// Output and, from `d_o`, (dq, dk, dv).
fn reference(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    shape: &AttentionShape,
    d_o: &[f64],
) -> (Vec<f64>, [Vec<f64>; 3]) {
    let AttentionShape { sequence, n_head, n_kv_head, head_dim: d, window } = *shape;
    let scale = 1.0 / (d as f64).sqrt();
    let mut o = vec![0.0; q.len()];
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for n in 0..sequence.rows() {
        let (start, t) = (n - n % sequence.len, n % sequence.len);
        for h in 0..n_head {
            let at = (n * n_head + h) * d;
            let key = |j: usize| ((start + j) * n_kv_head + h / (n_head / n_kv_head)) * d;
            let seen: Vec<usize> = (t.saturating_sub(window)..=t).collect();
            let scores: Vec<f64> =
                seen.iter().map(|&j| scale * dot(&q[at..at + d], &k[key(j)..key(j) + d])).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            let p: Vec<f64> = scores.iter().map(|s| (s - max).exp() / sum).collect();
            for (&j, p) in seen.iter().zip(&p) {
                for c in 0..d {
                    o[at + c] += p * v[key(j) + c];
                }
            }
            let delta = dot(&o[at..at + d], &d_o[at..at + d]);
            for (&j, p) in seen.iter().zip(&p) {
                let ds = p * (dot(&d_o[at..at + d], &v[key(j)..key(j) + d]) - delta) * scale;
                for c in 0..d {
                    dv[key(j) + c] += p * d_o[at + c];
                    dq[at + c] += ds * k[key(j) + c];
                    dk[key(j) + c] += ds * q[at + c];
                }
            }
        }
    }
    (o, [dq, dk, dv])
}

fn shape(batch: usize, len: usize, n_head: usize, n_kv_head: usize, window: usize) -> AttentionShape {
    AttentionShape { sequence: SequenceShape { batch, len }, n_head, n_kv_head, head_dim: 4, window }
}

/// Forward and backward of one shape against the reference.
fn check<B: TrainOps>(ops: &B, shape: &AttentionShape, tolerance: f64) {
    let (n, q_cols, k_cols) =
        (shape.sequence.rows(), shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim);
    let (q, k, v, d_o) = (
        values(n * q_cols, 1).iter().map(|x| x * 4.0).collect::<Vec<_>>(),
        values(n * k_cols, 2),
        values(n * k_cols, 3),
        values(n * q_cols, 4),
    );
    let tensor = |cols, values: &[f32]| ops.tensor(n, cols, values).unwrap();
    let (tq, tk, tv, td) = (tensor(q_cols, &q), tensor(k_cols, &k), tensor(k_cols, &v), tensor(q_cols, &d_o));
    let (o, saved) = ops.attention(&tq, &tk, &tv, shape).unwrap();
    let (want, gradients) = reference(&wide(&q), &wide(&k), &wide(&v), shape, &wide(&d_o));
    assert_close(&format!("o of {shape:?}"), &ops.tensor_values(&o).unwrap(), &want, tolerance);
    let (dq, dk, dv) = ops.attention_backward(&tq, &tk, &tv, &o, &saved, shape, &td).unwrap();
    for ((name, got), want) in [("dq", dq), ("dk", dk), ("dv", dv)].iter().zip(&gradients) {
        assert_close(
            &format!("{name} of {shape:?}"),
            &ops.tensor_values(got).unwrap(),
            want,
            4.0 * tolerance,
        );
    }
}

pub(crate) fn attention<B: TrainOps>(ops: &B, tolerance: f64) {
    // The reference itself, against central differences.
    let small = shape(1, 5, 2, 1, 2);
    let (q, k, v, d_o) =
        (wide(&values(40, 1)), wide(&values(20, 2)), wide(&values(20, 3)), wide(&values(40, 4)));
    let (_, gradients) = reference(&q, &k, &v, &small, &d_o);
    let loss = |q: &[f64], k: &[f64], v: &[f64]| dot(&reference(q, k, v, &small, &d_o).0, &d_o);
    let differences = [
        gradient(&q, |q| loss(q, &k, &v)),
        gradient(&k, |k| loss(&q, k, &v)),
        gradient(&v, |v| loss(&q, &k, v)),
    ];
    for (a, b) in gradients.iter().flatten().zip(differences.iter().flatten()) {
        assert!((a - b).abs() < 1e-8, "{a} and {b}");
    }
    for window in [0, 1, 3, 6, 7, 100] {
        check(ops, &shape(2, 7, 4, 2, window), tolerance);
    }
    check(ops, &shape(3, 1, 2, 2, 5), tolerance);
}

/// Lengths at which blocks of queries and windows begin and end, for block sizes of 32, 64 and 128.
pub(crate) fn attention_blocks<B: TrainOps>(ops: &B, tolerance: f64) {
    for (len, window) in [(128, 128), (129, 64), (160, 200), (300, 40), (257, 128), (270, 130), (270, 1)] {
        check(ops, &shape(2, len, 2, 1, window), tolerance);
    }
}

/// Decoding piece by piece gives what attention over the whole gives.
pub(crate) fn attention_cached<B: TrainOps>(ops: &B, tolerance: f64) {
    for window in [2, 100] {
        let whole = shape(1, 9, 4, 2, window);
        let (q, k, v) = (values(9 * 16, 1), values(9 * 8, 2), values(9 * 8, 3));
        let (want, _) = reference(&wide(&q), &wide(&k), &wide(&v), &whole, &[0.0; 9 * 16]);
        let mut cache = ops.kv_cache(9, 8).unwrap();
        let mut got = Vec::new();
        let mut start = 0;
        for len in [4, 1, 3, 1] {
            let piece = |values: &[f32], cols| {
                ops.tensor(len, cols, &values[start * cols..(start + len) * cols]).unwrap()
            };
            ops.kv_append(&mut cache, &piece(&k, 8), &piece(&v, 8)).unwrap();
            let sequence = SequenceShape { batch: 1, len };
            let o =
                ops.attention_cached(&piece(&q, 16), &cache, &AttentionShape { sequence, ..whole }).unwrap();
            got.extend(ops.tensor_values(&o).unwrap());
            start += len;
        }
        assert_close("o", &got, &want, tolerance);
        let row = ops.tensor(1, 8, &[0.0; 8]).unwrap();
        let full = ops.kv_append(&mut cache, &row, &row);
        assert!(matches!(full, Err(OpError::Shape { .. })), "a cache of nine holds nine");
    }
}

/// A cache that keeps no more than the window sees gives the same as one that keeps everything, and a copy of it goes its
/// own way.
pub(crate) fn attention_cached_window<B: TrainOps>(ops: &B, tolerance: f64) {
    for window in [0, 2, 3] {
        let whole = shape(1, 9, 4, 2, window);
        let (q, k, v) = (values(9 * 16, 1), values(9 * 8, 2), values(9 * 8, 3));
        let (want, _) = reference(&wide(&q), &wide(&k), &wide(&v), &whole, &[0.0; 9 * 16]);
        let mut cache = ops.kv_cache(window + 2, 8).unwrap();
        let (mut got, mut held, mut start) = (Vec::new(), 0, 0);
        for len in [2, 1, 1, 2, 1, 2] {
            let piece = |values: &[f32], cols| {
                ops.tensor(len, cols, &values[start * cols..(start + len) * cols]).unwrap()
            };
            if held + len > window + 2 {
                held = window.min(held);
                cache = ops.kv_select(&cache, &[0], held).unwrap();
            }
            let mut other = ops.kv_select(&cache, &[0], held).unwrap();
            let noise = ops.tensor(1, 8, &[5.0; 8]).unwrap();
            ops.kv_append(&mut other, &noise, &noise).unwrap();
            ops.kv_append(&mut cache, &piece(&k, 8), &piece(&v, 8)).unwrap();
            held += len;
            let sequence = SequenceShape { batch: 1, len };
            let shape = AttentionShape { sequence, ..whole };
            got.extend(
                ops.tensor_values(&ops.attention_cached(&piece(&q, 16), &cache, &shape).unwrap()).unwrap(),
            );
            start += len;
        }
        assert_close("o", &got, &want, tolerance);
        for (sequences, positions) in [(&[0][..], held + 1), (&[1], held), (&[], held)] {
            assert!(matches!(ops.kv_select(&cache, sequences, positions), Err(OpError::Shape { .. })));
        }
    }
}

/// A cache that begins with the last of several positions goes on as one that was given all of them.
pub(crate) fn attention_cached_begun<B: TrainOps>(ops: &B, tolerance: f64) {
    const BEGUN: usize = 6;
    for (window, kept) in [(0, 0), (2, 2), (2, 3), (3, 6)] {
        let whole = shape(1, 9, 4, 2, window);
        let (q, k, v) = (values(9 * 16, 1), values(9 * 8, 2), values(9 * 8, 3));
        let (want, _) = reference(&wide(&q), &wide(&k), &wide(&v), &whole, &[0.0; 9 * 16]);
        let rows = |values: &[f32], cols: usize, from: usize, to: usize| {
            ops.tensor(to - from, cols, &values[from * cols..to * cols]).unwrap()
        };
        let mut cache = ops.kv_cache(9, 8).unwrap();
        ops.kv_begin(&mut cache, &rows(&k, 8, 0, BEGUN), &rows(&v, 8, 0, BEGUN), BEGUN, kept).unwrap();
        let mut got = Vec::new();
        for at in BEGUN..9 {
            ops.kv_append(&mut cache, &rows(&k, 8, at, at + 1), &rows(&v, 8, at, at + 1)).unwrap();
            let one = AttentionShape { sequence: SequenceShape { batch: 1, len: 1 }, ..whole };
            let o = ops.attention_cached(&rows(&q, 16, at, at + 1), &cache, &one).unwrap();
            got.extend(ops.tensor_values(&o).unwrap());
        }
        assert_close("o", &got, &want[BEGUN * 16..], tolerance);
    }
}

/// Sequences in one cache, which begin alike and go on apart, give what each gives in a cache of its own, to the bit where
/// rows stand alone.
pub(crate) fn attention_cached_sequences<B: TrainOps>(ops: &B, tolerance: f64) {
    let one = |len| AttentionShape { sequence: SequenceShape { batch: 1, len }, ..shape(1, 3, 4, 2, 5) };
    let rows = |len: usize, cols: usize, seed: u64| ops.tensor(len, cols, &values(len * cols, seed)).unwrap();
    let mut prefix = ops.kv_cache(9, 8).unwrap();
    ops.kv_append(&mut prefix, &rows(3, 8, 1), &rows(3, 8, 2)).unwrap();
    let mut together = ops.kv_select(&prefix, &[0, 0, 0], 3).unwrap();
    let mut alone: Vec<B::KvCache> = (0..3).map(|_| ops.kv_select(&prefix, &[0], 3).unwrap()).collect();
    let mut left = vec![0, 1, 2];
    for step in 0..5_u64 {
        if step == 3 {
            // The middle one has ended, and the others change places.
            left = vec![2, 0];
            together = ops.kv_select(&together, &left, 6).unwrap();
        }
        let batch = left.len();
        let (q, k, v) = (rows(batch, 16, 10 + step), rows(batch, 8, 20 + step), rows(batch, 8, 30 + step));
        ops.kv_append(&mut together, &k, &v).unwrap();
        let s = AttentionShape { sequence: SequenceShape { batch, len: 1 }, ..one(1) };
        let o = ops.tensor_values(&ops.attention_cached(&q, &together, &s).unwrap()).unwrap();
        for (row, &sequence) in left.iter().enumerate() {
            let part = |x: &B::Tensor| ops.gather(x, &[row]).unwrap();
            ops.kv_append(&mut alone[sequence], &part(&k), &part(&v)).unwrap();
            let want = ops.attention_cached(&part(&q), &alone[sequence], &one(1)).unwrap();
            let want = ops.tensor_values(&want).unwrap();
            let got = &o[row * 16..(row + 1) * 16];
            assert_close("o", got, &wide(&want), tolerance);
            assert!(!ops.rows_stand_alone() || got == want, "step {step}, sequence {sequence}");
        }
    }
    let uneven = ops.kv_append(&mut together, &rows(3, 8, 1), &rows(3, 8, 2));
    assert!(matches!(uneven, Err(OpError::Shape { .. })), "three rows for two sequences");
    let twice = ops.gather(&rows(3, 8, 1), &[2, 0, 2]).unwrap();
    let all = values(3 * 8, 1);
    assert_close(
        "rows",
        &ops.tensor_values(&twice).unwrap(),
        &wide(&[&all[16..], &all[..8], &all[16..]].concat()),
        tolerance,
    );
}
