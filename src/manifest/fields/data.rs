//! `[data]`, `[eval]`, `[checkpoint]`.

use toml::Value;

use super::super::field::{Fallback, Field, Kind};
use super::super::settings::ModelKind;
use super::{field, int, text, word};
use crate::upstream::MIN_VOCAB_SIZE;

pub(super) const FIELDS: &[Field] = &[
    field(
        "data.shards",
        Kind::Texts,
        "paths",
        Fallback::Value(|_| text("embedded")),
        "Parquet, JSON lines (`.jsonl`, `.ndjson`, `.json`) or text (`.txt`), the latter two also as `.gz` or `.zst`: a \
         directory, globs or files; the last in name order is the validation split. `embedded` is the Shakespeare that \
         comes with nanorun.",
    ),
    field(
        "data.column",
        Kind::Text,
        "",
        Fallback::Value(|_| text("text")),
        "Where the texts are: the column of parquet shards, the field of JSON lines.",
    ),
    field(
        "data.nulls",
        Kind::Word(&["error", "skip"]),
        "",
        Fallback::Value(|_| text("error")),
        "Rows without a text: an error before step 0, or passed over.",
    ),
    field(
        "data.validation",
        Kind::Text,
        "name",
        Fallback::Absent("the last shard by name validates; of a single one, its last tenth of documents"),
        "Name or glob of the shards that validate, so that more shards do not move the split.",
    ),
    field(
        "data.tokenizer",
        Kind::Word(&["char"]),
        "",
        Fallback::Maybe(|context| match context.model {
            ModelKind::Gpt => None,
            ModelKind::Microgpt | ModelKind::Bigram => Some(text("char")),
        }),
        "`char`: one token a character and one BOS.",
    ),
    field(
        "data.tokenizer.path",
        Kind::Text,
        "path",
        Fallback::Absent("a tokenizer is trained on the train split"),
        "`tokenizer = { path = \"...\" }`: upstream's tokenizer directory or tokenizer.pkl.",
    ),
    field(
        "data.tokenizer.vocab_size",
        Kind::Int(MIN_VOCAB_SIZE as i64, 1 << 24),
        "tokens",
        Fallback::Maybe(|context| match context.model {
            ModelKind::Gpt => Some(int(4096)),
            ModelKind::Microgpt | ModelKind::Bigram => None,
        }),
        "`tokenizer = { vocab_size = N }`: BPE trained on the train split; 256 bytes, merges, 9 special tokens.",
    ),
    field(
        "data.vocab_size",
        Kind::Int(2, 1 << 24),
        "tokens",
        Fallback::Absent("read from the tokenizer"),
        "Declared vocabulary, so that a plan can be made before the data are here; checked once they are.",
    ),
    field(
        "data.sha256",
        Kind::Digests,
        "",
        Fallback::Absent("contents are not pinned, only recorded in run keys"),
        "Pins written by `nanorun lock`: SHA-256 by name of every shard, and the hash of the vocabulary as \
         `tokenizer`. Checked before step 0; a layer that names other shards drops them, one that names another \
         tokenizer drops that one.",
    ),
    field(
        "data.document",
        Kind::Word(&["block", "line"]),
        "",
        Fallback::Value(|_| text("block")),
        "How text files divide into documents: blank-line separated blocks, or lines.",
    ),
    field(
        "data.seed",
        Kind::IntOr(0, i64::MAX, "run"),
        "",
        Fallback::Absent("row groups are read as they lie, as upstream reads them"),
        "Permutes the row groups of all train shards, anew in each round, before the ranks divide them; `\"run\"` is \
         run.seed. The validation split stays as it is.",
    ),
    field(
        "data.packing",
        Kind::Word(&["best_fit_bos", "document"]),
        "",
        Fallback::Value(|context| match context.model {
            ModelKind::Gpt => text("best_fit_bos"),
            ModelKind::Microgpt | ModelKind::Bigram => text("document"),
        }),
        "Upstream's best-fit packing, or one document a row.",
    ),
    field(
        "data.token_bytes",
        Kind::Word(&["decoded", "raw"]),
        "",
        Fallback::Value(|context| word(&context.recipe.data.token_bytes)),
        "Bytes of a token in bits per byte: of its text with replacement characters, or its own.",
    ),
    field(
        "eval.every",
        Kind::Int(0, 10_000_000),
        "steps",
        Fallback::Value(|context| int(context.recipe.data.eval_every)),
        "Steps between validations, besides the first and the last; 0 is only those two.",
    ),
    field(
        "eval.tokens",
        Kind::Int(1, 1 << 50),
        "tokens",
        Fallback::Value(|context| match context.model {
            ModelKind::Gpt => int(context.recipe.data.eval_tokens),
            ModelKind::Microgpt | ModelKind::Bigram => int(16384),
        }),
        "Tokens of a validation, rounded down to whole batches.",
    ),
    field(
        "eval.max_drift_bytes",
        Kind::Int(0, 1 << 50),
        "bytes",
        Fallback::Value(|_| int(16 << 20)),
        "What an evaluation may leave behind before the memory-drift guard stops the run.",
    ),
    field(
        "eval.core.bundle",
        Kind::Text,
        "path",
        Fallback::Absent("the CORE metric is not measured"),
        "Upstream's evaluation bundle, the directory with core.yaml: measures the CORE metric after the last step.",
    ),
    field(
        "eval.core.every",
        Kind::Int(0, 10_000_000),
        "steps",
        Fallback::Value(|_| int(0)),
        "Steps between measurements of CORE, besides the last; 0 is only that one. A checkpoint is on disk before each.",
    ),
    field(
        "eval.core.max_per_task",
        Kind::Int(1, u32::MAX as i64),
        "examples",
        Fallback::Absent("all examples"),
        "How many examples of each task, the first once shuffled as upstream shuffles them (its base_train takes 500).",
    ),
    field(
        "checkpoint.every",
        Kind::Int(0, 10_000_000),
        "steps",
        Fallback::Value(|_| int(0)),
        "Steps between kept checkpoints; 0 keeps the last one alone.",
    ),
    field(
        "checkpoint.keep",
        Kind::Int(0, 1 << 20),
        "checkpoints",
        Fallback::Value(|_| int(0)),
        "How many of the kept ones stay; 0 is all.",
    ),
    field(
        "checkpoint.final",
        Kind::Word(&["weights", "all", "none"]),
        "",
        Fallback::Value(|_| text("weights")),
        "What stays of the checkpoints once a run is finished and no other takes steps over from it: weights alone, which can be sampled from and evaluated again, all of it, or nothing.",
    ),
    field(
        "checkpoint.minutes",
        Kind::FloatOrFalse(0.0, 1e6),
        "minutes",
        Fallback::Value(|_| Value::Float(10.0)),
        "The most training that is lost where a run ends without warning: a checkpoint is written when the last one is \
         this old, and takes its place. 0 writes one after every step; `false` none but those of other fields. Where \
         writing takes longer than a tenth of it, it is ten times that. Changes no result.",
    ),
];
