//! The oracle itself: its gradients against central differences over random small models with every feature switch,
//! and against upstream's own; its optimizers against what their papers promise.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::*;
use crate::model::bigram::Bigram;
use crate::model::config::{BigramConfig, GptConfig, GptInit, LayerRamp, MicrogptConfig, ValueEmbedConfig};
use crate::model::gpt::Gpt;
use crate::model::microgpt::Microgpt;
use crate::model::network::{Inputs, Network};
use crate::model::param::Params;
use crate::ops::SequenceShape;
use crate::precision::Precision;
use crate::rng::SplitMix64;
use crate::stop::StopFlag;

/// Longest sequence of a random model.
const MAX_LEN: usize = 9;

/// Sequences, even and odd lengths, a single position among them.
fn sequences() -> impl Strategy<Value = SequenceShape> {
    (1_usize..4, 1..=MAX_LEN).prop_map(|(batch, len)| SequenceShape { batch, len })
}

/// A small random GPT: any switch on or off, one to six heads, grouped queries, widths that are no powers of two,
/// windows shorter and longer than the sequence, a padded vocabulary.
fn gpt_configs() -> impl Strategy<Value = GptConfig> {
    let heads = proptest::sample::select(&[(1, 1), (2, 1), (2, 2), (3, 1), (3, 3), (4, 2), (6, 2)][..]);
    let sizes = (1_usize..4, heads, 1_usize..4);
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let windows = proptest::collection::vec(0..=MAX_LEN, 3);
    (sizes, switches, windows).prop_map(|((n_layer, (n_head, n_kv_head), half), switches, windows)| {
        let (softcap, value_embeds, smear, backout, qk_scale) = switches;
        let n_embd = n_head * 2 * half;
        GptConfig {
            sequence_len: MAX_LEN,
            vocab_size: 7,
            padded_vocab_size: 9,
            n_layer,
            n_head,
            n_kv_head,
            n_embd,
            windows: windows[..n_layer].to_vec(),
            rotary_base: 100.0,
            rotary_precision: Precision::F32,
            qk_scale: if qk_scale { 1.2 } else { 1.0 },
            softcap: softcap.then_some(2.0),
            value_embeds: value_embeds
                .then_some(ValueEmbedConfig { gate_channels: n_embd.min(3), gate_scale: 2.0 }),
            smear_channels: smear.then_some(n_embd.min(2)),
            backout,
            norm_eps: 1e-5,
            init: GptInit {
                wte_std: 1.0,
                lm_head_std: 1.0,
                c_fc_scale: 1.0,
                ve_gate_max: 0.0,
                resid_lambda: LayerRamp { first: 1.0, fall: 0.0 },
                x0_lambda: LayerRamp { first: 0.1, fall: 0.0 },
                smear_gate_max: 0.0,
                smear_lambda: 0.0,
                backout_lambda: 0.0,
            },
        }
    })
}

fn microgpt_configs() -> impl Strategy<Value = MicrogptConfig> {
    (1_usize..3, 1_usize..4, 1_usize..4, any::<bool>(), any::<bool>()).prop_map(
        |(n_layer, n_head, head_dim, tie_lm_head, input_rmsnorm)| MicrogptConfig {
            sequence_len: MAX_LEN,
            vocab_size: 7,
            n_layer,
            n_head,
            n_embd: n_head * head_dim,
            norm_eps: 1e-5,
            tie_lm_head,
            input_rmsnorm,
            init_std: 0.08,
        },
    )
}

fn bigram_configs() -> impl Strategy<Value = BigramConfig> {
    (1_usize..6, any::<bool>(), any::<bool>()).prop_map(|(n_embd, tie_lm_head, input_rmsnorm)| BigramConfig {
        sequence_len: MAX_LEN,
        vocab_size: 7,
        n_embd,
        norm_eps: 1e-5,
        tie_lm_head,
        input_rmsnorm,
        init_std: 0.08,
    })
}

/// What a property says of random configurations it says of every switch in both positions, and of every odd shape.
#[test]
fn configurations_cover_every_switch_both_ways() {
    fn draw<T: std::fmt::Debug>(strategy: &impl Strategy<Value = T>) -> Vec<T> {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        (0..64).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
    }
    fn both<T>(name: &str, drawn: &[T], on: impl Fn(&T) -> bool) {
        let count = drawn.iter().filter(|drawn| on(drawn)).count();
        assert!((4..=60).contains(&count), "{name}: {count} of 64");
    }
    let drawn = draw(&(gpt_configs(), sequences()));
    both("softcap", &drawn, |(gpt, _)| gpt.softcap.is_some());
    both("value embeddings", &drawn, |(gpt, _)| gpt.value_embeds.is_some());
    both("smear", &drawn, |(gpt, _)| gpt.smear_channels.is_some());
    both("backout", &drawn, |(gpt, _)| gpt.backout);
    both("QK scale", &drawn, |(gpt, _)| gpt.qk_scale != 1.0);
    both("grouped queries", &drawn, |(gpt, _)| gpt.n_kv_head < gpt.n_head);
    both("power of two", &drawn, |(gpt, _)| gpt.n_embd.is_power_of_two());
    both("odd length", &drawn, |(_, sequence)| sequence.len % 2 == 1);
    both("short window", &drawn, |(gpt, sequence)| gpt.windows.iter().any(|w| w + 1 < sequence.len));
    for depth in 1..=3 {
        both("depth", &drawn, |(gpt, _)| gpt.n_layer == depth);
    }
    let drawn = draw(&microgpt_configs());
    both("microgpt: tied", &drawn, |config| config.tie_lm_head);
    both("microgpt: input norm", &drawn, |config| config.input_rmsnorm);
    both("microgpt: odd width", &drawn, |config| config.n_embd % 2 == 1);
    let drawn = draw(&bigram_configs());
    both("bigram: tied", &drawn, |config| config.tie_lm_head);
    both("bigram: input norm", &drawn, |config| config.input_rmsnorm);
    both("bigram: odd width", &drawn, |config| config.n_embd % 2 == 1);
}

/// Weights away from every special value, so that each path of a model carries gradient.
fn random_values(network: &impl Network, rng: &mut SplitMix64) -> Vec<Vec<f32>> {
    let value = |rng: &mut SplitMix64| (2.0 * rng.next_f64() - 1.0) as f32;
    network.specs().iter().map(|spec| (0..spec.numel()).map(|_| value(rng)).collect()).collect()
}

fn oracle_weights(ops: &ScalarBackend, network: &impl Network, values: &[Vec<f32>]) -> Params<Weight> {
    let weight = |(spec, values): (&crate::model::param::ParamSpec, &Vec<f32>)| {
        ops.weight(&spec.shape, values).unwrap()
    };
    Params(network.specs().iter().zip(values).map(weight).collect())
}

fn differentiate<M: Network>(
    ops: &ScalarBackend,
    network: &M,
    weights: &Params<Weight>,
    (inputs, targets): (&[i32], &[i32]),
    sequence: SequenceShape,
    grad_scale: f64,
) -> Differentiated {
    let tables = network.tables(ops, sequence.len).unwrap();
    let stop = &StopFlag::default();
    ops.differentiate(grad_scale, |ops| {
        let (tokens, targets) = (ops.tokens(inputs)?, ops.tokens(targets)?);
        network
            .losses(&Inputs { ops, weights, tables: &tables, tokens: &tokens, sequence, stop }, &targets)
            .map(drop)
    })
    .unwrap()
}

/// Compares a few entries of every gradient with central differences of the loss.
fn check_central_differences<M: Network>(network: &M, seed: u64) -> Result<(), TestCaseError> {
    let mut rng = SplitMix64::new(seed);
    let ops = ScalarBackend::new();
    let values = random_values(network, &mut rng);
    let mut weights = oracle_weights(&ops, network, &values);
    let sequence = SequenceShape { batch: 2, len: 5 };
    let inputs: Vec<i32> = (0..10).map(|_| (rng.next_u64() % 7) as i32).collect();
    let targets: Vec<i32> = (0..10).map(|_| (rng.next_u64() % 8) as i32 - 1).collect();
    let scale = 0.25;
    let result = differentiate(&ops, network, &weights, (&inputs, &targets), sequence, scale);
    for (index, spec) in network.specs().iter().enumerate() {
        let gradient = result.gradients.weight_gradient(&weights.0[index]);
        for _ in 0..3 {
            let entry = (rng.next_u64() % spec.numel() as u64) as usize;
            let mut loss_at = |offset: f64| {
                let start = f64::from(values[index][entry]);
                weights.0[index].values_mut()[entry] = start + offset;
                let result = differentiate(&ops, network, &weights, (&inputs, &targets), sequence, scale);
                weights.0[index].values_mut()[entry] = start;
                scale * result.losses.iter().sum::<f64>()
            };
            let mut difference = |step: f64| (loss_at(step) - loss_at(-step)) / (2.0 * step);
            let (coarse, difference) = (difference(2e-5), difference(1e-5));
            // Rounding leaves about 1e-16 / step. Curvature, and a bend of max(x, 0)^2 within the step, show in how
            // much the difference changes with the step.
            let tolerance = 1e-7 * (1.0 + difference.abs()) + 2.0 * (coarse - difference).abs();
            prop_assert!(
                (gradient[entry] - difference).abs() < tolerance,
                "{} [{entry}]: {} on the tape, {difference} by central difference",
                spec.name,
                gradient[entry]
            );
        }
    }
    prop_assert_eq!(ops.tape.borrow().cost(), TapeCost::default());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn gpt_gradients_are_central_differences(config in gpt_configs(), seed: u64) {
        check_central_differences(&Gpt::new(config).unwrap(), seed)?;
    }

    #[test]
    fn microgpt_gradients_are_central_differences(config in microgpt_configs(), seed: u64) {
        check_central_differences(&Microgpt::new(config).unwrap(), seed)?;
    }

    #[test]
    fn bigram_gradients_are_central_differences(config in bigram_configs(), seed: u64) {
        check_central_differences(&Bigram::new(config).unwrap(), seed)?;
    }

    #[test]
    fn gpt_decoding_is_the_full_forward(config in gpt_configs(), seed: u64) {
        let (network, ops, mut rng) = (Gpt::new(config).unwrap(), ScalarBackend::new(), SplitMix64::new(seed));
        let weights = oracle_weights(&ops, &network, &random_values(&network, &mut rng));
        let ids: Vec<i32> = (0..6).map(|_| (rng.next_u64() % 7) as i32).collect();
        let tables = network.tables(&ops, 6).unwrap();
        let sequence = SequenceShape { batch: 1, len: 6 };
        let tokens = ops.tokens(&ids).unwrap();
        let stop = &StopFlag::default();
        let inputs = Inputs { ops: &ops, weights: &weights, tables: &tables, tokens: &tokens, sequence, stop };
        let full = network.logits(&inputs).unwrap();
        let mut cache = network.cache(&ops, 6).unwrap();
        for (fed, upto) in [(0, 2), (2, 3), (3, 6)] {
            let last = network.decode(&ops, &weights, &mut cache, &ids[fed..upto], 1).unwrap();
            prop_assert_eq!(last.values(), full.values()[(upto - 1) * 7..upto * 7].to_vec());
        }
        prop_assert!(network.decode(&ops, &weights, &mut cache, &ids[..1], 1).is_err(), "the cache is full");
    }
}

#[test]
fn gradients_of_micro_batches_add_up() {
    let config = BigramConfig {
        sequence_len: 4,
        vocab_size: 5,
        n_embd: 3,
        norm_eps: 1e-5,
        tie_lm_head: true,
        input_rmsnorm: true,
        init_std: 0.08,
    };
    let (network, ops) = (Bigram::new(config).unwrap(), ScalarBackend::new());
    let weights = oracle_weights(&ops, &network, &random_values(&network, &mut SplitMix64::new(1)));
    let (inputs, targets) = ([0, 1, 2, 3, 4, 0], [1, 2, 3, 4, -1, 1]);
    let part = |range: std::ops::Range<usize>| {
        let sequence = SequenceShape { batch: 1, len: range.len() };
        let batch = (&inputs[range.clone()], &targets[range]);
        differentiate(&ops, &network, &weights, batch, sequence, 0.5).gradients
    };
    let mut sum = part(0..2);
    sum.accumulate(&part(2..6));
    let (sum, whole) = (sum.weight_gradient(&weights.0[0]), part(0..6).weight_gradient(&weights.0[0]));
    for (sum, whole) in sum.iter().zip(whole) {
        assert!((sum - whole).abs() < 1e-15);
    }
}

#[test]
fn a_tape_over_its_limit_is_out_of_memory_and_leaves_nothing() {
    let ops = ScalarBackend::with_max_tape_bytes(10_000);
    let weight = ops.weight(&[64, 64], &[0.5; 64 * 64]).unwrap();
    let before = ops.live_bytes();
    let outcome = ops.differentiate(1.0, |ops| {
        let x = ops.embedding(&weight, &ops.tokens(&[1, 2, 3])?)?;
        ops.linear(&x, &weight).map(drop)
    });
    assert!(matches!(outcome, Err(OpError::OutOfMemory { .. })));
    assert_eq!(ops.live_bytes(), before);
    // Without a tape there is no limit.
    let x = ops.embedding(&weight, &ops.tokens(&[1, 2, 3]).unwrap()).unwrap();
    ops.linear(&x, &weight).unwrap();
    drop(x);
    assert_eq!(ops.live_bytes(), before);
}

#[test]
fn misfits_are_shape_errors() {
    let ops = ScalarBackend::new();
    let table = ops.weight(&[4, 2], &[0.0; 8]).unwrap();
    let x = ops.zeros(3, 2).unwrap();
    let head = crate::ops::HeadShape { vocab_size: 4, softcap: None };
    let tokens = |ids: &[i32]| ops.tokens(ids).unwrap();
    let failures = [
        ops.weight(&[3, 3], &[0.0; 8]).map(drop),
        ops.embedding(&table, &tokens(&[4])).map(drop),
        ops.embedding(&table, &tokens(&[-1])).map(drop),
        ops.linear(&ops.zeros(1, 3).unwrap(), &table).map(drop),
        ops.rows(&x, 2, 2).map(drop),
        ops.add(ops.zeros(2, 3).unwrap(), &x).map(drop),
        ops.cross_entropy(&x, &table, &tokens(&[0, 1]), &head).map(drop),
        ops.cross_entropy(&x, &table, &tokens(&[0, 1, 4]), &head).map(drop),
        ops.cross_entropy(&x, &table, &tokens(&[0, 1, -2]), &head).map(drop),
        ops.kv_append(&mut ops.kv_cache(2, 2).unwrap(), &x, &x),
    ];
    for (index, failure) in failures.into_iter().enumerate() {
        assert!(matches!(failure, Err(OpError::Shape { .. })), "case {index}: {failure:?}");
    }
    assert_eq!(ops.cross_entropy(&x, &table, &tokens(&[0, -1, 3]), &head).unwrap()[1], 0.0);
}

mod cpu;
mod upstream;
