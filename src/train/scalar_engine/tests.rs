//! Training on the oracle: resumed at any step, and without a tape left behind. Its numbers are checked from outside,
//! in `tests/integration/small_models.rs` and `oracle.rs`.

use serde_json::Value;

use super::*;
use crate::model::config::MicrogptConfig;
use crate::model::microgpt::Microgpt;
use crate::model::param::ParamGroup;
use crate::ops::SequenceShape;
use crate::optim::config::{AdamWConfig, MuonConfig, SgdConfig};
use crate::precision::Precision;

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
    let owned =
        |found: Vec<NamedTensor<'_>>| found.into_iter().map(NamedTensor::into_owned).collect::<Vec<_>>();
    let parameters = owned(engine.parameters().unwrap());
    let mut state = owned(engine.optimizer_state().unwrap());
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
