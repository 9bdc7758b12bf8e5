//! Rotary position embedding (RoFormer, arXiv 2104.09864) fused with the RMS norm of queries and keys.

use super::backend::CpuBackend;
use super::norm::inverse_rms;
use super::pool::Buffer;
use super::simd::{dot, simd_fn};
use super::tensor::{Tensor, check, check_shape};
use super::workers::Shared;
use crate::math::{cos, pow, round_bf16, sin};
use crate::ops::{OpResult, SequenceShape};
use crate::precision::Precision;

/// Cosines and sines, each (positions, D/2).
#[derive(Debug)]
pub struct Rotary {
    pub(super) half: usize,
    pub(super) len: usize,
    pub(super) cos: Buffer,
    pub(super) sin: Buffer,
}

/// `1 / sqrt(mean(x^2) + eps)` of every row and head.
#[derive(Debug)]
pub struct RotarySaved(pub(super) Buffer);

/// torch computes frequencies and angles in float32; their cosine is then taken exactly and rounded once.
pub(super) fn table(
    cpu: &CpuBackend,
    len: usize,
    head_dim: usize,
    base: f64,
    precision: Precision,
) -> OpResult<Rotary> {
    check("rotary", head_dim > 0 && head_dim.is_multiple_of(2), || {
        format!("head_dim {head_dim} is not even")
    })?;
    let half = head_dim / 2;
    let mut rotary = Rotary {
        half,
        len,
        cos: cpu.pool.take("rotary", len * half)?,
        sin: cpu.pool.take("rotary", len * half)?,
    };
    let mut inv_freq = cpu.pool.take("rotary", half)?;
    for (j, f) in inv_freq.iter_mut().enumerate() {
        *f = 1.0 / pow(base as f32, (2 * j) as f32 / head_dim as f32);
    }
    let (c, s) = (Shared::new(&mut rotary.cos), Shared::new(&mut rotary.sin));
    cpu.for_row_chunks(len, |r| {
        for t in r {
            // SAFETY: every task has its own rows.
            let (c, s) =
                unsafe { (c.slice_mut(t * half..(t + 1) * half), s.slice_mut(t * half..(t + 1) * half)) };
            for ((c, s), f) in c.iter_mut().zip(s).zip(&*inv_freq) {
                let angle = t as f32 * f;
                (*c, *s) = (cos(angle), sin(angle));
                if precision == Precision::Bf16 {
                    (*c, *s) = (round_bf16(*c), round_bf16(*s));
                }
            }
        }
    });
    Ok(rotary)
}

fn check_rotary(
    op: &'static str,
    x: &Tensor,
    rotary: &Rotary,
    end: usize,
    sequence: SequenceShape,
    head_dim: usize,
) -> OpResult<usize> {
    check_shape(op, "x", x, sequence.rows(), x.cols)?;
    check(op, head_dim == 2 * rotary.half && x.cols.is_multiple_of(head_dim), || {
        format!("heads of {head_dim} in {} columns, tables for heads of {}", x.cols, 2 * rotary.half)
    })?;
    check(op, end <= rotary.len, || format!("positions up to {end}, tables for {}", rotary.len))?;
    Ok(x.cols / head_dim)
}

pub(super) fn forward(
    cpu: &CpuBackend,
    mut x: Tensor,
    rotary: &Rotary,
    start: usize,
    sequence: SequenceShape,
    head_dim: usize,
    scale: f32,
    eps: f32,
) -> OpResult<(Tensor, RotarySaved)> {
    let heads = check_rotary("rotary_norm", &x, rotary, start + sequence.len, sequence, head_dim)?;
    let (rows, cols) = x.shape();
    let mut scales = cpu.pool.take("rotary_norm", rows * heads)?;
    let (out, saved) = (Shared::new(&mut x.data), Shared::new(&mut scales));
    cpu.for_row_chunks(rows, |r| {
        for n in r {
            let at = (start + n % sequence.len) * rotary.half;
            let (c, s) = (&rotary.cos[at..at + rotary.half], &rotary.sin[at..at + rotary.half]);
            // SAFETY: every task has its own rows.
            let (x, r) = unsafe {
                (out.slice_mut(n * cols..(n + 1) * cols), saved.slice_mut(n * heads..(n + 1) * heads))
            };
            forward_row(x, c, s, r, scale, eps);
        }
    });
    Ok((x, RotarySaved(scales)))
}

simd_fn! {
    pub(super) fn forward_row(x: &mut [f32], cos: &[f32], sin: &[f32], scales: &mut [f32], scale: f32, eps: f32) {
        // The usual sizes as constants: short loops of known length become straight code.
        match cos.len() {
            32 => forward_heads(x, cos, sin, scales, scale, eps, 32),
            64 => forward_heads(x, cos, sin, scales, scale, eps, 64),
            half => forward_heads(x, cos, sin, scales, scale, eps, half),
        }
    }
}

#[inline(always)]
fn forward_heads(
    x: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    scales: &mut [f32],
    scale: f32,
    eps: f32,
    half: usize,
) {
    let (cos, sin) = (&cos[..half], &sin[..half]);
    for (x, r) in x.chunks_exact_mut(2 * half).zip(scales) {
        let (x1, x2) = x.split_at_mut(half);
        for i in 0..half {
            let (a, b) = (x1[i], x2[i]);
            x1[i] = a * cos[i] + b * sin[i];
            x2[i] = b * cos[i] - a * sin[i];
        }
        let inverse = inverse_rms(x, eps);
        *r = inverse;
        for x in x.iter_mut() {
            *x = *x * inverse * scale;
        }
    }
}

pub(super) fn backward(
    cpu: &CpuBackend,
    y: &Tensor,
    rotary: &Rotary,
    sequence: SequenceShape,
    head_dim: usize,
    scale: f32,
    saved: &RotarySaved,
    mut dy: Tensor,
) -> OpResult<Tensor> {
    let op = "rotary_norm_backward";
    let heads = check_rotary(op, y, rotary, sequence.len, sequence, head_dim)?;
    check_shape(op, "dy", &dy, y.rows, y.cols)?;
    let (rows, cols) = y.shape();
    let out = Shared::new(&mut dy.data);
    cpu.for_row_chunks(rows, |r| {
        for n in r {
            let at = (n % sequence.len) * rotary.half;
            let (c, s) = (&rotary.cos[at..at + rotary.half], &rotary.sin[at..at + rotary.half]);
            // SAFETY: every task has its own rows.
            let dy = unsafe { out.slice_mut(n * cols..(n + 1) * cols) };
            backward_row(y.row(n), dy, c, s, &saved.0[n * heads..(n + 1) * heads], scale);
        }
    });
    Ok(dy)
}

simd_fn! {
    pub(super) fn backward_row(y: &[f32], dy: &mut [f32], cos: &[f32], sin: &[f32], scales: &[f32], scale: f32) {
        match cos.len() {
            32 => backward_heads(y, dy, cos, sin, scales, scale, 32),
            64 => backward_heads(y, dy, cos, sin, scales, scale, 64),
            half => backward_heads(y, dy, cos, sin, scales, scale, half),
        }
    }
}

#[inline(always)]
fn backward_heads(
    y: &[f32],
    dy: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    scales: &[f32],
    scale: f32,
    half: usize,
) {
    let (cos, sin) = (&cos[..half], &sin[..half]);
    let heads = y.chunks_exact(2 * half).zip(dy.chunks_exact_mut(2 * half));
    for ((y, dy), &r) in heads.zip(scales) {
        // y = scale * yhat, so mean(scale dy yhat) yhat = mean(dy y) y / scale.
        let mean = dot(y, dy) / (2 * half) as f32 / scale;
        let ((y1, y2), (d1, d2)) = (y.split_at(half), dy.split_at_mut(half));
        for i in 0..half {
            let a = (scale * d1[i] - y1[i] * mean) * r;
            let b = (scale * d2[i] - y2[i] * mean) * r;
            d1[i] = a * cos[i] - b * sin[i];
            d2[i] = b * cos[i] + a * sin[i];
        }
    }
}
