//! Top level, `[upstream]`, `[run]`, `[train]`, `[scorecard]`.

use toml::Value;

use super::super::field::{Fallback, Field, Kind, Part};
use super::super::settings::ModelKind;
use super::{field, int, text};
use crate::upstream::BatchRule;

/// What runs are measured by.
const METRIC: Kind = Kind::Word(&["val_bpb", "val_loss", "train_loss", "core"]);

const ALSO: &[Part] = &[
    Part { name: "metric", kind: METRIC, required: true, doc: "what is compared." },
    Part {
        name: "margin",
        kind: Kind::Float(0.0, f64::MAX),
        required: true,
        doc: "how much worse than the control an arm may be and still pass, of the metric.",
    },
    Part {
        name: "sigma",
        kind: Kind::Float(f64::MIN_POSITIVE, f64::MAX),
        required: false,
        doc: "standard deviation of one run, assumed in place of a spread that is measured.",
    },
];

const TARGET: &[Part] = &[
    Part {
        name: "rule",
        kind: Kind::Word(&["modded_nanogpt_track_1", "modded_nanogpt_track_3"]),
        required: false,
        doc: "fills in what modded-nanogpt's rules say: a val_loss of at most 3.28 at p 0.01 by a t test (track 1), or at \
              p 0.001 with sigma 0.0013 (track 3); what else is written here departs from it.",
    },
    Part {
        name: "metric",
        kind: METRIC,
        required: false,
        doc: "what is held against it; left out, val_bpb.",
    },
    Part {
        name: "at_most",
        kind: Kind::Float(f64::MIN, f64::MAX),
        required: false,
        doc: "the mean is to be at most this, of the metric.",
    },
    Part {
        name: "at_least",
        kind: Kind::Float(f64::MIN, f64::MAX),
        required: false,
        doc: "or at least this.",
    },
    Part {
        name: "p",
        kind: Kind::Float(1e-9, 0.5),
        required: false,
        doc: "one-sided level at which it counts as met; left out, 0.01.",
    },
    Part {
        name: "sigma",
        kind: Kind::Float(f64::MIN_POSITIVE, f64::MAX),
        required: false,
        doc: "standard deviation of one run, assumed: a z test; left out, it is measured: a t test.",
    },
];

pub(super) const FIELDS: &[Field] = &[
    field("name", Kind::Name, "", Fallback::Required, "Name of the experiment and of its results directory."),
    field(
        "question",
        Kind::Text,
        "",
        Fallback::Absent("no question is shown"),
        "The question the experiment answers, shown in plan and report.",
    ),
    field(
        "hypothesis",
        Kind::Text,
        "",
        Fallback::Absent("the ledger has none"),
        "What is expected and why, written down before anything is trained; `nanorun ledger` keeps it beside the outcome.",
    ),
    field(
        "upstream.repo",
        Kind::Word(&["karpathy/nanochat"]),
        "",
        Fallback::Value(|_| text("karpathy/nanochat")),
        "The repository whose recipe is pinned.",
    ),
    field(
        "upstream.commit",
        Kind::Commit,
        "",
        Fallback::Required,
        "Pins the recipe: the first 7 or more digits of a known commit.",
    ),
    field(
        "run.seed",
        Kind::Int(0, i64::MAX),
        "",
        Fallback::Required,
        "Seed of initial weights and of sampling; upstream itself uses 42. Data order does not depend on it.",
    ),
    field(
        "run.ranks",
        Kind::Int(1, 1024),
        "ranks",
        Fallback::Value(|_| int(1)),
        "Trains on the rows that upstream reads with so many GPUs, on one device: each rank its own row groups (of text and \
         JSON lines, 1024 documents stand for one), rank after rank. Evaluations too.",
    ),
    field(
        "run.backend",
        Kind::Word(&["cpu", "tch", "scalar"]),
        "",
        Fallback::Required,
        "Which implementation of the operations trains.",
    ),
    field(
        "run.device",
        Kind::Device,
        "",
        Fallback::Value(|_| text("cpu")),
        "Device of the tch backend; the others ignore it.",
    ),
    field(
        "run.precision",
        Kind::Word(&["f32", "bf16"]),
        "",
        Fallback::Value(|_| text("f32")),
        "Compute precision: `bf16` on cpu and tch.",
    ),
    field(
        "run.threads",
        Kind::Int(1, 1024),
        "threads",
        Fallback::Absent("all cores"),
        "Threads of the cpu backend; --threads overrides it. Changes no result.",
    ),
    field(
        "run.preflight",
        Kind::Bool,
        "",
        Fallback::Value(|_| Value::Boolean(true)),
        "Whether runs that will not fit into memory or on disk are refused before they start; `false` starts them all \
         the same. Changes no result.",
    ),
    field(
        "train.device_batch_size",
        Kind::IntOr(1, 1 << 20, "auto"),
        "rows",
        Fallback::Value(|context| match context.model {
            ModelKind::Gpt => int(context.recipe.data.device_batch_size),
            ModelKind::Microgpt | ModelKind::Bigram => int(1),
        }),
        "Rows of a micro-batch. `auto` searches for the largest power of two that fits into the memory of tch's device, \
         once: the size found is kept with the results.",
    ),
    field(
        "train.total_batch_size",
        Kind::IntOr(1, 1 << 40, "auto"),
        "tokens",
        Fallback::Value(|context| match (context.model, context.recipe.data.total_batch_size) {
            (ModelKind::Gpt, BatchRule::Tokens(tokens)) => int(tokens),
            _ => text("auto"),
        }),
        "Tokens of an optimizer step: a multiple of device_batch_size * sequence_len * run.ranks. `auto` follows the horizon \
         by upstream's law (the small models: one micro-batch).",
    ),
    field(
        "scorecard.quality.metric",
        METRIC,
        "",
        Fallback::Value(|_| text("val_bpb")),
        "What the quality verdict compares; of `core`, which takes eval.core.bundle, more is better.",
    ),
    field(
        "scorecard.quality.margin",
        Kind::Float(0.0, f64::MAX),
        "of the metric",
        Fallback::Value(|_| Value::Float(0.002)),
        "How much worse than the control an arm may be and still pass.",
    ),
    field(
        "scorecard.quality.confidence",
        Kind::Float(0.5, 0.9999),
        "",
        Fallback::Value(|_| Value::Float(0.95)),
        "Confidence of the two-sided intervals whose ends decide, of all arms together.",
    ),
    field(
        "scorecard.quality.variance",
        Kind::Word(&["pooled", "pair"]),
        "",
        Fallback::Value(|_| text("pooled")),
        "Where the spread of differences between seeds is taken from: from all arms that share a control and part from \
         it at the same step, where they scatter alike, or from each arm alone.",
    ),
    field(
        "scorecard.quality.sigma",
        Kind::FloatOrFalse(f64::MIN_POSITIVE, f64::MAX),
        "of the metric",
        Fallback::Value(|_| Value::Boolean(false)),
        "Standard deviation of one run, assumed in place of a spread that is measured; verdicts say so.",
    ),
    field(
        "scorecard.quality.also",
        Kind::Tables(ALSO),
        "",
        Fallback::Absent("one metric"),
        "Further metrics that arms are compared by, each by a margin of its own. What the confidence leaves is shared out \
         evenly among metrics and controls; the p of no difference is Holm's.",
    ),
    field(
        "scorecard.target",
        Kind::Tables(TARGET),
        "",
        Fallback::Absent("no target"),
        "Numbers that the mean of every arm is held against, one-sided, whatever the control does.",
    ),
    field(
        "scorecard.quality.looks",
        Kind::IntsOrFalse,
        "seeds",
        Fallback::Value(|_| Value::Boolean(false)),
        "Numbers of seeds after which quality is judged before all are trained, such as `[3, 6]` of 10; all seeds are the \
         last look, written or not. Once every arm is decided no more seeds are begun. What looks may spend of what the \
         confidence leaves is shared out by O'Brien and Fleming, next to nothing to early ones; spreads are pooled or not \
         as `variance` says, whatever the results.",
    ),
    field(
        "scorecard.across",
        Kind::Texts,
        "",
        Fallback::Value(|_| Value::Array(Vec::new())),
        "Fields by which arms are evaluated differently from their control and are to be compared all the same, such as \
         `[\"model.sequence_len\"]`; others are not judged.",
    ),
    field(
        "scorecard.speed.min_ratio",
        Kind::Float(f64::MIN_POSITIVE, f64::MAX),
        "of the control's tokens a second",
        Fallback::Value(|_| Value::Float(0.95)),
        "How slow an arm may be and still pass.",
    ),
    field(
        "scorecard.reproducibility.baseline",
        Kind::Text,
        "path",
        Fallback::Absent("no reproducibility verdict"),
        "Baseline whose hashes results must equal. Profiles do not inherit it.",
    ),
    field(
        "analysis.scaling.x",
        Kind::Word(&["flops", "params", "tokens", "depth"]),
        "",
        Fallback::Absent("no scaling fit"),
        "Fits how `scorecard.quality.metric` goes with this over the arms: power laws, and where arms are grouped, the best \
         size of each budget before. `params` are those that scaling laws count: the blocks' matrices and the unembedding.",
    ),
    field(
        "analysis.scaling.groups",
        Kind::Word(&["none", "budget"]),
        "",
        Fallback::Absent("`none`"),
        "`budget` fits the arms of each budget by a parabola in the logarithm of their params first, whose lowest point is \
         the budget's best size, then power laws over these.",
    ),
];
