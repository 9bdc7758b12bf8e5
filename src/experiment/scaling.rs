//! The scaling fit over an experiment's runs.

use super::Experiment;
use super::ends::RunEnd;
use super::judge;
use super::tables;
use crate::manifest::settings::{Budget, ScalingAxis, ScalingGroups};
use crate::model::config::ModelConfig;
use crate::plan::PlannedRun;
use crate::plan::evaluation::higher_is_better;
use crate::scorecard::{Axis, Scaling, ScalingAsked, ScalingRun, Sequence, scaling};

impl Experiment {
    /// What the manifest asks for; none where it asks for none.
    fn asked_scaling(&self) -> Option<ScalingAsked> {
        let settings = &self.manifest.head.analysis.scaling;
        let metric = judge::metric(self);
        Some(ScalingAsked {
            higher_is_better: higher_is_better(&metric),
            metric,
            x: match settings.x? {
                ScalingAxis::Flops => Axis::Flops,
                ScalingAxis::Params => Axis::Params,
                ScalingAxis::Tokens => Axis::Tokens,
                ScalingAxis::Depth => Axis::Depth,
            },
            by_budget: settings.groups == ScalingGroups::Budget,
            confidence: self.manifest.head.scorecard.quality.confidence,
        })
    }

    /// The fit over what has ended. Runs that a look made needless are not waited for.
    pub(super) fn scaling(&self, ends: &[RunEnd], sequence: Option<&Sequence>) -> Option<Scaling> {
        let asked = self.asked_scaling()?;
        let metrics = [asked.metric.clone()];
        let values = self
            .recorded(ends)
            .iter()
            .map(|run| tables::summary(run, &metrics).metrics.get(&asked.metric).copied())
            .collect::<Vec<_>>();
        let mut runs = self.scaling_runs(&values);
        let beyond = |run: &ScalingRun| sequence.is_some_and(|sequence| sequence.is_beyond(run.seed));
        runs.retain(|run| run.value.is_some() || !beyond(run));
        Some(scaling(&asked, &runs))
    }

    fn scaling_runs(&self, values: &[Option<f64>]) -> Vec<ScalingRun> {
        let each = self.plan.runs.iter().enumerate();
        each.map(|(index, run)| ScalingRun {
            arm: self.arm(run).to_owned(),
            seed: run.config.seed,
            budget: self
                .manifest
                .cells
                .get(index)
                .map_or_else(String::new, |cell| budget(&cell.settings.budget)),
            at: place(run),
            value: values.get(index).copied().flatten().filter(|value| value.is_finite()),
        })
        .collect()
    }

    /// What the fit will be over, in words; none where none is asked for.
    pub fn said_scaling(&self) -> Option<String> {
        let asked = self.asked_scaling()?;
        let runs = self.scaling_runs(&[]);
        let mut groups: Vec<(String, Vec<u64>)> = Vec::new();
        for run in &runs {
            let budget = if asked.by_budget { run.budget.clone() } else { "all".to_owned() };
            let size = run.at[1].to_bits();
            match groups.iter_mut().find(|(known, _)| *known == budget) {
                Some((_, sizes)) if !sizes.contains(&size) => sizes.push(size),
                Some(_) => {}
                None => groups.push((budget, vec![size])),
            }
        }
        let mut seeds: Vec<u64> = runs.iter().map(|run| run.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let sizes: Vec<String> =
            groups.iter().map(|(budget, sizes)| format!("{budget}: {}", sizes.len())).collect();
        let few = groups.iter().any(|(_, sizes)| sizes.len() < 3) || asked.by_budget && groups.len() < 3;
        let warning = match (few, seeds.len() < 3) {
            (true, _) => "; a best size takes three sizes, a power law three points",
            (false, true) => "; intervals take three seeds",
            (false, false) => "",
        };
        Some(format!(
            "{} in {}, sizes of each budget {}, over {} seed{}{warning}",
            asked.metric,
            asked.x.word(),
            sizes.join(", "),
            seeds.len(),
            if seeds.len() == 1 { "" } else { "s" }
        ))
    }
}

/// FLOPs, params, tokens and layers of a run.
fn place(run: &PlannedRun) -> [f64; 4] {
    let params = match run.sizes.params.scaling() {
        0 => run.sizes.params.total,
        counted => counted,
    };
    let depth = match &run.config.model {
        ModelConfig::Gpt(config) => config.n_layer as f64,
        ModelConfig::Microgpt(config) => config.n_layer as f64,
        ModelConfig::Bigram(_) => 1.0,
    };
    [run.sizes.flops, params as f64, run.sizes.tokens as f64, depth]
}

/// A budget in words.
fn budget(budget: &Budget) -> String {
    match budget {
        Budget::Steps(steps) => format!("{steps} steps"),
        Budget::Tokens(tokens) => format!("{tokens} tokens"),
        Budget::Flops(flops) => format!("{flops:e} FLOPs"),
        Budget::ParamDataRatio(ratio) => format!("{ratio} tokens a parameter"),
    }
}
