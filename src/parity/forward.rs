//! Checks that need no training: parameters, schedule, and one forward and backward pass.

use super::case::{Case, Greedy};
use super::check::{Check, Worst, relative_frobenius, ulps};
use super::compared::Compared;
use super::idle::{idle_lambdas, without};
use super::subject::{ParitySubject, argmax};
use super::tolerance::{
    Bf16Tolerance, EXACT, FORWARD_BF16, GRADIENT, GRADIENT_MOST, IDLE_GRADIENT, LAMBDA_BF16, LAMBDA_GRADIENT,
    LOGIT, LOSS_MOST, MEAN_BF16, MEAN_LOSS, NORMAL_ULPS, TABLE_BF16, TENSOR_BF16, TOKEN_LOSS, Tolerance,
};
use super::{CaseReport, ParityConfig};
use crate::error::Result;
use crate::math::round_bf16;
use crate::model::init::initial_values;
use crate::model::param::{Init, ParamGroup, ParamSpec};
use crate::ops::SequenceShape;
use crate::precision::Precision;

/// What the configuration alone decides: parameter counts, FLOPs and initial weights.
pub(super) fn configuration_checks(
    case: &Case,
    config: &ParityConfig,
    specs: &[ParamSpec],
    report: &mut CaseReport,
) -> Result<()> {
    if case.scaling_params.is_empty() {
        report.skip("parameter counts", "case.json has no scaling_params");
    } else {
        report.checks.push(parameter_counts(case, specs));
    }
    match case.flops_per_token {
        None => report.skip("FLOPs a token", "case.json has no flops_per_token"),
        Some(expected) => {
            let mut flops = Worst::new("FLOPs a token");
            let found = config.flops_per_token;
            flops.see(|| format!("{found}, upstream {expected}"), found.abs_diff(expected) as f64, EXACT);
            report.checks.push(flops.finish());
        }
    }
    let Some(seed) = case.seed.filter(|_| case.has("train_params_init")) else {
        report.skip("initial weights", "needs a seed and train_params_init");
        return Ok(());
    };
    let expected = case.params("train_params_init", specs)?;
    let mut uniform = Worst::new("initial weights: uniform and constant");
    let mut normal = Worst::new("initial weights: normal");
    for ((spec, mut found), expected) in specs.iter().zip(initial_values(specs, seed)).zip(&expected) {
        if case.precision == Precision::Bf16 && spec.group.is_table() {
            // Upstream draws in float32, then rounds its tables.
            for value in &mut found {
                *value = round_bf16(*value);
            }
        }
        let pairs = || found.iter().zip(expected);
        if matches!(spec.init, Init::Normal { .. }) {
            let furthest = pairs().map(|(&a, &b)| ulps(a, b)).max().unwrap_or(0);
            normal.see(|| spec.name.clone(), furthest as f64, NORMAL_ULPS);
        } else {
            let different = pairs().filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            uniform.see(|| spec.name.clone(), different as f64, EXACT);
        }
    }
    report.checks.extend([uniform.finish(), normal.finish()]);
    Ok(())
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
    compared: Compared,
    subject: &mut dyn ParitySubject,
    report: &mut CaseReport,
) -> Result<()> {
    if !case.has("forward_params") || !case.has("forward_io") {
        report.skip("forward and gradients", "needs forward_params and forward_io");
        return Ok(());
    }
    let batch = case.forward_batch()?;
    let token = compared.pick(TOKEN_LOSS.wide(case.sizes.n_embd, LOSS_MOST), FORWARD_BF16);
    let values = case.params("forward_params", specs)?;
    subject.set_params(&values)?;
    let idle = idle_lambdas(specs, &values, case.sizes.n_layer);

    let losses = subject.losses(batch.inputs, batch.targets, batch.sequence)?;
    let mut masked_targets = batch.targets.to_vec();
    masked_targets.iter_mut().take(5).for_each(|target| *target = -1);
    let masked = subject.losses(batch.inputs, &masked_targets, batch.sequence)?;
    let logits = subject.logits(batch.inputs, batch.sequence)?;

    // First in the report, though the last of its losses come with the backward pass.
    let first = report.checks.len();
    let mut token_loss = Worst::new("token loss");
    let token_losses = case.token_losses()?;
    let at = |pass: &'static str| {
        move |index: usize| {
            format!("row {}, position {}, {pass}", index / batch.sequence.len, index % batch.sequence.len)
        }
    };
    token_loss.see_values(at("evaluation"), &losses, token_losses, token);

    let mut mean_loss = Worst::new("mean loss");
    let means = [("all targets", &losses, batch.targets), ("five ignored", &masked, &masked_targets)];
    for ((place, losses, targets), expected) in means.into_iter().zip(case.mean_losses.into_iter().flatten())
    {
        let tolerance = compared.pick(MEAN_LOSS.wide(case.sizes.n_embd, LOSS_MOST), MEAN_BF16);
        mean_loss.see(|| place.to_owned(), (mean(losses, targets) - expected).abs(), tolerance);
    }
    if case.mean_losses.is_some() {
        report.checks.push(mean_loss.finish());
    } else {
        report.skip("mean loss", "case.json has no forward");
    }
    let (tail, expected) = case.logits_tail()?;
    // A float's spacing grows with its size.
    let sizes = expected.iter().map(|logit| f64::from(logit.abs())).filter(|size| size.is_finite());
    let largest = sizes.fold(1.0_f64, f64::max);
    let logit = Tolerance { limit: LOGIT.limit * largest, ..LOGIT };
    let logit = compared.pick(logit.wide(case.sizes.n_embd, LOSS_MOST), FORWARD_BF16);
    report.checks.push(logits_check(case, &logits, tail, expected, logit));
    match &case.greedy {
        Some(greedy) => report.checks.push(greedy_check(case, greedy, subject, logit)?),
        None => report.skip("greedy tokens", "case.json has no greedy"),
    }

    // Last: on the scalar oracle it is what may not fit into memory.
    if !case.has("forward_grads") {
        report.skip("gradients", "needs forward_grads");
        report.checks.insert(first, token_loss.finish());
        return Ok(());
    }
    let scale = 1.0 / counted(batch.targets) as f32;
    let train_losses = subject.backward(batch.inputs, batch.targets, batch.sequence, scale)?;
    let grads = subject.grads()?;
    token_loss.see_values(at("training"), &train_losses, token_losses, token);
    let expected = case.params("forward_grads", specs)?;
    let (found, wanted) = (without(&grads, &idle), without(&expected, &idle));
    let gradients = gradient_check(&without(specs, &idle), &found, &wanted, |spec| {
        let tolerance = if is_lambda(spec) { LAMBDA_GRADIENT } else { GRADIENT };
        compared.pick(tolerance.wide(case.sizes.n_embd, GRADIENT_MOST), tensor_bf16(spec))
    });
    report.checks.insert(first, token_loss.finish());
    report.checks.push(gradients);
    if !idle.is_empty() && compared.is_f32() {
        let mut gradients = Worst::new("gradients of idle lambdas");
        for index in idle {
            for (side, values) in [("found", &grads), ("upstream", &expected)] {
                let name = specs.get(index).map_or("", |spec| &spec.name);
                for gradient in values.get(index).into_iter().flatten() {
                    gradients.see(|| format!("{name}, {side}"), f64::from(gradient.abs()), IDLE_GRADIENT);
                }
            }
        }
        report.checks.push(gradients.finish());
    }
    Ok(())
}

/// Targets that are not ignored; at least 1, to divide by.
pub(super) fn counted(targets: &[i32]) -> usize {
    targets.iter().filter(|target| **target >= 0).count().max(1)
}

/// Mean loss over the targets that are not ignored.
pub(super) fn mean(losses: &[f32], targets: &[i32]) -> f64 {
    losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / counted(targets) as f64
}

fn logits_check(case: &Case, logits: &[f32], tail: usize, expected: &[f32], tolerance: Tolerance) -> Check {
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
    worst.finish()
}

fn gradient_check(
    specs: &[ParamSpec],
    found: &[Vec<f32>],
    expected: &[Vec<f32>],
    tolerance: impl Fn(&ParamSpec) -> Tolerance,
) -> Check {
    let mut worst = Worst::new("gradients");
    if found.len() != expected.len() {
        worst.see(|| format!("{} gradients", found.len()), f64::INFINITY, GRADIENT);
    }
    for ((spec, found), expected) in specs.iter().zip(found).zip(expected) {
        worst.see(|| spec.name.clone(), relative_frobenius(found, expected), tolerance(spec));
    }
    worst.finish()
}

/// Whether a parameter is a lambda or the smear gate: a few numbers, each with a gradient that sums over everything.
pub(super) fn is_lambda(spec: &ParamSpec) -> bool {
    matches!(spec.group, ParamGroup::Resid | ParamGroup::X0 | ParamGroup::Smear)
}

/// What a tensor's gradient or value may be off in bf16.
pub(super) fn tensor_bf16(spec: &ParamSpec) -> Bf16Tolerance {
    if is_lambda(spec) { LAMBDA_BF16 } else { TENSOR_BF16 }
}

/// Of a parameter at the end of a trajectory.
pub(super) fn trained_bf16(spec: &ParamSpec) -> Bf16Tolerance {
    if spec.group.is_table() { TABLE_BF16 } else { tensor_bf16(spec) }
}

/// Compares tokens as far as upstream's choice is clear: where the two likeliest tokens are closer than twice the
/// tolerance of a logit, rounding decides, and what follows is another text.
fn greedy_check(
    case: &Case,
    greedy: &Greedy,
    subject: &mut dyn ParitySubject,
    tolerance: Tolerance,
) -> Result<Check> {
    let prompt = greedy.prompt_ids.get(..case.sizes.sequence_len).unwrap_or(&greedy.prompt_ids);
    // Upstream's tables reach ten times as far; a context ends at sequence_len here.
    let room = case.sizes.sequence_len - prompt.len();
    let expected = greedy.output_ids.get(..room).unwrap_or(&greedy.output_ids);
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
