//! RMS norm without a gain (arXiv 1910.07467).

use super::backend::{CpuBackend, ROW_CHUNK};
use super::pool::Buffer;
use super::simd::{dot, simd_fn};
use super::tensor::{Tensor, check_equal};
use super::workers::{Shared, piece};
use crate::ops::OpResult;

/// `1 / sqrt(mean(x^2) + eps)` of each row.
#[derive(Debug)]
pub struct NormSaved(pub(super) Buffer);

pub(super) fn forward(cpu: &CpuBackend, x: &Tensor, eps: f32) -> OpResult<(Tensor, NormSaved)> {
    let (rows, cols) = x.shape();
    let mut y = cpu.tensor_uninit("rms_norm", rows, cols)?;
    let mut scales = cpu.pool.take("rms_norm", rows)?;
    let (out, saved) = (Shared::new(&mut y.data), Shared::new(&mut scales));
    cpu.for_row_chunks(rows, |r| {
        // SAFETY: every task has its own rows.
        let (y, s) = unsafe { (out.slice_mut(r.start * cols..r.end * cols), saved.slice_mut(r.clone())) };
        forward_rows(&x.data[r.start * cols..r.end * cols], y, s, cols, eps);
    });
    Ok((y, NormSaved(scales)))
}

simd_fn! {
    pub(super) fn forward_rows(x: &[f32], y: &mut [f32], scales: &mut [f32], cols: usize, eps: f32) {
        for (i, scale) in scales.iter_mut().enumerate() {
            let x = &x[i * cols..(i + 1) * cols];
            let y = &mut y[i * cols..(i + 1) * cols];
            *scale = inverse_rms(x, eps);
            for (y, x) in y.iter_mut().zip(x) {
                *y = x * *scale;
            }
        }
    }
}

/// `1 / sqrt(mean(x^2) + eps)`
#[inline(always)]
pub(super) fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

pub(super) fn backward(
    cpu: &CpuBackend,
    y: &Tensor,
    saved: &NormSaved,
    dy: &Tensor,
    dresidual: Option<Tensor>,
) -> OpResult<Tensor> {
    check_equal("rms_norm_backward", y, dy)?;
    let (rows, cols) = y.shape();
    let add = dresidual.is_some();
    let mut dx = match dresidual {
        Some(dresidual) => {
            check_equal("rms_norm_backward", y, &dresidual)?;
            dresidual
        }
        None => cpu.tensor_uninit("rms_norm_backward", rows, cols)?,
    };
    let out = Shared::new(&mut dx.data);
    cpu.workers.run(rows.div_ceil(ROW_CHUNK), |task| {
        let r = piece(rows, ROW_CHUNK, task);
        let range = r.start * cols..r.end * cols;
        // SAFETY: every task has its own rows.
        let dx = unsafe { out.slice_mut(range.clone()) };
        backward_rows(&y.data[range.clone()], &saved.0[r], &dy.data[range], dx, cols, add);
    });
    Ok(dx)
}

simd_fn! {
    pub(super) fn backward_rows(y: &[f32], scales: &[f32], dy: &[f32], dx: &mut [f32], cols: usize, add: bool) {
        for (i, scale) in scales.iter().enumerate() {
            let range = i * cols..(i + 1) * cols;
            let (y, dy, dx) = (&y[range.clone()], &dy[range.clone()], &mut dx[range]);
            let mean = dot(y, dy) / cols as f32;
            for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
                let value = (dy - y * mean) * scale;
                *dx = if add { *dx + value } else { value };
            }
        }
    }
}
