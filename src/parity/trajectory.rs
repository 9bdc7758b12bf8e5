//! Checks along training trajectories.

use super::check::{Check, Worst, relative_frobenius};
use super::forward::{counted, mean, tensor_bf16};
use super::subject::{ParityConfig, ParitySubject};
use super::tolerance::{
    MEAN_BF16, SCHEDULE, TRAIN_LOSS, TRAIN_NOISE_LIMIT, TRAIN_STEP_0, TRAIN_STEP_0_BF16, Tolerance, WARM_BPB,
    WARM_LOSS, WARM_PARAMS,
};
use super::{Case, Trajectory};
use crate::error::Result;
use crate::model::param::ParamSpec;
use crate::optim::config::GroupConfig;
use crate::precision::Precision;

/// What a subject's run along a trajectory gave.
pub(super) struct Run {
    bpb_initial: f64,
    /// By step and micro-batch.
    pub(super) losses: Vec<Vec<f64>>,
    params_after_step_0: Vec<Vec<f32>>,
    pub(super) params_final: Vec<Vec<f32>>,
    bpb_final: f64,
}

/// From the forward parameters to the last step.
pub(super) fn warm_checks(
    case: &Case,
    specs: &[ParamSpec],
    subject: &mut dyn ParitySubject,
) -> Result<Vec<Check>> {
    let reference = &case.warm;
    let precision = subject.precision();
    let bpb = WARM_BPB.or_bf16(MEAN_BF16, precision);
    let run = train(case, reference, &case.params("forward_params", specs)?, reference.steps.len(), subject)?;

    let mut losses = Worst::new("warm: losses");
    let mut noise = 0.0_f64;
    for (step, found) in reference.steps.iter().zip(&run.losses) {
        // Noise does not fade: a step is at least as uncertain as those before it.
        noise = noise.max(step.loss_noise);
        see_losses(&mut losses, step, found, WARM_LOSS.or_noise(noise).or_bf16(MEAN_BF16, precision));
    }
    let param_tolerance = |spec: &ParamSpec| {
        let noise = reference.final_param_noise.get(&spec.name).copied().unwrap_or(0.0);
        WARM_PARAMS.or_noise(noise).or_bf16(tensor_bf16(spec), precision)
    };
    let after_step_0 = case.params("warm_params_after_step_0", specs)?;
    let last = case.params("warm_params_final", specs)?;
    Ok(vec![
        schedule_check(reference, subject),
        bpb_check("warm: val bpb before", run.bpb_initial, reference.val_bpb_initial, bpb),
        losses.finish(),
        params_check(
            "warm: parameters after step 0",
            specs,
            &run.params_after_step_0,
            &after_step_0,
            param_tolerance,
        ),
        params_check("warm: parameters at the end", specs, &run.params_final, &last, param_tolerance),
        bpb_check(
            "warm: val bpb after",
            run.bpb_final,
            reference.val_bpb_final,
            WARM_BPB.or_noise(reference.val_bpb_final_noise).or_bf16(MEAN_BF16, precision),
        ),
    ])
}

/// From upstream's initialisation, as far as upstream's own numbers hold still.
pub(super) fn train_checks(
    case: &Case,
    config: &ParityConfig,
    specs: &[ParamSpec],
    subject: &mut dyn ParitySubject,
) -> Result<Vec<Check>> {
    let reference = &case.train;
    let still = reference.steps.iter().take_while(|step| step.loss_noise < TRAIN_NOISE_LIMIT).count();
    // The first step does not depend on the updates that make the rest chaotic.
    let still = still.max(1);
    let run = train(case, reference, &case.params("train_params_init", specs)?, still, subject)?;

    let mut losses = Worst::new(format!("train: losses, {still} of {} steps", reference.steps.len()));
    for (step, found) in reference.steps.iter().zip(&run.losses) {
        see_losses(&mut losses, step, found, TRAIN_LOSS);
    }
    let bf16 = config.optimizer.groups.iter().any(
        |(_, group)| matches!(group, GroupConfig::Muon(muon) if muon.polar_precision == Precision::Bf16),
    );
    let tolerance = if bf16 { TRAIN_STEP_0_BF16 } else { TRAIN_STEP_0 };
    let after_step_0 = case.params("train_params_after_step_0", specs)?;
    Ok(vec![
        bpb_check("train: val bpb before", run.bpb_initial, reference.val_bpb_initial, WARM_BPB),
        losses.finish(),
        params_check(
            "train: parameters after step 0",
            specs,
            &run.params_after_step_0,
            &after_step_0,
            |spec| {
                let noise = reference.final_param_noise.get(&spec.name).copied().unwrap_or(0.0);
                if normalises_rounding(&spec.name) { tolerance.or_noise(noise) } else { tolerance }
            },
        ),
    ])
}

/// Whether a parameter's first update is rounding made large: projections start at zero, and while they are zero the
/// lambdas only scale the residual before a norm, so their gradients vanish and Adam divides what is left by itself.
fn normalises_rounding(name: &str) -> bool {
    name.ends_with("_lambdas") || name == "backout_lambda" || name.ends_with("c_proj.weight")
}

/// `steps` steps along a trajectory.
pub(super) fn train(
    case: &Case,
    reference: &Trajectory,
    start: &[Vec<f32>],
    steps: usize,
    subject: &mut dyn ParitySubject,
) -> Result<Run> {
    subject.set_params(start)?;
    let bpb_initial = bits_per_byte(case, reference, subject)?;
    let mut params_after_step_0 = Vec::new();
    let mut losses = Vec::with_capacity(steps);
    for (index, step) in reference.steps.iter().take(steps).enumerate() {
        let mut micro_losses = Vec::with_capacity(case.grad_accum_steps);
        for micro in 0..case.grad_accum_steps {
            let batch = case.train_batch(step.step, micro)?;
            let scale = 1.0 / (counted(batch.targets) * case.grad_accum_steps) as f32;
            let tokens = subject.backward(batch.inputs, batch.targets, batch.sequence, scale)?;
            micro_losses.push(mean(&tokens, batch.targets));
        }
        losses.push(micro_losses);
        subject.step(step.values())?;
        if index == 0 {
            params_after_step_0 = subject.params()?;
        }
    }
    Ok(Run {
        bpb_initial,
        losses,
        params_after_step_0,
        params_final: subject.params()?,
        bpb_final: bits_per_byte(case, reference, subject)?,
    })
}

/// Nats of the targets that have bytes, over `ln 2` times those bytes.
fn bits_per_byte(case: &Case, reference: &Trajectory, subject: &mut dyn ParitySubject) -> Result<f64> {
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
    Ok(nats / (std::f64::consts::LN_2 * bytes as f64))
}

fn schedule_check(reference: &Trajectory, subject: &dyn ParitySubject) -> Check {
    let mut worst = Worst::new("schedule");
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

fn params_check(
    name: &str,
    specs: &[ParamSpec],
    found: &[Vec<f32>],
    expected: &[Vec<f32>],
    tolerance: impl Fn(&ParamSpec) -> Tolerance,
) -> Check {
    let mut worst = Worst::new(name);
    for (index, (spec, expected)) in specs.iter().zip(expected).enumerate() {
        let found = found.get(index).map_or(&[][..], Vec::as_slice);
        worst.see(|| spec.name.clone(), relative_frobenius(found, expected), tolerance(spec));
    }
    worst.finish()
}

fn bpb_check(name: &str, found: f64, expected: f64, tolerance: Tolerance) -> Check {
    let mut worst = Worst::new(name);
    worst.see(|| format!("{found:.6}, upstream {expected:.6}"), (found - expected).abs(), tolerance);
    worst.finish()
}
