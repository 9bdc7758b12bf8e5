//! A run of nanorun's in upstream's directories, so that upstream's own code loads and continues it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::saved_optimizer::SavedOptimizer;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::interop::exported::Exported;
use crate::model::config::{GptConfig, ModelConfig};
use crate::model::param::ParamGroup;
use crate::model::specs::specs;
use crate::optim::config::{AdamWConfig, GroupConfig, MuonConfig};
use crate::plan::run_config::RunConfig;
use crate::precision::Precision;
use crate::torch_file::{Saved, save};
use crate::upstream::{self, GptShape, PrecisionRule, Recipe, WarmupRule};

/// Writes `base_checkpoints/<tag>/` and `tokenizer/` below `to`, the optimizer's state for so many ranks, or for those that
/// the run itself has.
///
/// # Errors
/// A model that upstream's code at the run's commit does not compute (says by which field), or ranks among which it does
/// not divide the optimizer's state; class `Input`. What the file system refuses.
pub fn export(
    files: &Files,
    exported: &Exported<'_>,
    ranks: Option<usize>,
    to: &Path,
) -> Result<Vec<String>> {
    let config = exported.config;
    let recipe = upstream::find(&config.commit)
        .map_err(|unknown| Error::internal(format!("the run's commit: {unknown}")))?;
    let ModelConfig::Gpt(model) = &config.model else {
        return Err(cannot("model.kind", "upstream has nanochat's GPT alone", recipe));
    };
    let pattern = check(config, model, recipe)?;
    let specs = specs(&config.model);
    let mut notes = Vec::new();
    let optimizer = if exported.optimizer.is_empty() {
        notes.push(
            "without the optimizer's state, which this checkpoint has not: it cannot be continued".to_owned(),
        );
        None
    } else {
        check_optimizer(config, recipe)?;
        let ranks = ranks.unwrap_or(config.row_order.ranks).max(1);
        notes.extend(told_of_ranks(config, ranks));
        Some(SavedOptimizer::new(exported, &specs, ranks)?)
    };
    let tag = tag(exported);
    let staged = files.deliver_dir(to)?;
    let run = Path::new("base_checkpoints").join(&tag);
    staged.create_dir("base_checkpoints")?;
    staged.create_dir(&run.to_string_lossy())?;
    staged.create_dir("tokenizer")?;
    let name = |kind: &str, end: &str| {
        run.join(format!("{kind}_{:06}{end}", exported.step)).to_string_lossy().into_owned()
    };
    let write = |name: &str, value: &Saved<'_>| -> Result<()> {
        let mut file = staged.create(name)?;
        save(&mut file, value)
            .map_err(|error| Error::run("cannot write a file").file(to.join(name)).because(error))?;
        Ok(file.finish()?)
    };
    let mut parameters = Vec::new();
    for spec in &specs {
        let (_, shape, values) = Exported::find(&exported.parameters, &spec.name)
            .ok_or_else(|| Error::internal(format!("the run lacks `{}`", spec.name)))?;
        parameters.push((Saved::Str(&spec.name), Saved::Tensor(shape.clone(), values)));
    }
    write(&name("model", ".pt"), &Saved::Ordered(parameters))?;
    if let Some(optimizer) = &optimizer {
        for rank in 0..optimizer.ranks() {
            let parts = optimizer.parts(rank);
            write(&name("optim", &format!("_rank{rank}.pt")), &optimizer.saved(&parts))?;
        }
    }
    let meta = serde_json::to_string_pretty(&meta(exported, model, recipe, &pattern, &tag))
        .map_err(|error| Error::internal("the metadata cannot be written").because(error))?;
    staged.write(&name("meta", ".json"), meta.as_bytes())?;
    for (name, bytes) in exported.tokenizer.files(config.data.token_bytes)? {
        staged.write(&format!("tokenizer/{name}"), &bytes)?;
    }
    staged.commit()?;
    Ok(notes)
}

/// What so many ranks mean for whoever continues a run.
fn told_of_ranks(config: &RunConfig, ranks: usize) -> Option<String> {
    let own = config.row_order.ranks.max(1);
    if ranks == 1 && own == 1 {
        return None;
    }
    let mut told = vec![if ranks == 1 {
        "the optimizer's state is of one rank".to_owned()
    } else {
        format!("the optimizer's state is divided over {ranks} ranks: torchrun --nproc_per_node={ranks}")
    }];
    // Upstream asks that a step be whole micro-batches of every rank.
    let (step, most) = (config.batch.total_batch_size, config.batch.device_batch_size);
    let rows = step / config.model.sequence_len().max(1);
    if rows.is_multiple_of(ranks) {
        let fits = (1..=most).rev().find(|fewer| (rows / ranks).is_multiple_of(*fewer));
        let fewer = fits.filter(|fits| *fits < most);
        told.extend(fewer.map(|rows| format!("upstream needs --device-batch-size={rows} then")));
    } else {
        told.push(format!(
            "a step of {step} tokens is not whole rows of each: upstream needs another --total-batch-size"
        ));
    }
    if ranks != own {
        told.push(format!("they read other rows than the {own} of this run"));
    }
    Some(told.join("; "))
}

/// The directory of its run: upstream's name of a depth.
fn tag(exported: &Exported<'_>) -> String {
    match &exported.config.model {
        ModelConfig::Gpt(model) => format!("d{}", model.n_layer),
        _ => "model".to_owned(),
    }
}

fn cannot(field: &str, why: &str, recipe: &Recipe) -> Error {
    Error::input(format!("upstream's code at {} cannot hold this model: {field}", recipe.short()))
        .key(field)
        .expected(why)
        .help("export it with --to safetensors or --to hf, which have every feature")
}

/// Checks that upstream's code computes this model, and gives its window pattern.
fn check(config: &RunConfig, model: &GptConfig, recipe: &Recipe) -> Result<String> {
    let by = &recipe.model;
    let rule = |rule: PrecisionRule| match rule {
        PrecisionRule::F32 => Precision::F32,
        PrecisionRule::Bf16 => Precision::Bf16,
        PrecisionRule::Compute => config.backend.precision,
    };
    let ve = model.value_embeds.as_ref();
    let same = |found: f64, expected: f64| (found - expected).abs() <= 1e-6 * expected.abs();
    let fields = [
        (
            "model.softcap",
            model.softcap.is_some_and(|cap| same(f64::from(cap), by.softcap)),
            by.softcap.to_string(),
        ),
        ("model.rope_base", same(model.rotary_base, by.rope_base), by.rope_base.to_string()),
        ("model.qk_scale", same(f64::from(model.qk_scale), by.qk_scale), by.qk_scale.to_string()),
        ("model.value_embeds", ve.is_some() == by.value_embeds, by.value_embeds.to_string()),
        (
            "model.ve_gate_channels",
            ve.is_none_or(|ve| ve.gate_channels == by.ve_gate_channels),
            by.ve_gate_channels.to_string(),
        ),
        (
            "model.ve_gate_scale",
            ve.is_none_or(|ve| same(f64::from(ve.gate_scale), by.ve_gate_scale)),
            by.ve_gate_scale.to_string(),
        ),
        ("model.smear", model.smear_channels.is_some() == by.smear, by.smear.to_string()),
        (
            "model.smear_channels",
            model.smear_channels.is_none_or(|channels| channels == by.smear_channels),
            by.smear_channels.to_string(),
        ),
        ("model.backout", model.backout == by.backout, by.backout.to_string()),
        ("model.norm_eps", same(f64::from(model.norm_eps), by.norm_eps), by.norm_eps.to_string()),
        (
            "model.rotary_precision",
            model.rotary_precision == rule(by.rotary_precision),
            format!("{:?}", by.rotary_precision).to_lowercase(),
        ),
    ];
    if let Some((field, _, expected)) = fields.iter().find(|(_, holds, _)| !holds) {
        return Err(cannot(field, &format!("{expected}, which its code has no switch for"), recipe));
    }
    let short = upstream::windows("SL", by.short_window, model.sequence_len, 2).first().copied();
    let letter = |&window: &usize| match window {
        window if window >= model.sequence_len => Some('L'),
        window if Some(window) == short => Some('S'),
        _ => None,
    };
    let pattern: Option<String> = model.windows.iter().map(letter).collect();
    pattern
        .ok_or_else(|| cannot("model.short_window", &format!("{:?}", by.short_window).to_lowercase(), recipe))
}

/// Checks that upstream's code makes the same updates: what the optimizer's file does not say.
fn check_optimizer(config: &RunConfig, recipe: &Recipe) -> Result<()> {
    let by = &recipe.optimizer.muon;
    let rule = |rule: PrecisionRule| match rule {
        PrecisionRule::F32 => Precision::F32,
        PrecisionRule::Bf16 => Precision::Bf16,
        PrecisionRule::Compute => config.backend.precision,
    };
    for (group, found) in &config.optimizer.groups {
        match (group, found) {
            (ParamGroup::Matrix, GroupConfig::Muon(muon)) => {
                let holds = (muon.norm_factor - by.norm_factor).abs() < 1e-9
                    && muon.row_equilibration == by.row_equilibration
                    && muon.renormalize == by.renormalize
                    && muon.polar_precision == rule(by.polar_precision)
                    && muon.update_precision == rule(by.update_precision);
                if !holds {
                    return Err(cannot("optimizer", "Muon as the commit's code has it", recipe));
                }
            }
            (ParamGroup::Matrix, _) | (_, GroupConfig::Muon(_) | GroupConfig::Sgd(_)) => {
                return Err(cannot("optimizer.kind", "muon_adamw", recipe));
            }
            (_, GroupConfig::Adamw(_)) => {}
        }
    }
    Ok(())
}

/// A number without the dust of having been multiplied and divided.
fn clean(value: f64) -> f64 {
    format!("{value:.9e}").parse().unwrap_or(value)
}

fn meta(exported: &Exported<'_>, model: &GptConfig, recipe: &Recipe, pattern: &str, tag: &str) -> Value {
    let config = exported.config;
    let data = exported.data.map(|at| json!({ "pq_idx": at.file, "rg_idx": at.group, "epoch": at.epoch }));
    let start = json!({ "pq_idx": 0, "rg_idx": 0, "epoch": 1 });
    let mut meta = json!({
        "step": exported.step,
        "val_bpb": exported.val_bpb,
        "model_config": {
            "sequence_len": model.sequence_len,
            "vocab_size": model.vocab_size,
            "n_layer": model.n_layer,
            "n_head": model.n_head,
            "n_kv_head": model.n_kv_head,
            "n_embd": model.n_embd,
            "window_pattern": pattern,
        },
        "user_config": flags(config, model, recipe, pattern, tag),
        "device_batch_size": config.batch.device_batch_size,
        "max_seq_len": model.sequence_len,
    });
    if let Value::Object(fields) = &mut meta {
        // Of commits whose script says so.
        if recipe.date >= "2026-02-16" {
            fields.insert("total_batch_size".to_owned(), config.batch.total_batch_size.into());
        }
        fields.insert("dataloader_state_dict".to_owned(), data.unwrap_or(start));
        let loop_state = json!({
            "min_val_bpb": exported.val_bpb.unwrap_or(f64::MAX),
            "smooth_train_loss": 0.0,
            "total_training_time": exported.seconds,
        });
        fields.insert("loop_state".to_owned(), loop_state);
    }
    meta
}

/// The flags of the training script that make such a run.
fn flags(config: &RunConfig, model: &GptConfig, recipe: &Recipe, pattern: &str, tag: &str) -> Value {
    let schedule = &config.schedule;
    let mut flags = Map::new();
    let mut flag = |name: &str, value: Value| drop(flags.insert(name.to_owned(), value));
    flag("run", "dummy".into());
    flag("device_type", "".into());
    if recipe.commit != upstream::RECIPES[0].commit {
        flag("fp8", false.into());
        flag("fp8_recipe", "tensorwise".into());
    }
    flag("depth", model.n_layer.into());
    flag("aspect_ratio", (model.n_embd / model.n_layer).into());
    flag("head_dim", model.head_dim().into());
    flag("max_seq_len", model.sequence_len.into());
    flag("window_pattern", pattern.into());
    flag("num_iterations", schedule.horizon().into());
    flag("target_flops", (-1.0).into());
    flag("target_param_data_ratio", recipe.schedule.param_data_ratio.into());
    flag("device_batch_size", config.batch.device_batch_size.into());
    flag("total_batch_size", config.batch.total_batch_size.into());
    let (width, batch) = (
        upstream::width_lr_factor(model.n_embd),
        upstream::batch_lr_factor(config.batch.total_batch_size as u64),
    );
    let rate = |group: ParamGroup| {
        let found = config.optimizer.groups.iter().find(|(kind, _)| *kind == group)?;
        Some(match &found.1 {
            GroupConfig::Adamw(AdamWConfig { lr, .. }) | GroupConfig::Muon(MuonConfig { lr, .. }) => *lr,
            GroupConfig::Sgd(sgd) => sgd.lr,
        })
    };
    for (name, group, factor) in [
        ("embedding_lr", ParamGroup::Wte, width * batch),
        ("unembedding_lr", ParamGroup::LmHead, width * batch),
        ("matrix_lr", ParamGroup::Matrix, batch),
        ("scalar_lr", ParamGroup::X0, batch),
    ] {
        if let Some(lr) = rate(group) {
            flag(name, clean(lr / factor).into());
        }
    }
    flag("weight_decay", clean(schedule.weight_decay / decay_factor(config, model, recipe)).into());
    let betas = config.optimizer.groups.iter().find(|(group, _)| *group == ParamGroup::Wte);
    match (recipe.schedule.warmup, betas) {
        (WarmupRule::Ratio(_), Some((_, GroupConfig::Adamw(AdamWConfig { beta1, beta2, .. })))) => {
            flag("adam_beta1", (*beta1).into());
            flag("adam_beta2", (*beta2).into());
            flag("warmup_ratio", (schedule.warmup_steps as f64 / schedule.horizon().max(1) as f64).into());
        }
        _ => flag("warmup_steps", schedule.warmup_steps.into()),
    }
    flag("warmdown_ratio", clean(schedule.warmdown_steps as f64 / schedule.horizon().max(1) as f64).into());
    flag("final_lr_frac", schedule.final_lr_frac.into());
    flag("resume_from_step", (-1).into());
    flag("eval_every", config.eval.every.into());
    flag("eval_tokens", config.eval.tokens.into());
    flag("core_metric_every", (-1).into());
    flag("core_metric_max_per_task", 500.into());
    flag("sample_every", (-1).into());
    flag(
        "save_every",
        if config.checkpoint.every > 0 { config.checkpoint.every.into() } else { (-1).into() },
    );
    flag("model_tag", tag.into());
    Value::Object(flags)
}

/// By what the recipe's law multiplies Muon's base decay for this run.
fn decay_factor(config: &RunConfig, model: &GptConfig, recipe: &Recipe) -> f64 {
    let shape = GptShape {
        depth: model.n_layer,
        aspect_ratio: model.n_embd / model.n_layer.max(1),
        head_dim: model.head_dim(),
        n_kv_head: Some(model.n_kv_head),
        sequence_len: model.sequence_len,
        vocab_size: model.vocab_size,
        window_pattern: "L".to_owned(),
        short_window: recipe.model.short_window,
        ve_gate_channels: model.value_embeds.as_ref().map(|ve| ve.gate_channels),
        smear_channels: model.smear_channels,
        backout: model.backout,
        flops_count_smear_gate: recipe.model.flops_count_smear_gate,
    };
    let scaling = shape.sizes().params.scaling();
    let reference =
        GptShape { depth: upstream::DEPTH_REF, n_kv_head: None, ..shape }.sizes().params.scaling();
    let ratio = recipe.schedule.param_data_ratio;
    let factor = upstream::weight_decay_factor(
        recipe.optimizer.weight_decay_law,
        model.n_layer,
        config.batch.total_batch_size as u64,
        upstream::target_tokens(ratio, scaling) as f64,
        ratio * reference as f64,
    );
    if factor > 0.0 { factor } else { 1.0 }
}
