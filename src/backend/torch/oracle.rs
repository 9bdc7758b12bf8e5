//! The whole GPT once more, written plainly in libtorch's float64 and differentiated by its autograd: an oracle for
//! the hand-written forward and backward, on small random configurations.

#![expect(clippy::disallowed_methods, reason = "what is only compared within a bound may be the system's")]
// `x = x + y` and not `x += y`, which would write into what autograd keeps.
#![allow(clippy::unwrap_used, clippy::assign_op_pattern)]

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::TorchBackend;
use super::device::TorchDevice;
use crate::model::config::{GptConfig, GptInit, LayerRamp, ValueEmbedConfig};
use crate::model::gpt::Gpt;
use crate::model::network::{Inputs, Network};
use crate::model::param::Params;
use crate::ops::{ForwardOps, Losses, SequenceShape, TrainOps};
use crate::precision::Precision;
use crate::stop::StopFlag;

fn norm(x: &Tensor, eps: f32) -> Tensor {
    x * (x.square().mean_dim([-1_i64].as_slice(), true, Kind::Double) + f64::from(eps)).rsqrt()
}

/// x (B, T, heads, D), halves rotated by minus theta.
fn rotate(x: &Tensor, base: f64) -> Tensor {
    let (_, len, _, head_dim) = x.size4().unwrap();
    let j = Tensor::arange_start_step(0, head_dim, 2, (Kind::Double, Device::Cpu)) / head_dim as f64;
    let frequencies = (j * -base.ln()).exp();
    let angles = Tensor::arange(len, (Kind::Double, Device::Cpu)).outer(&frequencies).unsqueeze(1);
    let (cos, sin) = (angles.cos(), angles.sin());
    let halves = x.chunk(2, -1);
    Tensor::cat(&[&halves[0] * &cos + &halves[1] * &sin, &halves[1] * &cos - &halves[0] * &sin], -1)
}

/// Mask of what each position sees: itself and up to `window` before it.
fn mask(len: i64, window: usize) -> Tensor {
    let ones = Tensor::ones([len, len], (Kind::Bool, Device::Cpu));
    ones.tril(0).logical_and(&ones.triu(-(window as i64)))
}

/// Loss of each token (N), with autograd recording.
fn losses(
    config: &GptConfig,
    params: &BTreeMap<String, Tensor>,
    ids: &Tensor,
    targets: &Tensor,
    batch: i64,
) -> Tensor {
    let p = |name: &str| &params[name];
    let (len, heads, kv_heads) = (ids.size()[0] / batch, config.n_head as i64, config.n_kv_head as i64);
    let eps = config.norm_eps;
    let split = |x: Tensor, heads| x.view([batch, len, heads, -1]);
    let mut x = norm(&p("transformer.wte.weight").index_select(0, ids).view([batch, len, -1]), eps);
    if let Some(channels) = config.smear_channels {
        let (now, before) = (x.narrow(1, 1, len - 1), x.narrow(1, 0, len - 1));
        let gate = now.narrow(-1, 0, channels as i64).matmul(&p("smear_gate.weight").tr()).sigmoid();
        x = Tensor::cat(&[x.narrow(1, 0, 1), &now + p("smear_lambda") * gate * before], 1);
    }
    let x0 = x.shallow_clone();
    let mut kept = None;
    for layer in 0..config.n_layer {
        let w = |name: &str| p(&format!("transformer.h.{layer}.{name}.weight")).tr();
        x = p("resid_lambdas").get(layer as i64) * x + p("x0_lambdas").get(layer as i64) * &x0;
        let h = norm(&x, eps);
        let mut v = split(h.matmul(&w("attn.c_v")), kv_heads);
        if let Some(value) = config.value_embeds.as_ref().filter(|_| config.has_value_embed(layer)) {
            let gate = h.narrow(-1, 0, value.gate_channels as i64).matmul(&w("attn.ve_gate")).sigmoid();
            let rows = p(&format!("value_embeds.{layer}.weight")).index_select(0, ids);
            v = v + f64::from(value.gate_scale) * gate.unsqueeze(-1) * split(rows, kv_heads);
        }
        let turned = |name, heads| {
            let q = rotate(&split(h.matmul(&w(name)), heads), config.rotary_base);
            norm(&q, eps) * f64::from(config.qk_scale)
        };
        let (q, k) = (turned("attn.c_q", heads), turned("attn.c_k", kv_heads));
        let repeated = |x: Tensor| x.repeat_interleave_self_int(heads / kv_heads, 2, None).transpose(1, 2);
        let scores =
            q.transpose(1, 2).matmul(&repeated(k).transpose(-1, -2)) / (config.head_dim() as f64).sqrt();
        let hidden = mask(len, config.windows[layer]).logical_not();
        let o = scores.masked_fill(&hidden, f64::NEG_INFINITY).softmax(-1, Kind::Double).matmul(&repeated(v));
        x = x + o.transpose(1, 2).reshape([batch, len, -1]).matmul(&w("attn.c_proj"));
        let u = norm(&x, eps).matmul(&w("mlp.c_fc"));
        x = x + u.relu().square().matmul(&w("mlp.c_proj"));
        if layer == config.n_layer / 2 {
            kept = Some(x.shallow_clone());
        }
    }
    if let (true, Some(kept)) = (config.backout, kept) {
        x = x - p("backout_lambda") * kept;
    }
    let head = p("lm_head.weight").narrow(0, 0, config.vocab_size as i64);
    let mut logits = norm(&x, eps).matmul(&head.tr()).view([batch * len, -1]);
    if let Some(cap) = config.softcap {
        logits = (logits / f64::from(cap)).tanh() * f64::from(cap);
    }
    logits.cross_entropy_loss::<Tensor>(targets, None, tch::Reduction::None, -1, 0.0)
}

/// A small configuration; bits of `switches` turn features on.
fn config(switches: usize) -> GptConfig {
    let on = |bit: usize| switches >> bit & 1 == 1;
    let flat = LayerRamp { first: 1.0, fall: 0.0 };
    let n_layer = 2 + usize::from(on(5));
    GptConfig {
        sequence_len: 12,
        vocab_size: 50,
        padded_vocab_size: 64,
        n_layer,
        n_head: 4,
        n_kv_head: if on(0) { 2 } else { 4 },
        n_embd: 32,
        windows: (0..n_layer).map(|layer| if layer == 0 { 3 } else { 12 }).collect(),
        rotary_base: if on(1) { 1e4 } else { 1e5 },
        rotary_precision: Precision::F32,
        qk_scale: if on(1) { 1.0 } else { 1.2 },
        softcap: if on(2) { Some(15.0) } else { None },
        value_embeds: on(3).then_some(ValueEmbedConfig { gate_channels: 12, gate_scale: 3.0 }),
        smear_channels: on(4).then_some(24),
        backout: on(4),
        norm_eps: f32::EPSILON,
        init: GptInit {
            wte_std: 1.0,
            lm_head_std: 1.0,
            c_fc_scale: 1.0,
            ve_gate_max: 0.0,
            resid_lambda: flat,
            x0_lambda: flat,
            smear_gate_max: 0.0,
            smear_lambda: 0.0,
            backout_lambda: 0.0,
        },
    }
}

/// Values in [-0.3, 0.3): every path of the model carries weight, unlike after upstream's initialisation.
fn values(count: usize, seed: usize) -> Vec<f32> {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| 0.6 * next() - 0.3).collect()
}

/// Losses and all gradients of a configuration, within `tolerance` of the largest value of each; in bfloat16, of the
/// Euclidean norm of each.
fn check(switches: usize, precision: Precision, tolerance: f64) {
    const BATCH: usize = 3;
    let network = Gpt::new(config(switches)).unwrap();
    let (config, specs) = (network.config().clone(), network.specs().to_vec());
    let rows = BATCH * config.sequence_len;
    let ids: Vec<i32> = (0..rows).map(|i| (i * i * 7 + switches) as i32 % 50).collect();
    let targets: Vec<i32> = (0..rows).map(|i| if i % 7 == 3 { -1 } else { (i * 13) as i32 % 50 }).collect();
    let start: Vec<Vec<f32>> =
        specs.iter().enumerate().map(|(i, s)| values(s.numel(), 100 * i + switches)).collect();

    let ops = TorchBackend::new(TorchDevice::Cpu, precision, 2).unwrap();
    let weights: Vec<_> = specs.iter().zip(&start).map(|(s, v)| ops.weight(&s.shape, v).unwrap()).collect();
    let mut grads = Params(specs.iter().map(|s| ops.grad(&s.shape).unwrap()).collect::<Vec<_>>());
    let tables = network.tables(&ops, config.sequence_len).unwrap();
    let sequence = SequenceShape { batch: BATCH, len: config.sequence_len };
    let (tokens, wanted) = (ops.tokens(&ids).unwrap(), ops.tokens(&targets).unwrap());
    let weights = Params(weights);
    let stop = &StopFlag::default();
    let inputs = Inputs { ops: &ops, weights: &weights, tables: &tables, tokens: &tokens, sequence, stop };
    let ours = network.loss_and_grads(&inputs, &wanted, 0.1, &mut grads).and_then(Losses::read).unwrap();

    let params: BTreeMap<_, _> = specs
        .iter()
        .zip(&start)
        .map(|(spec, values)| {
            let shape: Vec<_> = spec.shape.iter().map(|&n| n as i64).collect();
            (
                spec.name.clone(),
                Tensor::from_slice(values)
                    .to_kind(Kind::Double)
                    .view(shape.as_slice())
                    .set_requires_grad(true),
            )
        })
        .collect();
    let long = |ids: &[i32]| Tensor::from_slice(ids).to_kind(Kind::Int64);
    let losses = losses(&config, &params, &long(&ids), &long(&targets), BATCH as i64);
    // Autograd makes libtorch settle whether there is CUDA, which other tests of this process load.
    drop(super::shim::load_cuda());
    (losses.sum(Kind::Double) * 0.1).backward();

    let close = |what: &str, ours: &[f32], theirs: &Tensor| {
        let theirs =
            Vec::<f32>::try_from(theirs.detach().to_kind(Kind::Float).contiguous().view(-1)).unwrap();
        let largest =
            theirs.iter().fold(0.0_f32, |m, x| m.max(x.abs())).max(if ours.len() <= 8 { 0.05 } else { 1e-3 });
        assert_eq!(ours.len(), theirs.len(), "{what}");
        if precision == Precision::Bf16 {
            // Rounding is random: whole tensors are compared, and sums over everything that cancel (lambdas) are not.
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let apart =
                norm(&mut ours.iter().zip(&theirs).map(|(a, b)| a - b)) / norm(&mut theirs.iter().copied());
            assert!(
                ours.len() <= 8 || apart <= tolerance,
                "switches {switches:b}, {what}: {apart:.1e} apart"
            );
            return;
        }
        for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            let apart = f64::from((a - b).abs() / largest);
            // Gradients of lambdas are sums over everything, which cancel.
            let allowed = if ours.len() <= 8 { 20.0 * tolerance } else { tolerance };
            assert!(apart <= allowed, "switches {switches:b}, {what}[{i}]: {a} and {b}, {apart:.1e} apart");
        }
    };
    close("loss", &ours, &losses);
    for (spec, grad) in specs.iter().zip(&grads.0) {
        close(&spec.name, &ops.grad_values(grad).unwrap(), &params[&spec.name].grad());
    }
}

#[test]
fn hand_written_gradients_are_autograds() {
    for switches in 0..64 {
        check(switches, Precision::F32, 2e-5);
    }
}

/// The written bound of bfloat16 against float32: losses and the gradient of each parameter within 8 % of their norm.
#[test]
fn bf16_stays_near_f32() {
    for switches in [0b00_0000, 0b11_1111, 0b01_1110, 0b10_0101] {
        check(switches, Precision::Bf16, 0.08);
    }
}
