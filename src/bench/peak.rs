//! What the machine can do: the rate of a large matrix product right now, or a device's peak.

use std::hint::black_box;

use crate::backend::cpu::{Bf16Backend, CpuBackend};
use crate::backend::torch::peak::peak_flops;
use crate::error::Result;
use crate::files::now;
use crate::ops::Backend;
use crate::precision::Precision;
use crate::train::ops_engine::op_error;

/// Rows, columns and depth of the product: operands fit the outer caches.
const SIZE: usize = 1024;
/// Products a measurement; the fastest counts.
const REPEATS: usize = 3;
/// Of a product.
const FLOPS: f64 = 2.0 * (SIZE * SIZE * SIZE) as f64;

/// What arithmetic is held against.
pub(super) enum Peak {
    /// Products measured now on the CPU.
    Measured(Box<Products>),
    /// The same in bf16.
    Half(Box<Own<Bf16Backend>>),
    /// The data sheet's rate of an accelerator, FLOP/s; none where it is not known.
    Device(Option<f64>),
}

/// The rate of the cpu backend's large matrix products right now, FLOP/s: a tenth of a second's measurement.
///
/// # Errors
/// Memory or threads that are not to be had.
pub fn products_rate(threads: usize) -> Result<f64> {
    Products::new(threads)?.own.rate()
}

impl Peak {
    pub(super) fn measured(threads: usize, precision: Precision) -> Result<Self> {
        Ok(match precision {
            Precision::F32 => Self::Measured(Box::new(Products::new(threads)?)),
            Precision::Bf16 => Self::Half(Box::new(Own::new(Bf16Backend::new(threads).map_err(op_error)?)?)),
        })
    }

    pub(super) fn of_device(name: &str, precision: Precision) -> Self {
        Self::Device(peak_flops(name, precision))
    }

    /// What it is, as a share is told of.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Measured(_) => "large matrix products",
            Self::Half(_) => "large matrix products in bf16",
            Self::Device(_) => "the device's peak",
        }
    }

    /// FLOP/s now; not a number where it is not known.
    pub(super) fn measure(&mut self) -> Result<f64> {
        match self {
            Self::Measured(products) => products.measure(),
            Self::Half(products) => products.rate(),
            Self::Device(flops) => Ok(flops.unwrap_or(f64::NAN)),
        }
    }
}

/// Measures single-precision products: the backend's own, and those of `matrixmultiply` as a yardstick that nanorun's
/// authors did not make. The better one is the machine's rate.
pub(super) struct Products {
    own: Own<CpuBackend>,
    a: Vec<f32>,
    c: Vec<f32>,
}

/// A backend's own product.
pub(super) struct Own<B: Backend> {
    ops: B,
    x: B::Tensor,
    w: B::Weight,
}

fn values() -> Vec<f32> {
    (0..SIZE * SIZE).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect()
}

impl<B: Backend> Own<B> {
    fn new(ops: B) -> Result<Self> {
        let values = values();
        let x = ops.tensor(SIZE, SIZE, &values).map_err(op_error)?;
        let w = ops.weight(&[SIZE, SIZE], &values).map_err(op_error)?;
        Ok(Self { ops, x, w })
    }

    /// Seconds of one.
    fn seconds(&self) -> Result<f64> {
        let started = now();
        // As the ops of a step are run, which it is held against.
        // SAFETY: tensors and backend are memory that any one thread at a time may use.
        let product = unsafe { self.ops.closely(|| self.ops.linear(&self.x, &self.w)) };
        black_box(product.map_err(op_error)?);
        Ok(started.elapsed().as_secs_f64())
    }

    /// FLOP/s, once warm.
    fn rate(&self) -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..REPEATS {
            best = best.min(self.seconds()?);
        }
        Ok(FLOPS / best)
    }
}

impl Products {
    fn new(threads: usize) -> Result<Self> {
        let own = Own::new(CpuBackend::new(threads).map_err(op_error)?)?;
        Ok(Self { own, a: values(), c: vec![0.0; SIZE * SIZE] })
    }

    fn measure(&mut self) -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..REPEATS {
            best = best.min(self.own.seconds()?);
            let started = now();
            self.yardstick();
            best = best.min(started.elapsed().as_secs_f64());
        }
        Ok(FLOPS / best)
    }

    /// `c = a a`, a share of the rows on each thread.
    fn yardstick(&mut self) {
        let rows = SIZE.div_ceil(self.own.ops.threads());
        let a = &self.a;
        std::thread::scope(|scope| {
            for (task, c) in self.c.chunks_mut(rows * SIZE).enumerate() {
                scope.spawn(move || {
                    let (left, m) = (&a[task * rows * SIZE..], c.len() / SIZE);
                    let stride = SIZE.cast_signed();
                    // SAFETY: `left` has m rows and `a` all SIZE rows of SIZE values; `c` has m rows, nobody else's.
                    unsafe {
                        matrixmultiply::sgemm(
                            m,
                            SIZE,
                            SIZE,
                            1.0,
                            left.as_ptr(),
                            stride,
                            1,
                            a.as_ptr(),
                            stride,
                            1,
                            0.0,
                            c.as_mut_ptr(),
                            stride,
                            1,
                        );
                    }
                });
            }
        });
    }
}
