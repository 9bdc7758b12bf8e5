//! Decoding against full forwards, and what decoding refuses.

use super::*;
use crate::backend::scalar::ScalarBackend;
use crate::model::bigram::Bigram;
use crate::model::config::{BigramConfig, MicrogptConfig};
use crate::model::microgpt::Microgpt;
use crate::model::network::Network;
use crate::model::param::ParamGroup;
use crate::ops::SequenceShape;
use crate::optim::config::{GroupConfig, OptimizerConfig, SgdConfig};
use crate::train::engine::MicroBatch;
use crate::train::scalar_engine::ScalarEngine;

const CONTEXT: usize = 8;
const VOCAB: usize = 11;

fn microgpt() -> Microgpt {
    Microgpt::new(MicrogptConfig {
        sequence_len: CONTEXT,
        vocab_size: VOCAB,
        n_layer: 2,
        n_head: 2,
        n_embd: 8,
        norm_eps: 1e-5,
        tie_lm_head: false,
        input_rmsnorm: true,
        init_std: 0.5,
    })
    .unwrap()
}

fn bigram() -> Bigram {
    Bigram::new(BigramConfig {
        sequence_len: CONTEXT,
        vocab_size: VOCAB,
        n_embd: 6,
        norm_eps: 1e-5,
        tie_lm_head: true,
        input_rmsnorm: true,
        init_std: 0.5,
    })
    .unwrap()
}

fn engine<M: Network>(network: M) -> ScalarEngine<M> {
    let mut rng = SplitMix64::new(3);
    let values: Vec<Vec<f32>> = network
        .specs()
        .iter()
        .map(|spec| (0..spec.numel()).map(|_| rng.next_f64() as f32 - 0.5).collect())
        .collect();
    let sgd = GroupConfig::Sgd(SgdConfig { lr: 0.1, momentum: 0.0, weight_decay: 0.0 });
    let groups = [ParamGroup::Wte, ParamGroup::LmHead, ParamGroup::Matrix];
    let optimizer = OptimizerConfig { groups: groups.map(|group| (group, sgd.clone())).to_vec() };
    ScalarEngine::new(network, &optimizer, &values).unwrap()
}

/// Greedy tokens by a full forward over the whole sequence each time.
fn greedy_without_cache(engine: &mut dyn Engine, prompt: &[i32], count: usize) -> Vec<i32> {
    let mut ids = prompt.to_vec();
    for _ in 0..count {
        let sequence = SequenceShape { batch: 1, len: ids.len() };
        let targets = vec![-1; ids.len()];
        let logits = engine.logits(&MicroBatch { inputs: &ids, targets: &targets, sequence }).unwrap();
        let last = &logits[logits.len() - VOCAB..];
        let mut rng = SplitMix64::new(0);
        ids.push(Sampling::GREEDY.choose(last, &mut rng).unwrap() as i32);
    }
    ids.split_off(prompt.len())
}

fn check_decoding(engine: &mut dyn Engine) {
    let prompt = [1, 4, 7];
    let expected = greedy_without_cache(engine, &prompt, 5);
    let mut rng = SplitMix64::new(0);
    let mut decoder = EngineDecoder::new(engine, CONTEXT);
    let found = generate(&mut decoder, &prompt, 5, None, &Sampling::GREEDY, &mut rng).unwrap();
    assert_eq!(found, expected);
    // Token by token is the same as the prompt at once.
    let at_once = decoder.prefill(&prompt).unwrap();
    decoder.prefill(&prompt[..1]).unwrap();
    decoder.step(prompt[1]).unwrap();
    assert_eq!(decoder.step(prompt[2]).unwrap(), at_once);
}

fn check_limits(engine: &mut dyn Engine) {
    let mut rng = SplitMix64::new(0);
    let mut decoder = EngineDecoder::new(engine, CONTEXT);
    let greedy = Sampling::GREEDY;
    let empty = generate(&mut decoder, &[], 1, None, &greedy, &mut rng).unwrap_err();
    assert_eq!((empty.class().exit_code(), empty.what()), (2, "the prompt is empty"));
    let long = generate(&mut decoder, &[1; CONTEXT + 1], 1, None, &greedy, &mut rng).unwrap_err();
    assert_eq!((long.class().exit_code(), long.what()), (2, "the prompt has 9 tokens, the context 8"));
    // A full prompt still gives one token; a long wish ends at the context.
    assert_eq!(generate(&mut decoder, &[1; CONTEXT], 9, None, &greedy, &mut rng).unwrap().len(), 1);
    assert_eq!(generate(&mut decoder, &[1; 3], 99, None, &greedy, &mut rng).unwrap().len(), CONTEXT + 1 - 3);
    decoder.prefill(&[1; CONTEXT]).unwrap();
    let overrun = decoder.step(1).unwrap_err();
    assert_eq!((overrun.class().exit_code(), overrun.what()), (3, "the key/value cache is full: 8 tokens"));
}

#[test]
fn cached_decoding_equals_full_forwards() {
    check_decoding(&mut engine(microgpt()));
    check_decoding(&mut engine(bigram()));
}

#[test]
fn what_does_not_fit_the_context_is_an_error() {
    check_limits(&mut engine(microgpt()));
    check_limits(&mut engine(bigram()));
}

#[test]
fn a_cache_beyond_the_learned_positions_is_refused() {
    assert!(microgpt().cache(&ScalarBackend::new(), CONTEXT + 1).is_err());
}

#[test]
fn generation_ends_before_the_stop_token() {
    let mut engine = engine(microgpt());
    let mut rng = SplitMix64::new(0);
    let free = greedy_without_cache(&mut engine, &[2], 4);
    let mut decoder = EngineDecoder::new(&mut engine, CONTEXT);
    let stopped =
        generate(&mut decoder, &[2], 4, free.first().copied(), &Sampling::GREEDY, &mut rng).unwrap();
    assert_eq!(stopped, Vec::<i32>::new());
}
