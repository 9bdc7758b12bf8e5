//! The optimizer of a run: upstream's groups, their rates scaled for width and batch.

use crate::manifest::settings::{ModelKind, OptimizerKind, OptimizerSettings};
use crate::model::param::ParamGroup;
use crate::optim::config::{AdamWConfig, GroupConfig, MuonConfig, OptimizerConfig, SgdConfig};
use crate::precision::Precision;
use crate::upstream::{PrecisionRule, batch_lr_factor, width_lr_factor};

/// What the groups depend on besides their settings.
pub(super) struct GroupContext {
    pub(super) model: ModelKind,
    pub(super) n_embd: usize,
    pub(super) total_batch_size: u64,
    pub(super) compute: Precision,
    /// Muon's decay with its law applied.
    pub(super) weight_decay: f64,
    /// Which groups the model has.
    pub(super) has: Vec<ParamGroup>,
}

/// The precision a rule means in a run.
pub(super) fn precision(rule: PrecisionRule, compute: Precision) -> Precision {
    match rule {
        PrecisionRule::F32 => Precision::F32,
        PrecisionRule::Bf16 => Precision::Bf16,
        PrecisionRule::Compute => compute,
    }
}

/// One entry for each group the model has.
pub(super) fn optimizer(settings: &OptimizerSettings, context: &GroupContext) -> OptimizerConfig {
    let groups = context.has.iter().map(|&group| (group, group_config(group, settings, context)));
    OptimizerConfig { groups: groups.collect() }
}

fn group_config(group: ParamGroup, settings: &OptimizerSettings, context: &GroupContext) -> GroupConfig {
    if settings.kind == OptimizerKind::Sgd {
        return GroupConfig::Sgd(SgdConfig {
            lr: settings.lr,
            momentum: settings.momentum,
            weight_decay: settings.weight_decay,
        });
    }
    if context.model != ModelKind::Gpt {
        return GroupConfig::Adamw(AdamWConfig {
            lr: settings.lr,
            beta1: settings.betas.0,
            beta2: settings.betas.1,
            eps: settings.eps,
            weight_decay: settings.weight_decay,
        });
    }
    let batch = if settings.batch_lr_scaling { batch_lr_factor(context.total_batch_size) } else { 1.0 };
    let width = if settings.width_lr_scaling { width_lr_factor(context.n_embd) } else { 1.0 };
    let adamw = |lr: f64, betas: (f64, f64), weight_decay: f64| {
        GroupConfig::Adamw(AdamWConfig {
            lr,
            beta1: betas.0,
            beta2: betas.1,
            eps: settings.eps,
            weight_decay,
        })
    };
    // Products in upstream's order: batch factor first, then width, then the group's own.
    match group {
        ParamGroup::LmHead => adamw(
            settings.unembedding_lr * batch * width,
            settings.unembedding_betas,
            settings.unembedding_weight_decay,
        ),
        ParamGroup::Wte => adamw(
            settings.embedding_lr * batch * width,
            settings.embedding_betas,
            settings.embedding_weight_decay,
        ),
        ParamGroup::ValueEmbeds => adamw(
            settings.embedding_lr * batch * width * settings.value_embeds_lr_factor,
            settings.value_embeds_betas,
            settings.value_embeds_weight_decay,
        ),
        ParamGroup::Resid => adamw(
            settings.scalar_lr * batch * settings.resid_lr_factor,
            settings.resid_betas,
            settings.resid_weight_decay,
        ),
        ParamGroup::X0 => adamw(settings.scalar_lr * batch, settings.x0_betas, settings.x0_weight_decay),
        ParamGroup::Smear => adamw(settings.smear_lr, settings.smear_betas, settings.smear_weight_decay),
        ParamGroup::Matrix if settings.kind == OptimizerKind::Adamw => {
            adamw(settings.matrix_lr * batch, settings.matrix_betas, context.weight_decay)
        }
        ParamGroup::Matrix => GroupConfig::Muon(MuonConfig {
            lr: settings.matrix_lr * batch,
            beta2: settings.muon_beta2,
            norm_factor: settings.norm_factor,
            ns_steps: settings.ns_steps,
            row_equilibration: settings.row_equilibration,
            renormalize: settings.renormalize,
            polar_precision: precision(settings.polar_precision, context.compute),
            update_precision: precision(settings.update_precision, context.compute),
        }),
    }
}
