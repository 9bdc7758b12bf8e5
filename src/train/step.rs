//! One optimizer step.

use crate::control_word;
use crate::error::Result;
use crate::files::{ExactF32, now};

use super::checkpoint::TrainState;
use super::engine::Engine;
use super::observer::{Event, StepDone};
use super::rows::{BatchSource, micro_batch};
use super::session::Session;

impl Session<'_> {
    /// One optimizer step; returns its mean loss, which is not recorded where it is not finite. Where it is asked to
    /// stop, `state` and the weights are those before the step.
    pub(super) fn step(
        &mut self,
        engine: &mut dyn Engine,
        source: &mut dyn BatchSource,
        state: &mut TrainState,
    ) -> Result<f32> {
        control_word::set();
        let started = now();
        let accumulation = self.config.batch.grad_accum_steps;
        let (mut losses, mut cursor, mut tokens) = (Vec::new(), None, 0);
        for _ in 0..accumulation {
            self.asked()?;
            let batch = source.next_batch()?;
            let micro = micro_batch(&batch);
            let valid = micro.valid_targets().max(1);
            let grad_scale = 1.0 / (valid as f32 * accumulation as f32);
            losses.push((engine.accumulate(&micro, grad_scale)?, valid));
            tokens += micro.inputs.len() as u64;
            cursor = Some(batch.cursor_after);
        }
        // The one wait for the device in a step. It stands before the update, not after, for a step whose loss is not
        // finite must leave the weights as they are.
        let mut sum = 0.0_f64;
        for (losses, valid) in losses {
            sum += mean(&losses.read()?, valid);
        }
        let loss = (sum / accumulation as f64) as f32;
        if !loss.is_finite() {
            return Ok(loss);
        }
        let values = self.config.schedule.step_values(state.step);
        let update = now();
        engine.update(&values)?;
        let (update_seconds, seconds) = (update.elapsed().as_secs_f64(), started.elapsed().as_secs_f64());
        let done = StepDone {
            step: state.step,
            loss,
            lr_multiplier: values.lr_multiplier,
            seconds,
            update_seconds,
            tokens,
        };
        state.step += 1;
        state.run_key = self.key(state.step)?;
        state.step_losses.push(ExactF32(loss));
        state.step_seconds.push(seconds);
        *state.counters.entry("tokens".to_owned()).or_default() += tokens;
        state.cursor = cursor;
        self.observer.event(&Event::Step(done));
        Ok(loss)
    }
}

/// Mean over the counted targets, summed in token order in double precision.
fn mean(losses: &[f32], valid: usize) -> f64 {
    losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / valid as f64
}
