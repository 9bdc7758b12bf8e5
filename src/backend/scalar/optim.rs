//! AdamW, SGD and Muon over f64, transcribed from their papers and nanochat's recipe independently of the fused
//! updates of the other backends.
//!
//! Everything is computed in f64, whatever precision a recipe rounds the polar iteration or the update to: this is
//! the update that those precisions approximate.

use super::weight::Weight;
use crate::optim::config::{AdamWConfig, GroupConfig, MuonConfig, SgdConfig, StepValues};

/// a, b and c of each polar iteration `X <- aX + (bA + cA^2) X` with `A = X X^T`. Polar Express, arXiv 2505.16932,
/// with nanochat's safety factor.
const POLAR_EXPRESS: [[f64; 3]; 5] = [
    [8.156554524902461, -22.48329292557795, 15.878769915207462],
    [4.042929935166739, -2.808917465908714, 0.5000178451051316],
    [3.8916678022926607, -2.772484153217685, 0.5060648178503393],
    [3.285753657755655, -2.3681294933425376, 0.46449024233003106],
    [2.3465413258596377, -1.7097828382687081, 0.42323551169305323],
];

/// State of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum ParamState {
    /// AdamW's moments, shaped as the parameter.
    Adamw {
        /// Mean of the gradients.
        exp_avg: Vec<f64>,
        /// Mean of their squares.
        exp_avg_sq: Vec<f64>,
    },
    /// Muon's momentum (R, K), and NorMuon's second moment: R values if R >= K, else K.
    Muon {
        /// Mean of the gradients.
        momentum: Vec<f64>,
        /// Mean of the squares of the directions, by row or by column.
        second_moment: Vec<f64>,
    },
    /// SGD's momentum, shaped as the parameter.
    Sgd {
        /// Decaying sum of the gradients.
        momentum: Vec<f64>,
    },
}

impl ParamState {
    /// Zeroed state for a parameter of this shape.
    pub fn new(config: &GroupConfig, shape: &[usize]) -> Self {
        let zeros = || vec![0.0; shape.iter().product()];
        match config {
            GroupConfig::Adamw(_) => Self::Adamw { exp_avg: zeros(), exp_avg_sq: zeros() },
            GroupConfig::Muon(_) => {
                let (rows, cols) = matrix_shape(shape);
                Self::Muon { momentum: zeros(), second_moment: vec![0.0; rows.max(cols)] }
            }
            GroupConfig::Sgd(_) => Self::Sgd { momentum: zeros() },
        }
    }

    /// Its arrays.
    pub fn arrays(&self) -> Vec<&Vec<f64>> {
        match self {
            Self::Adamw { exp_avg, exp_avg_sq } => vec![exp_avg, exp_avg_sq],
            Self::Muon { momentum, second_moment } => vec![momentum, second_moment],
            Self::Sgd { momentum } => vec![momentum],
        }
    }

    /// Its arrays, to be filled.
    pub fn arrays_mut(&mut self) -> Vec<&mut Vec<f64>> {
        match self {
            Self::Adamw { exp_avg, exp_avg_sq } => vec![exp_avg, exp_avg_sq],
            Self::Muon { momentum, second_moment } => vec![momentum, second_moment],
            Self::Sgd { momentum } => vec![momentum],
        }
    }

    /// Updates a weight at step `step`, counted from 1. State and configuration are of one kind.
    pub fn update(
        &mut self,
        config: &GroupConfig,
        values: &StepValues,
        step: u64,
        weight: &mut Weight,
        gradient: &[f64],
    ) {
        let shape = matrix_shape(weight.shape());
        let weight = weight.values_mut();
        match (config, self) {
            (GroupConfig::Adamw(config), Self::Adamw { exp_avg, exp_avg_sq }) => {
                adamw(config, values, step, weight, gradient, exp_avg, exp_avg_sq);
            }
            (GroupConfig::Muon(config), Self::Muon { momentum, second_moment }) => {
                muon(config, values, shape, weight, gradient, momentum, second_moment);
            }
            (GroupConfig::Sgd(config), Self::Sgd { momentum }) => {
                sgd(config, values, weight, gradient, momentum);
            }
            _ => {}
        }
    }
}

/// Rows and columns; a vector is one column.
fn matrix_shape(shape: &[usize]) -> (usize, usize) {
    match *shape {
        [rows, cols] => (rows, cols),
        _ => (shape.iter().product(), 1),
    }
}

/// AdamW, arXiv 1711.05101: decay first, then the bias-corrected step.
fn adamw(
    config: &AdamWConfig,
    values: &StepValues,
    step: u64,
    weight: &mut [f64],
    gradient: &[f64],
    exp_avg: &mut [f64],
    exp_avg_sq: &mut [f64],
) {
    let lr = config.lr * values.lr_multiplier;
    let bias1 = 1.0 - libm::pow(config.beta1, step as f64);
    let bias2 = 1.0 - libm::pow(config.beta2, step as f64);
    for (((w, g), m), v) in weight.iter_mut().zip(gradient).zip(exp_avg).zip(exp_avg_sq) {
        *w *= 1.0 - lr * config.weight_decay;
        *m = config.beta1 * *m + (1.0 - config.beta1) * g;
        *v = config.beta2 * *v + (1.0 - config.beta2) * g * g;
        *w -= lr * (*m / bias1) / ((*v / bias2).sqrt() + config.eps);
    }
}

/// SGD with momentum and decoupled decay.
fn sgd(config: &SgdConfig, values: &StepValues, weight: &mut [f64], gradient: &[f64], momentum: &mut [f64]) {
    let lr = config.lr * values.lr_multiplier;
    for ((w, g), m) in weight.iter_mut().zip(gradient).zip(momentum) {
        *w *= 1.0 - lr * config.weight_decay;
        *m = config.momentum * *m + g;
        *w -= lr * *m;
    }
}

/// Muon with Nesterov momentum, the polar iteration, NorMuon (arXiv 2510.05491) and cautious decay.
fn muon(
    config: &MuonConfig,
    values: &StepValues,
    (rows, cols): (usize, usize),
    weight: &mut [f64],
    gradient: &[f64],
    momentum: &mut [f64],
    second_moment: &mut [f64],
) {
    let mu = values.muon_momentum;
    let mut x = Vec::with_capacity(gradient.len());
    for (g, m) in gradient.iter().zip(momentum) {
        *m = mu * *m + (1.0 - mu) * g;
        x.push(mu * *m + (1.0 - mu) * g);
    }
    if config.row_equilibration {
        let target = norm(&x) / (rows as f64).sqrt();
        for row in x.chunks_exact_mut(cols) {
            scale(row, target / norm(row).max(1e-6));
        }
    }
    let size = norm(&x) * config.norm_factor + 1e-6;
    scale(&mut x, 1.0 / size);
    x = if rows > cols {
        let wide = polar(transpose(&x, rows, cols), cols, rows, config.ns_steps);
        transpose(&wide, cols, rows)
    } else {
        polar(x, rows, cols, config.ns_steps)
    };
    if config.renormalize {
        let factor = (rows.min(cols) as f64).sqrt() / norm(&x).max(1e-6);
        scale(&mut x, factor);
    }
    normuon(config.beta2, &mut x, (rows, cols), second_moment);
    let tall = (rows as f64 / cols as f64).max(1.0).sqrt();
    let lr = config.lr * values.lr_multiplier * tall;
    for (w, x) in weight.iter_mut().zip(x) {
        let decay = if x * *w >= 0.0 { values.muon_weight_decay } else { 0.0 };
        *w -= lr * x + lr * decay * *w;
    }
}

/// The polar iteration on a matrix that is at least as wide as high.
fn polar(mut x: Vec<f64>, rows: usize, cols: usize, steps: usize) -> Vec<f64> {
    for [a, b, c] in POLAR_EXPRESS.into_iter().take(steps) {
        let gram = matmul(&x, &transpose(&x, rows, cols), rows, cols, rows);
        let gram_squared = matmul(&gram, &gram, rows, rows, rows);
        let mix: Vec<f64> = gram.iter().zip(&gram_squared).map(|(one, two)| b * one + c * two).collect();
        let product = matmul(&mix, &x, rows, rows, cols);
        x = x.iter().zip(&product).map(|(x, product)| a * x + product).collect();
    }
    x
}

/// Divides rows (of a tall matrix) or columns by the running root mean square of theirs, keeping the matrix's norm.
fn normuon(beta2: f64, x: &mut [f64], (rows, cols): (usize, usize), second_moment: &mut [f64]) {
    let by_row = rows >= cols;
    let group = |index: usize| if by_row { index / cols } else { index % cols };
    let count = if by_row { cols } else { rows } as f64;
    let mut mean = vec![0.0; second_moment.len()];
    for (index, x) in x.iter().enumerate() {
        mean[group(index)] += x * x / count;
    }
    for (moment, mean) in second_moment.iter_mut().zip(mean) {
        *moment = beta2 * *moment + (1.0 - beta2) * mean;
    }
    let before = norm(x);
    for (index, x) in x.iter_mut().enumerate() {
        *x /= second_moment[group(index)].max(1e-10).sqrt();
    }
    scale(x, before / norm(x).max(1e-10));
}

fn scale(x: &mut [f64], factor: f64) {
    for x in x {
        *x *= factor;
    }
}

/// The Frobenius norm.
fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// (rows, cols) -> (cols, rows).
fn transpose(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..rows * cols).map(|index| x[index % rows * cols + index / rows]).collect()
}

/// (rows, inner) (inner, cols) -> (rows, cols).
fn matmul(a: &[f64], b: &[f64], rows: usize, inner: usize, cols: usize) -> Vec<f64> {
    let entry = |row: usize, col: usize| (0..inner).map(|i| a[row * inner + i] * b[i * cols + col]).sum();
    (0..rows * cols).map(|index| entry(index / cols, index % cols)).collect()
}
