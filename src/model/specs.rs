//! Which parameters a model has: names, shapes, groups and initial distributions.
//!
//! GPT parameters stand in the order of upstream's `named_parameters()` under upstream's names, value embeddings
//! numbered by layer. A switch that is off leaves its parameters out.

use super::config::{BigramConfig, GptConfig, LayerRamp, MicrogptConfig, ModelConfig};
use super::param::{Init, ParamGroup, ParamSpec};

/// The parameters of any model.
pub fn specs(config: &ModelConfig) -> Vec<ParamSpec> {
    match config {
        ModelConfig::Gpt(config) => gpt_specs(config),
        ModelConfig::Microgpt(config) => microgpt_specs(config),
        ModelConfig::Bigram(config) => bigram_specs(config),
    }
}

/// The parameters of nanochat's GPT.
pub fn gpt_specs(config: &GptConfig) -> Vec<ParamSpec> {
    let (channels, kv_dim, vocab) = (config.n_embd, config.kv_dim(), config.padded_vocab_size);
    // Upstream's expression, so that its last bit is upstream's too.
    let bound = 3.0_f64.sqrt() * libm::pow(channels as f64, -0.5);
    let fan_in = uniform(bound);
    let order = DrawOrder { layers: config.n_layer };
    let init = &config.init;

    let mut specs = vec![
        layer_lambdas("resid_lambdas", ParamGroup::Resid, config, init.resid_lambda),
        layer_lambdas("x0_lambdas", ParamGroup::X0, config, init.x0_lambda),
    ];
    let mut add = |name: &str, shape: &[usize], group, init, draw_order| {
        specs.push(ParamSpec { name: name.to_owned(), shape: shape.to_vec(), group, init, draw_order });
    };
    if config.smear_channels.is_some() {
        let start = Init::Constant(init.smear_lambda as f32);
        add("smear_lambda", &[1], ParamGroup::Smear, start, order.undrawn());
    }
    if config.backout {
        let start = Init::Constant(init.backout_lambda as f32);
        add("backout_lambda", &[1], ParamGroup::Smear, start, order.undrawn());
    }
    let wte = Init::Normal { std: init.wte_std };
    add("transformer.wte.weight", &[vocab, channels], ParamGroup::Wte, wte, DrawOrder::WTE);

    for layer in 0..config.n_layer {
        let block = format!("transformer.h.{layer}");
        let mut matrix = |name: &str, shape: [usize; 2], init, draw_order| {
            add(&format!("{block}.{name}.weight"), &shape, ParamGroup::Matrix, init, draw_order);
        };
        matrix("attn.c_q", [channels, channels], fan_in.clone(), DrawOrder::block(layer, 0));
        matrix("attn.c_k", [kv_dim, channels], fan_in.clone(), DrawOrder::block(layer, 1));
        matrix("attn.c_v", [kv_dim, channels], fan_in.clone(), DrawOrder::block(layer, 2));
        matrix("attn.c_proj", [channels, channels], Init::Constant(0.0), order.undrawn());
        if let Some(value_embeds) = config.value_embeds.as_ref().filter(|_| config.has_value_embed(layer)) {
            let shape = [config.n_kv_head, value_embeds.gate_channels];
            matrix("attn.ve_gate", shape, non_negative(init.ve_gate_max), order.ve_gate(layer));
        }
        let c_fc = uniform(bound * init.c_fc_scale);
        matrix("mlp.c_fc", [4 * channels, channels], c_fc, DrawOrder::block(layer, 3));
        matrix("mlp.c_proj", [channels, 4 * channels], Init::Constant(0.0), order.undrawn());
    }

    let lm_head = Init::Normal { std: init.lm_head_std };
    add("lm_head.weight", &[vocab, channels], ParamGroup::LmHead, lm_head, DrawOrder::LM_HEAD);
    if let Some(gate_channels) = config.smear_channels {
        let gate = non_negative(init.smear_gate_max);
        add("smear_gate.weight", &[1, gate_channels], ParamGroup::Smear, gate, order.smear_gate());
    }
    for layer in (0..config.n_layer).filter(|&layer| config.has_value_embed(layer)) {
        let name = format!("value_embeds.{layer}.weight");
        add(&name, &[vocab, kv_dim], ParamGroup::ValueEmbeds, fan_in.clone(), order.value_embed(layer));
    }
    specs
}

/// The parameters of microgpt, under Karpathy's names; every one is drawn, in this order.
pub fn microgpt_specs(config: &MicrogptConfig) -> Vec<ParamSpec> {
    let (channels, vocab) = (config.n_embd, config.vocab_size);
    let mut list = NormalSpecs::new(config.init_std);
    list.add("wte", [vocab, channels], ParamGroup::Wte);
    list.add("wpe", [config.sequence_len, channels], ParamGroup::Wte);
    if !config.tie_lm_head {
        list.add("lm_head", [vocab, channels], ParamGroup::LmHead);
    }
    for layer in 0..config.n_layer {
        for name in ["attn_wq", "attn_wk", "attn_wv", "attn_wo"] {
            list.add(&format!("layer{layer}.{name}"), [channels, channels], ParamGroup::Matrix);
        }
        list.add(&format!("layer{layer}.mlp_fc1"), [4 * channels, channels], ParamGroup::Matrix);
        list.add(&format!("layer{layer}.mlp_fc2"), [channels, 4 * channels], ParamGroup::Matrix);
    }
    list.specs
}

/// The parameters of the bigram model; every one is drawn, in this order.
pub fn bigram_specs(config: &BigramConfig) -> Vec<ParamSpec> {
    let mut list = NormalSpecs::new(config.init_std);
    list.add("wte", [config.vocab_size, config.n_embd], ParamGroup::Wte);
    if !config.tie_lm_head {
        list.add("lm_head", [config.vocab_size, config.n_embd], ParamGroup::LmHead);
    }
    list.specs
}

fn uniform(bound: f64) -> Init {
    Init::Uniform { low: -bound, high: bound }
}

/// U(0, max); zero without a draw where max is 0.
fn non_negative(max: f64) -> Init {
    if max == 0.0 { Init::Constant(0.0) } else { Init::Uniform { low: 0.0, high: max } }
}

fn layer_lambdas(name: &str, group: ParamGroup, config: &GptConfig, ramp: LayerRamp) -> ParamSpec {
    let last = config.n_layer.saturating_sub(1).max(1) as f64;
    let value = |layer| (ramp.first - ramp.fall * layer as f64 / last) as f32;
    ParamSpec {
        name: name.to_owned(),
        shape: vec![config.n_layer],
        group,
        init: Init::Values((0..config.n_layer).map(value).collect()),
        draw_order: DrawOrder { layers: config.n_layer }.undrawn(),
    }
}

/// Upstream's draws: wte, `lm_head`; a block's `c_q`, `c_k`, `c_v`, `c_fc`; smear gate; value embeddings; their gates.
struct DrawOrder {
    layers: usize,
}

impl DrawOrder {
    const WTE: usize = 0;
    const LM_HEAD: usize = 1;

    fn block(layer: usize, place: usize) -> usize {
        2 + 4 * layer + place
    }

    fn smear_gate(&self) -> usize {
        Self::block(self.layers, 0)
    }

    fn value_embed(&self, layer: usize) -> usize {
        self.smear_gate() + 1 + layer
    }

    fn ve_gate(&self, layer: usize) -> usize {
        self.value_embed(self.layers) + layer
    }

    /// Behind everything that draws.
    fn undrawn(&self) -> usize {
        self.ve_gate(self.layers)
    }
}

/// A list of normally distributed matrices, drawn in the order in which they are added.
struct NormalSpecs {
    std: f64,
    specs: Vec<ParamSpec>,
}

impl NormalSpecs {
    fn new(std: f64) -> Self {
        Self { std, specs: Vec::new() }
    }

    fn add(&mut self, name: &str, shape: [usize; 2], group: ParamGroup) {
        self.specs.push(ParamSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            group,
            init: Init::Normal { std: self.std },
            draw_order: self.specs.len(),
        });
    }
}
