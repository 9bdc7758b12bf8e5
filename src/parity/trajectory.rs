//! Checks along training trajectories.

use super::check::{Check, Worst, relative_frobenius};
use super::compared::Compared;
use super::forward::{counted, mean, tensor_bf16, trained_bf16};
use super::idle::{idle_lambdas, without};
use super::subject::{ParityConfig, ParitySubject};
use super::tolerance::{
    BF16_STEP, BPB, BPB_MOST, IDLE_GRADIENT, IDLE_STEP, LOSS_MOST, LOSSES_BF16, MEAN_BF16, SCHEDULE, STEP_0,
    TRAIN_LOSS, TRAIN_NOISE_LIMIT, TRAIN_STEP_0, Tolerance, WARM_LOSS, WARM_PARAMS,
};
use super::{Case, CaseReport, Trajectory};
use crate::error::Result;
use crate::interop::upstream::Weights;
use crate::model::param::ParamSpec;
use crate::optim::config::GroupConfig;
use crate::precision::Precision;

/// The micro-batches of the trajectories that start at step 0.
pub(super) const TRAIN_BATCHES: &str = "train_batches";

/// What a subject's run along a trajectory gave.
pub(super) struct Run {
    bpb_initial: Option<f64>,
    /// By step and micro-batch.
    pub(super) losses: Vec<Vec<f64>>,
    grads_of_step_0: Vec<Vec<f32>>,
    params_after_step_0: Vec<Vec<f32>>,
    pub(super) params_final: Vec<Vec<f32>>,
    bpb_final: Option<f64>,
}

/// From the forward parameters to the last step.
pub(super) fn warm_checks(
    case: &Case,
    config: &ParityConfig,
    specs: &[ParamSpec],
    compared: Compared,
    subject: &mut dyn ParitySubject,
    report: &mut CaseReport,
) -> Result<()> {
    let Some(reference) = &case.warm else {
        report.skip("warm", "case.json has no warm");
        return Ok(());
    };
    report.checks.push(schedule_check("schedule", reference, subject));
    if !case.has("forward_params") || !case.has("train_batches") {
        report.skip("warm", "needs forward_params and train_batches");
        return Ok(());
    }
    let bpb = BPB.wide(case.sizes.n_embd, BPB_MOST);
    let start = case.params("forward_params", specs)?;
    subject.set_params(&start)?;
    let run = train(case, reference, TRAIN_BATCHES, reference.steps.len(), subject)?;
    let idle = idle_lambdas(specs, &start, case.sizes.n_layer);
    let moving = without(specs, &idle);
    for spec in idle.iter().filter_map(|index| specs.get(*index)) {
        report
            .skip(&format!("warm: {}", spec.name), "it has no effect in this model, its steps are rounding");
    }

    let before = compared.pick(bpb, MEAN_BF16);
    bpb_check("warm: val bpb before", run.bpb_initial, reference.val_bpb_initial, before, report);
    report.checks.push(warm_losses("warm: losses", case, reference, &run, compared));
    if case.has("warm_params_after_step_0") {
        let expected = case.params("warm_params_after_step_0", specs)?;
        let tolerance = |spec: &ParamSpec, step: f64| {
            let polar = if rounds_its_update(config, spec) { BF16_STEP.of(step) } else { STEP_0 };
            compared.pick(STEP_0.or(polar), tensor_bf16(spec))
        };
        let name = "warm: parameters after step 0";
        let (found, expected) = (without(&run.params_after_step_0, &idle), without(&expected, &idle));
        report.checks.push(first_step_check(
            name,
            &moving,
            &without(&start, &idle),
            &found,
            &expected,
            tolerance,
        ));
    } else {
        report.skip("warm: parameters after step 0", "needs warm_params_after_step_0");
    }
    if case.has("warm_params_final") {
        let expected = case.params("warm_params_final", specs)?;
        let (found, expected) = (without(&run.params_final, &idle), without(&expected, &idle));
        let name = "warm: parameters at the end";
        report.checks.push(last_params(name, reference, &moving, &found, &expected, compared));
    } else {
        report.skip("warm: parameters at the end", "needs warm_params_final");
    }
    let bpb = compared.pick(bpb.or_noise(reference.val_bpb_final_noise), MEAN_BF16);
    bpb_check("warm: val bpb after", run.bpb_final, reference.val_bpb_final, bpb, report);
    Ok(())
}

/// From a checkpoint that upstream wrote in the middle of training, with its optimizer's state.
pub(super) fn continued_checks(
    case: &Case,
    specs: &[ParamSpec],
    compared: Compared,
    subject: &mut dyn ParitySubject,
    report: &mut CaseReport,
) -> Result<()> {
    let (Some(continued), Some(checkpoint)) = (&case.continued, case.checkpoint()) else {
        report.skip("continued", "case.json has no continued");
        return Ok(());
    };
    let reference = &continued.trajectory;
    report.checks.push(schedule_check("continued: schedule", reference, subject));
    if !case.has("continued_batches") {
        report.skip("continued", "needs continued_batches");
        return Ok(());
    }
    let mut weights = Weights::open(&checkpoint.model())?;
    weights.check(specs)?;
    let start = specs.iter().map(|spec| weights.values(spec)).collect::<Result<Vec<_>>>()?;
    if !subject.resume(continued.step, &start, &checkpoint.optimizer_state(specs)?)? {
        report.skip("continued", "this backend takes up no optimizer's state of upstream's");
        return Ok(());
    }
    let run = train(case, reference, "continued_batches", reference.steps.len(), subject)?;

    let bpb = BPB.wide(case.sizes.n_embd, BPB_MOST);
    let before = compared.pick(bpb, MEAN_BF16);
    bpb_check("continued: val bpb before", run.bpb_initial, reference.val_bpb_initial, before, report);
    report.checks.push(warm_losses("continued: losses", case, reference, &run, compared));
    if case.has("continued_params_final") {
        let idle = idle_lambdas(specs, &start, case.sizes.n_layer);
        let expected = without(&case.params("continued_params_final", specs)?, &idle);
        let found = without(&run.params_final, &idle);
        let name = "continued: parameters at the end";
        let moving = without(specs, &idle);
        report.checks.push(last_params(name, reference, &moving, &found, &expected, compared));
    } else {
        report.skip("continued: parameters at the end", "needs continued_params_final");
    }
    let bpb = compared.pick(bpb.or_noise(reference.val_bpb_final_noise), MEAN_BF16);
    bpb_check("continued: val bpb after", run.bpb_final, reference.val_bpb_final, bpb, report);
    Ok(())
}

/// The losses of all steps of a trajectory that is not chaotic.
fn warm_losses(
    name: &'static str,
    case: &Case,
    reference: &Trajectory,
    run: &Run,
    compared: Compared,
) -> Check {
    let mut losses = Worst::new(name);
    let mut noise = 0.0_f64;
    for (step, found) in reference.steps.iter().zip(&run.losses) {
        // Noise does not fade: a step is at least as uncertain as those before it.
        noise = noise.max(step.loss_noise);
        let tolerance =
            compared.pick(WARM_LOSS.wide(case.sizes.n_embd, LOSS_MOST).or_noise(noise), LOSSES_BF16);
        see_losses(&mut losses, step, found, tolerance);
    }
    losses.finish()
}

/// The parameters at the end of one, each held to upstream's noise in it.
fn last_params(
    name: &'static str,
    reference: &Trajectory,
    specs: &[ParamSpec],
    found: &[Vec<f32>],
    expected: &[Vec<f32>],
    compared: Compared,
) -> Check {
    let mut params = Worst::new(name);
    // Rounding in bf16 moves weights in every step: more steps than the ten of the warm cases move them further.
    let longer = (reference.steps.len() as f64 / 10.0).max(1.0);
    for ((spec, found), expected) in specs.iter().zip(found).zip(expected) {
        let noise = reference.final_param_noise.get(&spec.name).copied().unwrap_or(0.0);
        let tolerance = compared.pick(WARM_PARAMS.or_noise(noise), trained_bf16(spec).of(longer));
        params.see(|| spec.name.clone(), relative_frobenius(found, expected), tolerance);
    }
    params.finish()
}

/// From upstream's initialisation, as far as upstream's own numbers hold still.
pub(super) fn train_checks(
    case: &Case,
    config: &ParityConfig,
    specs: &[ParamSpec],
    subject: &mut dyn ParitySubject,
    report: &mut CaseReport,
) -> Result<()> {
    let Some(reference) = &case.train else {
        report.skip("train", "case.json has no train");
        return Ok(());
    };
    if !case.has("train_params_init") || !case.has("train_batches") {
        report.skip("train", "needs train_params_init and train_batches");
        return Ok(());
    }
    let still = reference.steps.iter().take_while(|step| step.loss_noise < TRAIN_NOISE_LIMIT).count();
    // The first step does not depend on the updates that make the rest chaotic.
    let still = still.max(1);
    let start = case.params("train_params_init", specs)?;
    subject.set_params(&start)?;
    let run = train(case, reference, TRAIN_BATCHES, still, subject)?;

    let bpb = BPB.wide(case.sizes.n_embd, BPB_MOST);
    bpb_check("train: val bpb before", run.bpb_initial, reference.val_bpb_initial, bpb, report);
    let mut losses = Worst::new("train: losses");
    let mut noise = 0.0_f64;
    for (step, found) in reference.steps.iter().zip(&run.losses) {
        noise = noise.max(step.loss_noise);
        see_losses(&mut losses, step, found, TRAIN_LOSS.or_noise(noise));
    }
    let mut losses = losses.finish();
    losses.place = format!("{} ({still} of {} steps)", losses.place, reference.steps.len());
    report.checks.push(losses);
    if !case.has("train_params_after_step_0") {
        report.skip("train: parameters after step 0", "needs train_params_after_step_0");
        return Ok(());
    }
    let expected = case.params("train_params_after_step_0", specs)?;
    let idle = idle_lambdas(specs, &start, case.sizes.n_layer);
    let moving = without(specs, &idle);
    let tolerance = |spec: &ParamSpec, step: f64| {
        let polar = if rounds_its_update(config, spec) { BF16_STEP.of(step) } else { TRAIN_STEP_0 };
        TRAIN_STEP_0.or(polar)
    };
    let found = without(&run.params_after_step_0, &idle);
    let (name, before) = ("train: parameters after step 0", without(&start, &idle));
    let after = without(&expected, &idle);
    report.checks.push(first_step_check(name, &moving, &before, &found, &after, tolerance));
    if idle.is_empty() {
        return Ok(());
    }

    // Both sides: upstream's numbers must be what this says of them, too.
    let (mut gradients, mut steps) =
        (Worst::new("train: gradients of idle lambdas"), Worst::new("train: first step of idle lambdas"));
    let multiplier = reference.steps.first().map_or(1.0, |step| step.lr_multiplier);
    for index in idle {
        let Some(spec) = specs.get(index) else { continue };
        let group = config.optimizer.groups.iter().find(|(group, _)| *group == spec.group);
        let Some((_, GroupConfig::Adamw(adamw))) = group else { continue };
        let lr = adamw.lr * multiplier;
        for gradient in run.grads_of_step_0.get(index).into_iter().flatten() {
            gradients.see(|| spec.name.clone(), f64::from(gradient.abs()), IDLE_GRADIENT);
        }
        for (side, after) in [("found", &run.params_after_step_0), ("upstream", &expected)] {
            let pairs = start.get(index).into_iter().flatten().zip(after.get(index).into_iter().flatten());
            for (&before, &after) in pairs {
                let decayed = f64::from(before) * (1.0 - lr * adamw.weight_decay);
                let moved = (f64::from(after) - decayed).abs() / lr;
                steps.see(|| format!("{}, {side}", spec.name), moved, IDLE_STEP);
            }
        }
    }
    report.checks.extend([gradients.finish(), steps.finish()]);
    Ok(())
}

/// Whether a parameter's update is rounded to bf16: Muon's before the float32 era.
fn rounds_its_update(config: &ParityConfig, spec: &ParamSpec) -> bool {
    config.optimizer.groups.iter().any(|(group, config)| {
        *group == spec.group
            && matches!(config, GroupConfig::Muon(muon) if muon.polar_precision == Precision::Bf16)
    })
}

/// `steps` steps along a trajectory, from where the subject stands, over the batches of a file of the case.
pub(super) fn train(
    case: &Case,
    reference: &Trajectory,
    batches: &str,
    steps: usize,
    subject: &mut dyn ParitySubject,
) -> Result<Run> {
    let bpb_initial = bits_per_byte(case, reference, subject)?;
    let mut grads_of_step_0 = Vec::new();
    let mut params_after_step_0 = Vec::new();
    let mut losses = Vec::with_capacity(steps);
    for (index, step) in reference.steps.iter().take(steps).enumerate() {
        let mut micro_losses = Vec::with_capacity(case.grad_accum_steps);
        for micro in 0..case.grad_accum_steps {
            let batch = case.micro_batch(batches, step.step, micro)?;
            let scale = 1.0 / (counted(batch.targets) * case.grad_accum_steps) as f32;
            let tokens = subject.backward(batch.inputs, batch.targets, batch.sequence, scale)?;
            micro_losses.push(mean(&tokens, batch.targets));
        }
        losses.push(micro_losses);
        if index == 0 {
            grads_of_step_0 = subject.grads()?;
        }
        subject.step(step.values())?;
        if index == 0 {
            params_after_step_0 = subject.params()?;
        }
    }
    Ok(Run {
        bpb_initial,
        losses,
        grads_of_step_0,
        params_after_step_0,
        params_final: subject.params()?,
        bpb_final: bits_per_byte(case, reference, subject)?,
    })
}

/// Nats of the targets that have bytes, over `ln 2` times those bytes.
/// None where the case has no validation.
fn bits_per_byte(
    case: &Case,
    reference: &Trajectory,
    subject: &mut dyn ParitySubject,
) -> Result<Option<f64>> {
    if !case.has_validation(reference) {
        return Ok(None);
    }
    let (mut nats, mut bytes) = (0.0_f64, 0_u64);
    for index in 0..reference.val_bpb_steps {
        let batch = case.val_batch(index)?;
        let losses = subject.losses(batch.inputs, batch.targets, batch.sequence)?;
        for (loss, target) in losses.iter().zip(batch.targets) {
            let length = usize::try_from(*target).ok().and_then(|id| case.token_bytes.get(id));
            if let Some(&length) = length.filter(|length| **length > 0) {
                nats += f64::from(*loss);
                bytes += u64::from(length);
            }
        }
    }
    Ok(Some(nats / (std::f64::consts::LN_2 * bytes as f64)))
}

fn schedule_check(name: &'static str, reference: &Trajectory, subject: &dyn ParitySubject) -> Check {
    let mut worst = Worst::new(name);
    for step in &reference.steps {
        let (found, expected) = (subject.step_values(step.step), step.values());
        let values = [
            ("learning rate", found.lr_multiplier, expected.lr_multiplier),
            ("momentum", found.muon_momentum, expected.muon_momentum),
            ("weight decay", found.muon_weight_decay, expected.muon_weight_decay),
        ];
        for (name, found, expected) in values {
            worst.see(|| format!("step {}, {name}", step.step), (found - expected).abs(), SCHEDULE);
        }
    }
    worst.finish()
}

fn see_losses(worst: &mut Worst, step: &super::ReferenceStep, found: &[f64], tolerance: Tolerance) {
    for (micro, (found, expected)) in found.iter().zip(&step.micro_losses).enumerate() {
        let deviation = (found - f64::from(*expected)).abs();
        worst.see(|| format!("step {}, micro-batch {micro}", step.step), deviation, tolerance);
    }
}

/// Parameters after the first step; a tolerance may depend on how far it took the tensor, relative to where it ends.
fn first_step_check(
    name: &str,
    specs: &[ParamSpec],
    start: &[Vec<f32>],
    found: &[Vec<f32>],
    expected: &[Vec<f32>],
    tolerance: impl Fn(&ParamSpec, f64) -> Tolerance,
) -> Check {
    let mut worst = Worst::new(name);
    for (index, (spec, expected)) in specs.iter().zip(expected).enumerate() {
        let at = |values: &'_ [Vec<f32>]| values.get(index).map_or_else(Vec::new, Clone::clone);
        let step = relative_frobenius(&at(start), expected);
        worst.see(|| spec.name.clone(), relative_frobenius(&at(found), expected), tolerance(spec, step));
    }
    worst.finish()
}

fn bpb_check(name: &str, found: Option<f64>, expected: f64, tolerance: Tolerance, report: &mut CaseReport) {
    let Some(found) = found else {
        return report.skip(name, "needs val_batches and token_bytes");
    };
    let mut worst = Worst::new(name);
    worst.see(|| format!("{found:.6}, upstream {expected:.6}"), (found - expected).abs(), tolerance);
    report.checks.push(worst.finish());
}
