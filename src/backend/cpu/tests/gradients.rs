//! Forward values and backwards.

use super::super::testing::values;
use super::super::{CpuBackend, Param, Tensor};
use super::reference;
use crate::ops::{AttentionShape, ForwardOps, HeadShape, SequenceShape, TrainOps};
use crate::precision::Precision;

const EPS: f32 = 1.1920929e-7;

fn cpu() -> CpuBackend {
    CpuBackend::new(2).unwrap()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

#[track_caller]
fn assert_close(got: &[f32], exact: &[f64], tolerance: f64) {
    assert_eq!(got.len(), exact.len());
    let size = exact.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(exact).enumerate() {
        let error = (f64::from(*g) - e).abs() / size;
        assert!(error <= tolerance, "element {i}: {g}, expected {e}, error {error:e}");
    }
}

/// Compares `gradients[i]` with central differences of `sum(dy * f(inputs))` with respect to input i, at up to 60
/// places each.
#[track_caller]
fn assert_gradients(
    inputs: &[&[f32]],
    gradients: &[&[f32]],
    dy: &[f32],
    f: impl Fn(&[Vec<f64>]) -> Vec<f64>,
    tolerance: f64,
) {
    let inputs: Vec<Vec<f64>> = inputs.iter().map(|x| wide(x)).collect();
    let loss =
        |inputs: &[Vec<f64>]| -> f64 { f(inputs).iter().zip(dy).map(|(y, d)| y * f64::from(*d)).sum() };
    for (which, gradient) in gradients.iter().enumerate() {
        let len = inputs[which].len();
        assert_eq!(gradient.len(), len);
        let size = gradient.iter().fold(0.1_f64, |m, v| m.max(f64::from(v.abs())));
        let step = (len / 60).max(1);
        for place in (0..len).step_by(step) {
            let at = |offset: f64| {
                let mut moved = inputs.clone();
                moved[which][place] += offset;
                loss(&moved)
            };
            let h = 1e-5;
            let exact = (at(h) - at(-h)) / (2.0 * h);
            let error = (f64::from(gradient[place]) - exact).abs() / size;
            assert!(
                error <= tolerance,
                "input {which}, place {place}: {} expected {exact}, error {error:e}",
                gradient[place]
            );
        }
    }
}

fn tensor(cpu: &CpuBackend, rows: usize, x: &[f32]) -> Tensor {
    cpu.tensor(rows, x.len() / rows, x).unwrap()
}

fn param(cpu: &CpuBackend, rows: usize, x: &[f32]) -> Param {
    cpu.weight(&[rows, x.len() / rows], x).unwrap()
}

#[test]
fn rms_norm() {
    let cpu = cpu();
    for (rows, cols) in [(1, 1), (5, 7), (70, 48)] {
        for eps in [EPS, 0.1] {
            let (x, dy) = (values(1, rows * cols), values(2, rows * cols));
            let f = |i: &[Vec<f64>]| reference::rms_norm(&i[0], cols, f64::from(eps));
            let (y, saved) = cpu.rms_norm(&tensor(&cpu, rows, &x), eps).unwrap();
            assert_close(y.values(), &f(&[wide(&x)]), 1e-6);
            let dx = cpu.rms_norm_backward(&y, &saved, &tensor(&cpu, rows, &dy), None).unwrap();
            if cols > 1 {
                assert_gradients(&[&x], &[dx.values()], &dy, f, 2e-5);
            }
            let residual = values(3, rows * cols);
            let sum = cpu
                .rms_norm_backward(&y, &saved, &tensor(&cpu, rows, &dy), Some(tensor(&cpu, rows, &residual)))
                .unwrap();
            for ((sum, dx), r) in sum.values().iter().zip(dx.values()).zip(&residual) {
                assert_eq!(*sum, r + dx);
            }
        }
    }
}

#[test]
fn linear() {
    let cpu = cpu();
    for (n, inputs, out) in [(1, 1, 1), (33, 20, 13), (70, 300, 100)] {
        let (x, w, dy) = (values(1, n * inputs), values(2, out * inputs), values(3, n * out));
        let f = |i: &[Vec<f64>]| reference::linear(&i[0], &i[1], inputs);
        let (xt, wt, dyt) = (tensor(&cpu, n, &x), param(&cpu, out, &w), tensor(&cpu, n, &dy));
        let y = cpu.linear(&xt, &wt).unwrap();
        assert_close(y.values(), &f(&[wide(&x), wide(&w)]), 1e-5);
        let added = cpu.linear_add(tensor(&cpu, n, &dy), &xt, &wt).unwrap();
        for ((added, y), r) in added.values().iter().zip(y.values()).zip(&dy) {
            assert!((added - (y + r)).abs() < 1e-5);
        }
        let mut dw = cpu.grad(&[out, inputs]).unwrap();
        let dx = cpu.linear_backward(&xt, &wt, &dyt, &mut dw, None).unwrap();
        assert_gradients(&[&x, &w], &[dx.values(), dw.values()], &dy, f, 1e-5);
        let twice = cpu.linear_backward(&xt, &wt, &dyt, &mut dw, Some(cpu.copy(&dx).unwrap())).unwrap();
        for (twice, dx) in twice.values().iter().zip(dx.values()) {
            assert!((twice - 2.0 * dx).abs() < 1e-5 * dx.abs().max(1.0));
        }
    }
}

#[test]
fn relu_squared_and_add() {
    let cpu = cpu();
    let (x, dy) = (values(1, 33 * 9), values(2, 33 * 9));
    let f = |i: &[Vec<f64>]| -> Vec<f64> { i[0].iter().map(|v| v.max(0.0).powi(2)).collect() };
    let xt = tensor(&cpu, 33, &x);
    assert_close(cpu.relu_squared(&xt).unwrap().values(), &f(&[wide(&x)]), 1e-6);
    let dx = cpu.relu_squared_backward(&xt, tensor(&cpu, 33, &dy)).unwrap();
    assert_gradients(&[&x], &[dx.values()], &dy, f, 1e-5);
    let sum = cpu.add(tensor(&cpu, 33, &x), &tensor(&cpu, 33, &dy)).unwrap();
    assert!(sum.values().iter().zip(x.iter().zip(&dy)).all(|(s, (a, b))| *s == a + b));
    let nan = cpu.relu_squared(&tensor(&cpu, 1, &[f32::NAN])).unwrap();
    assert!(nan.values()[0].is_nan());
}

#[test]
fn embedding_sums_in_token_order() {
    let cpu = cpu();
    let (vocab, cols) = (11, 70);
    let ids: Vec<i32> = (0..100).map(|i| (i * i + 3) % 7).collect();
    let (table, dy) = (values(1, vocab * cols), values(2, ids.len() * cols));
    let tokens = cpu.tokens(&ids).unwrap();
    let y = cpu.embedding(&param(&cpu, vocab, &table), &tokens).unwrap();
    let mut expected = values(3, vocab * cols);
    let mut dtable = param(&cpu, vocab, &expected);
    cpu.embedding_backward(&tokens, &tensor(&cpu, ids.len(), &dy), &mut dtable).unwrap();
    for (n, &id) in ids.iter().enumerate() {
        for j in 0..cols {
            assert_eq!(y.values()[n * cols + j], table[id as usize * cols + j]);
            expected[id as usize * cols + j] += dy[n * cols + j];
        }
    }
    assert_eq!(dtable.values(), expected);
    let outside = cpu.tokens(&[0, 11]).unwrap();
    let error = cpu.embedding(&param(&cpu, vocab, &table), &outside).unwrap_err();
    assert_eq!(error.to_string(), "embedding: token 1 has id 11, the table 11 rows");
}

#[test]
fn residual_mix_and_backout() {
    let cpu = cpu();
    let (rows, cols, layer) = (67, 12, 1);
    let (x, x0, dy) = (values(1, rows * cols), values(2, rows * cols), values(3, rows * cols));
    let (resid, lambdas) = ([0.3_f32, 1.2, 0.5], [0.7_f32, -0.4, 0.1]);
    let mix = |i: &[Vec<f64>]| -> Vec<f64> {
        i[0].iter().zip(&i[1]).map(|(x, x0)| i[2][layer] * x + i[3][layer] * x0).collect()
    };
    let (xt, x0t) = (tensor(&cpu, rows, &x), tensor(&cpu, rows, &x0));
    let (r, z) = (param(&cpu, 1, &resid), param(&cpu, 1, &lambdas));
    let y = cpu.residual_mix(&xt, &x0t, &r, &z, layer).unwrap();
    assert_close(y.values(), &mix(&[wide(&x), wide(&x0), wide(&resid), wide(&lambdas)]), 1e-6);
    let mut dx0 = tensor(&cpu, rows, &vec![0.0; rows * cols]);
    let (mut dr, mut dz) = (cpu.grad(&[3]).unwrap(), cpu.grad(&[3]).unwrap());
    let dx = cpu
        .residual_mix_backward(&xt, &x0t, &r, &z, layer, tensor(&cpu, rows, &dy), &mut dx0, &mut dr, &mut dz)
        .unwrap();
    let gradients = [dx.values(), dx0.values(), dr.values(), dz.values()];
    assert_gradients(&[&x, &x0, &resid, &lambdas], &gradients, &dy, mix, 1e-5);

    let mu = [0.2_f32];
    let backout =
        |i: &[Vec<f64>]| -> Vec<f64> { i[0].iter().zip(&i[1]).map(|(x, k)| x - i[2][0] * k).collect() };
    let weight = param(&cpu, 1, &mu);
    let y = cpu.backout(tensor(&cpu, rows, &x), &x0t, &weight).unwrap();
    assert_close(y.values(), &backout(&[wide(&x), wide(&x0), wide(&mu)]), 1e-6);
    let mut dmu = cpu.grad(&[1]).unwrap();
    let dkept = cpu.backout_backward(&x0t, &weight, &tensor(&cpu, rows, &dy), &mut dmu).unwrap();
    assert_gradients(&[&x, &x0, &mu], &[&dy, dkept.values(), dmu.values()], &dy, backout, 1e-5);
}

#[test]
fn smear() {
    let cpu = cpu();
    for (batch, len) in [(1, 1), (2, 1), (3, 17), (1, 70)] {
        let s = SequenceShape { batch, len };
        let (rows, cols, channels) = (s.rows(), 20, 13);
        let (x, gate, lambda, dy) =
            (values(1, rows * cols), values(2, channels), [0.7], values(3, rows * cols));
        let f = |i: &[Vec<f64>]| reference::smear(&i[0], &i[1], i[2][0], s, None);
        let (xt, g, l) = (tensor(&cpu, rows, &x), param(&cpu, 1, &gate), param(&cpu, 1, &lambda));
        let (y, saved) = cpu.smear(&xt, &g, &l, s, None).unwrap();
        assert_close(y.values(), &f(&[wide(&x), wide(&gate), wide(&lambda)]), 1e-6);
        let (mut dg, mut dl) = (cpu.grad(&[1, channels]).unwrap(), cpu.grad(&[1]).unwrap());
        let dyt = tensor(&cpu, rows, &dy);
        let dx = cpu.smear_backward(&xt, &g, &l, s, &saved, &dyt, &mut dg, &mut dl).unwrap();
        assert_gradients(&[&x, &gate, &lambda], &[dx.values(), dg.values(), dl.values()], &dy, f, 1e-5);
        if batch == 1 {
            let before = values(4, cols);
            let (y, _) = cpu.smear(&xt, &g, &l, s, Some(&tensor(&cpu, 1, &before))).unwrap();
            let exact =
                reference::smear(&wide(&x), &wide(&gate), f64::from(0.7_f32), s, Some(&wide(&before)));
            assert_close(y.values(), &exact, 1e-6);
        }
    }
}

#[test]
fn value_embedding() {
    let cpu = cpu();
    for (rows, heads, d, h_cols, channels) in [(1, 1, 2, 3, 3), (70, 3, 16, 40, 12)] {
        let vocab = 9;
        let cols = heads * d;
        let ids: Vec<i32> = (0..rows as i32).map(|i| (i * 5 + i * i) % vocab as i32).collect();
        let (v, h, table) = (values(1, rows * cols), values(2, rows * h_cols), values(3, vocab * cols));
        let (gate, dy) = (values(4, heads * channels), values(5, rows * cols));
        let f = |i: &[Vec<f64>]| reference::value_embedding(&i[0], &i[1], &i[2], &ids, &i[3], heads, 3.0);
        let tokens = cpu.tokens(&ids).unwrap();
        let (ht, t, g) = (tensor(&cpu, rows, &h), param(&cpu, vocab, &table), param(&cpu, heads, &gate));
        let (y, saved) = cpu.value_embedding(tensor(&cpu, rows, &v), &ht, &t, &tokens, &g, 3.0).unwrap();
        assert_close(y.values(), &f(&[wide(&v), wide(&h), wide(&table), wide(&gate)]), 1e-6);
        let (mut dt, mut dg) = (cpu.grad(&[vocab, cols]).unwrap(), cpu.grad(&[heads, channels]).unwrap());
        let mut dh = tensor(&cpu, rows, &vec![0.0; rows * h_cols]);
        let dv = tensor(&cpu, rows, &dy);
        cpu.value_embedding_backward(&ht, &t, &tokens, &g, 3.0, &saved, &dv, &mut dt, &mut dg, &mut dh)
            .unwrap();
        let gradients = [&dy, dh.values(), dt.values(), dg.values()];
        assert_gradients(&[&v, &h, &table, &gate], &gradients, &dy, f, 1e-5);
    }
}

#[test]
fn rotary_norm() {
    let cpu = cpu();
    for (batch, len, heads, d) in [(1, 1, 1, 2), (2, 37, 3, 16)] {
        let s = SequenceShape { batch, len };
        let (rows, cols) = (s.rows(), heads * d);
        let (x, dy) = (values(1, rows * cols), values(2, rows * cols));
        let table = cpu.rotary(100, d, 10_000.0, Precision::F32).unwrap();
        let at = |start| {
            move |i: &[Vec<f64>]| reference::rotary_norm(&i[0], 1e4, start, s, d, 1.2, f64::from(EPS))
        };
        let (y, saved) = cpu.rotary_norm(tensor(&cpu, rows, &x), &table, 0, s, d, 1.2, EPS).unwrap();
        assert_close(y.values(), &at(0)(&[wide(&x)]), 1e-6);
        let dx = cpu.rotary_norm_backward(&y, &table, s, d, 1.2, &saved, tensor(&cpu, rows, &dy)).unwrap();
        if d > 2 {
            assert_gradients(&[&x], &[dx.values()], &dy, at(0), 2e-5);
        }
        let (y, _) = cpu.rotary_norm(tensor(&cpu, rows, &x), &table, 9, s, d, 1.2, EPS).unwrap();
        assert_close(y.values(), &at(9)(&[wide(&x)]), 1e-6);
        assert!(cpu.rotary_norm(tensor(&cpu, rows, &x), &table, 100, s, d, 1.2, EPS).is_err());
    }
}

#[test]
fn attention() {
    let cpu = cpu();
    let shapes = [
        // B, T, H, K, D, window
        (1, 1, 1, 1, 2, 0),
        (2, 13, 4, 2, 16, 0),
        (1, 40, 2, 1, 16, 5),
        (2, 50, 2, 2, 8, 50),
        (1, 100, 3, 3, 40, 33),
        (1, 300, 4, 2, 16, 1000),
        (1, 300, 2, 1, 16, 100),
        (1, 300, 1, 1, 32, 259),
        (1, 270, 1, 1, 100, 7),
        // Rows 512 apart, which are copied before they are read.
        (1, 40, 4, 2, 128, 17),
    ];
    for (batch, len, n_head, n_kv_head, head_dim, window) in shapes {
        let s =
            AttentionShape { sequence: SequenceShape { batch, len }, n_head, n_kv_head, head_dim, window };
        let n = batch * len;
        let (q_len, kv_len) = (n * n_head * head_dim, n * n_kv_head * head_dim);
        let q: Vec<f32> = values(1, q_len).iter().map(|v| 3.0 * v).collect();
        let k: Vec<f32> = values(2, kv_len).iter().map(|v| 3.0 * v).collect();
        let (v, dy) = (values(3, kv_len), values(4, q_len));
        let (qt, kt, vt) = (tensor(&cpu, n, &q), tensor(&cpu, n, &k), tensor(&cpu, n, &v));
        let (o, saved) = cpu.attention(&qt, &kt, &vt, &s).unwrap();
        let f = |i: &[Vec<f64>]| reference::attention(&i[0], &i[1], &i[2], &s);
        // Scores grow with the heads, and with them what rounding does to weights.
        assert_close(
            o.values(),
            &f(&[wide(&q), wide(&k), wide(&v)]),
            if head_dim < 128 { 2e-6 } else { 4e-6 },
        );
        let dyt = tensor(&cpu, n, &dy);
        let (dq, dk, dv) = cpu.attention_backward(&qt, &kt, &vt, &o, &saved, &s, &dyt).unwrap();
        assert_gradients(&[&q, &k, &v], &[dq.values(), dk.values(), dv.values()], &dy, f, 1e-5);
    }
}

/// A number that is none shows in every output that sees it.
#[test]
fn attention_passes_nan_on() {
    let cpu = cpu();
    let (len, d, window, bad) = (300, 16, 100, 130);
    let sequence = SequenceShape { batch: 1, len };
    let s = AttentionShape { sequence, n_head: 1, n_kv_head: 1, head_dim: d, window };
    for which in 0..3 {
        let mut inputs = [1, 2, 3].map(|seed| values(seed, len * d));
        inputs[which][bad * d + 5] = f32::NAN;
        let [q, k, v] = inputs.map(|x| tensor(&cpu, len, &x));
        let (o, _) = cpu.attention(&q, &k, &v, &s).unwrap();
        let sees = if which == 0 { bad..bad + 1 } else { bad..bad + window + 1 };
        for (query, row) in o.values().chunks_exact(d).enumerate() {
            // Of a value only its own channel is seen, and that may be by masked neighbours too: their weight of zero
            // times it is none either, as in torch.
            let nan = if which == 2 { row[5].is_nan() } else { row.iter().all(|x| x.is_nan()) };
            assert!(nan || !sees.contains(&query), "input {which}, query {query}");
            let touched = row.iter().any(|x| x.is_nan());
            assert!(which == 2 || touched == sees.contains(&query), "input {which}, query {query}");
        }
    }
}

#[test]
fn cached_attention_has_the_bits_of_the_whole() {
    let cpu = cpu();
    for (len, window, pieces) in [(300, 1000, vec![1, 255, 1, 30, 13]), (40, 7, vec![3; 13])] {
        let (n_head, n_kv_head, d) = (4, 2, 40);
        let s = |len| AttentionShape {
            sequence: SequenceShape { batch: 1, len },
            n_head,
            n_kv_head,
            head_dim: d,
            window,
        };
        let (q, k, v) = (values(1, len * 4 * d), values(2, len * 2 * d), values(3, len * 2 * d));
        let (qt, kt, vt) = (tensor(&cpu, len, &q), tensor(&cpu, len, &k), tensor(&cpu, len, &v));
        let (whole, _) = cpu.attention(&qt, &kt, &vt, &s(len)).unwrap();
        let mut cache = cpu.kv_cache(len, n_kv_head * d).unwrap();
        let mut done = 0;
        for count in pieces {
            let part = |x| cpu.rows(x, done, count).unwrap();
            cpu.kv_append(&mut cache, &part(&kt), &part(&vt)).unwrap();
            let o = cpu.attention_cached(&part(&qt), &cache, &s(count)).unwrap();
            assert_eq!(o.values(), &whole.values()[done * 4 * d..(done + count) * 4 * d]);
            done += count;
        }
        let rest = len - done;
        cpu.kv_append(&mut cache, &cpu.rows(&kt, done, rest).unwrap(), &cpu.rows(&vt, done, rest).unwrap())
            .unwrap();
        let one = cpu.rows(&kt, 0, 1).unwrap();
        let error = cpu.kv_append(&mut cache, &one, &one).unwrap_err();
        assert!(error.to_string().contains("do not fit the capacity"), "{error}");
    }
}

#[test]
fn cross_entropy() {
    let cpu = cpu();
    // More rows than a chunk holds; padding rows in lm_head.
    for (rows, cols, vocab, softcap) in
        [(1, 3, 2, Some(15.0)), (530, 16, 70, Some(15.0)), (40, 8, 50, None), (9, 8, 33, Some(100.0))]
    {
        let head = HeadShape { vocab_size: vocab, softcap };
        let padded = vocab + 5;
        let x: Vec<f32> = values(1, rows * cols).iter().map(|v| 6.0 * v).collect();
        let w: Vec<f32> = values(2, padded * cols).iter().map(|v| 4.0 * v).collect();
        let targets: Vec<i32> = (0..rows as i32).map(|i| (i * 7 % (vocab as i32 + 1)) - 1).collect();
        let (xt, wt, t) = (tensor(&cpu, rows, &x), param(&cpu, padded, &w), cpu.tokens(&targets).unwrap());
        let f = |i: &[Vec<f64>]| reference::cross_entropy(&i[0], &i[1], &targets, cols, &head);
        let exact = f(&[wide(&x), wide(&w)]);
        let losses = cpu.cross_entropy(&xt, &wt, &t, &head).unwrap();
        assert_close(&losses, &exact, 2e-6);
        let mut dw = cpu.grad(&[padded, cols]).unwrap();
        let (again, dx) = cpu.cross_entropy_train(&xt, &wt, &t, &head, 0.5, &mut dw).unwrap();
        assert_eq!(losses, again);
        assert_gradients(&[&x, &w], &[dx.values(), dw.values()], &vec![0.5; rows], f, 1e-5);
        let logits = cpu.logits(&xt, &wt, &head).unwrap();
        assert_close(logits.values(), &reference::logits(&wide(&x), &wide(&w), cols, &head), 2e-6);
    }
}

#[test]
fn rotary_tables_round_to_bf16() {
    let cpu = cpu();
    let d = 16;
    let s = SequenceShape { batch: 1, len: 5 };
    let x = values(1, 5 * d);
    let exact = cpu.rotary(5, d, 1e4, Precision::F32).unwrap();
    let coarse = cpu.rotary(5, d, 1e4, Precision::Bf16).unwrap();
    let (a, _) = cpu.rotary_norm(tensor(&cpu, 5, &x), &exact, 0, s, d, 1.0, EPS).unwrap();
    let (b, _) = cpu.rotary_norm(tensor(&cpu, 5, &x), &coarse, 0, s, d, 1.0, EPS).unwrap();
    let difference = a.values().iter().zip(b.values()).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(difference > 1e-5 && difference < 2e-2, "{difference}");
}
