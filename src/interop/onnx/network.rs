//! The graph of a GPT that decodes: a part of a text with what earlier parts left behind.
//!
//! States are keys and values of each layer, no further back than its window, and where the model smears the last
//! embedding. Only operations of opset 10 are used, which every runtime has.

use super::graph::{Attribute, Graph, Size, Value};
use crate::error::{Error, Result};
use crate::interop::exported::Exported;
use crate::math::{cos, pow, round_bf16, sin};
use crate::model::config::GptConfig;
use crate::precision::Precision;

/// So far along an axis that it is the end.
const END: i64 = i64::MAX;

/// What replaces the score of a key that a query does not see.
const UNSEEN: f32 = -1e30;

/// A GPT being written.
pub(super) struct Network<'a> {
    pub(super) graph: Graph<'a>,
    exported: &'a Exported<'a>,
    model: &'a GptConfig,
    /// Epsilon of the norms.
    eps: Value,
}

/// What all layers use.
struct Shared {
    tokens: Value,
    /// Positions of the new tokens, a column, and where keys end: one behind the last of them.
    positions: Value,
    total: Value,
    /// Every position, in a row.
    all: Value,
    cos: Value,
    sin: Value,
    unseen: Value,
    /// The embeddings that every layer mixes in again.
    x0: Value,
}

impl<'a> Network<'a> {
    pub(super) fn new(exported: &'a Exported<'a>, model: &'a GptConfig) -> Self {
        let mut graph = Graph::default();
        let eps = graph.number(model.norm_eps);
        Self { graph, exported, model, eps }
    }

    /// Adds everything, from inputs to outputs.
    ///
    /// # Errors
    /// A parameter that is not there: a defect.
    pub(super) fn build(&mut self) -> Result<()> {
        let (batch, new) = (Size::Free("batch"), Size::Free("sequence"));
        let tokens = self.graph.input_ints("input_ids", &[batch, new]);
        let past = self.graph.input_ints("past_length", &[Size::Is(1)]);
        let length = self.graph.size(&tokens, 1);
        let total = self.graph.two("Add", &past, &length);
        self.graph.output_ints("present_length", &total, &[Size::Is(1)]);

        let table = self.embedding("transformer.wte.weight")?;
        let x = self.graph.op("Gather", &[&table, &tokens], &[]);
        let mut x = self.norm(&x, 2);
        if let Some(channels) = self.model.smear_channels {
            x = self.smear(&x, channels)?;
        }
        let shared = self.shared(tokens, &past, total, x.clone());
        let mut middle = None;
        for layer in 0..self.model.n_layer {
            x = self.layer(layer, &x, &shared)?;
            if self.model.backout && layer == self.model.n_layer / 2 {
                middle = Some(x.clone());
            }
        }
        if let Some(middle) = middle {
            let lambda = self.scalar("backout_lambda", 0)?;
            let part = self.graph.two("Mul", &middle, &lambda);
            x = self.graph.two("Sub", &x, &part);
        }
        let x = self.norm(&x, 2);
        let mut logits = self.head(&x)?;
        if let Some(cap) = self.model.softcap {
            let cap = self.graph.number(cap);
            let part = self.graph.two("Div", &logits, &cap);
            let bent = self.graph.op("Tanh", &[&part], &[]);
            logits = self.graph.two("Mul", &bent, &cap);
        }
        self.graph.output("logits", &logits, &[batch, new, Size::Is(self.model.vocab_size)]);
        Ok(())
    }

    fn shared(&mut self, tokens: Value, past: &Value, total: Value, x0: Value) -> Shared {
        let model = self.model;
        let (context, half) = (model.sequence_len, model.head_dim() / 2);
        let angles: Vec<f32> = (0..context)
            .flat_map(|position| {
                (0..half).map(move |j| {
                    let power = pow(model.rotary_base as f32, (2 * j) as f32 / model.head_dim() as f32);
                    position as f32 * (1.0 / power)
                })
            })
            .collect();
        let rounded = |value: f32| match model.rotary_precision {
            Precision::Bf16 => round_bf16(value),
            Precision::F32 => value,
        };
        let mut turned = |name: &str, of: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|&angle| rounded(of(angle))).collect();
            let table = self.graph.numbers(name, &[context, half], &values);
            let rows = self.graph.between(&table, past, &total, 0);
            self.graph.unsqueeze(&rows, &[0, 1])
        };
        let (cos, sin) = (turned("rotary_cos", cos), turned("rotary_sin", sin));
        let every: Vec<f32> = (0..context).map(|position| position as f32).collect();
        let all = self.graph.numbers("positions", &[context], &every);
        let positions = self.graph.between(&all, past, &total, 0);
        let positions = self.graph.unsqueeze(&positions, &[1]);
        let unseen = self.graph.number(UNSEEN);
        Shared { tokens, positions, total, all, cos, sin, unseen, x0 }
    }

    /// Mixes a gated part of the previous token's embedding into each.
    fn smear(&mut self, x: &Value, channels: usize) -> Result<Value> {
        let shape = [Size::Free("batch"), Size::Is(1), Size::Is(self.model.n_embd)];
        let before = self.graph.input("past_embedding", &shape);
        let last = self.graph.slice(x, -1, END, 1);
        self.graph.output("present_embedding", &last, &shape);
        let shifted = self.graph.concat(&[&before, x], 1);
        let shifted = self.graph.slice(&shifted, 0, -1, 1);
        let seen = self.graph.slice(x, 0, channels as i64, 2);
        let gate = self.linear(&seen, "smear_gate.weight")?;
        let gate = self.graph.op("Sigmoid", &[&gate], &[]);
        let lambda = self.scalar("smear_lambda", 0)?;
        let gate = self.graph.two("Mul", &gate, &lambda);
        let part = self.graph.two("Mul", &gate, &shifted);
        Ok(self.graph.two("Add", x, &part))
    }

    fn layer(&mut self, layer: usize, x: &Value, shared: &Shared) -> Result<Value> {
        let (kept, again) = (self.scalar("resid_lambdas", layer)?, self.scalar("x0_lambdas", layer)?);
        let (kept, again) = (self.graph.two("Mul", x, &kept), self.graph.two("Mul", &shared.x0, &again));
        let x = self.graph.two("Add", &kept, &again);
        let normed = self.norm(&x, 2);
        let attended = self.attention(layer, &normed, shared)?;
        let x = self.graph.two("Add", &x, &attended);
        let normed = self.norm(&x, 2);
        let wide = self.linear(&normed, &format!("transformer.h.{layer}.mlp.c_fc.weight"))?;
        let wide = self.graph.op("Relu", &[&wide], &[]);
        let wide = self.graph.two("Mul", &wide, &wide);
        let narrow = self.linear(&wide, &format!("transformer.h.{layer}.mlp.c_proj.weight"))?;
        Ok(self.graph.two("Add", &x, &narrow))
    }

    fn attention(&mut self, layer: usize, x: &Value, shared: &Shared) -> Result<Value> {
        let model = self.model;
        let (heads, kv_heads, d) = (model.n_head as i64, model.n_kv_head as i64, model.head_dim() as i64);
        let name = |part: &str| format!("transformer.h.{layer}.attn.{part}.weight");
        let q = self.linear(x, &name("c_q"))?;
        let k = self.linear(x, &name("c_k"))?;
        let v = self.linear(x, &name("c_v"))?;
        let mut v = self.graph.reshape(&v, &[0, 0, kv_heads, d]);
        if model.has_value_embed(layer) {
            v = self.value_embedding(layer, x, &v, shared)?;
        }
        let v = self.graph.transpose(&v, &[0, 2, 1, 3]);
        let (q, k) = (self.turned(&q, heads, shared), self.turned(&k, kv_heads, shared));

        let window = model.windows.get(layer).copied().unwrap_or(model.sequence_len);
        let window = window.min(model.sequence_len);
        let past = format!("past_{layer}");
        let size =
            [Size::Free("batch"), Size::Is(model.n_kv_head), Size::Free(&past), Size::Is(model.head_dim())];
        let mut state = |kind: &str, new: &Value| {
            let past = self.graph.input(&format!("past_key_values.{layer}.{kind}"), &size);
            let whole = self.graph.concat(&[&past, new], 2);
            // A later query sees no further back; of none, none are kept.
            let from = if window == 0 { END } else { -(window as i64) };
            let kept = self.graph.slice(&whole, from, END, 2);
            let present = format!("present_{layer}");
            let size = [size[0], size[1], Size::Free(&present), size[3]];
            self.graph.output(&format!("present.{layer}.{kind}"), &kept, &size);
            whole
        };
        let (k, v) = (state("key", &k), state("value", &v));
        let hidden = self.hidden(&k, window, shared);

        // Heads that share keys stand beside each other, as an axis of their own.
        let q = self.graph.reshape(&q, &[0, kv_heads, heads / kv_heads, -1, d]);
        let (k, v) = (self.graph.unsqueeze(&k, &[2]), self.graph.unsqueeze(&v, &[2]));
        let k = self.graph.transpose(&k, &[0, 1, 2, 4, 3]);
        let scores = self.graph.two("MatMul", &q, &k);
        let scale = self.graph.number(1.0 / (model.head_dim() as f32).sqrt());
        let scores = self.graph.two("Mul", &scores, &scale);
        let scores = self.graph.op("Where", &[&hidden, &shared.unseen, &scores], &[]);
        let weights = self.graph.op("Softmax", &[&scores], &[("axis", Attribute::Int(4))]);
        let y = self.graph.two("MatMul", &weights, &v);
        let y = self.graph.reshape(&y, &[0, heads, -1, d]);
        let y = self.graph.transpose(&y, &[0, 2, 1, 3]);
        let y = self.graph.reshape(&y, &[0, 0, heads * d]);
        self.linear(&y, &name("c_proj"))
    }

    /// Which keys (columns) which queries (rows) do not see: later ones, and those beyond the window.
    fn hidden(&mut self, k: &Value, window: usize, shared: &Shared) -> Value {
        let keys = self.graph.size(k, 2);
        let first = self.graph.two("Sub", &shared.total, &keys);
        let keys = self.graph.between(&shared.all, &first, &shared.total, 0);
        let back = self.graph.two("Sub", &shared.positions, &keys);
        let zero = self.graph.number(0.0);
        let later = self.graph.two("Less", &back, &zero);
        let window = self.graph.number(window as f32);
        let beyond = self.graph.two("Greater", &back, &window);
        self.graph.two("Or", &later, &beyond)
    }

    /// Heads turned by their positions, normed and scaled: (batch, heads, sequence, D).
    fn turned(&mut self, x: &Value, heads: i64, shared: &Shared) -> Value {
        let d = self.model.head_dim() as i64;
        let x = self.graph.reshape(x, &[0, 0, heads, d]);
        let x = self.graph.transpose(&x, &[0, 2, 1, 3]);
        let (first, second) = (self.graph.slice(&x, 0, d / 2, 3), self.graph.slice(&x, d / 2, d, 3));
        let mut sum = |kind: &str, x: &Value, by: &Value, y: &Value, and: &Value| {
            let (x, y) = (self.graph.two("Mul", x, by), self.graph.two("Mul", y, and));
            self.graph.two(kind, &x, &y)
        };
        let upper = sum("Add", &first, &shared.cos, &second, &shared.sin);
        let lower = sum("Sub", &second, &shared.cos, &first, &shared.sin);
        let x = self.graph.concat(&[&upper, &lower], 3);
        let x = self.norm(&x, 3);
        if self.model.qk_scale == 1.0 {
            return x;
        }
        let scale = self.graph.number(self.model.qk_scale);
        self.graph.two("Mul", &x, &scale)
    }

    /// Adds a gated embedding of the tokens to the values.
    fn value_embedding(&mut self, layer: usize, x: &Value, v: &Value, shared: &Shared) -> Result<Value> {
        let Some(config) = self.model.value_embeds.as_ref() else { return Ok(v.clone()) };
        let table = self.embedding(&format!("value_embeds.{layer}.weight"))?;
        let embedded = self.graph.op("Gather", &[&table, &shared.tokens], &[]);
        let shape = [0, 0, self.model.n_kv_head as i64, self.model.head_dim() as i64];
        let embedded = self.graph.reshape(&embedded, &shape);
        let seen = self.graph.slice(x, 0, config.gate_channels as i64, 2);
        let gate = self.linear(&seen, &format!("transformer.h.{layer}.attn.ve_gate.weight"))?;
        let gate = self.graph.op("Sigmoid", &[&gate], &[]);
        let scale = self.graph.number(config.gate_scale);
        let gate = self.graph.two("Mul", &gate, &scale);
        let gate = self.graph.unsqueeze(&gate, &[3]);
        let part = self.graph.two("Mul", &gate, &embedded);
        Ok(self.graph.two("Add", v, &part))
    }

    /// `x / sqrt(mean(x^2) + eps)` along the last axis.
    fn norm(&mut self, x: &Value, axis: i64) -> Value {
        let square = self.graph.two("Mul", x, x);
        let along = [("axes", Attribute::Ints(vec![axis])), ("keepdims", Attribute::Int(1))];
        let mean = self.graph.op("ReduceMean", &[&square], &along);
        let mean = self.graph.two("Add", &mean, &self.eps.clone());
        let root = self.graph.op("Sqrt", &[&mean], &[]);
        self.graph.two("Div", x, &root)
    }

    /// Logits of the tokens that the tokenizer knows.
    fn head(&mut self, x: &Value) -> Result<Value> {
        let (shape, values) = self.parameter("lm_head.weight")?;
        let (rows, cols) = (self.model.vocab_size, matrix(shape).1);
        let values = values.get(..rows * cols).unwrap_or(values);
        Ok(self.graph.linear(x, "lm_head.weight", (rows, cols), values))
    }

    /// A table of embeddings, without the rows that pad the vocabulary.
    fn embedding(&mut self, name: &str) -> Result<Value> {
        let (shape, values) = self.parameter(name)?;
        let (rows, cols) = (self.model.vocab_size, matrix(shape).1);
        let values = values.get(..rows * cols).unwrap_or(values);
        Ok(self.graph.table(name, &[rows, cols], values))
    }

    fn linear(&mut self, x: &Value, name: &str) -> Result<Value> {
        let (shape, values) = self.parameter(name)?;
        Ok(self.graph.linear(x, name, matrix(shape), values))
    }

    /// One number of a parameter.
    fn scalar(&mut self, name: &str, at: usize) -> Result<Value> {
        let (_, values) = self.parameter(name)?;
        let value = values.get(at).copied().ok_or_else(|| lacks(name))?;
        Ok(self.graph.number(value))
    }

    fn parameter(&self, name: &str) -> Result<(&'a [usize], &'a [f32])> {
        let (_, shape, values) =
            Exported::find(&self.exported.parameters, name).ok_or_else(|| lacks(name))?;
        Ok((shape, values))
    }
}

/// (rows, columns)
fn matrix(shape: &[usize]) -> (usize, usize) {
    (shape.first().copied().unwrap_or(1), shape.get(1).copied().unwrap_or(1))
}

fn lacks(name: &str) -> Error {
    Error::internal(format!("the run lacks `{name}`"))
}
