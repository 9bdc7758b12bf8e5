//! AdamW and SGD against their definitions in f64.

use super::super::CpuBackend;
use super::super::testing::values;
use crate::ops::{AdamWStep, ForwardOps, SgdStep, TrainOps};

#[test]
fn adamw() {
    let cpu = CpuBackend::new(2).unwrap();
    let len = 20_000;
    let (w, g, m) = (values(1, len), values(2, len), values(3, len));
    let v: Vec<f32> = values(4, len).iter().map(|v| v.abs()).collect();
    let step = AdamWStep {
        lr: 0.1,
        beta1: 0.8,
        beta2: 0.95,
        bias1: 0.36,
        bias2: 0.1,
        eps: 1e-10,
        weight_decay: 0.3,
    };
    let mut weight = cpu.weight(&[len], &w).unwrap();
    let (mut avg, mut sq) = (cpu.state(&[len], &m).unwrap(), cpu.state(&[len], &v).unwrap());
    let mut grad = cpu.grad(&[len]).unwrap();
    grad.data.copy_from_slice(&g);
    cpu.adamw(&mut weight, &grad, &mut avg, &mut sq, &step).unwrap();
    for i in 0..len {
        let [w, g, m, v] = [w[i], g[i], m[i], v[i]].map(f64::from);
        let m = 0.8 * m + 0.2 * g;
        let v = 0.95 * v + 0.05 * g * g;
        let exact = w * (1.0 - 0.1 * 0.3) - 0.1 / 0.36 * m / ((v / 0.1).sqrt() + 1e-10);
        assert!((f64::from(weight.values()[i]) - exact).abs() < 2e-6 * exact.abs().max(1.0));
        assert!((f64::from(avg.values()[i]) - m).abs() < 1e-6);
        assert!((f64::from(sq.values()[i]) - v).abs() < 1e-6);
    }
}

#[test]
fn sgd() {
    let cpu = CpuBackend::new(2).unwrap();
    let len = 20_000;
    let (w, g, m) = (values(1, len), values(2, len), values(3, len));
    for momentum in [0.0, 0.9] {
        let step = SgdStep { lr: 0.1, momentum, weight_decay: 0.3 };
        let mut weight = cpu.weight(&[len], &w).unwrap();
        let mut state = cpu.state(&[len], &m).unwrap();
        let mut grad = cpu.grad(&[len]).unwrap();
        grad.data.copy_from_slice(&g);
        cpu.sgd(&mut weight, &grad, &mut state, &step).unwrap();
        for i in 0..len {
            let [w, g, m] = [w[i], g[i], m[i]].map(f64::from);
            let direction = f64::from(momentum) * m + g;
            let exact = w * (1.0 - 0.1 * 0.3) - 0.1 * direction;
            assert!((f64::from(weight.values()[i]) - exact).abs() < 1e-6);
            let kept = if momentum == 0.0 { m } else { direction };
            assert!((f64::from(state.values()[i]) - kept).abs() < 1e-6);
        }
    }
}
