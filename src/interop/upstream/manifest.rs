//! A checkpoint of upstream's in nanorun's own terms: the manifest of the run that it is of.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::directory::UpstreamCheckpoint;
use super::meta::{Meta, ModelMeta};
use super::recipe::{Told, tell};
use super::weights::{TOKEN_TABLE, Weights};
use crate::data::TokenBytesRule;
use crate::error::{Error, Result};

/// Upstream's fixed seed.
const SEED: i64 = 42;

/// What a manifest is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To compute with the model as it is.
    Evaluate,
    /// To train it on.
    Train,
}

/// What is said of a checkpoint beside what its files say.
#[derive(Debug, Clone)]
pub struct Described<'a> {
    /// The commit, where it was asked for.
    pub commit: Option<&'a str>,
    /// Arguments of `--set`, for what they settle.
    pub sets: &'a [String],
    /// Where its tokenizer is.
    pub tokenizer: &'a Path,
    /// By which definition the tokenizer's directory counts bytes.
    pub token_bytes: Option<TokenBytesRule>,
    /// Its shards; none leaves them out.
    pub shards: &'a [PathBuf],
    /// What for.
    pub purpose: Purpose,
}

/// The manifest of the run that a checkpoint is of, and how its recipe was told. Of [`Purpose::Train`] with every flag of
/// the training script; without where it starts.
///
/// # Errors
/// A recipe that cannot be told, or sizes that no manifest gives; class `Input`.
pub fn describe(
    checkpoint: &UpstreamCheckpoint,
    meta: &Meta,
    weights: &Weights,
    described: &Described<'_>,
) -> Result<(Table, Told)> {
    let in_file = |error: Error| error.file(checkpoint.meta());
    let set = |path: &str| {
        let names =
            |argument: &&String| argument.split_once('=').is_some_and(|(name, _)| name.trim() == path);
        described.sets.iter().any(|argument| names(&argument))
    };
    let trains = described.purpose == Purpose::Train;
    let told = tell(meta, weights, described.commit, &set, trains)
        .map_err(|error| error.file(checkpoint.model()))?;
    let mut manifest = Layered::default();
    manifest.put("name", Value::String(name_of(&checkpoint.tag())));
    manifest.put("upstream.commit", Value::String(told.recipe.commit.to_owned()));
    manifest.put("run.seed", Value::Integer(SEED));
    manifest.put("run.backend", "cpu".into());
    if trains && weights.is_bf16(TOKEN_TABLE) {
        // As it was trained: upstream keeps tables in what it computes in.
        manifest.put("run.precision", "bf16".into());
    }
    let steps = Value::Integer(checkpoint.step.max(1) as i64);
    match (
        trains,
        meta.count("num_iterations"),
        meta.number("target_flops"),
        meta.number("target_param_data_ratio"),
    ) {
        (false, ..) => manifest.put("budget.steps", steps),
        (_, Some(count), ..) => manifest.put("budget.steps", Value::Integer(count as i64)),
        (_, _, Some(flops), _) if flops > 0.0 => manifest.put("budget.flops", Value::Float(flops)),
        (_, _, _, Some(ratio)) if ratio > 0.0 => manifest.put("budget.param_data_ratio", Value::Float(ratio)),
        _ => manifest.put("budget.steps", steps),
    }
    manifest.put("schedule.warmdown", "linear".into());
    sizes(&meta.model_config, &mut manifest).map_err(in_file)?;
    for (path, value) in &told.fields {
        manifest.put(path, value.clone());
    }
    // Each rank saved its own part of the optimizer's state, and read its own rows.
    let ranks = checkpoint.optimizer().len().max(1) as u64;
    if ranks > 1 {
        manifest.put("run.ranks", Value::Integer(ranks as i64));
    }
    batches(meta, ranks, trains, &mut manifest);
    if trains {
        flags(meta, &mut manifest);
    }
    if !described.shards.is_empty() {
        let paths = described.shards.iter().map(|path| Value::String(path.display().to_string()));
        manifest.put("data.shards", Value::Array(paths.collect()));
    }
    manifest.put("data.tokenizer.path", Value::String(described.tokenizer.display().to_string()));
    manifest.put("data.vocab_size", Value::Integer(meta.model_config.vocab_size as i64));
    if let Some(rule) = described.token_bytes {
        let rule = match rule {
            TokenBytesRule::Decoded => "decoded",
            TokenBytesRule::Raw => "raw",
        };
        manifest.put("data.token_bytes", rule.into());
    }
    Ok((manifest.0, told))
}

/// A manifest that is put together by key paths.
#[derive(Default)]
struct Layered(Table);

impl Layered {
    fn put(&mut self, path: &str, value: Value) {
        let (sections, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = &mut self.0;
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            let slot = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = slot else { return };
            table = inner;
        }
        table.insert(last.to_owned(), value);
    }
}

/// A tag as the name of an experiment.
fn name_of(tag: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let name: String = tag.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "checkpoint".to_owned() } else { name.to_owned() }
}

/// Depth, head size and aspect that give these sizes.
fn sizes(model: &ModelMeta, manifest: &mut Layered) -> Result<()> {
    let ModelMeta { sequence_len, n_layer, n_head, n_kv_head, n_embd, .. } = *model;
    let head_dim = n_embd / n_head;
    // Width is depth * aspect rounded up to whole heads: the largest aspect that does not go beyond, or one with which
    // rounding gets there.
    let aspect = n_embd / n_layer;
    let reaches = |aspect: usize| (n_layer * aspect).next_multiple_of(head_dim) == n_embd;
    if aspect == 0 || !reaches(aspect) {
        return Err(Error::input(format!("no aspect ratio makes {n_layer} layers {n_embd} channels wide"))
            .expected("a width that is depth * aspect_ratio rounded up to a multiple of the head size"));
    }
    let mut int = |path: &str, size: usize| manifest.put(path, Value::Integer(size as i64));
    int("model.depth", n_layer);
    int("model.aspect_ratio", aspect);
    int("model.head_dim", head_dim);
    if n_kv_head != n_head {
        int("model.n_kv_head", n_kv_head);
    }
    int("model.sequence_len", sequence_len);
    let pattern = model.window_pattern.as_deref().unwrap_or("L").to_ascii_uppercase();
    manifest.put("model.window_pattern", Value::String(pattern));
    Ok(())
}

/// Micro-batches, steps and evaluations.
fn batches(meta: &Meta, ranks: u64, trains: bool, manifest: &mut Layered) {
    let rows = meta.device_batch_size.or(meta.count("device_batch_size")).unwrap_or(1).max(1);
    let micro = rows.saturating_mul(meta.model_config.sequence_len as u64).saturating_mul(ranks);
    manifest.put("train.device_batch_size", Value::Integer(rows as i64));
    let total = meta.total_batch_size.or(meta.count("total_batch_size"));
    match (trains, total) {
        (true, Some(total)) => manifest.put("train.total_batch_size", Value::Integer(total as i64)),
        // The recipe's law gives it.
        (true, None) => {}
        (false, _) => manifest.put("train.total_batch_size", Value::Integer(micro as i64)),
    }
    if let Some(tokens) = meta.count("eval_tokens") {
        manifest.put("eval.tokens", Value::Integer(tokens.max(micro) as i64));
    }
    if let Some(every) = meta.count("eval_every") {
        manifest.put("eval.every", Value::Integer(every as i64));
    }
    if let Some(every) = meta.count("save_every").filter(|_| trains) {
        manifest.put("checkpoint.every", Value::Integer(every as i64));
    }
}

/// The flags of the training script that the manifest has under their own names.
fn flags(meta: &Meta, manifest: &mut Layered) {
    for (flag, path) in [
        ("embedding_lr", "optimizer.embedding_lr"),
        ("unembedding_lr", "optimizer.unembedding_lr"),
        ("matrix_lr", "optimizer.matrix_lr"),
        ("scalar_lr", "optimizer.scalar_lr"),
        ("weight_decay", "optimizer.weight_decay"),
        ("warmup_ratio", "schedule.warmup_ratio"),
        ("warmdown_ratio", "schedule.warmdown_ratio"),
        ("final_lr_frac", "schedule.final_lr_frac"),
    ] {
        if let Some(value) = meta.number(flag) {
            manifest.put(path, Value::Float(value));
        }
    }
    if let Some(steps) = meta.user_config.get("warmup_steps").and_then(serde_json::Value::as_i64) {
        manifest.put("schedule.warmup_steps", Value::Integer(steps));
    }
    if let (Some(first), Some(second)) = (meta.number("adam_beta1"), meta.number("adam_beta2")) {
        let betas = Value::Array(vec![Value::Float(first), Value::Float(second)]);
        for group in ["unembedding", "embedding", "value_embeds", "resid"] {
            manifest.put(&format!("optimizer.{group}_betas"), betas.clone());
        }
    }
}
