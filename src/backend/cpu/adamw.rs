//! AdamW (arXiv 1711.05101), decay first.

use super::backend::CpuBackend;
use super::elementwise::CHUNK;
use super::simd::simd_fn;
use super::tensor::{Param, check};
use super::workers::{Shared, piece};
use crate::ops::{AdamWStep, OpResult};

pub(super) fn update(
    cpu: &CpuBackend,
    weight: &mut Param,
    grad: &Param,
    exp_avg: &mut Param,
    exp_avg_sq: &mut Param,
    step: &AdamWStep,
) -> OpResult<()> {
    let len = weight.data.len();
    check("adamw", [grad.data.len(), exp_avg.data.len(), exp_avg_sq.data.len()] == [len; 3], || {
        format!("weight {:?}, gradient {:?}, moments of other sizes", weight.shape, grad.shape)
    })?;
    let (w, m, v) =
        (Shared::new(&mut weight.data), Shared::new(&mut exp_avg.data), Shared::new(&mut exp_avg_sq.data));
    cpu.workers.run(len.div_ceil(CHUNK), |task| {
        let r = piece(len, CHUNK, task);
        // SAFETY: every task has its own piece.
        let (w, m, v) = unsafe { (w.slice_mut(r.clone()), m.slice_mut(r.clone()), v.slice_mut(r.clone())) };
        update_chunk(w, &grad.data[r], m, v, step);
    });
    Ok(())
}

/// As torch's `lerp`: from whichever end is nearer, with one rounding.
#[inline(always)]
pub(super) fn lerp(start: f32, end: f32, weight: f32) -> f32 {
    let (coefficient, base) = if weight.abs() < 0.5 { (weight, start) } else { (weight - 1.0, end) };
    coefficient.mul_add(end - start, base)
}

simd_fn! {
    pub(super) fn update_chunk(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], step: &AdamWStep) {
        let keep = 1.0 - step.lr * step.weight_decay;
        let step_size = step.lr / step.bias1;
        let (new1, new2) = (1.0 - step.beta1, 1.0 - step.beta2);
        for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
            *m = lerp(*m, *g, new1);
            *v = lerp(*v, g * g, new2);
            let denominator = (*v / step.bias2).sqrt() + step.eps;
            *w = (-step_size).mul_add(*m / denominator, *w * keep);
        }
    }
}
