//! The small models against an independent implementation in Python, on every backend: twenty steps of every case.

use std::path::Path;

use nanorun::internals::error::Result;
use nanorun::internals::model::bigram::Bigram;
use nanorun::internals::model::config::{BigramConfig, MicrogptConfig, ModelConfig};
use nanorun::internals::model::init::InitialValues;
use nanorun::internals::model::microgpt::Microgpt;
use nanorun::internals::model::network::Network;
use nanorun::internals::model::param::ParamGroup;
use nanorun::internals::ops::SequenceShape;
use nanorun::internals::optim::config::{AdamWConfig, GroupConfig, OptimizerConfig, SgdConfig, StepValues};
use nanorun::internals::plan::run_config::{BackendChoice, BackendKind};
use nanorun::internals::precision::Precision;
use nanorun::internals::run::engine::engine_from;
use nanorun::internals::train::engine::{Engine, MicroBatch, NamedTensor};
use nanorun::internals::train::scalar_engine::ScalarEngine;
use serde_json::Value;

use crate::backends::BACKENDS;

/// How far losses, first gradients and last parameters may be from the fixture's: `|x - y| / (1 + |y|)`.
#[derive(Debug, Clone, Copy, Default)]
struct Distance {
    loss: f64,
    gradient: f64,
    parameter: f64,
}

/// Both compute in f64; the fixture holds 10 digits of gradients and parameters, and the epsilon of the norms is 1e-5
/// rounded to f32 here, which moves a loss by some 1e-12. Reached: 2e-12, 2.4e-10, 2.2e-10.
const F64: Distance = Distance { loss: 1e-11, gradient: 1e-9, parameter: 1e-9 };

/// Float32 rounds to 6e-8 of a value; twenty steps add up a few. Reached on cpu: 1.5e-7, 3.9e-7, 2.6e-7.
const F32: Distance = Distance { loss: 6e-7, gradient: 1.5e-6, parameter: 1e-6 };

/// A model in training, with its numbers as exactly as it has them.
trait Subject {
    fn accumulate(&mut self, batch: &MicroBatch<'_>, grad_scale: f64) -> Result<Vec<f64>>;
    fn update(&mut self, values: &StepValues) -> Result<()>;
    fn gradients(&self) -> Vec<Vec<f64>>;
    fn parameters(&self) -> Vec<Vec<f64>>;
}

impl<M: Network> Subject for ScalarEngine<M> {
    fn accumulate(&mut self, batch: &MicroBatch<'_>, grad_scale: f64) -> Result<Vec<f64>> {
        self.accumulate_exact(batch, grad_scale)
    }
    fn update(&mut self, values: &StepValues) -> Result<()> {
        Engine::update(self, values)
    }
    fn gradients(&self) -> Vec<Vec<f64>> {
        self.exact_gradients().collect()
    }
    fn parameters(&self) -> Vec<Vec<f64>> {
        self.exact_parameters().map(<[f64]>::to_vec).collect()
    }
}

impl Subject for Box<dyn Engine> {
    fn accumulate(&mut self, batch: &MicroBatch<'_>, grad_scale: f64) -> Result<Vec<f64>> {
        Ok(widen(&self.as_mut().accumulate(batch, grad_scale as f32)?.read()?))
    }
    fn update(&mut self, values: &StepValues) -> Result<()> {
        self.as_mut().update(values)
    }
    fn gradients(&self) -> Vec<Vec<f64>> {
        tensors(&self.as_ref().gradients().unwrap())
    }
    fn parameters(&self) -> Vec<Vec<f64>> {
        tensors(&self.as_ref().parameters().unwrap())
    }
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn tensors(tensors: &[NamedTensor<'_>]) -> Vec<Vec<f64>> {
    tensors.iter().map(|tensor| widen(&tensor.values.wide())).collect()
}

/// The cases of `tests/fixtures/generate/microgpt.py` for a model kind.
fn fixture(kind: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/small_models/{kind}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn model(kind: &str, config: &Value) -> ModelConfig {
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let switch = |key: &str| config[key].as_bool().unwrap();
    let (sequence_len, vocab_size, n_embd) = (size("sequence_len"), size("vocab_size"), size("n_embd"));
    let (tie_lm_head, input_rmsnorm) = (switch("tie_lm_head"), switch("input_rmsnorm"));
    let (norm_eps, init_std) = (1e-5, 0.3);
    if kind == "bigram" {
        return ModelConfig::Bigram(BigramConfig {
            sequence_len,
            vocab_size,
            n_embd,
            norm_eps,
            tie_lm_head,
            input_rmsnorm,
            init_std,
        });
    }
    ModelConfig::Microgpt(MicrogptConfig {
        sequence_len,
        vocab_size,
        n_layer: size("n_layer"),
        n_head: size("n_head"),
        n_embd,
        norm_eps,
        tie_lm_head,
        input_rmsnorm,
        init_std,
    })
}

fn optimizer(config: &Value) -> OptimizerConfig {
    let number = |key: &str| config[key].as_f64().unwrap();
    let (lr, weight_decay) = (number("lr"), number("weight_decay"));
    let group = if config["kind"] == "sgd" {
        GroupConfig::Sgd(SgdConfig { lr, momentum: number("momentum"), weight_decay })
    } else {
        let (beta1, beta2, eps) = (number("beta1"), number("beta2"), number("eps"));
        GroupConfig::Adamw(AdamWConfig { lr, beta1, beta2, eps, weight_decay })
    };
    let groups = [ParamGroup::Wte, ParamGroup::LmHead, ParamGroup::Matrix];
    OptimizerConfig { groups: groups.map(|at| (at, group.clone())).to_vec() }
}

fn subject(
    model: &ModelConfig,
    optimizer: &OptimizerConfig,
    kind: BackendKind,
    initial: &[Vec<f32>],
) -> Box<dyn Subject> {
    match (kind, model) {
        (BackendKind::Scalar, ModelConfig::Microgpt(model)) => {
            Box::new(ScalarEngine::new(Microgpt::new(model.clone()).unwrap(), optimizer, initial).unwrap())
        }
        (BackendKind::Scalar, ModelConfig::Bigram(model)) => {
            Box::new(ScalarEngine::new(Bigram::new(model.clone()).unwrap(), optimizer, initial).unwrap())
        }
        _ => {
            let backend = BackendChoice { kind, device: "cpu".to_owned(), precision: Precision::F32 };
            Box::new(
                engine_from(model, optimizer, &backend, 2, |_| Ok(InitialValues::Given(initial.to_vec())))
                    .unwrap(),
            )
        }
    }
}

fn floats(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

/// BOS, the characters, BOS; ids are places in the sorted alphabet of all documents.
fn tokens(documents: &[&str], document: &str) -> Vec<i32> {
    let mut alphabet: Vec<char> = documents.concat().chars().collect();
    alphabet.sort_unstable();
    alphabet.dedup();
    let id = |c: char| alphabet.binary_search(&c).unwrap() as i32;
    let bos = alphabet.len() as i32;
    std::iter::once(bos).chain(document.chars().map(id)).chain([bos]).collect()
}

fn largest(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let apart = |(found, expected): (&f64, &f64)| (found - expected).abs() / (1.0 + expected.abs());
    found.iter().zip(expected).map(apart).fold(0.0, f64::max)
}

/// Trains a case and returns how far from the fixture it came.
fn follow(kind: &str, backend: BackendKind, case: &Value, documents: &[&str]) -> Distance {
    let model = model(kind, &case["config"]);
    let names: Vec<String> = crate::backends::specs(&model).into_iter().map(|spec| spec.name).collect();
    let by_name = |of: &str| -> Vec<Vec<f64>> {
        assert_eq!(case[of].as_object().unwrap().len(), names.len());
        names.iter().map(|name| floats(&case[of][name])).collect()
    };
    let single = |values: &Vec<f64>| values.iter().map(|value| *value as f32).collect();
    let initial: Vec<Vec<f32>> = by_name("initial").iter().map(single).collect();
    let mut subject = subject(&model, &optimizer(&case["optimizer"]), backend, &initial);
    let losses = floats(&case["losses"]);
    assert_eq!(losses.len(), 20);
    let mut reached = Distance::default();
    for (step, expected) in losses.iter().enumerate() {
        let tokens = tokens(documents, documents[step % documents.len()]);
        let len = (tokens.len() - 1).min(model.sequence_len());
        let sequence = SequenceShape { batch: 1, len };
        let batch = MicroBatch { inputs: &tokens[..len], targets: &tokens[1..=len], sequence };
        let found = subject.accumulate(&batch, 1.0 / len as f64).unwrap();
        let loss = found.iter().sum::<f64>() / len as f64;
        reached.loss = reached.loss.max(largest(&[loss], &[*expected]));
        if step == 0 {
            reached.gradient = largest(&subject.gradients().concat(), &by_name("grads").concat());
        }
        let done = step as f64 / losses.len() as f64;
        let cosine = 0.5 + 0.5 * libm::cos(std::f64::consts::PI * done);
        let lr_multiplier = if case["decay"] == "cosine" { cosine } else { 1.0 - done };
        subject.update(&StepValues { lr_multiplier, muon_momentum: 0.0, muon_weight_decay: 0.0 }).unwrap();
    }
    reached.parameter = largest(&subject.parameters().concat(), &by_name("final").concat());
    reached
}

#[test]
fn every_backend_follows_the_independent_implementation() {
    for kind in ["microgpt", "bigram"] {
        let fixture = fixture(kind);
        let documents: Vec<&str> =
            fixture["documents"].as_array().unwrap().iter().map(|d| d.as_str().unwrap()).collect();
        let cases = fixture["cases"].as_array().unwrap();
        assert!(cases.len() >= 8);
        for &backend in BACKENDS {
            let tolerance = if backend == BackendKind::Scalar { F64 } else { F32 };
            let mut worst = Distance::default();
            for case in cases {
                let reached = follow(kind, backend, case, &documents);
                let what = format!("{kind} {} on {backend:?}: {reached:?}", case["name"]);
                assert!(reached.loss < tolerance.loss, "{what}");
                assert!(reached.gradient < tolerance.gradient, "{what}");
                assert!(reached.parameter < tolerance.parameter, "{what}");
                worst = Distance {
                    loss: worst.loss.max(reached.loss),
                    gradient: worst.gradient.max(reached.gradient),
                    parameter: worst.parameter.max(reached.parameter),
                };
            }
            eprintln!("{kind} on {backend:?}, {} cases: {worst:?}", cases.len());
        }
    }
}
