//! What a plan says below its table: sizes, schedules and rates, a line for each kind of run.

use super::PlannedRun;
use crate::math::decade;
use crate::model::config::ModelConfig;
use crate::optim::config::{GroupConfig, Warmdown, WeightDecayShape};

/// Model, batch and recipe of a run.
pub(super) fn sizes(run: &PlannedRun) -> String {
    let config = &run.config;
    let commit = config.commit.get(..7).unwrap_or(&config.commit);
    let model = match &config.model {
        ModelConfig::Gpt(gpt) => format!(
            "gpt depth {}, dim {}, {} heads ({} kv), T {}, vocabulary {}",
            gpt.n_layer, gpt.n_embd, gpt.n_head, gpt.n_kv_head, gpt.sequence_len, gpt.vocab_size
        ),
        ModelConfig::Microgpt(gpt) => format!(
            "microgpt depth {}, dim {}, {} heads, T {}, vocabulary {}",
            gpt.n_layer, gpt.n_embd, gpt.n_head, gpt.sequence_len, gpt.vocab_size
        ),
        ModelConfig::Bigram(bigram) => format!(
            "bigram dim {}, T {}, vocabulary {}",
            bigram.n_embd, bigram.sequence_len, bigram.vocab_size
        ),
    };
    let batch = &config.batch;
    let ranks = match config.row_order.ranks {
        0 | 1 => String::new(),
        ranks => format!("{ranks} ranks x "),
    };
    let permuted =
        config.row_order.seed.map_or_else(String::new, |seed| format!("; row groups permuted by {seed}"));
    format!(
        "{model}; batch {} = {ranks}{} x {} rows{permuted}; recipe {commit}",
        batch.total_batch_size,
        config.turn(),
        batch.device_batch_size
    )
}

/// The multiplier of all rates over the steps of a run.
pub(super) fn schedule(run: &PlannedRun) -> String {
    let schedule = &run.config.schedule;
    let steps = schedule.horizon();
    let up = schedule.warmup_steps;
    if up > steps {
        return format!(
            "rates up over all {steps} steps to {} of their peak",
            number(steps as f64 / up as f64)
        );
    }
    let mut parts = Vec::new();
    if up > 0 {
        parts.push(format!("rates up over {up} steps"));
    }
    let shape = match schedule.warmdown {
        Warmdown::Linear => Some("linear"),
        Warmdown::Sqrt => Some("1-sqrt"),
        Warmdown::Cosine => Some("cosine"),
        Warmdown::Constant => None,
    };
    parts.push(match shape {
        Some(shape) if schedule.warmdown_steps > 0 => format!(
            "{shape} down to {} over the last {} of {steps}",
            number(schedule.final_lr_frac),
            schedule.warmdown_steps.min(steps - up)
        ),
        _ => format!("constant over {steps} steps"),
    });
    if schedule.steps_before > 0 {
        parts.push(format!("{} of them are behind the checkpoint", schedule.steps_before));
    }
    parts.join("; ")
}

/// Muon's momentum and weight decay over the steps of a run; nothing for a run without Muon.
pub(super) fn muon(run: &PlannedRun) -> String {
    if !run.config.optimizer.groups.iter().any(|(_, group)| matches!(group, GroupConfig::Muon(_))) {
        return String::new();
    }
    let schedule = &run.config.schedule;
    let momentum = &schedule.momentum;
    let to = momentum.warmdown_to.map_or(String::new(), |to| format!(", to {} in the warmdown", number(to)));
    let shape = match schedule.weight_decay_shape {
        WeightDecayShape::Linear => "falling linearly to 0",
        WeightDecayShape::Cosine => "falling as a cosine to 0",
        WeightDecayShape::Constant => "constant",
    };
    format!(
        "momentum {} to {} over {} steps{to}; weight decay {}, {shape}",
        number(momentum.start),
        number(momentum.peak),
        momentum.warmup_steps,
        number(schedule.weight_decay)
    )
}

/// The base learning rate of every parameter group, laws applied.
pub(super) fn rates(run: &PlannedRun) -> String {
    let groups = run.config.optimizer.groups.iter().map(|(group, settings)| {
        let name = serde_json::to_value(group).ok();
        let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
        match settings {
            GroupConfig::Adamw(adamw) => format!("{name} {}", number(adamw.lr)),
            GroupConfig::Muon(muon) => format!("{name} {} (Muon)", number(muon.lr)),
            GroupConfig::Sgd(sgd) => format!("{name} {} (SGD)", number(sgd.lr)),
        }
    });
    groups.collect::<Vec<_>>().join(", ")
}

/// A number to five digits, without the zeros behind.
fn number(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { 4_i32.saturating_sub(decade(value.abs())) };
    let text = format!("{value:.*}", digits.clamp(0, 12) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 1.0, 0.28, 0.004_000_000_1, 1.0 / 3.0, 123_456.7, 0.05].map(number);
        assert_eq!(shown, ["0", "1", "0.28", "0.004", "0.33333", "123457", "0.05"]);
    }
}
