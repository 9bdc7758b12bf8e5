//! A case as a manifest: its commit's recipe, with the sizes and optimizer values that the case gives.

use std::fmt::Write as _;

use super::{Case, ParityConfig};
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Options};
use crate::model::config::{GptConfig, ModelConfig};
use crate::plan::{NoData, plan};
use crate::upstream;

/// The configuration of a case, by the path that every manifest takes.
///
/// # Errors
/// A commit that is not pinned; sizes that no manifest can say.
pub fn config_of(case: &Case) -> Result<ParityConfig> {
    let file = case.directory.join("case.json");
    let recipe = upstream::find(&case.commit)
        .map_err(|unknown| Error::input(unknown.to_string()).file(&file).key("commit"))?;
    let options = Options::default();
    let manifest = Manifest::parse(&file, &manifest(case, recipe.commit)?, &options)?;
    let run = plan(&manifest, &NoData)?.runs.into_iter().next();
    let run = run.ok_or_else(|| Error::internal("a manifest without a run"))?;
    let (config, flops_per_token) = (run.config, run.sizes.flops_per_token);
    match config.model {
        ModelConfig::Gpt(model) if fits(&model, case) => Ok(ParityConfig {
            model,
            optimizer: config.optimizer,
            schedule: config.schedule,
            flops_per_token,
        }),
        _ => Err(Error::input(format!("{} channels are no width of a GPT", case.sizes.n_embd))
            .file(file)
            .key("model_config.n_embd")
            .expected("n_layer times an aspect ratio, rounded up to a multiple of the head's channels")),
    }
}

fn fits(model: &GptConfig, case: &Case) -> bool {
    (model.n_embd, model.n_head, model.n_kv_head)
        == (case.sizes.n_embd, case.sizes.n_head, case.sizes.n_kv_head)
}

/// The case's learning rates are scaled for the batch already, and its decay is the one of step 0.
fn manifest(case: &Case, commit: &str) -> Result<String> {
    let sizes = &case.sizes;
    let micro = case.device_batch_size.checked_mul(sizes.sequence_len);
    let total = micro.and_then(|micro| micro.checked_mul(case.grad_accum_steps));
    let (Some(micro), Some(total)) = (micro, total) else {
        return Err(Error::input("a step has too many tokens").file(case.directory.join("case.json")));
    };
    let mut text = String::new();
    let mut line = |key: &str, value: toml::Value| {
        let _ = writeln!(text, "{key} = {value}");
    };
    let int = |value: usize| toml::Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let long = |value: u64| toml::Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let float = toml::Value::Float;
    line("name", "parity".into());
    line("upstream.commit", commit.into());
    line("run.backend", "cpu".into());
    line("run.seed", long(case.seed.unwrap_or(0)));
    line("model.depth", int(sizes.n_layer));
    line("model.aspect_ratio", int((sizes.n_embd / sizes.n_layer).max(1)));
    line("model.head_dim", int(sizes.n_embd / sizes.n_head));
    line("model.n_kv_head", int(sizes.n_kv_head));
    line("model.sequence_len", int(sizes.sequence_len));
    line("model.window_pattern", sizes.window_pattern.to_uppercase().into());
    line("data.tokenizer", "char".into());
    line("data.vocab_size", int(sizes.vocab_size));
    line("train.device_batch_size", int(case.device_batch_size));
    line("train.total_batch_size", int(total));
    line("eval.tokens", int(micro));
    line("schedule.warmdown", "linear".into());
    line("budget.steps", long(case.schedule.as_ref().map_or(1, |schedule| schedule.num_iterations)));
    if let Some(schedule) = &case.schedule {
        let values = &schedule.optimizer;
        line("schedule.warmup_steps", long(schedule.warmup_steps));
        line("schedule.warmdown_ratio", float(schedule.warmdown_ratio));
        line("schedule.final_lr_frac", float(schedule.final_lr_frac));
        line("optimizer.batch_lr_scaling", false.into());
        line("optimizer.weight_decay_law", "constant".into());
        line("optimizer.unembedding_lr", float(values.unembedding_lr));
        line("optimizer.embedding_lr", float(values.embedding_lr));
        line("optimizer.scalar_lr", float(values.scalar_lr));
        line("optimizer.matrix_lr", float(values.matrix_lr));
        line("optimizer.weight_decay", float(values.weight_decay));
    }
    Ok(text)
}
