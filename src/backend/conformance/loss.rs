//! Softcapped cross-entropy.

use super::reference::{assert_close, dot, gradient, matmul_t, values, wide};
use crate::ops::{HeadShape, TrainOps};

/// Losses, and the gradients of `scale * sum` with respect to x and `lm_head`'s first V rows.
fn reference(
    x: &[f64],
    w: &[f64],
    targets: &[i32],
    head: &HeadShape,
    scale: f64,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (n, v) = (targets.len(), head.vocab_size);
    let c = x.len() / n;
    let w = &w[..v * c];
    let raw = matmul_t(x, w, c);
    let (mut losses, mut dx, mut dw) = (vec![0.0; n], vec![0.0; x.len()], vec![0.0; w.len()]);
    for (row, &target) in targets.iter().enumerate() {
        if target < 0 {
            continue;
        }
        let capped = |z: f64| head.softcap.map_or(z, |s| f64::from(s) * (z / f64::from(s)).tanh());
        let z: Vec<f64> = raw[row * v..][..v].iter().map(|&z| capped(z)).collect();
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = z.iter().map(|z| (z - max).exp()).sum();
        losses[row] = sum.ln() + max - z[target as usize];
        for j in 0..v {
            let slope = head.softcap.map_or(1.0, |s| 1.0 - (z[j] / f64::from(s)).powi(2));
            let onehot = if j == target as usize { 1.0 } else { 0.0 };
            let dz = scale * ((z[j] - max).exp() / sum - onehot) * slope;
            for i in 0..c {
                dx[row * c + i] += dz * w[j * c + i];
                dw[j * c + i] += dz * x[row * c + i];
            }
        }
    }
    (losses, dx, dw)
}

fn check<B: TrainOps>(
    ops: &B,
    x: &[f32],
    w: &[f32],
    targets: &[i32],
    head: &HeadShape,
    padded: usize,
    tolerance: f64,
) {
    const SCALE: f32 = 0.125;
    let n = targets.len();
    let c = x.len() / n;
    let (tx, tw) = (ops.tensor(n, c, x).unwrap(), ops.weight(&[padded, c], w).unwrap());
    let tokens = ops.tokens(targets).unwrap();
    let mut dw = ops.grad(&[padded, c]).unwrap();
    let (losses, dx) = ops.cross_entropy_train(&tx, &tw, &tokens, head, SCALE, &mut dw).unwrap();
    let (want, want_dx, want_dw) = reference(&wide(x), &wide(w), targets, head, f64::from(SCALE));
    assert_close("losses", &losses, &want, tolerance);
    for (loss, target) in losses.iter().zip(targets) {
        assert!(*target >= 0 || *loss == 0.0, "an ignored target has loss 0");
    }
    assert_close("dx", &ops.tensor_values(&dx).unwrap(), &want_dx, tolerance);
    let dw = ops.grad_values(&dw).unwrap();
    assert_close("dw", &dw[..want_dw.len()], &want_dw, tolerance);
    assert!(dw[want_dw.len()..].iter().all(|&x| x == 0.0), "padding rows have no gradient");
    let evaluated = ops.cross_entropy(&tx, &tw, &tokens, head).unwrap();
    assert_eq!(evaluated, losses, "evaluation gives training's losses");
}

pub(crate) fn cross_entropy<B: TrainOps>(ops: &B, tolerance: f64) {
    let (x, targets) = (values(6 * 8, 1).iter().map(|x| 4.0 * x).collect::<Vec<_>>(), [3, -1, 0, 12, 5, -1]);
    let w: Vec<f32> = values(16 * 8, 2).iter().map(|x| 2.0 * x).collect();
    let wx = wide(&x);
    for softcap in [Some(15.0), Some(100.0), None] {
        let head = HeadShape { vocab_size: 13, softcap };
        let (_, dx, _) = reference(&wx, &wide(&w), &targets, &head, 0.5);
        let differences =
            gradient(&wx, |x| 0.5 * reference(x, &wide(&w), &targets, &head, 0.5).0.iter().sum::<f64>());
        assert!(dx.iter().zip(&differences).all(|(a, b)| (a - b).abs() < 1e-7), "the reference itself");
        check(ops, &x, &w, &targets, &head, 16, tolerance);

        let logits =
            ops.logits(&ops.tensor(6, 8, &x).unwrap(), &ops.weight(&[16, 8], &w).unwrap(), &head).unwrap();
        let capped = |z: &f64| softcap.map_or(*z, |s| f64::from(s) * (z / f64::from(s)).tanh());
        let want: Vec<f64> = matmul_t(&wx, &wide(&w)[..13 * 8], 8).iter().map(capped).collect();
        assert_close("logits", &ops.tensor_values(&logits).unwrap(), &want, tolerance);
    }
    assert!(dot(&wx, &wx) > 100.0, "logits large enough for the softcap to bend them");
}

/// More logits than are held at once.
pub(crate) fn cross_entropy_chunks<B: TrainOps>(ops: &B, tolerance: f64) {
    let (n, vocab) = (300, 16_384);
    let targets: Vec<i32> = (0..n).map(|i| if i % 17 == 0 { -1 } else { i * 7919 % vocab }).collect();
    let (x, w) = (values(n as usize * 4, 1), values(vocab as usize * 4, 2));
    let head = HeadShape { vocab_size: vocab as usize, softcap: Some(15.0) };
    // Thousands of terms of either sign make each gradient.
    check(ops, &x, &w, &targets, &head, vocab as usize, 4.0 * tolerance);
}
