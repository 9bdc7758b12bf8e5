//! What a step consumes: learning-rate multiplier, Muon's momentum and Muon's weight decay, in upstream's order of
//! operations over portable maths. Values are functions of the step alone.

use std::f64::consts::PI;

use super::config::{MomentumSchedule, ScheduleConfig, StepValues, Warmdown, WeightDecayShape};

impl ScheduleConfig {
    /// What step `step` (from 0, below `num_iterations`) consumes.
    pub fn step_values(&self, step: u64) -> StepValues {
        let step = step.saturating_add(self.steps_before);
        StepValues {
            lr_multiplier: self.lr_multiplier(step),
            muon_momentum: self.muon_momentum(step),
            muon_weight_decay: self.muon_weight_decay(step),
        }
    }

    /// The step after which the warm-down begins, N - W.
    fn warmdown_start(&self) -> u64 {
        self.horizon().saturating_sub(self.warmdown_steps)
    }

    /// Linear up over the warm-up, 1, then the warm-down's shape. Warm-up comes first where they overlap; the last
    /// step runs one short of the final fraction, as upstream's does.
    fn lr_multiplier(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        if step <= self.warmdown_start() {
            return 1.0;
        }
        let remaining = self.horizon().saturating_sub(step) as f64 / self.warmdown_steps as f64;
        let done = 1.0 - remaining;
        let last = self.final_lr_frac;
        match self.warmdown {
            Warmdown::Linear => remaining + (1.0 - remaining) * last,
            Warmdown::Sqrt => last + (1.0 - last) * (1.0 - done.sqrt()),
            Warmdown::Cosine => last + (1.0 - last) * (0.5 * (1.0 + libm::cos(PI * done))),
            Warmdown::Constant => 1.0,
        }
    }

    /// Warm-up first: a run shorter than it never warms momentum down.
    fn muon_momentum(&self, step: u64) -> f64 {
        let MomentumSchedule { start, peak, warmup_steps, warmdown_to } = self.momentum;
        if step < warmup_steps {
            let fraction = step as f64 / warmup_steps as f64;
            return (1.0 - fraction) * start + fraction * peak;
        }
        match warmdown_to {
            Some(end) if self.warmdown_steps > 0 && step >= self.warmdown_start() => {
                let progress = (step - self.warmdown_start()) as f64 / self.warmdown_steps as f64;
                peak * (1.0 - progress) + end * progress
            }
            _ => peak,
        }
    }

    fn muon_weight_decay(&self, step: u64) -> f64 {
        let (step, steps) = (step as f64, self.horizon().max(1) as f64);
        match self.weight_decay_shape {
            WeightDecayShape::Linear => self.weight_decay * (1.0 - step / steps),
            WeightDecayShape::Cosine => self.weight_decay * 0.5 * (1.0 + libm::cos(PI * step / steps)),
            WeightDecayShape::Constant => self.weight_decay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream;

    fn schedule(warmdown: Warmdown) -> ScheduleConfig {
        ScheduleConfig {
            num_iterations: 100,
            steps_before: 0,
            warmup_steps: 10,
            warmdown_steps: 50,
            warmdown,
            final_lr_frac: 0.1,
            momentum: MomentumSchedule { start: 0.85, peak: 0.97, warmup_steps: 20, warmdown_to: Some(0.9) },
            weight_decay: 0.28,
            weight_decay_shape: WeightDecayShape::Constant,
        }
    }

    #[test]
    fn upstreams_own_values() {
        for case in include_str!("../../tests/fixtures/upstream/schedules.jsonl").lines() {
            let case: serde_json::Value = serde_json::from_str(case).unwrap();
            let recipe = upstream::find(case["commit"].as_str().unwrap()).unwrap();
            let n = case["num_iterations"].as_u64().unwrap();
            let number = |value: &serde_json::Value| value.as_f64().unwrap();
            let momentum = recipe.optimizer.muon.momentum;
            let config = ScheduleConfig {
                num_iterations: n,
                steps_before: 0,
                warmup_steps: case["warmup_steps"].as_u64().unwrap(),
                warmdown_steps: upstream::round_half_even(number(&case["warmdown_ratio"]) * n as f64),
                warmdown: Warmdown::Linear,
                final_lr_frac: number(&case["final_lr_frac"]),
                momentum: MomentumSchedule {
                    start: momentum.start,
                    peak: momentum.peak,
                    warmup_steps: momentum.warmup_steps,
                    warmdown_to: momentum.warmdown_to,
                },
                weight_decay: number(&case["optimizer"]["weight_decay"]),
                weight_decay_shape: recipe.schedule.weight_decay_shape,
            };
            let steps = case["steps"].as_array().unwrap();
            assert_eq!(steps.len() as u64, n);
            for (t, expected) in steps.iter().enumerate() {
                let values = config.step_values(t as u64);
                assert_eq!(values.lr_multiplier, number(&expected[0]), "{} step {t}", recipe.short());
                assert_eq!(values.muon_momentum, number(&expected[1]), "{} step {t}", recipe.short());
                // The cosine is another library's: one unit in the last place.
                let decay = number(&expected[2]);
                assert!((values.muon_weight_decay - decay).abs() <= 1e-16, "{} step {t}", recipe.short());
            }
        }
    }

    #[test]
    fn shapes_of_the_warmdown() {
        let at = |shape, step| schedule(shape).step_values(step).lr_multiplier;
        for shape in [Warmdown::Linear, Warmdown::Sqrt, Warmdown::Cosine, Warmdown::Constant] {
            assert_eq!(at(shape, 0), 0.1);
            assert_eq!(at(shape, 9), 1.0);
            assert_eq!(at(shape, 50), 1.0);
        }
        // Halfway: p = 1/2.
        assert!((at(Warmdown::Linear, 75) - 0.55).abs() < 1e-12);
        assert!((at(Warmdown::Sqrt, 75) - (0.1 + 0.9 * (1.0 - 0.5_f64.sqrt()))).abs() < 1e-12);
        assert!((at(Warmdown::Cosine, 75) - 0.55).abs() < 1e-12);
        assert_eq!(at(Warmdown::Constant, 99), 1.0);
        // The final fraction is approached, not reached.
        assert!(at(Warmdown::Linear, 99) > 0.1);
    }

    #[test]
    fn momentum_warms_up_before_it_falls() {
        let config = schedule(Warmdown::Linear);
        assert_eq!(config.step_values(0).muon_momentum, 0.85);
        assert_eq!(config.step_values(20).muon_momentum, 0.97);
        assert_eq!(config.step_values(50).muon_momentum, 0.97);
        assert!((config.step_values(75).muon_momentum - 0.935).abs() < 1e-12);
        let short =
            ScheduleConfig { momentum: MomentumSchedule { warmup_steps: 400, ..config.momentum }, ..config };
        assert!(short.step_values(99).muon_momentum < 0.97 && short.step_values(99).muon_momentum > 0.85);
    }

    #[test]
    fn no_warmdown_is_no_division_by_zero() {
        let config = ScheduleConfig { warmdown_steps: 0, warmup_steps: 0, ..schedule(Warmdown::Sqrt) };
        for step in 0..100 {
            assert_eq!(config.step_values(step).lr_multiplier, 1.0);
            assert!(config.step_values(step).muon_momentum <= 0.97);
        }
    }
}
