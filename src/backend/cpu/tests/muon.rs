//! Muon against its definition in f64.

use super::super::CpuBackend;
use super::super::testing::values;
use crate::ops::{ForwardOps, MuonParam, MuonStep, TrainOps};
use crate::precision::Precision;

type Matrix = Vec<Vec<f64>>;

fn matrix(x: &[f32], cols: usize) -> Matrix {
    x.chunks(cols).map(|r| r.iter().map(|&v| f64::from(v)).collect()).collect()
}

fn transpose(x: &Matrix) -> Matrix {
    (0..x[0].len()).map(|j| x.iter().map(|r| r[j]).collect()).collect()
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let b = transpose(b);
    a.iter().map(|r| b.iter().map(|c| r.iter().zip(c).map(|(x, y)| x * y).sum()).collect()).collect()
}

fn zip(a: &Matrix, b: &Matrix, f: impl Fn(f64, f64) -> f64) -> Matrix {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()).collect()
}

fn map(a: &Matrix, f: impl Fn(f64) -> f64) -> Matrix {
    a.iter().map(|r| r.iter().map(|&v| f(v)).collect()).collect()
}

fn norm(x: &Matrix) -> f64 {
    x.iter().flatten().map(|v| v * v).sum::<f64>().sqrt()
}

const COEFFICIENTS: [(f64, f64, f64); 5] = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
];

/// -> weight, momentum, second moment
fn reference(w: &Matrix, g: &Matrix, m: &Matrix, second: &[f64], s: &MuonStep) -> (Matrix, Matrix, Vec<f64>) {
    let [lr, mu, wd, beta2, f] = [s.lr, s.momentum, s.weight_decay, s.beta2, s.norm_factor].map(f64::from);
    let (rows, cols) = (w.len(), w[0].len());
    let m = zip(m, g, |m, g| m + (1.0 - mu) * (g - m));
    let mut x = zip(g, &m, |g, m| (1.0 - mu) * g + mu * m);
    if s.row_equilibration {
        let target = norm(&x) / (rows as f64).sqrt();
        for row in &mut x {
            let own = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-6);
            row.iter_mut().for_each(|v| *v *= target / own);
        }
    }
    let divisor = norm(&x) * f + 1e-6;
    x = map(&x, |v| v / divisor);
    for &(a, b, c) in &COEFFICIENTS[..s.ns_steps] {
        let wide = if rows > cols { transpose(&x) } else { x.clone() };
        let gram = product(&wide, &transpose(&wide));
        let poly = zip(&gram, &product(&gram, &gram), |g, g2| b * g + c * g2);
        let next = zip(&wide, &product(&poly, &wide), |x, y| a * x + y);
        x = if rows > cols { transpose(&next) } else { next };
    }
    if s.renormalize {
        let factor = (rows.min(cols) as f64).sqrt() / norm(&x).max(1e-6);
        x = map(&x, |v| v * factor);
    }
    let by_rows = rows >= cols;
    let lines = if by_rows { x.clone() } else { transpose(&x) };
    let mut second = second.to_vec();
    let mut scaled: Matrix = Vec::new();
    for (line, b) in lines.iter().zip(&mut second) {
        let mean = line.iter().map(|v| v * v).sum::<f64>() / line.len() as f64;
        *b += (1.0 - beta2) * (mean - *b);
        scaled.push(line.iter().map(|v| v / b.max(1e-10).sqrt()).collect());
    }
    let ratio = norm(&lines) / norm(&scaled).max(1e-10);
    let scaled = map(&scaled, |v| v * ratio);
    let x = if by_rows { scaled } else { transpose(&scaled) };
    let w = zip(w, &x, |w, x| w - lr * x - if x * w >= 0.0 { lr * wd * w } else { 0.0 });
    (w, m, second)
}

fn step() -> MuonStep {
    MuonStep {
        lr: 0.02,
        momentum: 0.9,
        weight_decay: 0.3,
        beta2: 0.9,
        norm_factor: 1.01,
        ns_steps: 5,
        row_equilibration: false,
        renormalize: false,
        polar_precision: Precision::F32,
        update_precision: Precision::F32,
    }
}

#[test]
fn update_follows_the_definition() {
    let cpu = CpuBackend::new(2).unwrap();
    for (rows, cols) in [(1, 1), (4, 12), (12, 4), (40, 40), (33, 70), (70, 33)] {
        for extras in 0..4 {
            let step =
                MuonStep { row_equilibration: extras & 1 == 1, renormalize: extras & 2 == 2, ..step() };
            let (len, seconds) = (rows * cols, rows.max(cols).max(if rows >= cols { rows } else { cols }));
            // More matrices than go together.
            let count = 6;
            let all: Vec<_> = (0..count)
                .map(|i| {
                    let second: Vec<f32> = values(40 + i, seconds).iter().map(|v| v.abs() * 0.01).collect();
                    (values(10 + i, len), values(20 + i, len), values(30 + i, len), second)
                })
                .collect();
            let mut weights: Vec<_> = all.iter().map(|a| cpu.weight(&[rows, cols], &a.0).unwrap()).collect();
            let mut grads: Vec<_> = all.iter().map(|a| cpu.weight(&[rows, cols], &a.1).unwrap()).collect();
            let mut moments: Vec<_> = all.iter().map(|a| cpu.state(&[rows, cols], &a.2).unwrap()).collect();
            let mut second: Vec<_> = all.iter().map(|a| cpu.state(&[seconds], &a.3).unwrap()).collect();
            let mut params: Vec<_> = weights
                .iter_mut()
                .zip(&mut grads)
                .zip(&mut moments)
                .zip(&mut second)
                .map(|(((weight, grad), momentum), second_moment)| MuonParam {
                    weight,
                    grad,
                    momentum,
                    second_moment,
                })
                .collect();
            cpu.muon(&mut params, &step).unwrap();
            for (i, a) in all.iter().enumerate() {
                let second_start: Vec<f64> = a.3.iter().map(|&v| f64::from(v)).collect();
                let (w, m, s) = reference(
                    &matrix(&a.0, cols),
                    &matrix(&a.1, cols),
                    &matrix(&a.2, cols),
                    &second_start,
                    &step,
                );
                let close = |got: &[f32], exact: Vec<f64>, tolerance: f64| {
                    for (got, exact) in got.iter().zip(exact) {
                        let error = (f64::from(*got) - exact).abs();
                        assert!(error < tolerance, "{rows} x {cols}, {extras}: {got}, expected {exact}");
                    }
                };
                close(moments[i].values(), m.concat(), 1e-6);
                close(weights[i].values(), w.concat(), 5e-6);
                close(second[i].values(), s, 1e-5);
            }
        }
    }
}

#[test]
fn states_of_another_shape_are_refused() {
    let cpu = CpuBackend::new(1).unwrap();
    let mut weight = cpu.weight(&[4, 3], &[0.0; 12]).unwrap();
    let (mut grad, mut momentum) = (cpu.grad(&[4, 3]).unwrap(), cpu.grad(&[4, 3]).unwrap());
    let mut second_moment = cpu.grad(&[3]).unwrap();
    let mut params = [MuonParam {
        weight: &mut weight,
        grad: &mut grad,
        momentum: &mut momentum,
        second_moment: &mut second_moment,
    }];
    assert!(cpu.muon(&mut params, &step()).is_err());
}
