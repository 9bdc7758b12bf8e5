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
    let groups = [
        ParamGroup::Wte,
        ParamGroup::LmHead,
        ParamGroup::Matrix,
        ParamGroup::ValueEmbeds,
        ParamGroup::Resid,
        ParamGroup::X0,
        ParamGroup::Smear,
    ];
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

/// A GPT whose first layer sees 16 positions back, and room for 400.
fn windowed_gpt() -> crate::model::gpt::Gpt {
    use crate::model::config::{GptConfig, GptInit, LayerRamp, ValueEmbedConfig};
    let ramp = LayerRamp { first: 1.0, fall: 0.1 };
    let config = GptConfig {
        sequence_len: 400,
        vocab_size: 50,
        padded_vocab_size: 64,
        n_layer: 2,
        n_head: 2,
        n_kv_head: 1,
        n_embd: 32,
        windows: vec![16, 400],
        rotary_base: 1e4,
        rotary_precision: crate::precision::Precision::F32,
        qk_scale: 1.2,
        softcap: Some(15.0),
        value_embeds: Some(ValueEmbedConfig { gate_channels: 12, gate_scale: 3.0 }),
        smear_channels: Some(24),
        backout: true,
        norm_eps: 1e-6,
        init: GptInit {
            wte_std: 1.0,
            lm_head_std: 1.0,
            c_fc_scale: 1.0,
            ve_gate_max: 0.0,
            resid_lambda: ramp,
            x0_lambda: ramp,
            smear_gate_max: 0.0,
            smear_lambda: 0.0,
            backout_lambda: 0.0,
        },
    };
    crate::model::gpt::Gpt::new(config).unwrap()
}

/// It on a backend, with weights that are the same on every one.
fn windowed_on<B: crate::ops::Backend>(
    ops: B,
) -> crate::train::ops_engine::OpsEngine<crate::model::gpt::Gpt, B> {
    let mut rng = SplitMix64::new(5);
    let mut read = |spec: &crate::model::param::ParamSpec| {
        Ok((0..spec.numel()).map(|_| rng.next_f64() as f32 - 0.5).collect())
    };
    crate::train::ops_engine::OpsEngine::for_inference(windowed_gpt(), ops, &mut read).unwrap()
}

fn windowed() -> crate::train::ops_engine::OpsEngine<crate::model::gpt::Gpt, crate::backend::cpu::CpuBackend>
{
    windowed_on(crate::backend::cpu::CpuBackend::new(2).unwrap())
}

/// What a layer no longer sees is let go of, and the logits stay those of a forward over everything.
#[test]
fn windows_bound_the_cache_and_change_nothing() {
    let mut engine = windowed();
    let ids: Vec<i32> = (0..400).map(|at| (at * 7 + at / 11) % 50).collect();
    let mut full = |len: usize| {
        let batch = MicroBatch {
            inputs: &ids[..len],
            targets: &vec![-1; len],
            sequence: SequenceShape { batch: 1, len },
        };
        let logits = engine.logits(&batch).unwrap();
        logits[(len - 1) * 50..].to_vec()
    };
    let expected: Vec<(usize, Vec<f32>)> = [290, 291, 330, 399, 400].map(|len| (len, full(len))).to_vec();
    engine.start_decoding(400).unwrap();
    let mut logits = engine.decode(&ids[..290]).unwrap();
    assert_eq!(logits, expected[0].1, "what begins a sequence is computed as in training");
    for len in 290..=400 {
        if let Some((_, expected)) = expected.iter().find(|(at, _)| *at == len) {
            let worst = logits.iter().zip(expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst < 2e-4, "{len}: {worst}");
        }
        if len == 330 {
            // Another continuation goes its own way and leaves no trace.
            engine.mark_decoding().unwrap();
            for token in [1, 2, 3] {
                engine.decode(&[token]).unwrap();
            }
            engine.rewind_decoding(1).unwrap();
        }
        if len < 400 {
            logits = engine.decode(&ids[len..=len]).unwrap();
        }
    }
    assert!(engine.decode(&[1]).is_err(), "the context is full");
    assert!(
        engine
            .update(&crate::optim::config::StepValues {
                lr_multiplier: 1.0,
                muon_momentum: 0.9,
                muon_weight_decay: 0.0
            })
            .is_err()
    );
}

/// A prompt longer than a training row is fed in pieces, and gives what others give.
#[test]
fn long_prompts_are_fed_in_pieces() {
    let mut engine = windowed();
    let ids: Vec<i32> = (0..700).map(|at| (at * 7 + at / 11) % 50).collect();
    let mut fed = |pieces: &[usize]| {
        engine.start_decoding(700).unwrap();
        let (mut at, mut logits) = (0, Vec::new());
        for piece in pieces {
            logits = engine.decode(&ids[at..at + piece]).unwrap();
            at += piece;
        }
        logits
    };
    let expected = fed(&[1; 690]);
    for pieces in [&[690][..], &[400, 290], &[401, 289], &[30, 600, 60]] {
        let worst = fed(pieces).iter().zip(&expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst < 2e-4, "{pieces:?}: {worst}");
    }
}

/// All continuations of a prompt, and how often the engine was fed.
fn drawn(
    engine: &mut dyn Engine,
    prompt: &[i32],
    context: usize,
    count: usize,
    draw: &Draw<'_>,
) -> Vec<Vec<i32>> {
    let mut prefix = Prefix::feed(engine, prompt, context, draw.max_tokens, count).unwrap();
    let mut found = vec![(Vec::new(), false); count];
    prefix
        .continuations(count, draw, &mut |index, token| {
            let (tokens, ended) = &mut found[index];
            assert!(!*ended, "nothing is heard of {index} after its end");
            tokens.extend(token);
            *ended = token.is_none();
            true
        })
        .unwrap();
    assert!(found.iter().all(|(_, ended)| *ended));
    found.into_iter().map(|(tokens, _)| tokens).collect()
}

/// Several continuations of one prompt are what each is alone, by its own stream, whatever their number and the order
/// in which they end.
fn check_continuations(engine: &mut dyn Engine, prompt: &[i32], context: usize, tokens: usize) {
    let sampling = Sampling { temperature: 1.0, top_k: None };
    for stops in [&[][..], &[2, 5, 7]] {
        let draw = Draw { max_tokens: tokens, stops, sampling, seed: 9 };
        let alone: Vec<Vec<i32>> = (0..20)
            .map(|index| {
                let mut decoder = EngineDecoder::new(engine, context);
                let mut rng = SplitMix64::nth(9, index);
                let mut logits = decoder.prefill(prompt).unwrap();
                let mut found = Vec::new();
                while found.len() < tokens {
                    let token = sampling.choose(&logits, &mut rng).unwrap() as i32;
                    if stops.contains(&token) {
                        break;
                    }
                    found.push(token);
                    if found.len() == tokens || prompt.len() + found.len() > context {
                        break;
                    }
                    logits = decoder.step(token).unwrap();
                }
                found
            })
            .collect();
        for count in [1, 2, 5, 16, 20] {
            assert_eq!(drawn(engine, prompt, context, count, &draw), alone[..count], "{count}, {stops:?}");
        }
    }
}

#[test]
fn continuations_decoded_together_are_what_each_is_alone() {
    check_continuations(&mut engine(microgpt()), &[3, 1], CONTEXT, 5);
    check_continuations(&mut engine(bigram()), &[3, 1], CONTEXT, 99);
    // Longer than the first layer's window and its room, so that all of them let go of what they no longer see.
    check_continuations(&mut windowed(), &[3, 1, 4, 1, 5], 400, 170);
    check_continuations(&mut engine(windowed_gpt()), &[3, 1, 4, 1, 5], 400, 6);
}

/// There rows do not stand alone, so that they are decoded one after another.
#[cfg(feature = "tch")]
#[test]
fn continuations_on_tch_are_what_each_is_alone() {
    use crate::backend::torch::{TorchBackend, device::TorchDevice};
    let device: TorchDevice = "cpu".parse().unwrap();
    let ops = TorchBackend::new(device, crate::precision::Precision::F32, 1).unwrap();
    check_continuations(&mut windowed_on(ops), &[3, 1, 4, 1, 5], 400, 12);
}

#[test]
fn a_prompt_is_fed_once() {
    let mut engine = engine(microgpt());
    let draw = |tokens: usize| Draw {
        max_tokens: tokens,
        stops: &[],
        sampling: Sampling { temperature: 1.0, top_k: None },
        seed: 9,
    };
    let all = drawn(&mut engine, &[3, 1], CONTEXT, 3, &draw(4));
    assert_ne!(all[0], all[1]);
    let long = drawn(&mut engine, &[3, 1], CONTEXT, 2, &draw(99));
    assert!(long.iter().all(|tokens| tokens.len() == CONTEXT - 1), "up to one beyond the context");
    assert_eq!(drawn(&mut engine, &[3, 1], CONTEXT, 1, &draw(0)), [Vec::<i32>::new()]);
    let mut heard = 0;
    let mut prefix = Prefix::feed(&mut engine, &[3], CONTEXT, 5, 1).unwrap();
    let greedy = Draw { max_tokens: 5, stops: &[], sampling: Sampling::GREEDY, seed: 0 };
    let tokens = prefix
        .continuation(&greedy, &mut |_| {
            heard += 1;
            heard < 2
        })
        .unwrap();
    assert_eq!((tokens.len(), heard), (2, 2));
    for prompt in [&[][..], &[0; CONTEXT + 1]] {
        assert_eq!(Prefix::feed(&mut engine, prompt, CONTEXT, 1, 1).err().unwrap().class().exit_code(), 2);
    }
}
