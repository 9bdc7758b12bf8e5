//! The harness against the project's cases, with a subject that plays upstream's numbers back, faults included.

use std::fs;
use std::path::PathBuf;

use super::trajectory::{TRAIN_BATCHES, train};
use super::*;
use crate::interop::upstream::Weights;
use crate::model::config::{GptConfig, GptInit, LayerRamp, ValueEmbedConfig};
use crate::model::param::{ParamGroup, ParamSpec};
use crate::ops::SequenceShape;
use crate::optim::config::{
    AdamWConfig, GroupConfig, MomentumSchedule, MuonConfig, OptimizerConfig, ScheduleConfig, StepValues,
    Warmdown, WeightDecayShape,
};
use crate::plan::run_config::{BackendChoice, BackendKind};
use crate::precision::Precision;
use crate::tensors::{NamedTensor, SingleTensor, write_safetensors};

pub(super) fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity")
}

/// What the harness needs of a commit's recipe, written out here so that these tests stand alone.
fn config(case: &Case) -> ParityConfig {
    let (sizes, commit) = (&case.sizes, case.commit.as_str());
    let first_year = matches!(commit, "348fbb3" | "2f09686" | "324e69c");
    let smear = matches!(commit, "dc54a1a" | "4e014d3" | "eb16d01" | "92d63d4");
    let timing = case.schedule.as_ref().unwrap();
    let values = &timing.optimizer;
    let ramp = |first, fall| LayerRamp { first, fall };
    let model = GptConfig {
        sequence_len: sizes.sequence_len,
        vocab_size: sizes.vocab_size,
        padded_vocab_size: sizes.vocab_size.next_multiple_of(64),
        n_layer: sizes.n_layer,
        n_head: sizes.n_head,
        n_kv_head: sizes.n_kv_head,
        n_embd: sizes.n_embd,
        windows: vec![sizes.sequence_len; sizes.n_layer],
        rotary_base: 1e5,
        rotary_precision: Precision::F32,
        qk_scale: 1.0,
        softcap: Some(15.0),
        value_embeds: Some(ValueEmbedConfig {
            gate_channels: if first_year { 32 } else { 12 },
            gate_scale: 3.0,
        }),
        smear_channels: smear.then_some(24),
        backout: smear,
        norm_eps: f32::EPSILON,
        init: GptInit {
            wte_std: if first_year { 1.0 } else { 0.8 },
            lm_head_std: 0.001,
            c_fc_scale: match (first_year, smear) {
                (true, _) => 1.0,
                (false, false) => 0.5,
                (false, true) => 0.4,
            },
            ve_gate_max: if first_year { 0.0 } else { 0.02 },
            resid_lambda: if smear { ramp(1.15, 0.10) } else { ramp(1.0, 0.0) },
            x0_lambda: if smear { ramp(0.20, 0.15) } else { ramp(0.1, 0.0) },
            smear_gate_max: 0.02,
            smear_lambda: 0.0,
            backout_lambda: 0.2,
        },
    };
    let precision = if smear { Precision::F32 } else { Precision::Bf16 };
    let muon = MuonConfig {
        lr: values.matrix_lr,
        beta2: 0.9,
        norm_factor: 1.01,
        ns_steps: 5,
        row_equilibration: smear,
        renormalize: smear,
        polar_precision: precision,
        update_precision: precision,
    };
    let schedule = ScheduleConfig {
        num_iterations: timing.num_iterations,
        steps_before: 0,
        warmup_steps: timing.warmup_steps,
        warmdown_steps: 0,
        warmdown: Warmdown::Linear,
        final_lr_frac: timing.final_lr_frac,
        momentum: MomentumSchedule { start: 0.85, peak: 0.97, warmup_steps: 400, warmdown_to: None },
        weight_decay: values.weight_decay,
        weight_decay_shape: WeightDecayShape::Cosine,
    };
    let adamw = |lr, weight_decay| {
        GroupConfig::Adamw(AdamWConfig { lr, beta1: 0.8, beta2: 0.95, eps: 1e-10, weight_decay })
    };
    let groups = vec![
        (ParamGroup::Matrix, GroupConfig::Muon(muon)),
        (ParamGroup::Resid, adamw(0.01 * values.scalar_lr, if first_year { 0.0 } else { 0.05 })),
        (ParamGroup::X0, adamw(values.scalar_lr, 0.0)),
        (ParamGroup::Smear, adamw(0.2, 0.0)),
    ];
    let flops_per_token = case.flops_per_token.unwrap();
    ParityConfig { model, optimizer: OptimizerConfig { groups }, schedule, flops_per_token }
}

/// What a subject gets wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    TokenLoss,
    Logits,
    Gradient,
    Greedy,
    WarmLoss,
    WarmStep0,
    WarmFinal,
    WarmBpb,
    TrainLoss,
    TrainStep0,
    IdleGradient,
    IdleStep,
    Schedule,
    NanLoss,
}

/// Plays a case back.
struct Replay<'a> {
    case: &'a Case,
    specs: Vec<ParamSpec>,
    fault: Fault,
    warm: bool,
    steps: usize,
}

impl<'a> Replay<'a> {
    fn new(case: &'a Case, fault: Fault) -> Self {
        Self { case, specs: gpt_specs(&config(case).model), fault, warm: true, steps: 0 }
    }

    fn reference(&self) -> &'a Trajectory {
        if self.warm { self.case.warm.as_ref().unwrap() } else { self.case.train.as_ref().unwrap() }
    }

    fn is_forward(&self, inputs: &[i32]) -> bool {
        self.case.forward_batch().unwrap().inputs == inputs
    }

    fn token_losses(&self, targets: &[i32]) -> Vec<f32> {
        let mut losses = self.case.token_losses().unwrap().to_vec();
        losses.iter_mut().zip(targets).filter(|(_, target)| **target < 0).for_each(|(loss, _)| *loss = 0.0);
        match self.fault {
            Fault::TokenLoss => losses[300] += 1e-4,
            Fault::NanLoss => losses[300] = f32::NAN,
            _ => {}
        }
        losses
    }
}

impl ParitySubject for Replay<'_> {
    fn backend(&self) -> String {
        "replay".into()
    }

    fn set_params(&mut self, values: &[Vec<f32>]) -> Result<()> {
        self.warm = values == self.case.params("forward_params", &self.specs).unwrap();
        assert!(self.warm || values == self.case.params("train_params_init", &self.specs).unwrap());
        self.steps = 0;
        Ok(())
    }

    fn resume(&mut self, _: u64, _: &[Vec<f32>], _: &[SingleTensor<'static>]) -> Result<bool> {
        Ok(false)
    }

    fn params(&self) -> Result<Vec<Vec<f32>>> {
        let (name, fault) = match (self.warm, self.steps) {
            (true, 1) => ("warm_params_after_step_0", Fault::WarmStep0),
            (true, _) => ("warm_params_final", Fault::WarmFinal),
            (false, 1) => ("train_params_after_step_0", Fault::TrainStep0),
            (false, _) => ("train_params_final", Fault::None),
        };
        let mut params = self.case.params(name, &self.specs).unwrap();
        if self.fault == Fault::IdleStep && !self.warm && self.steps == 1 {
            params[1][0] += 0.03;
        }
        if self.fault == fault && fault != Fault::None {
            params.last_mut().unwrap().iter_mut().for_each(|value| *value *= 1.02);
        }
        Ok(params)
    }

    fn losses(&mut self, inputs: &[i32], targets: &[i32], _: SequenceShape) -> Result<Vec<f32>> {
        if self.is_forward(inputs) {
            return Ok(self.token_losses(targets));
        }
        let reference = self.reference();
        let mut bpb = if self.steps == 0 { reference.val_bpb_initial } else { reference.val_bpb_final };
        if self.fault == Fault::WarmBpb && self.steps > 0 {
            bpb += 1e-4;
        }
        let nats = |id: &i32| bpb * std::f64::consts::LN_2 * f64::from(self.case.token_bytes[*id as usize]);
        Ok(targets.iter().map(|id| nats(id) as f32).collect())
    }

    fn logits(&mut self, inputs: &[i32], sequence: SequenceShape) -> Result<Vec<f32>> {
        let vocab = self.case.sizes.vocab_size;
        let mut logits = vec![0.0; sequence.rows() * vocab];
        if self.is_forward(inputs) {
            let (tail, values) = self.case.logits_tail().unwrap();
            let rows = logits.chunks_mut(sequence.len * vocab).zip(values.chunks(tail * vocab));
            rows.for_each(|(row, values)| row[(sequence.len - tail) * vocab..].copy_from_slice(values));
            if self.fault == Fault::Logits {
                *logits.last_mut().unwrap() += 1e-4;
            }
            return Ok(logits);
        }
        let greedy = self.case.greedy.as_ref().unwrap();
        let text: Vec<i32> = greedy.prompt_ids.iter().chain(&greedy.output_ids).copied().collect();
        for (position, next) in text.iter().skip(1).take(sequence.len).enumerate() {
            logits[position * vocab + *next as usize] = 1.0;
        }
        if self.fault == Fault::Greedy && sequence.len == text.len() - 2 {
            let last = (sequence.len - 1) * vocab;
            logits[last..].rotate_right(1);
        }
        Ok(logits)
    }

    fn backward(
        &mut self,
        inputs: &[i32],
        targets: &[i32],
        sequence: SequenceShape,
        grad_scale: f32,
    ) -> Result<Vec<f32>> {
        if self.is_forward(inputs) && self.steps == 0 && grad_scale == 1.0 / sequence.rows() as f32 {
            return Ok(self.token_losses(targets));
        }
        let step = &self.reference().steps[self.steps];
        let micro = (0..self.case.grad_accum_steps)
            .find(|&micro| self.case.micro_batch(TRAIN_BATCHES, step.step, micro).unwrap().inputs == inputs)
            .expect("a batch of this step");
        let wrong = match self.fault {
            Fault::WarmLoss => self.warm && self.steps == 5,
            Fault::TrainLoss => !self.warm && self.steps == 1,
            _ => false,
        };
        Ok(vec![step.micro_losses[micro] + if wrong { 3e-4 } else { 0.0 }; sequence.rows()])
    }

    fn grads(&self) -> Result<Vec<Vec<f32>>> {
        let mut grads = self.case.params("forward_grads", &self.specs).unwrap();
        if !self.warm {
            let size = if self.fault == Fault::IdleGradient { 1e-6 } else { 1e-9 };
            grads.iter_mut().flatten().for_each(|gradient| *gradient = size);
        }
        if self.fault == Fault::Gradient {
            grads[1].iter_mut().for_each(|value| *value *= 1.001);
        }
        Ok(grads)
    }

    fn step(&mut self, values: StepValues) -> Result<()> {
        assert_eq!(values, self.reference().steps[self.steps].values());
        self.steps += 1;
        Ok(())
    }

    fn step_values(&self, step: u64) -> StepValues {
        let mut values = self.reference().steps[step as usize].values();
        if self.fault == Fault::Schedule && step == 3 {
            values.muon_momentum += 1e-6;
        }
        values
    }
}

fn report(case: &Case, fault: Fault) -> CaseReport {
    run_case(case, &config(case), &mut Replay::new(case, fault)).unwrap()
}

fn case(name: &str) -> Case {
    Case::read(&fixtures().join(name)).unwrap()
}

/// Among them: every case's initial weights follow from its seed alone.
#[test]
fn upstreams_own_numbers_pass_in_every_case() {
    let directories = discover(&[fixtures()]).unwrap();
    assert_eq!(directories.len(), 9);
    for directory in directories {
        let case = Case::read(&directory).unwrap();
        let report = report(&case, Fault::None);
        assert!(report.passed, "{}", text(std::slice::from_ref(&report)));
    }
}

/// The engines that runs train with, on every case.
#[test]
fn the_cpu_backend_passes_every_case() {
    passes_every_case(BackendKind::Cpu, Precision::F32);
}

#[test]
fn the_cpu_backend_passes_every_case_in_bf16_within_its_own_tolerances() {
    passes_every_case(BackendKind::Cpu, Precision::Bf16);
}

#[cfg(feature = "tch")]
#[test]
fn the_tch_backend_passes_every_case() {
    passes_every_case(BackendKind::Tch, Precision::F32);
}

#[cfg(feature = "tch")]
#[test]
fn the_tch_backend_passes_every_case_in_bf16_within_its_own_tolerances() {
    passes_every_case(BackendKind::Tch, Precision::Bf16);
}

fn engine_report(case: &Case, kind: BackendKind, precision: Precision) -> Result<CaseReport> {
    let backend = BackendChoice { kind, device: "cpu".into(), precision };
    let config = config_of(case)?;
    let mut subject = EngineSubject::new(config.clone(), backend, 1)?;
    run_case(case, &config, &mut subject)
}

fn passes_every_case(kind: BackendKind, precision: Precision) {
    let shapes = fixtures().with_file_name("parity_shapes");
    for directory in discover(&[fixtures(), shapes]).unwrap() {
        let case = Case::read(&directory).unwrap();
        let report = engine_report(&case, kind, precision).unwrap();
        assert!(report.passed, "{}", text(std::slice::from_ref(&report)));
    }
}

fn bf16_fixtures() -> PathBuf {
    fixtures().with_file_name("parity_bf16")
}

/// Upstream's own bf16, which starts from equal tables: held to narrower bounds than its float32, on both backends.
#[test]
fn upstreams_own_bf16_passes_in_every_case() {
    let kinds: &[BackendKind] =
        if cfg!(feature = "tch") { &[BackendKind::Cpu, BackendKind::Tch] } else { &[BackendKind::Cpu] };
    let directories = discover(&[bf16_fixtures()]).unwrap();
    assert_eq!(directories.len(), 4);
    for (directory, kind) in
        directories.iter().flat_map(|directory| kinds.iter().map(move |kind| (directory, kind)))
    {
        let case = Case::read(directory).unwrap();
        assert_eq!(case.precision, Precision::Bf16);
        let report = engine_report(&case, *kind, Precision::Bf16).unwrap();
        assert!(report.passed, "{}", text(std::slice::from_ref(&report)));
    }
}

#[test]
fn float32_is_refused_a_case_in_bf16() {
    let case = Case::read(&bf16_fixtures().join("92d63d4_gqa")).unwrap();
    let refused = engine_report(&case, BackendKind::Cpu, Precision::F32).unwrap_err();
    let told = refused.to_string().replace(case.directory.to_str().unwrap(), "DIR");
    insta::assert_snapshot!("f32_with_a_bf16_case", told);
}

#[test]
fn a_case_in_a_precision_that_nobody_knows_is_refused() {
    let directory = copy_of_a_case();
    let file = directory.path().join("case.json");
    let json = fs::read_to_string(&file).unwrap().replace("\"float32\"", "\"float8\"");
    fs::write(&file, json).unwrap();
    let error = Case::read(directory.path()).unwrap_err().to_string();
    assert!(error.contains("float8") && error.contains("float32 or bfloat16"), "{error}");
}

/// Weights alone are not what was saved: without the optimizer's state the losses leave upstream's.
#[test]
fn a_continued_case_holds_the_optimizers_state_too() {
    for name in ["2f09686_continued", "92d63d4_continued"] {
        let case = Case::read(&fixtures().with_file_name("parity_shapes").join(name)).unwrap();
        let config = config_of(&case).unwrap();
        let specs = gpt_specs(&config.model);
        let (continued, checkpoint) = (case.continued.as_ref().unwrap(), case.checkpoint().unwrap());
        let mut weights = Weights::open(&checkpoint.model()).unwrap();
        let start: Vec<Vec<f32>> = specs.iter().map(|spec| weights.values(spec).unwrap()).collect();
        let reference = &continued.trajectory;
        assert_eq!(reference.steps.len(), 20);
        let backend =
            BackendChoice { kind: BackendKind::Cpu, device: "cpu".into(), precision: Precision::F32 };
        let mut subject = EngineSubject::new(config, backend, 1).unwrap();
        let apart = |subject: &mut EngineSubject| {
            let run = train(&case, reference, "continued_batches", reference.steps.len(), subject).unwrap();
            let pairs =
                run.losses.iter().zip(&reference.steps).flat_map(|(a, b)| a.iter().zip(&b.micro_losses));
            pairs.map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max)
        };
        let state = checkpoint.optimizer_state(&specs).unwrap();
        assert!(subject.resume(continued.step, &start, &state).unwrap());
        let with = apart(&mut subject);
        subject.set_params(&start).unwrap();
        let without = apart(&mut subject);
        assert!(with < 1e-4 && without > 100.0 * with, "{name}: {with:.1e} with it, {without:.1e} without");
    }
}

#[test]
fn every_fault_fails_its_check_and_no_other() {
    let cases = [
        (Fault::TokenLoss, vec!["token loss"]),
        (Fault::NanLoss, vec!["token loss", "mean loss"]),
        (Fault::Logits, vec!["logits"]),
        (Fault::Gradient, vec!["gradients"]),
        (Fault::Greedy, vec!["greedy tokens"]),
        (Fault::Schedule, vec!["schedule"]),
        (Fault::WarmLoss, vec!["warm: losses"]),
        (Fault::WarmStep0, vec!["warm: parameters after step 0"]),
        (Fault::WarmFinal, vec!["warm: parameters at the end"]),
        (Fault::WarmBpb, vec!["warm: val bpb after"]),
        (Fault::TrainLoss, vec!["train: losses"]),
        (Fault::TrainStep0, vec!["train: parameters after step 0"]),
        (Fault::IdleGradient, vec!["train: gradients of idle lambdas"]),
        (Fault::IdleStep, vec!["train: first step of idle lambdas"]),
    ];
    let case = case("92d63d4_d3");
    for (fault, expected) in cases {
        let report = report(&case, fault);
        let failed: Vec<&str> =
            report.checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
        assert_eq!(failed, expected, "{fault:?}");
    }
}

#[test]
fn another_seed_fails_both_initial_weight_checks() {
    let mut case = case("6ed7d1d_d3");
    case.seed = case.seed.map(|seed| seed + 1);
    let report = report(&case, Fault::None);
    let failed = report.checks.iter().filter(|check| !check.passed);
    assert_eq!(failed.filter(|check| check.name.starts_with("initial weights")).count(), 2);
}

#[test]
fn tables() {
    let reports = [
        report(&case("324e69c_d3"), Fault::None),
        report(&case("92d63d4_d3"), Fault::Gradient),
        report(&case("92d63d4_d3"), Fault::NanLoss),
    ];
    insta::assert_snapshot!("text", text(&reports));
    insta::assert_snapshot!("markdown", markdown(&reports));
    insta::assert_snapshot!("json", serde_json::to_string_pretty(&reports[2].checks[4]).unwrap());
}

/// A case that can be damaged.
fn copy_of_a_case() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures().join("6ed7d1d_d3")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    directory
}

#[test]
fn damaged_cases_are_input_errors_that_name_the_file() {
    let original = fs::read_to_string(fixtures().join("6ed7d1d_d3/case.json")).unwrap();
    let replaced = |from: &str, to: &str| {
        assert!(original.contains(from));
        original.replace(from, to).into_bytes()
    };
    let damages: Vec<(&str, Option<Vec<u8>>)> = vec![
        ("forward_grads.safetensors", None),
        ("val_batches.safetensors", Some(vec![1, 2, 3])),
        ("case.json", None),
        ("case.json", Some(b"{}".to_vec())),
        ("case.json", Some(replaced("\"n_head\": 2", "\"n_head\": 0"))),
        ("case.json", Some(replaced("\"n_head\": 2", "\"n_head\": 9223372036854775808"))),
        ("case.json", Some(replaced("\"n_kv_head\": 2", "\"n_kv_head\": 3"))),
        ("case.json", Some(replaced("\"n_layer\": 3", "\"n_layer\": 3000000000"))),
        ("case.json", Some(replaced("\"vocab_size\": 300", "\"vocab_size\": 301"))),
        ("case.json", Some(replaced("\"warm\": {", "\"continued\": {\n  \"step\": 1,"))),
        ("case.json", Some(replaced("\"SSSL\"", "\"SXSL\""))),
        ("case.json", Some(replaced("\"grad_accum_steps\": 2", "\"grad_accum_steps\": 3"))),
        ("forward_io.safetensors", Some(forward_io(256, 300))),
        ("forward_io.safetensors", Some(forward_io(128, 3))),
    ];
    for (name, content) in damages {
        let directory = copy_of_a_case();
        let path = directory.path().join(name);
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = Case::read(directory.path()).unwrap_err();
        assert_eq!(error.class().exit_code(), 2, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// A forward batch of this length, all of one token.
fn forward_io(len: usize, token: i32) -> Vec<u8> {
    let ids = |name: &str| NamedTensor::i32(name, &[2, len], vec![token; 2 * len]);
    let mut bytes = Vec::new();
    write_safetensors(&mut bytes, &[ids("x"), ids("y")]).unwrap();
    bytes
}

#[test]
fn parameters_that_do_not_fit_are_input_errors() {
    let case = case("92d63d4_d3");
    let mut specs = gpt_specs(&config(&case).model);
    specs[4].shape[0] += 1;
    let error = case.params("forward_params", &specs).unwrap_err();
    assert!(error.what().contains("has shape [320, 32], expected [321, 32]"), "{error}");
    specs[4].name = "elsewhere".into();
    let error = case.params("forward_params", &specs).unwrap_err();
    assert!(error.what().contains("`transformer.wte.weight` is no parameter"), "{error}");
    assert_eq!(error.class().exit_code(), 2);
}

#[test]
fn no_case_anywhere_is_an_input_error() {
    let empty = tempfile::tempdir().unwrap();
    for directory in [empty.path().to_owned(), empty.path().join("absent")] {
        assert_eq!(discover(&[directory]).unwrap_err().class().exit_code(), 2);
    }
    assert_eq!(discover(&[fixtures().join("92d63d4_d4")]).unwrap().len(), 1);
}

/// The order of the specs is that in which upstream lists its parameters.
#[test]
fn specs_stand_in_upstreams_order() {
    for directory in discover(&[fixtures()]).unwrap() {
        let case = Case::read(&directory).unwrap();
        let json = fs::read_to_string(directory.join("case.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let names = json["warm"]["final_param_noise"].as_object().unwrap().keys();
        let specs = gpt_specs(&config(&case).model);
        assert!(names.eq(specs.iter().map(|spec| &spec.name)), "{}", case.name);
    }
}
