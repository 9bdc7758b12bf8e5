//! Sums and squared ReLU (arXiv 2109.08668), elementwise.

use super::backend::CpuBackend;
use super::simd::simd_fn;
use super::tensor::{Tensor, check_equal};
use super::workers::{Shared, piece};
use crate::ops::OpResult;

/// Elements in a task.
pub(super) const CHUNK: usize = 16 * 1024;

/// Runs `f` on pieces of `out` and the index each begins at.
pub(super) fn for_chunks(cpu: &CpuBackend, out: &mut [f32], f: impl Fn(usize, &mut [f32]) + Send + Sync) {
    let len = out.len();
    let shared = Shared::new(out);
    cpu.workers.run(len.div_ceil(CHUNK), |task| {
        let range = piece(len, CHUNK, task);
        // SAFETY: every task has its own piece.
        f(range.start, unsafe { shared.slice_mut(range.clone()) });
    });
}

pub(super) fn fill(cpu: &CpuBackend, out: &mut [f32], value: f32) {
    for_chunks(cpu, out, |_, piece| piece.fill(value));
}

pub(super) fn copy(cpu: &CpuBackend, x: &[f32], out: &mut [f32]) {
    for_chunks(cpu, out, |at, piece| piece.copy_from_slice(&x[at..at + piece.len()]));
}

pub(super) fn add(cpu: &CpuBackend, mut x: Tensor, y: &Tensor) -> OpResult<Tensor> {
    check_equal("add", &x, y)?;
    for_chunks(cpu, &mut x.data, |at, x| add_chunk(x, &y.data[at..at + x.len()]));
    Ok(x)
}

simd_fn! {
    /// `x += y`
    pub(super) fn add_chunk(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

pub(super) fn relu_squared(cpu: &CpuBackend, x: &Tensor) -> OpResult<Tensor> {
    let mut y = cpu.tensor_uninit("relu_squared", x.rows, x.cols)?;
    for_chunks(cpu, &mut y.data, |at, y| relu_squared_chunk(y, &x.data[at..at + y.len()]));
    Ok(y)
}

simd_fn! {
    fn relu_squared_chunk(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = relu_squared_of(x);
        }
    }
}

simd_fn! {
    pub(super) fn relu_squared_in_place(x: &mut [f32]) {
        for x in x {
            *x = relu_squared_of(*x);
        }
    }
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    // This way round lets NaN through.
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn relu_squared_of(x: f32) -> f32 {
    relu(x) * relu(x)
}

pub(super) fn relu_squared_backward(cpu: &CpuBackend, x: &Tensor, mut dy: Tensor) -> OpResult<Tensor> {
    check_equal("relu_squared_backward", x, &dy)?;
    for_chunks(cpu, &mut dy.data, |at, dy| relu_squared_backward_chunk(dy, &x.data[at..at + dy.len()]));
    Ok(dy)
}

simd_fn! {
    pub(super) fn relu_squared_backward_chunk(dy: &mut [f32], x: &[f32]) {
        for (dy, &x) in dy.iter_mut().zip(x) {
            *dy *= 2.0 * relu(x);
        }
    }
}
