//! AdamW and SGD where a table is among what they work on: read, computed in f32 as elsewhere, and rounded once.

use std::ops::Range;

use super::super::backend::CpuBackend;
use super::super::tensor::check;
use super::super::workers::Shared;
use super::super::{adamw, sgd};
use super::convert::{narrow, widen};
use super::rows::for_pieces;
use super::storage::Stored;
use crate::ops::{AdamWStep, OpResult, SgdStep};

/// Memory whose pieces several tasks read and write.
#[derive(Clone, Copy)]
enum Values {
    Single(Shared<f32>),
    Table(Shared<u16>),
}

impl Values {
    fn new(stored: &mut Stored) -> Self {
        match stored {
            Stored::Single(param) => Self::Single(Shared::new(&mut param.data)),
            Stored::Table(table) => Self::Table(Shared::new(&mut table.data)),
        }
    }

    /// # Safety
    /// The piece is this task's.
    unsafe fn read(self, range: Range<usize>, to: &mut [f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Single(values) => to.copy_from_slice(values.slice_mut(range)),
                Self::Table(values) => widen(values.slice_mut(range), to),
            }
        }
    }

    /// # Safety
    /// The piece is this task's.
    unsafe fn write(self, range: Range<usize>, from: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Single(values) => values.slice_mut(range).copy_from_slice(from),
                Self::Table(values) => narrow(from, values.slice_mut(range)),
            }
        }
    }
}

fn gradient(grad: &Stored, range: Range<usize>, to: &mut [f32]) {
    match grad {
        Stored::Single(param) => to.copy_from_slice(&param.data[range]),
        Stored::Table(table) => widen(&table.data[range], to),
    }
}

pub(super) fn adamw(
    cpu: &CpuBackend,
    weight: &mut Stored,
    grad: &Stored,
    exp_avg: &mut Stored,
    exp_avg_sq: &mut Stored,
    step: &AdamWStep,
) -> OpResult<()> {
    if let (Stored::Single(w), Stored::Single(g), Stored::Single(m), Stored::Single(v)) =
        (&mut *weight, grad, &mut *exp_avg, &mut *exp_avg_sq)
    {
        return adamw::update(cpu, w, g, m, v, step);
    }
    let len = weight.len();
    check("adamw", [grad.len(), exp_avg.len(), exp_avg_sq.len()] == [len; 3], || {
        format!("weight {:?}, gradient {:?}, moments of other sizes", weight.shape(), grad.shape())
    })?;
    let all = [Values::new(weight), Values::new(exp_avg), Values::new(exp_avg_sq)];
    for_pieces(cpu, len, |range, scratch| {
        let (w, rest) = scratch.split_at_mut(range.len());
        let (m, rest) = rest.split_at_mut(range.len());
        let (v, rest) = rest.split_at_mut(range.len());
        let g = &mut rest[..range.len()];
        gradient(grad, range.clone(), g);
        // SAFETY: every piece is one task's.
        unsafe {
            for (values, to) in all.iter().zip([&mut *w, &mut *m, &mut *v]) {
                values.read(range.clone(), to);
            }
            adamw::update_chunk(w, g, m, v, step);
            for (values, from) in all.iter().zip([&*w, m, v]) {
                values.write(range.clone(), from);
            }
        }
    });
    Ok(())
}

pub(super) fn sgd(
    cpu: &CpuBackend,
    weight: &mut Stored,
    grad: &Stored,
    momentum: &mut Stored,
    step: &SgdStep,
) -> OpResult<()> {
    if let (Stored::Single(w), Stored::Single(g), Stored::Single(m)) = (&mut *weight, grad, &mut *momentum) {
        return sgd::update(cpu, w, g, m, step);
    }
    let len = weight.len();
    let plain = step.momentum == 0.0;
    check("sgd", grad.len() == len && (plain || momentum.len() == len), || {
        format!("weight {:?}, gradient {:?}, momentum {:?}", weight.shape(), grad.shape(), momentum.shape())
    })?;
    let (weights, moments) = (Values::new(weight), Values::new(momentum));
    for_pieces(cpu, len, |range, scratch| {
        let (w, rest) = scratch.split_at_mut(range.len());
        let (g, rest) = rest.split_at_mut(range.len());
        let m = if plain { &mut [][..] } else { &mut rest[..range.len()] };
        gradient(grad, range.clone(), g);
        // SAFETY: every piece is one task's.
        unsafe {
            weights.read(range.clone(), w);
            if !plain {
                moments.read(range.clone(), m);
            }
            sgd::update_chunk(w, g, m, step);
            weights.write(range.clone(), w);
            if !plain {
                moments.write(range, m);
            }
        }
    });
    Ok(())
}
