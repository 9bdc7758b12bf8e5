//! `[budget]` and `[schedule]`.

use toml::Value;

use super::super::field::{Applies, Fallback, Field, Kind};
use super::super::settings::ModelKind;
use super::{field, int, word};
use crate::upstream::WarmupRule;

const ONE_BUDGET: Fallback = Fallback::Absent("exactly one budget is required");

pub(super) const FIELDS: &[Field] = &[
    field("budget.steps", Kind::Int(1, 10_000_000), "steps", ONE_BUDGET, "Optimizer steps."),
    field(
        "budget.tokens",
        Kind::Int(1, i64::MAX),
        "tokens",
        ONE_BUDGET,
        "Tokens trained on, rounded down to whole steps.",
    ),
    field(
        "budget.flops",
        Kind::Float(1.0, f64::MAX),
        "FLOPs",
        ONE_BUDGET,
        "FLOPs by upstream's formula, rounded to the nearest step.",
    ),
    field(
        "budget.param_data_ratio",
        Kind::Float(f64::MIN_POSITIVE, 1e9),
        "tokens a parameter",
        ONE_BUDGET,
        "Tokens for each parameter of blocks and lm_head. Also what the batch and decay laws use; with another \
         budget they use the recipe's ratio.",
    ),
    field(
        "schedule.warmdown",
        Kind::Word(&["linear", "sqrt", "cosine", "constant"]),
        "",
        Fallback::Required,
        "Shape of the warm-down. Upstream's is `linear`; `sqrt` is 1-sqrt, arXiv 2405.18392.",
    ),
    field(
        "schedule.warmdown_ratio",
        Kind::Float(0.0, 1.0),
        "of all steps",
        Fallback::Value(|context| match context.model {
            ModelKind::Gpt => Value::Float(context.recipe.schedule.warmdown_ratio),
            ModelKind::Microgpt | ModelKind::Bigram => Value::Float(1.0),
        }),
        "Length of the warm-down, rounded half to even.",
    ),
    field(
        "schedule.warmup_steps",
        Kind::Int(0, 10_000_000),
        "steps",
        Fallback::Maybe(|context| match (context.model, context.recipe.schedule.warmup) {
            (ModelKind::Gpt, WarmupRule::Steps(steps)) => Some(int(steps)),
            (ModelKind::Gpt, WarmupRule::Ratio(_)) => None,
            _ => Some(int(0)),
        }),
        "Steps of linear warm-up. Excludes warmup_ratio.",
    ),
    field(
        "schedule.warmup_ratio",
        Kind::Float(0.0, 1.0),
        "of all steps",
        Fallback::Maybe(|context| match (context.model, context.recipe.schedule.warmup) {
            (ModelKind::Gpt, WarmupRule::Ratio(ratio)) => Some(Value::Float(ratio)),
            _ => None,
        }),
        "Length of the linear warm-up, rounded half to even. Excludes warmup_steps.",
    ),
    field(
        "schedule.final_lr_frac",
        Kind::Float(0.0, 1.0),
        "of the peak",
        Fallback::Value(|context| match context.model {
            ModelKind::Gpt => Value::Float(context.recipe.schedule.final_lr_frac),
            ModelKind::Microgpt | ModelKind::Bigram => Value::Float(0.0),
        }),
        "Learning-rate multiplier that the warm-down approaches.",
    ),
    field(
        "schedule.momentum_start",
        Kind::Float(0.0, 0.9999),
        "",
        Fallback::Value(|context| Value::Float(context.recipe.optimizer.muon.momentum.start)),
        "Muon's momentum at step 0.",
    )
    .only(Applies::Muon),
    field(
        "schedule.momentum_peak",
        Kind::Float(0.0, 0.9999),
        "",
        Fallback::Value(|context| Value::Float(context.recipe.optimizer.muon.momentum.peak)),
        "Muon's momentum after its warm-up.",
    )
    .only(Applies::Muon),
    field(
        "schedule.momentum_warmup_steps",
        Kind::Int(0, 10_000_000),
        "steps",
        Fallback::Value(|context| int(context.recipe.optimizer.muon.momentum.warmup_steps)),
        "Steps from momentum_start to momentum_peak.",
    )
    .only(Applies::Muon),
    field(
        "schedule.momentum_warmdown_to",
        Kind::FloatOrFalse(0.0, 0.9999),
        "",
        Fallback::Value(|context| {
            context.recipe.optimizer.muon.momentum.warmdown_to.map_or(Value::Boolean(false), Value::Float)
        }),
        "What momentum falls to over the LR warm-down.",
    )
    .only(Applies::Muon),
    field(
        "schedule.weight_decay_shape",
        Kind::Word(&["linear", "cosine", "constant"]),
        "",
        Fallback::Value(|context| word(&context.recipe.schedule.weight_decay_shape)),
        "How Muon's weight decay changes over the run.",
    )
    .only(Applies::Muon),
];
