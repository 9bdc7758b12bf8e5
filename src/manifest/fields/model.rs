//! `[model]`.

use toml::Value;

use super::super::field::{Applies, Context, Fallback, Field, Kind};
use super::super::settings::ModelKind;
use super::{field, int, text, word};

/// A number of the recipe's model or initialisation that only the GPT has.
const fn gpt(
    path: &'static str,
    kind: Kind,
    unit: &'static str,
    default: fn(&Context) -> Value,
    doc: &'static str,
) -> Field {
    field(path, kind, unit, Fallback::Value(default), doc).only(Applies::Gpt)
}

const STD: Kind = Kind::Float(0.0, 1e3);
const ANY: Kind = Kind::Float(-1e3, 1e3);
const PRECISION: Kind = Kind::Word(&["f32", "bf16", "compute"]);

pub(super) const FIELDS: &[Field] = &[
    field(
        "model.kind",
        Kind::Word(&["gpt", "microgpt", "bigram"]),
        "",
        Fallback::Value(|_| text("gpt")),
        "nanochat's GPT, Karpathy's microgpt, or a bigram model.",
    ),
    field(
        "model.depth",
        Kind::Int(1, 1000),
        "layers",
        Fallback::Value(|context| match context.model {
            ModelKind::Gpt => int(context.recipe.model.depth),
            ModelKind::Microgpt | ModelKind::Bigram => int(1),
        }),
        "Layers. Alone it decides width, heads, horizon, batch and the laws.",
    )
    .only(Applies::Layered),
    field(
        "model.sequence_len",
        Kind::Int(1, 1 << 24),
        "tokens",
        Fallback::Value(|context| match context.model {
            ModelKind::Gpt => int(context.recipe.model.sequence_len),
            ModelKind::Microgpt | ModelKind::Bigram => int(16),
        }),
        "Tokens in a training row (upstream's max_seq_len).",
    ),
    gpt(
        "model.aspect_ratio",
        Kind::Int(1, 4096),
        "channels a layer",
        |context| int(context.recipe.model.aspect_ratio),
        "Model dimension is depth * aspect_ratio, rounded up to a multiple of head_dim.",
    ),
    gpt(
        "model.head_dim",
        Kind::Int(2, 4096),
        "channels",
        |context| int(context.recipe.model.head_dim),
        "Size of an attention head; even, for the rotary pairs.",
    ),
    field(
        "model.n_kv_head",
        Kind::Int(1, 1 << 20),
        "heads",
        Fallback::Absent("as many as query heads"),
        "Key/value heads; divides the query heads.",
    )
    .only(Applies::Gpt),
    gpt(
        "model.window_pattern",
        Kind::WindowPattern,
        "",
        |context| text(context.recipe.model.window_pattern),
        "S (short) and L (long) tiled over the layers; the last layer is always long.",
    ),
    gpt(
        "model.short_window",
        Kind::Word(&["half", "third", "quarter"]),
        "",
        |context| word(&context.recipe.model.short_window),
        "Short window for T tokens: floor(T/2), or T/3 or T/4 rounded up to a multiple of 128.",
    ),
    gpt(
        "model.rope_base",
        Kind::Float(1.0, 1e12),
        "",
        |context| Value::Float(context.recipe.model.rope_base),
        "Base of the rotary frequencies.",
    ),
    gpt(
        "model.rotary_precision",
        PRECISION,
        "",
        |context| word(&context.recipe.model.rotary_precision),
        "Precision the rotary tables are rounded to; `compute` is run.precision.",
    ),
    gpt(
        "model.qk_scale",
        Kind::FloatOrFalse(f64::MIN_POSITIVE, 1e3),
        "",
        |context| match context.recipe.model.qk_scale {
            1.0 => Value::Boolean(false),
            scale => Value::Float(scale),
        },
        "Multiplies queries and keys after their norm.",
    ),
    gpt(
        "model.softcap",
        Kind::FloatOrFalse(f64::MIN_POSITIVE, 1e6),
        "",
        |context| Value::Float(context.recipe.model.softcap),
        "s of s * tanh(logits / s).",
    ),
    gpt(
        "model.value_embeds",
        Kind::Bool,
        "",
        |context| Value::Boolean(context.recipe.model.value_embeds),
        "Value embeddings on every other layer, the last one included.",
    ),
    gpt(
        "model.ve_gate_channels",
        Kind::Int(1, 1 << 20),
        "channels",
        |context| int(context.recipe.model.ve_gate_channels),
        "Channels that the gate of the value embeddings reads.",
    ),
    gpt(
        "model.ve_gate_scale",
        Kind::Float(f64::MIN_POSITIVE, 1e3),
        "",
        |context| Value::Float(context.recipe.model.ve_gate_scale),
        "The gate is this times a sigmoid.",
    ),
    gpt(
        "model.smear",
        Kind::Bool,
        "",
        |context| Value::Boolean(context.recipe.model.smear),
        "Mix a gated part of the previous token's embedding into each.",
    ),
    gpt(
        "model.smear_channels",
        Kind::Int(1, 1 << 20),
        "channels",
        |context| int(context.recipe.model.smear_channels),
        "Channels that the smear gate reads.",
    ),
    gpt(
        "model.backout",
        Kind::Bool,
        "",
        |context| Value::Boolean(context.recipe.model.backout),
        "Subtract the residual of the middle block before the final norm.",
    ),
    field(
        "model.n_embd",
        Kind::Int(1, 1 << 16),
        "channels",
        Fallback::Value(|_| int(16)),
        "Width of a small model.",
    )
    .only(Applies::Small),
    field("model.n_head", Kind::Int(1, 1 << 12), "heads", Fallback::Value(|_| int(4)), "Attention heads.")
        .only(Applies::Microgpt),
    field(
        "model.tie_lm_head",
        Kind::Bool,
        "",
        Fallback::Value(|_| Value::Boolean(false)),
        "Whether lm_head is the token embedding.",
    )
    .only(Applies::Small),
    field(
        "model.input_rmsnorm",
        Kind::Bool,
        "",
        Fallback::Value(|context| Value::Boolean(context.model == ModelKind::Microgpt)),
        "Whether the embeddings are normalised first.",
    )
    .only(Applies::Small),
    field(
        "model.norm_eps",
        Kind::Float(0.0, 1.0),
        "",
        Fallback::Value(|context| match context.model {
            ModelKind::Gpt => Value::Float(context.recipe.model.norm_eps),
            ModelKind::Microgpt | ModelKind::Bigram => Value::Float(1e-5),
        }),
        "Epsilon of every RMS norm.",
    ),
    field(
        "model.init",
        Kind::Word(&["torch"]),
        "",
        Fallback::Value(|_| text("torch")),
        "`torch`: torch's CPU generator and upstream's order of draws, from run.seed. Excludes model.init.file.",
    ),
    field(
        "model.init.file",
        Kind::Text,
        "path",
        Fallback::Absent("initial weights are drawn"),
        "`init = { file = \"...\" }`: a safetensors file with every parameter by upstream's name.",
    ),
    field(
        "model.init.checkpoint",
        Kind::Text,
        "path",
        Fallback::Absent("initial weights are drawn"),
        "`init = { checkpoint = \"...\" }`: the weights of a checkpoint, trained from step 0: upstream's directory or \
         model_NNNNNN.pt, or a checkpoint's directory of nanorun's.",
    ),
    field(
        "model.init.resume",
        Kind::Text,
        "path",
        Fallback::Absent("training begins at step 0"),
        "`init = { resume = \"...\" }`: a checkpoint of upstream's that is trained on, with its optimizer's state (all \
         ranks), its step and its place in the data, from the next row group on. `budget` counts the steps before; see \
         `nanorun import`.",
    ),
    field(
        "model.init_std",
        STD,
        "",
        Fallback::Value(|_| Value::Float(0.02)),
        "Standard deviation of a small model's initial weights.",
    )
    .only(Applies::Small),
    gpt(
        "model.init_wte_std",
        STD,
        "",
        |context| Value::Float(context.recipe.init.wte_std),
        "wte starts as N(0, this).",
    ),
    gpt(
        "model.init_lm_head_std",
        STD,
        "",
        |context| Value::Float(context.recipe.init.lm_head_std),
        "lm_head starts as N(0, this).",
    ),
    gpt(
        "model.init_c_fc_scale",
        STD,
        "of sqrt(3 / n_embd)",
        |context| Value::Float(context.recipe.init.c_fc_scale),
        "Half the width of c_fc's uniform start.",
    ),
    gpt(
        "model.init_ve_gate_max",
        STD,
        "",
        |context| Value::Float(context.recipe.init.ve_gate_max),
        "Value-embedding gates start as U(0, this); 0 draws nothing.",
    ),
    gpt(
        "model.init_resid_lambda",
        ANY,
        "",
        |context| Value::Float(context.recipe.init.resid_lambda.first),
        "Residual lambda of the first layer.",
    ),
    gpt(
        "model.init_resid_lambda_fall",
        ANY,
        "",
        |context| Value::Float(context.recipe.init.resid_lambda.fall),
        "How much lower it is at the last layer.",
    ),
    gpt(
        "model.init_x0_lambda",
        ANY,
        "",
        |context| Value::Float(context.recipe.init.x0_lambda.first),
        "x0 lambda of the first layer.",
    ),
    gpt(
        "model.init_x0_lambda_fall",
        ANY,
        "",
        |context| Value::Float(context.recipe.init.x0_lambda.fall),
        "How much lower it is at the last layer.",
    ),
    gpt(
        "model.init_smear_gate_max",
        STD,
        "",
        |context| Value::Float(context.recipe.init.smear_gate_max),
        "The smear gate starts as U(0, this); 0 draws nothing.",
    ),
    gpt(
        "model.init_smear_lambda",
        ANY,
        "",
        |context| Value::Float(context.recipe.init.smear_lambda),
        "Start of the smear lambda.",
    ),
    gpt(
        "model.init_backout_lambda",
        ANY,
        "",
        |context| Value::Float(context.recipe.init.backout_lambda),
        "Start of the backout lambda.",
    ),
];
