//! `[optimizer]`.

use toml::Value;

use super::super::field::{Applies, Context, Fallback, Field, Kind};
use super::super::settings::{ModelKind, OptimizerKind};
use super::{field, int, text, word};
use crate::upstream::AdamWRecipe;

const RATE: Kind = Kind::Float(0.0, 1e3);
const DECAY: Kind = Kind::Float(0.0, 1e3);
const PRECISION: Kind = Kind::Word(&["f32", "bf16", "compute"]);

/// A learning rate of an AdamW group of the GPT.
const fn rate(
    path: &'static str,
    unit: &'static str,
    default: fn(&Context) -> Value,
    doc: &'static str,
) -> Field {
    field(path, RATE, unit, Fallback::Value(default), doc).only(Applies::GptAdam)
}

const fn betas(path: &'static str, default: fn(&Context) -> Value) -> Field {
    field(path, Kind::Betas, "", Fallback::Value(default), "Decays of AdamW's two moments.")
        .only(Applies::GptAdam)
}

const fn decay(path: &'static str, default: fn(&Context) -> Value) -> Field {
    field(path, DECAY, "", Fallback::Value(default), "Decoupled weight decay, constant.")
        .only(Applies::GptAdam)
}

const fn muon(path: &'static str, kind: Kind, default: fn(&Context) -> Value, doc: &'static str) -> Field {
    field(path, kind, "", Fallback::Value(default), doc).only(Applies::Muon)
}

fn pair(group: &AdamWRecipe) -> Value {
    Value::Array(vec![Value::Float(group.betas.0), Value::Float(group.betas.1)])
}

pub(super) const FIELDS: &[Field] = &[
    field(
        "optimizer.kind",
        Kind::Word(&["muon_adamw", "adamw", "sgd"]),
        "",
        Fallback::Value(|context| match context.model {
            ModelKind::Gpt => text("muon_adamw"),
            ModelKind::Microgpt | ModelKind::Bigram => text("adamw"),
        }),
        "Muon on the blocks and AdamW on the rest (upstream's, gpt only), AdamW, or SGD.",
    ),
    field(
        "optimizer.lr",
        RATE,
        "",
        Fallback::Value(|context| match context.optimizer {
            OptimizerKind::Sgd => Value::Float(0.1),
            OptimizerKind::MuonAdamw | OptimizerKind::Adamw => Value::Float(0.01),
        }),
        "The one learning rate, unscaled.",
    )
    .only(Applies::OneRate),
    field(
        "optimizer.betas",
        Kind::Betas,
        "",
        Fallback::Value(|_| Value::Array(vec![Value::Float(0.9), Value::Float(0.95)])),
        "Decays of AdamW's two moments.",
    )
    .only(Applies::SmallAdam),
    field(
        "optimizer.eps",
        Kind::Float(0.0, 1.0),
        "",
        Fallback::Value(|context| match context.model {
            ModelKind::Gpt => Value::Float(context.recipe.optimizer.adam_eps),
            ModelKind::Microgpt | ModelKind::Bigram => Value::Float(1e-8),
        }),
        "AdamW's epsilon, outside the root.",
    )
    .only(Applies::AnyAdam),
    field(
        "optimizer.momentum",
        Kind::Float(0.0, 0.9999),
        "",
        Fallback::Value(|_| Value::Float(0.0)),
        "SGD's momentum.",
    )
    .only(Applies::Sgd),
    field(
        "optimizer.weight_decay",
        DECAY,
        "",
        Fallback::Value(|context| match (context.model, context.optimizer) {
            (ModelKind::Gpt, OptimizerKind::MuonAdamw | OptimizerKind::Adamw) => {
                Value::Float(context.recipe.optimizer.muon.weight_decay)
            }
            _ => Value::Float(0.0),
        }),
        "Decoupled decay of the blocks' matrices, before weight_decay_law scales it (small models and SGD: of \
         everything, unscaled).",
    ),
    field(
        "optimizer.weight_decay_law",
        Kind::Word(&["depth", "horizon", "constant"]),
        "",
        Fallback::Value(|context| word(&context.recipe.optimizer.weight_decay_law)),
        "Scales weight_decay by (12 / depth)^2, by sqrt(B / 2^19) * D_ref / D, or not.",
    )
    .only(Applies::GptAdam),
    field(
        "optimizer.batch_lr_scaling",
        Kind::Bool,
        "",
        Fallback::Value(|_| Value::Boolean(true)),
        "Multiply all rates but smear_lr by sqrt(B / 2^19).",
    )
    .only(Applies::GptAdam),
    field(
        "optimizer.width_lr_scaling",
        Kind::Bool,
        "",
        Fallback::Value(|_| Value::Boolean(true)),
        "Multiply the rates of lm_head, wte and value embeddings by sqrt(768 / n_embd).",
    )
    .only(Applies::GptAdam),
    rate(
        "optimizer.matrix_lr",
        "",
        |context| match context.optimizer {
            OptimizerKind::Adamw => Value::Float(0.003),
            OptimizerKind::MuonAdamw | OptimizerKind::Sgd => Value::Float(context.recipe.optimizer.muon.lr),
        },
        "Rate of the blocks' matrices: Muon's (upstream's flag), or AdamW's (0.003, not upstream's).",
    ),
    field(
        "optimizer.matrix_betas",
        Kind::Betas,
        "",
        Fallback::Value(|_| Value::Array(vec![Value::Float(0.8), Value::Float(0.95)])),
        "Decays of AdamW's moments of the blocks' matrices.",
    )
    .only(Applies::GptAdamAlone),
    rate(
        "optimizer.unembedding_lr",
        "",
        |context| Value::Float(context.recipe.optimizer.unembedding.lr),
        "Rate of lm_head.",
    ),
    betas("optimizer.unembedding_betas", |context| pair(&context.recipe.optimizer.unembedding)),
    decay("optimizer.unembedding_weight_decay", |context| {
        Value::Float(context.recipe.optimizer.unembedding.weight_decay)
    }),
    rate(
        "optimizer.embedding_lr",
        "",
        |context| Value::Float(context.recipe.optimizer.embedding.lr),
        "Rate of wte, and what value_embeds_lr_factor multiplies.",
    ),
    betas("optimizer.embedding_betas", |context| pair(&context.recipe.optimizer.embedding)),
    decay("optimizer.embedding_weight_decay", |context| {
        Value::Float(context.recipe.optimizer.embedding.weight_decay)
    }),
    rate(
        "optimizer.value_embeds_lr_factor",
        "of embedding_lr",
        |context| Value::Float(context.recipe.optimizer.value_embeds.lr),
        "Rate of the value embeddings.",
    ),
    betas("optimizer.value_embeds_betas", |context| pair(&context.recipe.optimizer.value_embeds)),
    decay("optimizer.value_embeds_weight_decay", |context| {
        Value::Float(context.recipe.optimizer.value_embeds.weight_decay)
    }),
    rate(
        "optimizer.scalar_lr",
        "",
        |context| Value::Float(context.recipe.optimizer.x0.lr),
        "Rate of the x0 lambdas, and what resid_lr_factor multiplies.",
    ),
    rate(
        "optimizer.resid_lr_factor",
        "of scalar_lr",
        |context| Value::Float(context.recipe.optimizer.resid.lr),
        "Rate of the residual lambdas.",
    ),
    betas("optimizer.resid_betas", |context| pair(&context.recipe.optimizer.resid)),
    decay("optimizer.resid_weight_decay", |context| {
        Value::Float(context.recipe.optimizer.resid.weight_decay)
    }),
    betas("optimizer.x0_betas", |context| pair(&context.recipe.optimizer.x0)),
    decay("optimizer.x0_weight_decay", |context| Value::Float(context.recipe.optimizer.x0.weight_decay)),
    rate(
        "optimizer.smear_lr",
        "",
        |context| Value::Float(context.recipe.optimizer.smear.lr),
        "Rate of smear gate, smear lambda and backout lambda; nothing scales it.",
    ),
    betas("optimizer.smear_betas", |context| pair(&context.recipe.optimizer.smear)),
    decay("optimizer.smear_weight_decay", |context| {
        Value::Float(context.recipe.optimizer.smear.weight_decay)
    }),
    muon(
        "optimizer.muon_beta2",
        Kind::Float(0.0, 0.9999),
        |context| Value::Float(context.recipe.optimizer.muon.beta2),
        "Decay of NorMuon's second moment.",
    ),
    muon(
        "optimizer.norm_factor",
        Kind::Float(f64::MIN_POSITIVE, 10.0),
        |context| Value::Float(context.recipe.optimizer.muon.norm_factor),
        "f in X / (|X| * f + 1e-6) before the polar iteration.",
    ),
    muon(
        "optimizer.ns_steps",
        Kind::Int(1, 5),
        |context| int(context.recipe.optimizer.muon.ns_steps),
        "Polar iterations.",
    ),
    muon(
        "optimizer.row_equilibration",
        Kind::Bool,
        |context| Value::Boolean(context.recipe.optimizer.muon.row_equilibration),
        "MuonEq: rows scaled to their mean norm before the polar iteration.",
    ),
    muon(
        "optimizer.renormalize",
        Kind::Bool,
        |context| Value::Boolean(context.recipe.optimizer.muon.renormalize),
        "Muon+: Frobenius norm sqrt(min(R, K)) after it.",
    ),
    muon(
        "optimizer.polar_precision",
        PRECISION,
        |context| word(&context.recipe.optimizer.muon.polar_precision),
        "Precision of the polar iteration; `compute` is run.precision.",
    ),
    muon(
        "optimizer.update_precision",
        PRECISION,
        |context| word(&context.recipe.optimizer.muon.update_precision),
        "Precision of the direction up to the weight update; `compute` is run.precision.",
    ),
];
