//! SGD with momentum and decoupled decay.

use super::backend::CpuBackend;
use super::elementwise::CHUNK;
use super::simd::simd_fn;
use super::tensor::{Param, check};
use super::workers::{Shared, piece};
use crate::ops::{OpResult, SgdStep};

pub(super) fn update(
    cpu: &CpuBackend,
    weight: &mut Param,
    grad: &Param,
    momentum: &mut Param,
    step: &SgdStep,
) -> OpResult<()> {
    let len = weight.data.len();
    let plain = step.momentum == 0.0;
    check("sgd", grad.data.len() == len && (plain || momentum.data.len() == len), || {
        format!("weight {:?}, gradient {:?}, momentum {:?}", weight.shape, grad.shape, momentum.shape)
    })?;
    let (w, m) = (Shared::new(&mut weight.data), Shared::new(&mut momentum.data));
    cpu.workers.run(len.div_ceil(CHUNK), |task| {
        let r = piece(len, CHUNK, task);
        // SAFETY: every task has its own piece.
        let (w, m) =
            unsafe { (w.slice_mut(r.clone()), if plain { &mut [][..] } else { m.slice_mut(r.clone()) }) };
        update_chunk(w, &grad.data[r], m, step);
    });
    Ok(())
}

simd_fn! {
    pub(super) fn update_chunk(w: &mut [f32], g: &[f32], m: &mut [f32], step: &SgdStep) {
        let keep = 1.0 - step.lr * step.weight_decay;
        if m.is_empty() {
            for (w, g) in w.iter_mut().zip(g) {
                *w = *w * keep - step.lr * g;
            }
        } else {
            for ((w, g), m) in w.iter_mut().zip(g).zip(m) {
                *m = step.momentum * *m + g;
                *w = *w * keep - step.lr * *m;
            }
        }
    }
}
