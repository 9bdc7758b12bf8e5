//! A run's curves as scalars over steps, for programs that draw such.

use super::one::One;
use crate::files::unix;
use crate::interop::tensorboard::Scalar;

impl One {
    /// Seconds since 1970 at which it began; 0 where nobody wrote that down.
    pub fn began(&self) -> f64 {
        unix(&self.row.started).unwrap_or(0) as f64
    }

    /// Its curves: of every step the loss, what the schedule gave, and the speed; of every evaluation its values. Times are
    /// when it began and what its steps took.
    pub fn scalars(&self) -> Vec<Scalar> {
        let began = self.began();
        let batch = self.config.as_ref().map_or(0, |config| config.batch.total_batch_size) as f64;
        let mut scalars = Vec::new();
        // After so many steps.
        let mut times = vec![began];
        for (step, loss) in self.curves.losses.iter().enumerate() {
            let seconds = self.curves.seconds.get(step).copied().unwrap_or(0.0);
            let wall_time = times.last().copied().unwrap_or(began) + seconds.max(0.0);
            times.push(wall_time);
            let mut add = |tag: &str, value: f32| {
                scalars.push(Scalar { wall_time, step: step as u64, tag: tag.to_owned(), value });
            };
            add("train/loss", *loss);
            if let Some(config) = &self.config {
                let values = config.schedule.step_values(step as u64);
                add("schedule/lr_multiplier", values.lr_multiplier as f32);
                add("schedule/muon_momentum", values.muon_momentum as f32);
                add("schedule/muon_weight_decay", values.muon_weight_decay as f32);
            }
            if seconds > 0.0 {
                add("train/tokens_per_second", (batch / seconds) as f32);
            }
        }
        for (step, values) in &self.curves.evaluations {
            let wall_time = usize::try_from(*step).ok().and_then(|step| times.get(step)).copied();
            let wall_time = wall_time.or(times.last().copied()).unwrap_or(began);
            for (metric, value) in values {
                let tag = format!("eval/{metric}");
                scalars.push(Scalar { wall_time, step: *step, tag, value: *value as f32 });
            }
        }
        // In the order of time, as programs that follow a file expect it.
        scalars.sort_by(|a, b| a.wall_time.total_cmp(&b.wall_time));
        scalars
    }
}
