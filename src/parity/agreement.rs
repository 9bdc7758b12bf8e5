//! Backends against each other: one trajectory from one warm start, every backend, written tolerances.
//!
//! Over the twelve steps of a case, from its warm parameters, `cpu` and every other backend stay within:
//!
//! | backend | each micro-batch's loss | each parameter at the end, relative (Frobenius) |
//! |---|---|---|
//! | tch, float32 | 6e-6, or 4 times upstream's noise | 1e-5, or 4 times upstream's noise |
//! | tch, bf16 | 0.01 | 0.05; lambdas 0.3 |
//!
//! Upstream's noise is what its own numbers move by when the start is nudged by 1e-7: see `tolerance.rs`.

use super::check::relative_frobenius;
use super::forward::trained_bf16;
use super::tests::fixtures;
use super::tolerance::{LOSSES_BF16, WARM_LOSS, WARM_PARAMS};
use super::trajectory::{Run, TRAIN_BATCHES, train};
use super::*;
use crate::plan::run_config::{BackendChoice, BackendKind};
use crate::precision::Precision;

fn choice(kind: BackendKind, precision: Precision) -> BackendChoice {
    BackendChoice { kind, device: "cpu".to_owned(), precision }
}

/// The warm trajectory of a case on a backend.
fn run(case: &Case, backend: &BackendChoice) -> Run {
    let config = config_of(case).unwrap();
    let specs = gpt_specs(&config.model);
    let mut subject = EngineSubject::new(config, backend.clone(), 2).unwrap();
    let start = case.params("forward_params", &specs).unwrap();
    let warm = case.warm.as_ref().unwrap();
    subject.set_params(&start).unwrap();
    train(case, warm, TRAIN_BATCHES, warm.steps.len(), &mut subject).unwrap()
}

/// The worst deviation from `cpu`, in proportion to the tolerance.
fn agree(case: &Case, reference: &Run, backend: &BackendChoice) {
    let found = run(case, backend);
    let compared = Compared::of(backend.precision, case).unwrap();
    let warm = case.warm.as_ref().unwrap();
    let mut noise = 0.0_f64;
    for (step, (a, b)) in warm.steps.iter().zip(found.losses.iter().zip(&reference.losses)) {
        noise = noise.max(step.loss_noise);
        let limit = compared.pick(WARM_LOSS.or_noise(noise), LOSSES_BF16).limit;
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= limit, "{}, {backend:?}, step {}: {a} and {b}", case.name, step.step);
        }
    }
    let specs = gpt_specs(&config_of(case).unwrap().model);
    assert_eq!(found.params_final.len(), specs.len());
    for (spec, (a, b)) in specs.iter().zip(found.params_final.iter().zip(&reference.params_final)) {
        let noise = warm.final_param_noise.get(&spec.name).copied().unwrap_or(0.0);
        let limit = compared.pick(WARM_PARAMS.or_noise(noise), trained_bf16(spec)).limit;
        let apart = relative_frobenius(a, b);
        assert!(apart <= limit, "{}, {backend:?}, {}: {apart:.1e} apart", case.name, spec.name);
    }
}

#[test]
fn every_backend_trains_the_same_model_from_a_warm_start() {
    let mut others = vec![choice(BackendKind::Cpu, Precision::Bf16)];
    if cfg!(feature = "tch") {
        others.extend([Precision::F32, Precision::Bf16].map(|precision| choice(BackendKind::Tch, precision)));
    }
    // Every other one, for time: `nanorun parity` holds each backend to all of them.
    for directory in discover(&[fixtures()]).unwrap().iter().step_by(2) {
        let case = Case::read(directory).unwrap();
        assert!(case.warm.as_ref().unwrap().steps.len() >= 10, "{}", case.name);
        let reference = run(&case, &choice(BackendKind::Cpu, Precision::F32));
        for backend in &others {
            agree(&case, &reference, backend);
        }
    }
}
