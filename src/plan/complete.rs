//! One cell becomes a complete run: sizes, horizon, batch, laws, groups.

use super::groups::{GroupContext, optimizer, precision};
use super::run_config::{
    BackendChoice, BackendKind, CheckpointConfig, CoreConfig, DataConfig, EvalConfig, InitSource, RunConfig,
    TokenizerChoice,
};
use super::{DataFacts, Facts, RunSizes, batch, limits};
use crate::data::RowOrder;
use crate::error::{Error, Result};
use crate::manifest::Cell;
use crate::manifest::settings::{
    Budget, CoreSettings, DataSeed, InitChoice, ModelKind, ModelSettings, Settings, TotalBatch,
};
use crate::model::config::{
    BigramConfig, GptConfig, GptInit, LayerRamp, MicrogptConfig, ModelConfig, ValueEmbedConfig,
};
use crate::model::param::ParamGroup;
use crate::optim::config::{MomentumSchedule, ScheduleConfig};
use crate::upstream::{self, GptShape, MIN_VOCAB_SIZE, ParamCounts, Recipe, SPECIAL_TOKENS};

/// More steps than anybody means.
const MOST_STEPS: u64 = 10_000_000;

/// What a cell says about its data, before anything is looked at.
pub(crate) fn data_config(settings: &Settings) -> DataConfig {
    let data = &settings.data;
    DataConfig {
        shards: data.shards.as_slice().to_vec(),
        tokenizer: data.tokenizer.clone(),
        packing: data.packing,
        document: data.document,
        token_bytes: data.token_bytes,
        content: None,
        column: data.column.clone(),
        nulls: data.nulls,
        validation: data.validation.clone(),
        splits: None,
    }
}

/// Completes a cell.
pub(super) fn complete(
    cell: &Cell,
    mut data: DataConfig,
    data_facts: DataFacts,
    facts: &dyn Facts,
) -> Result<(RunConfig, RunSizes)> {
    let settings = &cell.settings;
    let recipe = upstream::find(&settings.upstream.commit)
        .map_err(|unknown| cell.locate("upstream.commit", Error::input(unknown.to_string())))?;
    let vocab_size = vocab_size(cell, &data, data_facts)?;
    data.content = data_facts.content;
    data.splits = data_facts.splits;

    let model = match settings.model.kind {
        ModelKind::Gpt => gpt(cell, recipe, vocab_size)?,
        ModelKind::Microgpt => microgpt(cell, vocab_size)?,
        ModelKind::Bigram => bigram(&settings.model, vocab_size),
    };

    // The horizon the laws are written for, in tokens.
    let ratio = match settings.budget {
        Budget::ParamDataRatio(ratio) => ratio,
        _ => recipe.schedule.param_data_ratio,
    };
    let target = upstream::target_tokens(ratio, model.params.scaling());
    let reference = ratio * model.reference_scaling as f64;
    let sequence_len = settings.model.sequence_len;
    let total = match (settings.train.total_batch_size, settings.model.kind) {
        (TotalBatch::Tokens(tokens), _) => tokens,
        (TotalBatch::Auto(_), ModelKind::Gpt) => upstream::auto_batch_size(target as f64, reference),
        (TotalBatch::Auto(_), _) => {
            let rows = settings.train.device_batch_size.rows().unwrap_or(1) as u64;
            rows.saturating_mul(sequence_len as u64).saturating_mul(settings.run.ranks as u64)
        }
    };
    let batch = batch::batch(cell, total, sequence_len, recipe.data.device_batch_size)?;
    let init = init(cell, facts)?;
    let before = match &init {
        InitSource::Resume { step, .. } => *step,
        _ => 0,
    };
    let horizon = steps(cell, model.flops_per_token, target, total)?;
    let Some(steps) = horizon.checked_sub(before).filter(|&steps| steps > 0) else {
        let what = format!("the budget is {horizon} steps, and {before} of them are behind the checkpoint");
        let error = Error::input(what).expected("a budget that counts the steps before, and more than they");
        return Err(cell.locate("model.init.resume", error));
    };
    let weight_decay = settings.optimizer.weight_decay
        * upstream::weight_decay_factor(
            settings.optimizer.weight_decay_law,
            settings.model.depth,
            total,
            target as f64,
            reference,
        );
    check_eval(cell, &batch)?;

    let context = GroupContext {
        model: settings.model.kind,
        n_embd: model.n_embd,
        total_batch_size: total,
        compute: settings.run.precision,
        weight_decay,
        has: model.groups,
    };
    let tokens = steps.saturating_mul(total);
    let sizes = RunSizes {
        params: model.params,
        flops_per_token: model.flops_per_token,
        steps,
        tokens,
        flops: model.flops_per_token as f64 * tokens as f64,
    };
    let config = RunConfig {
        commit: settings.upstream.commit.clone(),
        seed: settings.run.seed,
        init,
        backend: backend(settings),
        model: model.config,
        optimizer: optimizer(&settings.optimizer, &context),
        schedule: schedule(settings, horizon, before, weight_decay),
        batch,
        data,
        row_order: row_order(settings),
        eval: EvalConfig {
            every: settings.eval.every,
            tokens: settings.eval.tokens,
            max_drift_bytes: settings.eval.max_drift_bytes,
            core: core(cell, facts)?,
        },
        checkpoint: CheckpointConfig {
            every: settings.checkpoint.every,
            keep: settings.checkpoint.keep,
            at_end: settings.checkpoint.at_end,
            minutes: settings.checkpoint.minutes.value(),
        },
    };
    limits::check(cell, &config)?;
    Ok((config, sizes))
}

/// The tokenizer's vocabulary if it is here, else the declared one, else the one it will be trained to.
fn vocab_size(cell: &Cell, data: &DataConfig, facts: DataFacts) -> Result<usize> {
    let declared = cell.settings.data.vocab_size;
    if let (Some(declared), Some(found)) = (declared, facts.vocab_size)
        && declared != found
    {
        let what = format!("data.vocab_size declares {declared} tokens, the tokenizer has {found}");
        let error = Error::input(what).expected(found.to_string()).help("correct it, or leave it out");
        return Err(cell.locate("data.vocab_size", error));
    }
    let trained = match data.tokenizer {
        TokenizerChoice::Train { vocab_size } => Some(vocab_size),
        TokenizerChoice::Path(_) | TokenizerChoice::Char => None,
    };
    let Some(vocab_size) = facts.vocab_size.or(declared).or(trained) else {
        let error = Error::input("the vocabulary is not known: the tokenizer is not here")
            .expected("data.vocab_size, so that a plan can be made without the data")
            .help("add `vocab_size = N` to [data], or bring the data");
        return Err(cell.locate("data.vocab_size", error));
    };
    if data.tokenizer != TokenizerChoice::Char && vocab_size < MIN_VOCAB_SIZE {
        let what = format!("a vocabulary of {vocab_size} tokens is too small");
        let expected =
            format!("at least {MIN_VOCAB_SIZE}: 256 bytes and {} special tokens", SPECIAL_TOKENS.len());
        return Err(cell.locate("data.vocab_size", Error::input(what).expected(expected)));
    }
    Ok(vocab_size)
}

/// A model and what the laws need of it.
struct Sized {
    config: ModelConfig,
    n_embd: usize,
    params: ParamCounts,
    flops_per_token: u64,
    /// Scaling parameters of the reference model, d12 with the same vocabulary, aspect and head size.
    reference_scaling: u64,
    groups: Vec<ParamGroup>,
}

fn gpt(cell: &Cell, recipe: &Recipe, vocab_size: usize) -> Result<Sized> {
    let model = &cell.settings.model;
    if !model.head_dim.is_multiple_of(2) {
        let what = format!("head_dim {} is odd", model.head_dim);
        let error = Error::input(what).expected("an even number: rotary positions turn pairs of channels");
        let (below, above) = (model.head_dim - 1, model.head_dim + 1);
        return Err(cell.locate("model.head_dim", error.help(format!("the nearest are {below} and {above}"))));
    }
    let shape = GptShape {
        depth: model.depth,
        aspect_ratio: model.aspect_ratio,
        head_dim: model.head_dim,
        n_kv_head: model.n_kv_head,
        sequence_len: model.sequence_len,
        vocab_size,
        window_pattern: model.window_pattern.clone(),
        short_window: model.short_window,
        ve_gate_channels: model.value_embeds.then_some(model.ve_gate_channels),
        smear_channels: model.smear.then_some(model.smear_channels),
        backout: model.backout,
        flops_count_smear_gate: recipe.model.flops_count_smear_gate,
    };
    let sizes = shape.sizes();
    if !sizes.n_head.is_multiple_of(sizes.n_kv_head) {
        let what = format!("n_kv_head {} does not divide the {} heads", sizes.n_kv_head, sizes.n_head);
        let error = Error::input(what).expected(format!("a divisor: {}", divisors(sizes.n_head)));
        return Err(cell.locate("model.n_kv_head", error));
    }
    for (on, channels, path) in [
        (model.value_embeds, model.ve_gate_channels, "model.ve_gate_channels"),
        (model.smear, model.smear_channels, "model.smear_channels"),
    ] {
        if on && channels > sizes.n_embd {
            let what = format!("{path} is {channels}, but the model is {} wide", sizes.n_embd);
            let error = Error::input(what).expected(format!("at most {}", sizes.n_embd));
            return Err(cell.locate(path, error));
        }
    }
    let reference = GptShape { depth: upstream::DEPTH_REF, n_kv_head: None, ..shape };
    let mut groups = vec![ParamGroup::LmHead, ParamGroup::Wte];
    if model.value_embeds {
        groups.push(ParamGroup::ValueEmbeds);
    }
    groups.extend([ParamGroup::Resid, ParamGroup::X0]);
    if model.smear || model.backout {
        groups.push(ParamGroup::Smear);
    }
    groups.push(ParamGroup::Matrix);
    let config = GptConfig {
        sequence_len: model.sequence_len,
        vocab_size,
        padded_vocab_size: sizes.padded_vocab_size,
        n_layer: model.depth,
        n_head: sizes.n_head,
        n_kv_head: sizes.n_kv_head,
        n_embd: sizes.n_embd,
        windows: sizes.windows,
        rotary_base: model.rope_base,
        rotary_precision: precision(model.rotary_precision, cell.settings.run.precision),
        qk_scale: model.qk_scale.value().unwrap_or(1.0) as f32,
        softcap: model.softcap.value().map(|cap| cap as f32),
        value_embeds: model.value_embeds.then_some(ValueEmbedConfig {
            gate_channels: model.ve_gate_channels,
            gate_scale: model.ve_gate_scale as f32,
        }),
        smear_channels: model.smear.then_some(model.smear_channels),
        backout: model.backout,
        norm_eps: model.norm_eps as f32,
        init: GptInit {
            wte_std: model.init_wte_std,
            lm_head_std: model.init_lm_head_std,
            c_fc_scale: model.init_c_fc_scale,
            ve_gate_max: model.init_ve_gate_max,
            resid_lambda: LayerRamp { first: model.init_resid_lambda, fall: model.init_resid_lambda_fall },
            x0_lambda: LayerRamp { first: model.init_x0_lambda, fall: model.init_x0_lambda_fall },
            smear_gate_max: model.init_smear_gate_max,
            smear_lambda: model.init_smear_lambda,
            backout_lambda: model.init_backout_lambda,
        },
    };
    Ok(Sized {
        config: ModelConfig::Gpt(config),
        n_embd: sizes.n_embd,
        params: sizes.params,
        flops_per_token: sizes.flops_per_token,
        reference_scaling: reference.sizes().params.scaling(),
        groups,
    })
}

fn microgpt(cell: &Cell, vocab_size: usize) -> Result<Sized> {
    let model = &cell.settings.model;
    if !model.n_embd.is_multiple_of(model.n_head) {
        let (heads, width) = (model.n_head, model.n_embd);
        let what = format!("{heads} heads do not divide the {width} channels");
        let below = width / heads * heads;
        let widths: Vec<String> =
            [below, below + heads].iter().filter(|&&width| width > 0).map(usize::to_string).collect();
        let error = Error::input(what)
            .expected(format!("n_head to divide n_embd: {}", divisors(width)))
            .help(format!("or n_embd = {} with {heads} heads", widths.join(" or ")));
        // Point at whichever of the two was written.
        let path = if cell.is_written("model.n_head") { "model.n_head" } else { "model.n_embd" };
        return Err(cell.locate(path, error));
    }
    let config = MicrogptConfig {
        sequence_len: model.sequence_len,
        vocab_size,
        n_layer: model.depth,
        n_head: model.n_head,
        n_embd: model.n_embd,
        norm_eps: model.norm_eps as f32,
        tie_lm_head: model.tie_lm_head,
        input_rmsnorm: model.input_rmsnorm,
        init_std: model.init_std,
    };
    let [layers, dim, positions] = [model.depth, model.n_embd, model.sequence_len].map(|size| size as u64);
    let mut sized = small(ModelConfig::Microgpt(config), model, vocab_size);
    sized.params.wte += positions * dim;
    sized.params.transformer_matrices = layers * 12 * dim * dim;
    sized.params.total += positions * dim + sized.params.transformer_matrices;
    sized.flops_per_token += 6 * sized.params.transformer_matrices + layers * 12 * dim * positions;
    sized.reference_scaling = sized.params.scaling();
    sized.groups.push(ParamGroup::Matrix);
    Ok(sized)
}

fn bigram(model: &ModelSettings, vocab_size: usize) -> Sized {
    let config = BigramConfig {
        sequence_len: model.sequence_len,
        vocab_size,
        n_embd: model.n_embd,
        norm_eps: model.norm_eps as f32,
        tie_lm_head: model.tie_lm_head,
        input_rmsnorm: model.input_rmsnorm,
        init_std: model.init_std,
    };
    small(ModelConfig::Bigram(config), model, vocab_size)
}

/// Embedding and unembedding of a small model. A tied `lm_head` counts once, as wte, and still multiplies.
fn small(config: ModelConfig, model: &ModelSettings, vocab_size: usize) -> Sized {
    let table = (vocab_size * model.n_embd) as u64;
    let lm_head = if model.tie_lm_head { 0 } else { table };
    let params = ParamCounts { wte: table, lm_head, total: table + lm_head, ..ParamCounts::default() };
    let mut groups = if model.tie_lm_head { Vec::new() } else { vec![ParamGroup::LmHead] };
    groups.push(ParamGroup::Wte);
    Sized {
        config,
        n_embd: model.n_embd,
        params,
        flops_per_token: 6 * table,
        reference_scaling: params.scaling(),
        groups,
    }
}

fn divisors(of: usize) -> String {
    let divisors: Vec<String> =
        (1..=of).filter(|size| of.is_multiple_of(*size)).map(|size| size.to_string()).collect();
    divisors.join(", ")
}

/// N, by the cell's budget.
fn steps(cell: &Cell, flops_per_token: u64, target: u64, total: u64) -> Result<u64> {
    let (path, steps) = match cell.settings.budget {
        Budget::Steps(steps) => ("budget.steps", steps),
        Budget::Tokens(tokens) => ("budget.tokens", upstream::steps_for_tokens(tokens, total)),
        Budget::Flops(flops) => ("budget.flops", upstream::steps_for_flops(flops, flops_per_token, total)),
        Budget::ParamDataRatio(_) => ("budget.param_data_ratio", upstream::steps_for_tokens(target, total)),
    };
    if (1..=MOST_STEPS).contains(&steps) {
        return Ok(steps);
    }
    let what = match steps {
        0 => format!("the budget is less than one step of {total} tokens ({:e} FLOPs)", {
            flops_per_token as f64 * total as f64
        }),
        _ => format!("the budget is more than {MOST_STEPS} steps of {total} tokens"),
    };
    Err(cell.locate(path, Error::input(what).expected(format!("1 to {MOST_STEPS} steps"))))
}

fn check_eval(cell: &Cell, batch: &super::run_config::BatchConfig) -> Result<()> {
    let micro = (batch.device_batch_size * cell.settings.model.sequence_len) as u64;
    let ranks = cell.settings.run.ranks as u64;
    let least = micro.saturating_mul(ranks);
    if cell.settings.eval.tokens >= least {
        return Ok(());
    }
    let each = if ranks > 1 { format!(" on each of {ranks} ranks") } else { String::new() };
    let what =
        format!("eval.tokens is {}, less than a batch of {micro} tokens{each}", cell.settings.eval.tokens);
    Err(cell.locate("eval.tokens", Error::input(what).expected(format!("at least {least}"))))
}

/// The CORE metric, where it is measured.
fn core(cell: &Cell, facts: &dyn Facts) -> Result<Option<CoreConfig>> {
    let CoreSettings { bundle, every, max_per_task } = &cell.settings.eval.core;
    let Some(bundle) = bundle else {
        let told =
            ["eval.core.every", "eval.core.max_per_task"].into_iter().find(|path| cell.is_written(path));
        return match told {
            Some(path) => Err(cell.locate(
                path,
                Error::input(format!("{path} is set, and nothing says on what CORE is measured"))
                    .expected("eval.core.bundle beside it"),
            )),
            None => Ok(None),
        };
    };
    let sha256 = facts.core_bundle(bundle, *max_per_task).map_err(|error| {
        // What is wrong within it says where.
        if error.names_a_file() { error } else { cell.locate("eval.core.bundle", error) }
    })?;
    Ok(Some(CoreConfig { bundle: bundle.clone(), every: *every, max_per_task: *max_per_task, sha256 }))
}

/// In which order its rows come.
fn row_order(settings: &Settings) -> RowOrder {
    let seed = settings.data.seed.map(|seed| match seed {
        DataSeed::Seed(seed) => seed,
        DataSeed::Run(_) => settings.run.seed,
    });
    RowOrder { ranks: settings.run.ranks, seed }
}

fn backend(settings: &Settings) -> BackendChoice {
    let kind = settings.run.backend;
    // A profile may take a tch manifest to another backend and leave its device behind.
    let device = if kind == BackendKind::Tch { settings.run.device.clone() } else { "cpu".to_owned() };
    BackendChoice { kind, device, precision: settings.run.precision }
}

/// Where a run's weights come from, and what else of a checkpoint.
fn init(cell: &Cell, facts: &dyn Facts) -> Result<InitSource> {
    let at = |path: &'static str| move |error: Error| cell.locate(path, error);
    Ok(match &cell.settings.model.init {
        InitChoice::Torch => InitSource::Torch,
        InitChoice::File(path) => {
            let sha256 = facts.init_file(path).map_err(at("model.init.file"))?;
            InitSource::File { path: path.clone(), sha256 }
        }
        InitChoice::Checkpoint(path) => {
            let found = facts.init_checkpoint(path, false).map_err(at("model.init.checkpoint"))?;
            InitSource::Checkpoint { path: path.clone(), sha256: found.sha256 }
        }
        InitChoice::Resume(path) => {
            let found = facts.init_checkpoint(path, true).map_err(at("model.init.resume"))?;
            let (step, data) = (found.step, found.data);
            if data.is_some() && cell.settings.data.seed.is_some() {
                let what =
                    "upstream's checkpoint says where its data go on, and a permuted order has no such place";
                let error =
                    Error::input(what).expected("data.seed left out, or the checkpoint's weights alone");
                return Err(
                    cell.locate("data.seed", error.help("model.init = { checkpoint = \"...\" } begins anew"))
                );
            }
            InitSource::Resume { path: path.clone(), sha256: found.sha256, step, data }
        }
    })
}

fn schedule(settings: &Settings, horizon: u64, before: u64, weight_decay: f64) -> ScheduleConfig {
    let schedule = &settings.schedule;
    let share = |ratio: f64| upstream::round_half_even(ratio * horizon as f64);
    ScheduleConfig {
        num_iterations: horizon - before,
        steps_before: before,
        warmup_steps: schedule.warmup_steps.unwrap_or_else(|| share(schedule.warmup_ratio.unwrap_or(0.0))),
        warmdown_steps: share(schedule.warmdown_ratio),
        warmdown: schedule.warmdown,
        final_lr_frac: schedule.final_lr_frac,
        momentum: MomentumSchedule {
            start: schedule.momentum_start,
            peak: schedule.momentum_peak,
            warmup_steps: schedule.momentum_warmup_steps,
            warmdown_to: schedule.momentum_warmdown_to.value(),
        },
        weight_decay,
        weight_decay_shape: schedule.weight_decay_shape,
    }
}
