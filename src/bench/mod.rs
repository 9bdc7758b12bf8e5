//! Measures training: steps, operations, arithmetic against the machine's own peak, memory, threads.

mod data;
mod flops;
mod machine;
mod peak;
mod profile;
mod report;
mod timed;

pub use data::measure_data;
pub use flops::step_work;
pub use peak::products_rate;
pub use report::{Bench, Scaling};

use std::sync::Arc;

use crate::backend::cpu::{Bf16Backend, CpuBackend};
use crate::error::{Error, Result};
use crate::files::now;
use crate::host::{peak_rss_bytes, process_age_seconds};
use crate::ops::SequenceShape;
use crate::plan::run_config::{BackendKind, RunConfig};
use crate::precision::Precision;
use crate::run::engine::{engine, engine_on};
use crate::train::engine::{Engine, MicroBatch};
use crate::train::ops_engine::op_error;
use crate::train::rows::{BatchSource, Rows};

use machine::Machine;
use peak::Peak;
use profile::Profile;
use timed::Timed;

/// Steps before those that are measured.
const WARM_UP: u64 = 2;
/// Steps in which the ops of a device are timed.
const PROFILED_STEPS: u64 = 3;
/// Steps measured for each further number of threads, after one that is not.
const SCALING_STEPS: u64 = 2;
/// Seconds after which a step needs no other before or beside it: what warms up takes milliseconds.
const LONG_STEP: f64 = 10.0;

/// Measures `steps` steps of a run, then a few on one thread.
///
/// # Errors
/// Data, memory or backend failures; class as in a run.
pub fn bench(config: &RunConfig, rows: &dyn Rows, threads: usize, steps: u64) -> Result<Bench> {
    let profile = Arc::new(Profile::default());
    // On a device, waiting for every op would slow the steps: they are measured first, the ops on an engine of their
    // own.
    let apart = config.backend.kind == BackendKind::Tch;
    let mut engine = if apart { engine(config, threads)? } else { profiled(config, threads, &profile)? };
    let mut source = rows.train(None)?;
    let first_step_at = process_age_seconds();
    let first = step(engine.as_mut(), source.as_mut(), config, 0)?;
    let allocations = engine.allocations();
    let mut begun = 1;
    while begun < WARM_UP && first.total() < LONG_STEP {
        step(engine.as_mut(), source.as_mut(), config, begun)?;
        begun += 1;
    }
    profile.clear();
    let hardware = engine.hardware();
    let mut peak = match hardware.accelerator.as_deref() {
        None => Peak::measured(threads, config.backend.precision)?,
        Some(name) => Peak::of_device(name, config.backend.precision),
    };
    let mut measured = Vec::new();
    for index in 0..steps.max(1) {
        let before = peak.measure()?;
        let times = step(engine.as_mut(), source.as_mut(), config, begun + index)?;
        // The machine's speed drifts: a step is held against the products right before and after it.
        measured.push((times, f64::midpoint(before, peak.measure()?)));
    }
    let new_allocations = engine.allocations().zip(allocations).map(|(now, then)| now - then);
    let peak_memory_bytes =
        if hardware.accelerator.is_some() { engine.peak_bytes() } else { peak_rss_bytes() };
    drop(engine);
    let ops = if apart {
        let steps = steps.clamp(1, PROFILED_STEPS);
        let mut engine = profiled(config, threads, &profile)?;
        step(engine.as_mut(), source.as_mut(), config, 0)?;
        profile.clear();
        for index in 1..=steps {
            step(engine.as_mut(), source.as_mut(), config, index)?;
        }
        profile.take(steps as f64)
    } else {
        profile.take(measured.len() as f64)
    };
    let mut bench = Bench {
        threads,
        tokens_per_step: (config.batch.device_batch_size * config.model.sequence_len()) as u64
            * config.batch.grad_accum_steps as u64,
        first_step_at,
        first_step_seconds: first.total(),
        allocations_after_first_step: new_allocations,
        peak_memory_bytes,
        precision: config.backend.precision,
        work: step_work(config),
        yardstick: peak.name(),
        machine: hardware.accelerator.is_none().then(|| Machine::measured(threads)),
        steps: measured,
        ops,
        scaling: Vec::new(),
        data: None,
    };
    bench.scaling.push(Scaling { threads, tokens_per_second: bench.tokens_per_second() });
    if config.backend.kind == BackendKind::Cpu && threads > 1 {
        let tokens_per_second = bench.tokens_per_step as f64 / quick(config, rows, 1)?;
        bench.scaling.insert(0, Scaling { threads: 1, tokens_per_second });
    }
    Ok(bench)
}

/// Seconds of the fastest of a few steps on that many threads.
fn quick(config: &RunConfig, rows: &dyn Rows, threads: usize) -> Result<f64> {
    let mut engine = engine(config, threads)?;
    let mut source = rows.train(None)?;
    let first = step(engine.as_mut(), source.as_mut(), config, 0)?.total();
    if first >= LONG_STEP {
        return Ok(first);
    }
    let mut best = f64::INFINITY;
    for index in 1..=SCALING_STEPS {
        best = best.min(step(engine.as_mut(), source.as_mut(), config, index)?.total());
    }
    Ok(best)
}

/// The run's engine with every op timed; on the scalar backend none is.
fn profiled(config: &RunConfig, threads: usize, profile: &Arc<Profile>) -> Result<Box<dyn Engine>> {
    match config.backend.kind {
        BackendKind::Cpu => match config.backend.precision {
            Precision::F32 => {
                let ops = CpuBackend::new(threads).map_err(op_error)?;
                engine_on(config, Timed::new(ops, Arc::clone(profile)))
            }
            Precision::Bf16 => {
                let ops = Bf16Backend::new(threads).map_err(op_error)?;
                engine_on(config, Timed::new(ops, Arc::clone(profile)))
            }
        },
        #[cfg(feature = "tch")]
        BackendKind::Tch => {
            let ops = crate::run::engine::torch(&config.backend, threads)?;
            engine_on(config, Timed::new(ops, Arc::clone(profile)))
        }
        _ => engine(config, threads),
    }
}

/// Where the time of a step went, seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepTimes {
    /// Waiting for rows.
    pub data: f64,
    /// Forward and backward.
    pub gradients: f64,
    /// The optimizer.
    pub update: f64,
}

impl StepTimes {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.data + self.gradients + self.update
    }
}

/// One training step, as a run does it.
fn step(
    engine: &mut dyn Engine,
    source: &mut dyn BatchSource,
    config: &RunConfig,
    index: u64,
) -> Result<StepTimes> {
    let mut times = StepTimes::default();
    let accumulation = config.batch.grad_accum_steps;
    let mut losses = Vec::new();
    for _ in 0..accumulation {
        let started = now();
        let batch = source.next_batch()?;
        times.data += started.elapsed().as_secs_f64();
        let started = now();
        let sequence = SequenceShape { batch: batch.rows, len: batch.len };
        let micro = MicroBatch { inputs: &batch.inputs, targets: &batch.targets, sequence };
        let scale = 1.0 / (micro.valid_targets().max(1) as f32 * accumulation as f32);
        losses.push(engine.accumulate(&micro, scale)?);
        times.gradients += started.elapsed().as_secs_f64();
    }
    let started = now();
    for losses in losses {
        if losses.read()?.iter().any(|loss| !loss.is_finite()) {
            return Err(Error::run(format!("the loss of step {index} is not finite"))
                .help("measure a configuration that trains"));
        }
    }
    times.gradients += started.elapsed().as_secs_f64();
    let started = now();
    engine.update(&config.schedule.step_values(index))?;
    // A device would do the update's work in the time of the next step's gradients.
    engine.synchronize();
    times.update = started.elapsed().as_secs_f64();
    Ok(times)
}
