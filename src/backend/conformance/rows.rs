//! Ops that work row by row: embedding, norms, products, activations, mixing, gates, rotary.

use super::reference::{assert_close, dot, gradient, matmul_t, sigmoid, values, wide};
use crate::ops::{OpError, SequenceShape, TrainOps};
use crate::precision::Precision;

const N: usize = 6;
const C: usize = 8;
const SEQUENCE: SequenceShape = SequenceShape { batch: 2, len: 3 };

pub(crate) fn embedding<B: TrainOps>(ops: &B, tolerance: f64) {
    // Token 2 comes up often enough that its rows are summed in more than one piece.
    let ids: Vec<i32> = (0..400).map(|i| if i % 3 == 0 { 2 } else { i * 7 % 11 }).collect();
    let table = values(12 * C, 1);
    let weight = ops.table(&[12, C], &table).unwrap();
    let tokens = ops.tokens(&ids).unwrap();
    let y = ops.tensor_values(&ops.embedding(&weight, &tokens).unwrap()).unwrap();
    let want: Vec<f32> = ids.iter().flat_map(|&id| table[id as usize * C..][..C].to_vec()).collect();
    assert_eq!(y, want, "rows are copied as they are");

    let dy = values(400 * C, 2);
    let mut grad = ops.grad(&[12, C]).unwrap();
    let d = ops.tensor(400, C, &dy).unwrap();
    ops.embedding_backward(&tokens, &d, &mut grad).unwrap();
    ops.embedding_backward(&tokens, &d, &mut grad).unwrap();
    let mut want = vec![0.0; 12 * C];
    for (&id, row) in ids.iter().zip(dy.chunks(C)) {
        for (sum, &x) in want[id as usize * C..][..C].iter_mut().zip(row) {
            *sum += 2.0 * f64::from(x);
        }
    }
    assert_close("dtable", &ops.grad_values(&grad).unwrap(), &want, tolerance);
    ops.zero_grad(&mut grad).unwrap();
    assert!(ops.grad_values(&grad).unwrap().iter().all(|&x| x == 0.0));

    let beyond = ops.tokens(&[3, 12]).unwrap();
    assert!(
        matches!(ops.embedding(&weight, &beyond), Err(OpError::Shape { .. })),
        "a token beyond the table"
    );
}

fn norm_reference(x: &[f64], cols: usize, eps: f64) -> Vec<f64> {
    x.chunks(cols)
        .flat_map(|row| {
            let rstd = 1.0 / (dot(row, row) / cols as f64 + eps).sqrt();
            row.iter().map(move |x| x * rstd)
        })
        .collect()
}

pub(crate) fn rms_norm<B: TrainOps>(ops: &B, tolerance: f64) {
    let (x, dy, residual) = (values(N * C, 1), values(N * C, 2), values(N * C, 3));
    let eps = 0.01;
    let (y, saved) = ops.rms_norm(&ops.tensor(N, C, &x).unwrap(), eps).unwrap();
    let want = norm_reference(&wide(&x), C, f64::from(eps));
    assert_close("y", &ops.tensor_values(&y).unwrap(), &want, tolerance);
    let d = ops.tensor(N, C, &dy).unwrap();
    let dx = ops.rms_norm_backward(&y, &saved, &d, None).unwrap();
    let want = gradient(&wide(&x), |x| dot(&norm_reference(x, C, f64::from(eps)), &wide(&dy)));
    assert_close("dx", &ops.tensor_values(&dx).unwrap(), &want, tolerance);
    let dres = ops.tensor(N, C, &residual).unwrap();
    let dx = ops.rms_norm_backward(&y, &saved, &d, Some(dres)).unwrap();
    let want: Vec<f64> = want.iter().zip(wide(&residual)).map(|(a, b)| a + b).collect();
    assert_close("dx + residual", &ops.tensor_values(&dx).unwrap(), &want, tolerance);
}

pub(crate) fn linear<B: TrainOps>(ops: &B, tolerance: f64) {
    const M: usize = 5;
    let (x, w, dy, residual) = (values(N * C, 1), values(M * C, 2), values(N * M, 3), values(N * M, 4));
    let (tx, tw) = (ops.tensor(N, C, &x).unwrap(), ops.weight(&[M, C], &w).unwrap());
    assert_eq!(ops.weight_values(&tw).unwrap().wide(), w);
    let want = matmul_t(&wide(&x), &wide(&w), C);
    assert_close("y", &ops.tensor_values(&ops.linear(&tx, &tw).unwrap()).unwrap(), &want, tolerance);
    let y = ops.linear_add(ops.tensor(N, M, &residual).unwrap(), &tx, &tw).unwrap();
    let want: Vec<f64> = want.iter().zip(wide(&residual)).map(|(a, b)| a + b).collect();
    assert_close("residual + y", &ops.tensor_values(&y).unwrap(), &want, tolerance);

    let mut dw = ops.grad(&[M, C]).unwrap();
    let d = ops.tensor(N, M, &dy).unwrap();
    let dx = ops.linear_backward(&tx, &tw, &d, &mut dw, None).unwrap();
    let dx = ops.linear_backward(&tx, &tw, &d, &mut dw, Some(dx)).unwrap();
    let loss = |x: &[f64], w: &[f64]| 2.0 * dot(&matmul_t(x, w, C), &wide(&dy));
    let want = gradient(&wide(&x), |x| loss(x, &wide(&w)));
    assert_close("dx", &ops.tensor_values(&dx).unwrap(), &want, tolerance);
    let want = gradient(&wide(&w), |w| loss(&wide(&x), w));
    assert_close("dw", &ops.grad_values(&dw).unwrap(), &want, tolerance);

    let sum = ops.add(ops.copy(&d).unwrap(), &ops.tensor(N, M, &residual).unwrap()).unwrap();
    let want: Vec<f64> = wide(&dy).iter().zip(wide(&residual)).map(|(a, b)| a + b).collect();
    assert_close("sum", &ops.tensor_values(&sum).unwrap(), &want, tolerance);
    assert_eq!(ops.tensor_values(&d).unwrap(), dy, "a copy is apart from what it copies");
    assert_eq!(ops.tensor_values(&ops.rows(&d, 2, 3).unwrap()).unwrap(), dy[2 * M..5 * M]);
    assert_eq!(ops.tensor_values(&ops.zeros(2, 3).unwrap()).unwrap(), [0.0; 6]);
}

pub(crate) fn relu_squared<B: TrainOps>(ops: &B, tolerance: f64) {
    let (x, dy) = (values(N * C, 1), values(N * C, 2));
    let tx = ops.tensor(N, C, &x).unwrap();
    let want: Vec<f64> = wide(&x).iter().map(|x| x.max(0.0).powi(2)).collect();
    assert_close("y", &ops.tensor_values(&ops.relu_squared(&tx).unwrap()).unwrap(), &want, tolerance);
    let dx = ops.relu_squared_backward(&tx, ops.tensor(N, C, &dy).unwrap()).unwrap();
    let want: Vec<f64> = wide(&x).iter().zip(wide(&dy)).map(|(x, d)| d * 2.0 * x.max(0.0)).collect();
    assert_close("dx", &ops.tensor_values(&dx).unwrap(), &want, tolerance);
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Fused, a product of squares has the bits of its parts, where a backend does fuse.
pub(crate) fn relu_squared_linear<B: TrainOps>(ops: &B, _tolerance: f64) {
    for (n, inputs, out) in [(5, 7, 3), (70, 300, 100), (1100, 700, 300), (40, 1024, 20)] {
        let (u, w) = (values(n * inputs, 1), values(out * inputs, 2));
        let x = values(n * out, 3);
        let (u, w) = (ops.tensor(n, inputs, &u).unwrap(), ops.weight(&[out, inputs], &w).unwrap());
        let x = || ops.tensor(n, out, &x).unwrap();
        let a = ops.relu_squared(&u).unwrap();
        let parts = ops.linear_add(x(), &a, &w).unwrap();
        let fused = ops.relu_squared_linear_add(x(), &u, &w).unwrap();
        let both = [parts, fused].map(|y| bits(&ops.tensor_values(&y).unwrap()));
        assert_eq!(both[0], both[1], "{n} {inputs} {out}");

        let grad = || ops.grad(&[out, inputs]).unwrap();
        let (mut dw_parts, mut dw_fused) = (grad(), grad());
        let da = ops.linear_backward(&a, &w, &x(), &mut dw_parts, None).unwrap();
        let parts = ops.relu_squared_backward(&u, da).unwrap();
        let fused = ops.relu_squared_linear_backward(&u, &w, &x(), &mut dw_fused).unwrap();
        let both = [parts, fused].map(|du| bits(&ops.tensor_values(&du).unwrap()));
        assert_eq!(both[0], both[1], "{n} {inputs} {out}");
        let both = [dw_parts, dw_fused].map(|dw| bits(&ops.grad_values(&dw).unwrap()));
        assert_eq!(both[0], both[1], "{n} {inputs} {out}");
    }
}

pub(crate) fn residual_mix<B: TrainOps>(ops: &B, tolerance: f64) {
    let (x, x0, dy, before) = (values(N * C, 1), values(N * C, 2), values(N * C, 3), values(N * C, 4));
    // Lambdas that bfloat16 does not hold: they stay float32 in every precision.
    let (resid, lambdas) = ([1.15_f32, 1.1003, 0.9], [0.2_f32, 0.1501, 0.3]);
    let (a, b) = (ops.weight(&[3], &resid).unwrap(), ops.weight(&[3], &lambdas).unwrap());
    let (tx, tx0) = (ops.tensor(N, C, &x).unwrap(), ops.tensor(N, C, &x0).unwrap());
    let y = ops.residual_mix(&tx, &tx0, &a, &b, 1).unwrap();
    let mixed = |x: &[f64], x0: &[f64], a: f64, b: f64| -> Vec<f64> {
        x.iter().zip(x0).map(|(x, x0)| a * x + b * x0).collect()
    };
    let (ra, rb) = (f64::from(resid[1]), f64::from(lambdas[1]));
    let (wx, wx0, wdy) = (wide(&x), wide(&x0), wide(&dy));
    assert_close("y", &ops.tensor_values(&y).unwrap(), &mixed(&wx, &wx0, ra, rb), tolerance);

    let mut dx0 = ops.tensor(N, C, &before).unwrap();
    let (mut dresid, mut dlambdas) = (ops.grad(&[3]).unwrap(), ops.grad(&[3]).unwrap());
    let d = ops.tensor(N, C, &dy).unwrap();
    let dx =
        ops.residual_mix_backward(&tx, &tx0, &a, &b, 1, d, &mut dx0, &mut dresid, &mut dlambdas).unwrap();
    let want: Vec<f64> = wdy.iter().map(|d| d * ra).collect();
    assert_close("dx", &ops.tensor_values(&dx).unwrap(), &want, tolerance);
    let want: Vec<f64> = wdy.iter().zip(wide(&before)).map(|(d, x)| d * rb + x).collect();
    assert_close("dx0", &ops.tensor_values(&dx0).unwrap(), &want, tolerance);
    assert_close("dresid", &ops.grad_values(&dresid).unwrap(), &[0.0, dot(&wdy, &wx), 0.0], tolerance);
    assert_close("dlambdas", &ops.grad_values(&dlambdas).unwrap(), &[0.0, dot(&wdy, &wx0), 0.0], tolerance);
}

/// x (B * T, C) smeared; `previous` stands before the first position.
fn smear_reference(x: &[f64], gate: &[f64], lambda: f64, len: usize, previous: Option<&[f64]>) -> Vec<f64> {
    let row = |n: usize| &x[n * C..(n + 1) * C];
    (0..x.len() / C)
        .flat_map(|n| {
            let before = if n % len == 0 { previous } else { Some(row(n - 1)) };
            let g = lambda * sigmoid(dot(&row(n)[..gate.len()], gate));
            (0..C).map(move |c| row(n)[c] + before.map_or(0.0, |before| g * before[c]))
        })
        .collect()
}

pub(crate) fn smear<B: TrainOps>(ops: &B, tolerance: f64) {
    let (x, gate, dy) = (values(N * C, 1), values(4, 2), values(N * C, 3));
    let (tx, tgate) = (ops.tensor(N, C, &x).unwrap(), ops.weight(&[1, 4], &gate).unwrap());
    let lambda = ops.weight(&[1], &[0.75]).unwrap();
    let (y, saved) = ops.smear(&tx, &tgate, &lambda, SEQUENCE, None).unwrap();
    let (wx, wgate, wdy) = (wide(&x), wide(&gate), wide(&dy));
    let want = smear_reference(&wx, &wgate, 0.75, 3, None);
    assert_close("y", &ops.tensor_values(&y).unwrap(), &want, tolerance);

    let previous = values(C, 4);
    let one = SequenceShape { batch: 1, len: N };
    let before = ops.tensor(1, C, &previous).unwrap();
    let (y, _) = ops.smear(&tx, &tgate, &lambda, one, Some(&before)).unwrap();
    let want = smear_reference(&wx, &wgate, 0.75, N, Some(&wide(&previous)));
    assert_close("y after a previous row", &ops.tensor_values(&y).unwrap(), &want, tolerance);

    let single = SequenceShape { batch: N, len: 1 };
    let (y, _) = ops.smear(&tx, &tgate, &lambda, single, None).unwrap();
    assert_eq!(ops.tensor_values(&y).unwrap(), x, "sequences of one position have nothing before them");
    // Each sequence has a row before it of its own.
    let before = values(N * C, 5);
    let rows = ops.tensor(N, C, &before).unwrap();
    let (y, _) = ops.smear(&tx, &tgate, &lambda, single, Some(&rows)).unwrap();
    let want: Vec<f64> = (0..N)
        .flat_map(|n| {
            let row = n * C..(n + 1) * C;
            smear_reference(&wx[row.clone()], &wgate, 0.75, 1, Some(&wide(&before[row])))
        })
        .collect();
    assert_close("y of several sequences", &ops.tensor_values(&y).unwrap(), &want, tolerance);

    let (mut dgate, mut dlambda) = (ops.grad(&[1, 4]).unwrap(), ops.grad(&[1]).unwrap());
    let d = ops.tensor(N, C, &dy).unwrap();
    let dx =
        ops.smear_backward(&tx, &tgate, &lambda, SEQUENCE, &saved, &d, &mut dgate, &mut dlambda).unwrap();
    let loss = |x: &[f64], gate: &[f64], lambda: f64| dot(&smear_reference(x, gate, lambda, 3, None), &wdy);
    let want = gradient(&wx, |x| loss(x, &wgate, 0.75));
    assert_close("dx", &ops.tensor_values(&dx).unwrap(), &want, tolerance);
    let want = gradient(&wgate, |gate| loss(&wx, gate, 0.75));
    assert_close("dgate", &ops.grad_values(&dgate).unwrap(), &want, tolerance);
    let want = gradient(&[0.75], |lambda| loss(&wx, &wgate, lambda[0]));
    assert_close("dlambda", &ops.grad_values(&dlambda).unwrap(), &want, tolerance);
}

pub(crate) fn value_embedding<B: TrainOps>(ops: &B, tolerance: f64) {
    const K: usize = 2;
    const D: usize = 4;
    const SCALE: f64 = 3.0;
    let ids = [1, 4, 1, 0, 4, 4];
    let (v, h, table, gate) = (values(N * C, 1), values(N * C, 2), values(5 * C, 3), values(K * 3, 4));
    let (dv, dh0) = (values(N * C, 5), values(N * C, 6));
    let forward = |v: &[f64], h: &[f64], table: &[f64], gate: &[f64]| -> Vec<f64> {
        (0..N * C)
            .map(|i| {
                let (n, k) = (i / C, i % C / D);
                let g = SCALE * sigmoid(dot(&h[n * C..][..3], &gate[k * 3..][..3]));
                v[i] + g * table[ids[n] as usize * C + i % C]
            })
            .collect()
    };
    let (wv, wh, wtable, wgate, wdv) = (wide(&v), wide(&h), wide(&table), wide(&gate), wide(&dv));
    let th = ops.tensor(N, C, &h).unwrap();
    let (ttable, tgate) = (ops.table(&[5, C], &table).unwrap(), ops.weight(&[K, 3], &gate).unwrap());
    let tokens = ops.tokens(&ids).unwrap();
    let tv = ops.tensor(N, C, &v).unwrap();
    let (y, saved) = ops.value_embedding(tv, &th, &ttable, &tokens, &tgate, SCALE as f32).unwrap();
    assert_close("v", &ops.tensor_values(&y).unwrap(), &forward(&wv, &wh, &wtable, &wgate), tolerance);

    let (mut dtable, mut dgate) = (ops.grad(&[5, C]).unwrap(), ops.grad(&[K, 3]).unwrap());
    let (d, mut dh) = (ops.tensor(N, C, &dv).unwrap(), ops.tensor(N, C, &dh0).unwrap());
    let scale = SCALE as f32;
    ops.value_embedding_backward(
        &th,
        &ttable,
        &tokens,
        &tgate,
        scale,
        &saved,
        &d,
        &mut dtable,
        &mut dgate,
        &mut dh,
    )
    .unwrap();
    let want = gradient(&wtable, |table| dot(&forward(&wv, &wh, table, &wgate), &wdv));
    assert_close("dtable", &ops.grad_values(&dtable).unwrap(), &want, tolerance);
    let want = gradient(&wgate, |gate| dot(&forward(&wv, &wh, &wtable, gate), &wdv));
    assert_close("dgate", &ops.grad_values(&dgate).unwrap(), &want, tolerance);
    let want = gradient(&wh, |h| dot(&forward(&wv, h, &wtable, &wgate), &wdv));
    let want: Vec<f64> = want.iter().zip(wide(&dh0)).map(|(a, b)| a + b).collect();
    assert_close("dh", &ops.tensor_values(&dh).unwrap(), &want, tolerance);
}

pub(crate) fn rotary_norm<B: TrainOps>(ops: &B, tolerance: f64) {
    const D: usize = 4;
    const SCALE: f64 = 1.2;
    const BASE: f64 = 100.0;
    let forward = |x: &[f64], start: usize| -> Vec<f64> {
        let mut y = Vec::new();
        for (i, head) in x.chunks(D).enumerate() {
            let position = (start + i / (C / D) % 3) as f64;
            let (mut rotated, half) = (vec![0.0; D], D / 2);
            for j in 0..half {
                let (sin, cos) = (position * BASE.powf(-2.0 * j as f64 / D as f64)).sin_cos();
                rotated[j] = head[j] * cos + head[j + half] * sin;
                rotated[j + half] = head[j + half] * cos - head[j] * sin;
            }
            y.extend(norm_reference(&rotated, D, 1e-6).iter().map(|x| x * SCALE));
        }
        y
    };
    let (x, dy) = (values(N * C, 1), values(N * C, 2));
    let rotary = ops.rotary(16, D, BASE, Precision::F32).unwrap();
    let run = |start| {
        let x = ops.tensor(N, C, &x).unwrap();
        ops.rotary_norm(x, &rotary, start, SEQUENCE, D, SCALE as f32, 1e-6).unwrap()
    };
    let later = ops.tensor_values(&run(7).0).unwrap();
    assert_close("y from position 7", &later, &forward(&wide(&x), 7), tolerance);
    let (y, saved) = run(0);
    assert_close("y", &ops.tensor_values(&y).unwrap(), &forward(&wide(&x), 0), tolerance);
    let d = ops.tensor(N, C, &dy).unwrap();
    let dx = ops.rotary_norm_backward(&y, &rotary, SEQUENCE, D, SCALE as f32, &saved, d).unwrap();
    let want = gradient(&wide(&x), |x| dot(&forward(x, 0), &wide(&dy)));
    assert_close("dx", &ops.tensor_values(&dx).unwrap(), &want, tolerance);

    // Tables rounded to bfloat16 are off by up to 2^-9, and not by zero.
    let rounded = ops.rotary(16, D, BASE, Precision::Bf16).unwrap();
    let x1 = ops.tensor(N, C, &x).unwrap();
    let (y, _) = ops.rotary_norm(x1, &rounded, 7, SEQUENCE, D, SCALE as f32, 1e-6).unwrap();
    let y = ops.tensor_values(&y).unwrap();
    assert_close("y of rounded tables", &y, &forward(&wide(&x), 7), tolerance + 8e-3);
    assert_ne!(y, later);
}

pub(crate) fn backout<B: TrainOps>(ops: &B, tolerance: f64) {
    let (x, kept, dy) = (values(N * C, 1), values(N * C, 2), values(N * C, 3));
    let lambda = ops.weight(&[1], &[0.2]).unwrap();
    let l = f64::from(0.2_f32);
    let tkept = ops.tensor(N, C, &kept).unwrap();
    let y = ops.backout(ops.tensor(N, C, &x).unwrap(), &tkept, &lambda).unwrap();
    let want: Vec<f64> = wide(&x).iter().zip(wide(&kept)).map(|(x, kept)| x - l * kept).collect();
    assert_close("y", &ops.tensor_values(&y).unwrap(), &want, tolerance);
    let mut dlambda = ops.grad(&[1]).unwrap();
    let d = ops.tensor(N, C, &dy).unwrap();
    let dkept = ops.backout_backward(&tkept, &lambda, &d, &mut dlambda).unwrap();
    let want: Vec<f64> = wide(&dy).iter().map(|d| -l * d).collect();
    assert_close("dkept", &ops.tensor_values(&dkept).unwrap(), &want, tolerance);
    let want = [-dot(&wide(&kept), &wide(&dy))];
    assert_close("dlambda", &ops.grad_values(&dlambda).unwrap(), &want, tolerance);
    assert_eq!(ops.tensor_values(&d).unwrap(), dy, "dy is read, not changed");
}
