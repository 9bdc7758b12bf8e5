//! Training on the oracle: against an independent implementation, and resumed at any step.

use std::path::Path;

use serde_json::Value;

use super::*;
use crate::model::bigram::Bigram;
use crate::model::config::{BigramConfig, MicrogptConfig};
use crate::model::microgpt::Microgpt;
use crate::model::param::ParamGroup;
use crate::ops::SequenceShape;
use crate::optim::config::{AdamWConfig, MuonConfig, SgdConfig};
use crate::precision::Precision;

/// The cases of `tests/fixtures/generate/microgpt.py` for a model kind.
fn fixture(kind: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/small_models/{kind}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn size(config: &Value, key: &str) -> usize {
    config[key].as_u64().unwrap() as usize
}

fn microgpt(config: &Value) -> Microgpt {
    Microgpt::new(MicrogptConfig {
        sequence_len: size(config, "sequence_len"),
        vocab_size: size(config, "vocab_size"),
        n_layer: size(config, "n_layer"),
        n_head: size(config, "n_head"),
        n_embd: size(config, "n_embd"),
        norm_eps: 1e-5,
        tie_lm_head: config["tie_lm_head"].as_bool().unwrap(),
        input_rmsnorm: config["input_rmsnorm"].as_bool().unwrap(),
        init_std: 0.3,
    })
    .unwrap()
}

fn bigram(config: &Value) -> Bigram {
    Bigram::new(BigramConfig {
        sequence_len: size(config, "sequence_len"),
        vocab_size: size(config, "vocab_size"),
        n_embd: size(config, "n_embd"),
        norm_eps: 1e-5,
        tie_lm_head: config["tie_lm_head"].as_bool().unwrap(),
        input_rmsnorm: config["input_rmsnorm"].as_bool().unwrap(),
        init_std: 0.3,
    })
    .unwrap()
}

fn every_group(config: &GroupConfig) -> OptimizerConfig {
    let groups = [ParamGroup::Wte, ParamGroup::LmHead, ParamGroup::Matrix];
    OptimizerConfig { groups: groups.map(|group| (group, config.clone())).to_vec() }
}

fn optimizer(config: &Value) -> GroupConfig {
    let number = |key: &str| config[key].as_f64().unwrap();
    let (lr, weight_decay) = (number("lr"), number("weight_decay"));
    if config["kind"] == "sgd" {
        return GroupConfig::Sgd(SgdConfig { lr, momentum: number("momentum"), weight_decay });
    }
    let (beta1, beta2, eps) = (number("beta1"), number("beta2"), number("eps"));
    GroupConfig::Adamw(AdamWConfig { lr, beta1, beta2, eps, weight_decay })
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

fn step_values(multiplier: f64) -> StepValues {
    StepValues { lr_multiplier: multiplier, muon_momentum: 0.9, muon_weight_decay: 0.1 }
}

/// Mean loss of one document; its gradient is accumulated.
fn accumulate<M: Network>(engine: &mut ScalarEngine<M>, tokens: &[i32]) -> f64 {
    let len = (tokens.len() - 1).min(engine.network.sequence_len());
    let sequence = SequenceShape { batch: 1, len };
    let batch = MicroBatch { inputs: &tokens[..len], targets: &tokens[1..=len], sequence };
    let losses = engine.accumulate_exact(&batch, 1.0 / len as f64).unwrap();
    losses.iter().sum::<f64>() / len as f64
}

fn assert_close(name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < tolerance * (1.0 + expected.abs()), "{name}: {found} {expected}");
    }
}

/// Twenty steps of every case, to the digits that the fixture holds. Both compute in f64; the epsilon of the norms is
/// 1e-5 rounded to f32 here, which moves a loss by some 1e-12.
fn follow<M: Network>(kind: &str, network: impl Fn(&Value) -> M) {
    let fixture = fixture(kind);
    let documents: Vec<&str> =
        fixture["documents"].as_array().unwrap().iter().map(|d| d.as_str().unwrap()).collect();
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() >= 8);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let network = network(&case["config"]);
        let specs = network.specs().to_vec();
        let by_name = |of: &str| -> Vec<Vec<f64>> {
            assert_eq!(case[of].as_object().unwrap().len(), specs.len());
            specs.iter().map(|spec| floats(&case[of][&spec.name])).collect()
        };
        let single = |values: &Vec<f64>| values.iter().map(|value| *value as f32).collect();
        let initial: Vec<Vec<f32>> = by_name("initial").iter().map(single).collect();
        let optimizer = every_group(&optimizer(&case["optimizer"]));
        let mut engine = ScalarEngine::new(network, &optimizer, &initial).unwrap();
        let losses = floats(&case["losses"]);
        for (step, expected) in losses.iter().enumerate() {
            let document = documents[step % documents.len()];
            let loss = accumulate(&mut engine, &tokens(&documents, document));
            assert_close(&format!("{name} step {step}"), &[loss], &[*expected], 1e-9);
            if step == 0 {
                for (found, expected) in engine.exact_gradients().zip(by_name("grads")) {
                    assert_close(name, &found, &expected, 2e-9);
                }
            }
            let done = step as f64 / losses.len() as f64;
            let cosine = 0.5 + 0.5 * libm::cos(std::f64::consts::PI * done);
            let multiplier = if case["decay"] == "cosine" { cosine } else { 1.0 - done };
            engine.update(&step_values(multiplier)).unwrap();
        }
        for (found, expected) in engine.exact_parameters().zip(by_name("final")) {
            assert_close(name, found, &expected, 2e-8);
        }
    }
}

#[test]
fn microgpt_follows_the_independent_implementation() {
    follow("microgpt", microgpt);
}

#[test]
fn bigram_follows_the_independent_implementation() {
    follow("bigram", bigram);
}

fn muon() -> GroupConfig {
    GroupConfig::Muon(MuonConfig {
        lr: 0.02,
        beta2: 0.9,
        norm_factor: 1.01,
        ns_steps: 5,
        row_equilibration: true,
        renormalize: true,
        polar_precision: Precision::F32,
        update_precision: Precision::F32,
    })
}

/// A two-layer microgpt with all three optimizers.
fn mixed_engine() -> ScalarEngine<Microgpt> {
    let config = serde_json::json!({
        "sequence_len": 6, "vocab_size": 7, "n_layer": 2, "n_head": 2, "n_embd": 4,
        "tie_lm_head": false, "input_rmsnorm": true,
    });
    let network = microgpt(&config);
    let adamw = AdamWConfig { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-10, weight_decay: 0.1 };
    let sgd = SgdConfig { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
    let groups = vec![
        (ParamGroup::Wte, GroupConfig::Adamw(adamw)),
        (ParamGroup::LmHead, GroupConfig::Sgd(sgd)),
        (ParamGroup::Matrix, muon()),
    ];
    let value = |index: usize| ((index * 37 % 101) as f32 - 50.0) / 100.0;
    let values: Vec<Vec<f32>> =
        network.specs().iter().map(|spec| (0..spec.numel()).map(value).collect()).collect();
    ScalarEngine::new(network, &OptimizerConfig { groups }, &values).unwrap()
}

fn train(engine: &mut ScalarEngine<Microgpt>, steps: std::ops::Range<usize>) -> Vec<u64> {
    let step = |step: usize| {
        let tokens: Vec<i32> = (0..7).map(|t| ((t * t + step) % 7) as i32).collect();
        let loss = accumulate(engine, &tokens);
        engine.update(&step_values(1.0)).unwrap();
        loss.to_bits()
    };
    steps.map(step).collect()
}

#[test]
fn a_resumed_run_goes_on_with_the_very_same_numbers() {
    let mut whole = mixed_engine();
    let losses = train(&mut whole, 0..6);
    let mut first = mixed_engine();
    train(&mut first, 0..3);
    let mut resumed = mixed_engine();
    resumed.restore(3, &first.parameters().unwrap(), &first.optimizer_state().unwrap()).unwrap();
    assert_eq!(train(&mut resumed, 3..6), losses[3..]);
    assert!(resumed.exact_parameters().eq(whole.exact_parameters()));
    assert!(resumed.optimizer_state().unwrap() == whole.optimizer_state().unwrap());
}

#[test]
fn digits_hold_every_bit() {
    let numbers = [0.0, -0.0, 1.0 / 3.0, -1e-310, f64::MAX, f64::INFINITY, f64::NAN, -2.5e-17];
    for number in numbers {
        assert_eq!(from_digits(&to_digits(number)).to_bits(), number.to_bits());
    }
}

#[test]
fn state_that_does_not_fit_is_named() {
    let mut engine = mixed_engine();
    train(&mut engine, 0..1);
    let (parameters, mut state) = (engine.parameters().unwrap(), engine.optimizer_state().unwrap());
    state[1].shape = vec![1, 2];
    let error = engine.restore(1, &parameters, &state).unwrap_err();
    assert_eq!(error.what(), "optimizer state `wte.exp_avg.f64` has shape [1, 2] in the checkpoint");
    state.remove(1);
    let error = engine.restore(1, &parameters, &state).unwrap_err();
    assert_eq!(error.what(), "the checkpoint lacks the optimizer state `wte.exp_avg.f64`");
    assert_eq!(error.class().exit_code(), 2);
}

#[test]
fn training_lowers_the_loss_and_leaves_no_tape() {
    let mut engine = mixed_engine();
    let before = engine.live_bytes();
    let tokens = [0, 1, 2, 3, 4, 5, 6];
    let mut losses = (0..40).map(|_| {
        let loss = accumulate(&mut engine, &tokens);
        engine.update(&step_values(1.0)).unwrap();
        loss
    });
    let (first, last) = (losses.next().unwrap(), losses.last().unwrap());
    assert!(last < 0.2 * first, "{first} {last}");
    assert!(engine.tape_cost().nodes > 0);
    assert_eq!(engine.live_bytes(), before);
}

/// What the tape of a tiny GPT costs a token: printed by `cargo test -- --ignored --nocapture tape_cost`.
#[test]
#[ignore = "a measurement"]
fn tape_cost_of_a_small_model() {
    for (n_embd, len) in [(16, 16), (32, 32), (64, 64)] {
        let config = serde_json::json!({
            "sequence_len": len, "vocab_size": 32, "n_layer": 2, "n_head": 4, "n_embd": n_embd,
            "tie_lm_head": false, "input_rmsnorm": true,
        });
        let network = microgpt(&config);
        let values: Vec<Vec<f32>> = network.specs().iter().map(|spec| vec![0.1; spec.numel()]).collect();
        let params: usize = values.iter().map(Vec::len).sum();
        let mut engine = ScalarEngine::new(network, &every_group(&muon()), &values).unwrap();
        let tokens: Vec<i32> = (0..=len).map(|t| t % 32).collect();
        accumulate(&mut engine, &tokens);
        let (cost, len) = (engine.tape_cost(), len as usize);
        let per_token = [cost.nodes - params, cost.edges, cost.bytes].map(|total| total / len);
        eprintln!("{params} parameters, T {len}: nodes, edges, bytes a token {per_token:?}");
    }
}
