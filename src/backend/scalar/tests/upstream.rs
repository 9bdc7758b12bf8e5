//! The oracle against numbers that upstream's own code produced at 92d63d4, every path of the model active.

use super::*;
use crate::interop::safetensors::TensorFile;
use crate::model::param::ParamGroup;
use crate::optim::config::{AdamWConfig, GroupConfig, MuonConfig, OptimizerConfig, StepValues};
use crate::train::engine::{Engine, MicroBatch};
use crate::train::scalar_engine::ScalarEngine;

/// B and T of the case.
const BATCH: usize = 2;
const LEN: usize = 256;

fn file(name: &str) -> TensorFile {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/92d63d4_d3");
    let path: PathBuf = directory.join(format!("{name}.safetensors"));
    TensorFile::read(&path).unwrap()
}

fn network() -> Gpt {
    let constant = LayerRamp { first: 0.0, fall: 0.0 };
    Gpt::new(GptConfig {
        sequence_len: LEN,
        vocab_size: 300,
        padded_vocab_size: 320,
        n_layer: 3,
        n_head: 2,
        n_kv_head: 2,
        n_embd: 32,
        windows: vec![128, 128, 256],
        rotary_base: 100_000.0,
        rotary_precision: Precision::F32,
        qk_scale: 1.2,
        softcap: Some(15.0),
        value_embeds: Some(ValueEmbedConfig { gate_channels: 12, gate_scale: 3.0 }),
        smear_channels: Some(24),
        backout: true,
        norm_eps: f32::EPSILON,
        init: GptInit {
            wte_std: 0.0,
            lm_head_std: 0.0,
            c_fc_scale: 0.0,
            ve_gate_max: 0.0,
            resid_lambda: constant,
            x0_lambda: constant,
            smear_gate_max: 0.0,
            smear_lambda: 0.0,
            backout_lambda: 0.0,
        },
    })
    .unwrap()
}

/// The case's constants; learning rates of embeddings are times `sqrt(768 / 32)`.
fn optimizer() -> OptimizerConfig {
    let wide = (768.0_f64 / 32.0).sqrt();
    let adamw = |lr: f64, beta1: f64, beta2: f64, weight_decay: f64| {
        GroupConfig::Adamw(AdamWConfig { lr, beta1, beta2, eps: 1e-10, weight_decay })
    };
    let (unembedding, embedding) = (0.0003535533905932738 * wide, 0.013258252147247766 * wide);
    let scalar = 0.02209708691207961;
    let muon = GroupConfig::Muon(MuonConfig {
        lr: 0.0008838834764831845,
        beta2: 0.9,
        norm_factor: 1.01,
        ns_steps: 5,
        row_equilibration: true,
        renormalize: true,
        polar_precision: Precision::F32,
        update_precision: Precision::F32,
    });
    OptimizerConfig {
        groups: vec![
            (ParamGroup::LmHead, adamw(unembedding, 0.8, 0.96, 0.01)),
            (ParamGroup::Wte, adamw(embedding, 0.8, 0.995, 0.001)),
            (ParamGroup::ValueEmbeds, adamw(embedding * 0.5, 0.8, 0.995, 0.01)),
            (ParamGroup::Resid, adamw(scalar * 0.01, 0.8, 0.95, 0.05)),
            (ParamGroup::X0, adamw(scalar, 0.96, 0.95, 0.0)),
            (ParamGroup::Smear, adamw(0.2, 0.8, 0.95, 0.0)),
            (ParamGroup::Matrix, muon),
        ],
    }
}

fn engine() -> ScalarEngine<Gpt> {
    let (network, params) = (network(), file("forward_params"));
    let values: Vec<Vec<f32>> =
        network.specs().iter().map(|spec| params.f32(&spec.name, &spec.shape).unwrap().to_vec()).collect();
    ScalarEngine::new(network, &optimizer(), &values).unwrap()
}

/// Losses of the rows one after the other, which keeps the tape at one row; gradients add up.
fn accumulate(engine: &mut ScalarEngine<Gpt>, inputs: &[i32], targets: &[i32], grad_scale: f64) -> Vec<f64> {
    let sequence = SequenceShape { batch: 1, len: LEN };
    let rows = inputs.chunks(LEN).zip(targets.chunks(LEN));
    rows.flat_map(|(inputs, targets)| {
        engine.accumulate_exact(&MicroBatch { inputs, targets, sequence }, grad_scale).unwrap()
    })
    .collect()
}

fn frobenius(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn losses_and_gradients_are_upstreams() {
    let (io, grads) = (file("forward_io"), file("forward_grads"));
    let ids = |name: &str| io.i32(name, &[BATCH, LEN]).unwrap().to_vec();
    let mut engine = engine();
    let scale = 1.0 / (BATCH * LEN) as f64;
    let losses = accumulate(&mut engine, &ids("x"), &ids("y"), scale);
    // Upstream computed in float32: its own rounding is all that may remain.
    for (found, expected) in losses.iter().zip(io.f32("token_loss", &[BATCH, LEN]).unwrap()) {
        assert!((found - f64::from(*expected)).abs() < 3e-6, "{found} {expected}");
    }
    let specs = network().specs().to_vec();
    for (spec, found) in specs.iter().zip(engine.exact_gradients()) {
        let expected = grads.f32(&spec.name, &spec.shape).unwrap();
        let error = frobenius(found.iter().zip(expected).map(|(found, e)| found - f64::from(*e)));
        let relative = error / frobenius(found.iter().copied());
        assert!(relative < 2e-6, "{}: {relative}", spec.name);
    }
}

#[test]
fn one_update_is_upstreams() {
    let (batches, after) = (file("train_batches"), file("warm_params_after_step_0"));
    let mut engine = engine();
    for micro in 0..2 {
        let ids =
            |part: &str| batches.i32(&format!("step00.micro{micro}.{part}"), &[BATCH, LEN]).unwrap().to_vec();
        accumulate(&mut engine, &ids("x"), &ids("y"), 1.0 / (2 * BATCH * LEN) as f64);
    }
    let before: Vec<Vec<f64>> = engine.exact_parameters().map(<[f64]>::to_vec).collect();
    let step = StepValues { lr_multiplier: 1.0 / 3.0, muon_momentum: 0.85, muon_weight_decay: 0.28 };
    engine.update(&step).unwrap();
    let specs = network().specs().to_vec();
    for ((spec, found), before) in specs.iter().zip(engine.exact_parameters()).zip(before) {
        let expected = after.f32(&spec.name, &spec.shape).unwrap();
        let error = frobenius(found.iter().zip(expected).map(|(found, e)| found - f64::from(*e)));
        let moved = frobenius(found.iter().zip(&before).map(|(found, before)| found - before));
        // Upstream's weights are float32: each is rounded to within 2^-24 of its size.
        let rounding = f64::from(f32::EPSILON) * frobenius(found.iter().copied());
        assert!(error < 1e-4 * moved + rounding, "{}: off by {error} of a move of {moved}", spec.name);
    }
}
