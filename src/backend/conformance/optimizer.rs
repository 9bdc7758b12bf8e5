//! Optimizer updates. Matrices and moments are float32 in every precision, so the tolerance is float32's own.

use super::reference::{assert_close, dot, values, wide};
use crate::ops::{AdamWStep, MuonParam, MuonStep, SgdStep, TrainOps};
use crate::precision::Precision;

const F32: f64 = 2e-6;

pub(crate) fn adamw<B: TrainOps>(ops: &B, _tolerance: f64) {
    let start = values(24, 1);
    let mut weight = ops.weight(&[4, 6], &start).unwrap();
    let (mut m, mut v) = (ops.state(&[4, 6], &[0.0; 24]).unwrap(), ops.state(&[4, 6], &[0.0; 24]).unwrap());
    let (mut w, mut rm, mut rv) = (wide(&start), vec![0.0; 24], vec![0.0; 24]);
    for t in 1..=3 {
        let g = values(24, 10 + t);
        let (beta1, beta2) = (0.8_f32, 0.95_f32);
        let step = AdamWStep {
            lr: 0.02,
            beta1,
            beta2,
            bias1: 1.0 - beta1.powi(t as i32),
            bias2: 1.0 - beta2.powi(t as i32),
            eps: 1e-3,
            weight_decay: 0.5,
        };
        let grad = gradient_of(ops, &[4, 6], &g);
        ops.adamw(&mut weight, &grad, &mut m, &mut v, &step).unwrap();
        for i in 0..24 {
            let g = f64::from(g[i]);
            w[i] *= 1.0 - f64::from(step.lr) * f64::from(step.weight_decay);
            rm[i] += (1.0 - f64::from(beta1)) * (g - rm[i]);
            rv[i] += (1.0 - f64::from(beta2)) * (g * g - rv[i]);
            let root = (rv[i] / f64::from(step.bias2)).sqrt() + f64::from(step.eps);
            w[i] -= f64::from(step.lr) / f64::from(step.bias1) * rm[i] / root;
        }
    }
    assert_close("weight", &ops.weight_values(&weight).unwrap().wide(), &w, F32);
    assert_close("exp_avg", &ops.state_values(&m).unwrap().wide(), &rm, F32);
    assert_close("exp_avg_sq", &ops.state_values(&v).unwrap().wide(), &rv, F32);
}

pub(crate) fn sgd<B: TrainOps>(ops: &B, _tolerance: f64) {
    for momentum in [0.0_f32, 0.75] {
        let start = values(24, 1);
        let mut weight = ops.weight(&[4, 6], &start).unwrap();
        let mut m = ops.state(&[4, 6], &[0.0; 24]).unwrap();
        let (mut w, mut rm) = (wide(&start), vec![0.0; 24]);
        for t in 1..=2 {
            let g = values(24, 10 + t);
            let step = SgdStep { lr: 0.25, momentum, weight_decay: 0.5 };
            ops.sgd(&mut weight, &gradient_of(ops, &[4, 6], &g), &mut m, &step).unwrap();
            for i in 0..24 {
                rm[i] = f64::from(momentum) * rm[i] + f64::from(g[i]);
                w[i] = w[i] * (1.0 - 0.125) - 0.25 * rm[i];
            }
        }
        assert_close("weight", &ops.weight_values(&weight).unwrap().wide(), &w, F32);
        if momentum > 0.0 {
            assert_close("momentum", &ops.state_values(&m).unwrap().wide(), &rm, F32);
        } else {
            assert!(
                ops.state_values(&m).unwrap().wide().iter().all(|&x| x == 0.0),
                "plain SGD touches no buffer"
            );
        }
    }
}

/// A gradient of given values (rows, cols): the product of the identity with them.
fn gradient_of<B: TrainOps>(ops: &B, shape: &[usize; 2], values: &[f32]) -> B::Grad {
    let [rows, cols] = *shape;
    let mut grad = ops.grad(shape).unwrap();
    let identity: Vec<f32> = (0..rows * rows).map(|i| if i % (rows + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let (dy, x) = (ops.tensor(rows, rows, &identity).unwrap(), ops.tensor(rows, cols, values).unwrap());
    let weight = ops.weight(&[rows, cols], &vec![0.0; values.len()]).unwrap();
    ops.linear_backward(&x, &weight, &dy, &mut grad, None).unwrap();
    grad
}

const POLAR: [(f64, f64, f64); 5] = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
];

fn transpose(x: &[f64], cols: usize) -> Vec<f64> {
    let rows = x.len() / cols;
    (0..x.len()).map(|i| x[i % rows * cols + i / rows]).collect()
}

/// a (n, m) b (m, p).
fn matmul(a: &[f64], b: &[f64], m: usize) -> Vec<f64> {
    super::reference::matmul_t(a, &transpose(b, b.len() / m), m)
}

/// To eight significant bits, ties to even.
fn round_bf16(x: f64) -> f64 {
    let unit = 2.0_f64.powi(x.abs().log2().floor() as i32 - 7);
    if x == 0.0 { 0.0 } else { (x / unit).round_ties_even() * unit }
}

struct Reference {
    w: Vec<f64>,
    momentum: Vec<f64>,
    second: Vec<f64>,
}

fn muon_reference(state: &mut Reference, g: &[f64], rows: usize, cols: usize, step: &MuonStep) {
    let mu = f64::from(step.momentum);
    for (m, g) in state.momentum.iter_mut().zip(g) {
        *m += (1.0 - mu) * (g - *m);
    }
    let mut x: Vec<f64> = g.iter().zip(&state.momentum).map(|(g, m)| (1.0 - mu) * g + mu * m).collect();
    let size = |x: &[f64]| dot(x, x).sqrt();
    // bfloat16 kernels round the result of every operation.
    let bf16 = step.polar_precision == Precision::Bf16;
    let r = |x: f64| if bf16 { round_bf16(x) } else { x };
    let scaled = |x: &[f64], a: f64| -> Vec<f64> { x.iter().map(|x| r(a * x)).collect() };
    let sum = |x: &[f64], y: &[f64]| -> Vec<f64> { x.iter().zip(y).map(|(x, y)| r(x + y)).collect() };
    let product = |a: &[f64], b: &[f64], m| -> Vec<f64> { matmul(a, b, m).into_iter().map(r).collect() };
    x = scaled(&x, 1.0);
    if step.row_equilibration {
        let target = size(&x) / (rows as f64).sqrt();
        x = x.chunks(cols).flat_map(|row| scaled(row, r(target / size(row).max(1e-6)))).collect();
    }
    let norm = r(r(r(size(&x)) * f64::from(step.norm_factor)) + 1e-6);
    x = x.iter().map(|x| r(x / norm)).collect();
    for (a, b, c) in POLAR.into_iter().take(step.ns_steps) {
        let t = transpose(&x, cols);
        let (gram, n) =
            if rows > cols { (product(&t, &x, rows), cols) } else { (product(&x, &t, cols), rows) };
        let poly = sum(&scaled(&product(&gram, &gram, n), c), &scaled(&gram, b));
        let step = if rows > cols { product(&x, &poly, cols) } else { product(&poly, &x, rows) };
        x = sum(&scaled(&x, a), &step);
    }
    let bf16 = step.update_precision == Precision::Bf16;
    let r = |x: f64| if bf16 { round_bf16(x) } else { x };
    if step.renormalize {
        let factor = r((rows.min(cols) as f64).sqrt() / size(&x).max(1e-6));
        x = x.iter().map(|x| r(x * factor)).collect();
    }
    let tall = rows >= cols;
    let slot = |i: usize| if tall { i / cols } else { i % cols };
    let count = if tall { cols } else { rows };
    let mut mean = vec![0.0; state.second.len()];
    for (i, x) in x.iter().enumerate() {
        mean[slot(i)] += x * x / count as f64;
    }
    let before = size(&x);
    for (b, u) in state.second.iter_mut().zip(&mean) {
        *b += r(1.0 - r(f64::from(step.beta2))) * (u - *b);
    }
    let scale: Vec<f64> = state.second.iter().map(|b| 1.0 / b.max(1e-10).sqrt()).collect();
    let after: Vec<f64> = x.iter().enumerate().map(|(i, x)| x * scale[slot(i)]).collect();
    let ratio = before / size(&after).max(1e-10);
    let (lr, wd) = (r(f64::from(step.lr)), r(f64::from(step.weight_decay)));
    for (i, w) in state.w.iter_mut().enumerate() {
        let x = r(x[i] * r(scale[slot(i)] * ratio));
        let decay = if x * *w >= 0.0 { r(lr * wd) * *w } else { 0.0 };
        *w -= r(lr * x) + decay;
    }
}

pub(crate) fn muon<B: TrainOps>(ops: &B, _tolerance: f64) {
    let step = MuonStep {
        lr: 0.1,
        momentum: 0.9,
        weight_decay: 0.3,
        beta2: 0.75,
        norm_factor: 1.01,
        ns_steps: 5,
        row_equilibration: true,
        renormalize: true,
        polar_precision: Precision::F32,
        update_precision: Precision::F32,
    };
    let plain = MuonStep { row_equilibration: false, renormalize: false, norm_factor: 1.02, ..step };
    for (step, tolerance) in [
        (step, 3e-5),
        (plain, 3e-5),
        (MuonStep { polar_precision: Precision::Bf16, ..step }, 1e-3),
        (MuonStep { polar_precision: Precision::Bf16, update_precision: Precision::Bf16, ..plain }, 1e-3),
    ] {
        for (rows, cols) in [(12, 16), (16, 12), (12, 12), (6, 40)] {
            check_muon(ops, rows, cols, &step, tolerance);
        }
    }
    ops.muon(&mut [], &step).unwrap();
}

/// Two steps of two matrices in one call.
fn check_muon<B: TrainOps>(ops: &B, rows: usize, cols: usize, step: &MuonStep, tolerance: f64) {
    let (count, seconds) = (rows * cols, if rows >= cols { rows } else { cols });
    let starts = [values(count, 1), values(count, 2)];
    let second = || {
        let shape = if rows >= cols { [rows, 1] } else { [1, cols] };
        ops.state(&shape, &vec![0.0; seconds]).unwrap()
    };
    let mut weights = starts.each_ref().map(|start| ops.weight(&[rows, cols], start).unwrap());
    let mut momenta = [0, 1].map(|_| ops.state(&[rows, cols], &vec![0.0; count]).unwrap());
    let mut second_moments = [0, 1].map(|_| second());
    let mut references = starts.each_ref().map(|start| Reference {
        w: wide(start),
        momentum: vec![0.0; count],
        second: vec![0.0; seconds],
    });
    for t in 0..2 {
        let g = [values(count, 10 + t), values(count, 20 + t)];
        let mut grads = g.each_ref().map(|g| gradient_of(ops, &[rows, cols], g));
        let mut params: Vec<_> = weights
            .iter_mut()
            .zip(&mut grads)
            .zip(momenta.iter_mut().zip(&mut second_moments))
            .map(|((weight, grad), (momentum, second_moment))| MuonParam {
                weight,
                grad,
                momentum,
                second_moment,
            })
            .collect();
        ops.muon(&mut params, step).unwrap();
        for (reference, g) in references.iter_mut().zip(&g) {
            muon_reference(reference, &wide(g), rows, cols, step);
        }
    }
    for i in 0..2 {
        let what = |name| format!("{name} {i} of {rows} x {cols}, {step:?}");
        assert_close(
            &what("weight"),
            &ops.weight_values(&weights[i]).unwrap().wide(),
            &references[i].w,
            tolerance,
        );
        let momentum = ops.state_values(&momenta[i]).unwrap();
        assert_close(&what("momentum"), &momentum.wide(), &references[i].momentum, F32);
        let second = ops.state_values(&second_moments[i]).unwrap();
        // The square of a direction that bfloat16 iterations found.
        assert_close(&what("second moment"), &second.wide(), &references[i].second, 4.0 * tolerance);
    }
}
