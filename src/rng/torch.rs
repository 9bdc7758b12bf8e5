//! The generator behind `torch.manual_seed` on the CPU, with `uniform_` and `normal_` for contiguous float32 tensors.

use std::f64::consts::PI;

use rayon::prelude::*;

use super::box_muller::{BLOCK, box_muller};
use super::mt19937::Mt19937;
use crate::control_word;
use crate::simd::simd_fn;

/// Blocks of normals that are made in one task.
const BLOCKS_PER_TASK: usize = 4096;

/// torch's CPU generator. Its state is carried from call to call, as one global generator's is in torch.
#[derive(Debug, Clone, PartialEq)]
pub struct TorchGenerator {
    engine: Mt19937,
    /// Second of a pair of standard normals, kept by [`Self::normal`] on fewer than 16 values for the next such
    /// call. Neither longer fills nor uniform draws look at it or drop it.
    next_normal: Option<f64>,
}

impl TorchGenerator {
    /// The generator after `torch.manual_seed(seed)`.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed), next_normal: None }
    }

    /// 32 random bits.
    #[cfg(test)]
    pub fn next_u32(&mut self) -> u32 {
        self.engine.next_u32()
    }

    /// Uniform in [0, 1) with 24 bits: one engine word.
    #[cfg(test)]
    pub fn unit_f32(&mut self) -> f32 {
        unit(self.engine.next_u32())
    }

    /// Uniform in [0, 1) with 53 bits: two engine words, the high one first.
    pub fn unit_f64(&mut self) -> f64 {
        let high = u64::from(self.engine.next_u32());
        let bits = (high << 32) | u64::from(self.engine.next_u32());
        (bits & ((1 << 53) - 1)) as f64 / 9_007_199_254_740_992.0
    }

    /// `tensor.uniform_(low, high)` on a contiguous float32 tensor.
    pub fn uniform(&mut self, values: &mut [f32], low: f64, high: f64) {
        let (low, high) = (low as f32, high as f32);
        self.engine.fill(values, unit);
        values.par_chunks_mut(BLOCKS_PER_TASK * BLOCK).for_each(|values| {
            control_word::set();
            scale(values, high - low, low);
        });
    }

    /// `tensor.normal_(0, std)` on a contiguous float32 tensor: in blocks of 16, or one by one if there are fewer
    /// values.
    pub fn normal(&mut self, values: &mut [f32], std: f64) {
        if values.len() < BLOCK {
            for value in values {
                *value = (self.standard_normal() * std) as f32;
            }
            return;
        }
        let std = std as f32;
        self.engine.fill(values, unit);
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        // Uniforms come in one order; what is made of them does not depend on who makes it.
        blocks.par_chunks_mut(BLOCKS_PER_TASK).for_each(|blocks| {
            control_word::set();
            box_muller(blocks, std);
        });
        // The last 16 values, some of them done already, are drawn anew.
        if !rest.is_empty()
            && let Some(last) = values.last_chunk_mut::<BLOCK>()
        {
            self.engine.fill(last, unit);
            box_muller(std::slice::from_mut(last), std);
        }
    }

    /// A standard normal by the scalar path, which makes them in pairs.
    fn standard_normal(&mut self) -> f64 {
        if let Some(normal) = self.next_normal.take() {
            return normal;
        }
        let (u1, u2) = (self.unit_f64(), self.unit_f64());
        let radius = (-2.0 * libm::log1p(-u2)).sqrt();
        let theta = 2.0 * PI * u1;
        self.next_normal = Some(radius * libm::sin(theta));
        radius * libm::cos(theta)
    }
}

/// Uniform in [0, 1) from the low 24 bits.
#[inline(always)]
fn unit(bits: u32) -> f32 {
    (bits & 0x00ff_ffff) as f32 / 16_777_216.0
}

simd_fn! {
    /// Uniforms in [0, 1) become uniforms in [low, low + width).
    fn scale(values: &mut [f32], width: f32, low: f32) {
        for value in values {
            *value = value.mul_add(width, low);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
