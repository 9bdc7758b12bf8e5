//! Checks that need no training: parameters, schedule, and one forward and backward pass.

use super::Case;
use super::check::{Check, Worst, relative_frobenius, ulps};
use super::subject::{ParitySubject, argmax};
use super::tolerance::{
    EXACT, FORWARD, FORWARD_BF16, GRADIENT, LAMBDA_BF16, MEAN_BF16, NORMAL_ULPS, TENSOR_BF16, Tolerance,
};
use crate::error::Result;
use crate::model::init::initial_values;
use crate::model::param::{Init, ParamGroup, ParamSpec};
use crate::ops::SequenceShape;
use crate::precision::Precision;

/// What the configuration alone decides: parameter counts and initial weights.
pub(super) fn configuration_checks(case: &Case, specs: &[ParamSpec]) -> Result<Vec<Check>> {
    let expected = case.params("train_params_init", specs)?;
    let mut uniform = Worst::new("initial weights: uniform and constant");
    let mut normal = Worst::new("initial weights: normal");
    for ((spec, found), expected) in specs.iter().zip(initial_values(specs, case.seed)).zip(&expected) {
        let pairs = || found.iter().zip(expected);
        if matches!(spec.init, Init::Normal { .. }) {
            let furthest = pairs().map(|(&a, &b)| ulps(a, b)).max().unwrap_or(0);
            normal.see(|| spec.name.clone(), furthest as f64, NORMAL_ULPS);
        } else {
            let different = pairs().filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            uniform.see(|| spec.name.clone(), different as f64, EXACT);
        }
    }
    Ok(vec![parameter_counts(case, specs), uniform.finish(), normal.finish()])
}

fn parameter_counts(case: &Case, specs: &[ParamSpec]) -> Check {
    let mut worst = Worst::new("parameter counts");
    for (kind, &expected) in &case.scaling_params {
        let counts = |spec: &&ParamSpec| match kind.as_str() {
            "wte" => spec.group == ParamGroup::Wte,
            "value_embeds" => spec.group == ParamGroup::ValueEmbeds,
            "lm_head" => spec.group == ParamGroup::LmHead,
            "transformer_matrices" => spec.group == ParamGroup::Matrix,
            "scalars" => matches!(spec.group, ParamGroup::Resid | ParamGroup::X0 | ParamGroup::Smear),
            _ => true,
        };
        let found: u64 = specs.iter().filter(counts).map(|spec| spec.numel() as u64).sum();
        worst.see(|| kind.clone(), found.abs_diff(expected) as f64, EXACT);
    }
    worst.finish()
}

/// One forward and backward from the forward parameters, and greedy decoding.
pub(super) fn forward_checks(
    case: &Case,
    specs: &[ParamSpec],
    subject: &mut dyn ParitySubject,
) -> Result<Vec<Check>> {
    let batch = case.forward_batch()?;
    let precision = subject.precision();
    let forward = FORWARD.or_bf16(FORWARD_BF16, precision);
    subject.set_params(&case.params("forward_params", specs)?)?;

    let losses = subject.losses(batch.inputs, batch.targets, batch.sequence)?;
    let mut masked_targets = batch.targets.to_vec();
    masked_targets.iter_mut().take(5).for_each(|target| *target = -1);
    let masked = subject.losses(batch.inputs, &masked_targets, batch.sequence)?;
    let logits = subject.logits(batch.inputs, batch.sequence)?;

    let scale = 1.0 / counted(batch.targets) as f32;
    let train_losses = subject.backward(batch.inputs, batch.targets, batch.sequence, scale)?;
    let grads = subject.grads()?;

    let mut token_loss = Worst::new("token loss");
    let token_losses = case.token_losses()?;
    let at = |pass: &'static str| {
        move |index: usize| {
            format!("row {}, position {}, {pass}", index / batch.sequence.len, index % batch.sequence.len)
        }
    };
    token_loss.see_values(at("evaluation"), &losses, token_losses, forward);
    token_loss.see_values(at("training"), &train_losses, token_losses, forward);

    let mut mean_loss = Worst::new("mean loss");
    let means = [("all targets", &losses, batch.targets), ("five ignored", &masked, &masked_targets)];
    for ((place, losses, targets), expected) in means.into_iter().zip(case.mean_losses) {
        mean_loss.see(
            || place.to_owned(),
            (mean(losses, targets) - expected).abs(),
            FORWARD.or_bf16(MEAN_BF16, precision),
        );
    }

    Ok(vec![
        token_loss.finish(),
        mean_loss.finish(),
        logits_check(case, &logits, forward)?,
        gradient_check(specs, &grads, &case.params("forward_grads", specs)?, precision),
        greedy_check(case, subject, forward)?,
    ])
}

/// Targets that are not ignored; at least 1, to divide by.
pub(super) fn counted(targets: &[i32]) -> usize {
    targets.iter().filter(|target| **target >= 0).count().max(1)
}

/// Mean loss over the targets that are not ignored.
pub(super) fn mean(losses: &[f32], targets: &[i32]) -> f64 {
    losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / counted(targets) as f64
}

fn logits_check(case: &Case, logits: &[f32], tolerance: Tolerance) -> Result<Check> {
    let (tail, expected) = case.logits_tail()?;
    let (rows, vocab) = (case.sizes.sequence_len, case.sizes.vocab_size);
    let mut worst = Worst::new("logits");
    let found: Vec<f32> = logits
        .chunks(rows * vocab)
        .flat_map(|row| &row[row.len().saturating_sub(tail * vocab)..])
        .copied()
        .collect();
    let place = |index: usize| {
        let (position, id) = (index / vocab, index % vocab);
        format!("row {}, position {}, id {id}", position / tail, rows - tail + position % tail)
    };
    worst.see_values(place, &found, expected, tolerance);
    Ok(worst.finish())
}

fn gradient_check(
    specs: &[ParamSpec],
    found: &[Vec<f32>],
    expected: &[Vec<f32>],
    precision: Precision,
) -> Check {
    let mut worst = Worst::new("gradients");
    if found.len() != expected.len() {
        worst.see(|| format!("{} gradients", found.len()), f64::INFINITY, GRADIENT);
    }
    for ((spec, found), expected) in specs.iter().zip(found).zip(expected) {
        worst.see(
            || spec.name.clone(),
            relative_frobenius(found, expected),
            GRADIENT.or_bf16(tensor_bf16(spec), precision),
        );
    }
    worst.finish()
}

/// What a tensor's gradient or value may be off in bf16.
pub(super) fn tensor_bf16(spec: &ParamSpec) -> Tolerance {
    match spec.group {
        ParamGroup::Resid | ParamGroup::X0 | ParamGroup::Smear => LAMBDA_BF16,
        _ => TENSOR_BF16,
    }
}

/// Compares tokens as far as upstream's choice is clear: where the two likeliest tokens are closer than twice the
/// tolerance of a logit, rounding decides, and what follows is another text.
fn greedy_check(case: &Case, subject: &mut dyn ParitySubject, tolerance: Tolerance) -> Result<Check> {
    let (prompt, expected) = (&case.greedy.prompt_ids, &case.greedy.output_ids);
    let found = subject.greedy(prompt, expected.len())?;
    let text: Vec<i32> = prompt.iter().chain(expected).copied().collect();
    let logits = subject.logits(&text, SequenceShape { batch: 1, len: text.len() })?;
    let clear = logits
        .chunks(case.sizes.vocab_size)
        .skip(prompt.len() - 1)
        .take(expected.len())
        .take_while(|logits| margin(logits) >= 2.0 * tolerance.limit)
        .count();

    let mut worst = Worst::new("greedy tokens");
    let different = found.iter().zip(expected).take(clear).filter(|(a, b)| a != b).count();
    worst.see(|| format!("{clear} of {} clear", expected.len()), different as f64, EXACT);
    if found.len() != expected.len() {
        worst.see(|| format!("{} tokens", found.len()), f64::INFINITY, EXACT);
    }
    Ok(worst.finish())
}

/// How far the likeliest token is ahead of the next.
fn margin(logits: &[f32]) -> f64 {
    let best = argmax(logits);
    let rest = logits.iter().enumerate().filter(|(index, _)| *index != best);
    let second = rest.map(|(_, value)| f64::from(*value)).fold(f64::NEG_INFINITY, f64::max);
    logits.get(best).map_or(0.0, |value| f64::from(*value) - second)
}
