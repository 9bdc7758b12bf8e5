//! How fast a backend usually trains, for an estimate before anything was measured here.

use super::render::Speed;
use super::run_config::{BackendKind, RunConfig};
use crate::precision::Precision;

/// FLOP/s of training by upstream's formula: orders of magnitude from our benchmarks, not a measurement.
///
/// A core of a present x86-64 server sustains about 25 GFLOP/s over a whole training step on the cpu backend and
/// somewhat more under libtorch; a datacentre GPU reaches a third of its peak; the scalar tape makes some millions.
pub fn usual_speed(config: &RunConfig, threads: usize) -> Speed {
    let cores = threads.max(1) as f64;
    let (flops_per_second, what) = match (config.backend.kind, config.backend.device.as_str()) {
        (BackendKind::Cpu, _) => (25e9 * cores, format!("25 GFLOP/s on each of {threads} threads")),
        (BackendKind::Tch, "cpu") => (30e9 * cores, format!("30 GFLOP/s on each of {threads} threads")),
        (BackendKind::Tch, _) => match config.backend.precision {
            Precision::Bf16 => (300e12, "300 TFLOP/s on a datacentre GPU in bf16".to_owned()),
            Precision::F32 => (30e12, "30 TFLOP/s on a datacentre GPU in f32".to_owned()),
        },
        (BackendKind::Scalar, _) => (20e6, "20 MFLOP/s on one thread".to_owned()),
    };
    Speed { flops_per_second, source: format!("assumed: {what}; nothing has finished here yet") }
}
