//! Targets: numbers that arms are held against.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::manifest::settings::{QualityMetric, TargetRule, TargetSettings};
use crate::text::word;

/// The field.
const FIELD: &str = "scorecard.target";

/// A number, and how the mean of an arm is held against it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    /// What is held against it.
    pub metric: String,
    /// The number, in the metric's unit.
    pub bound: f64,
    /// Whether the mean is to be at least that; else at most.
    pub at_least: bool,
    /// One-sided level at which it counts as met.
    pub p: f64,
    /// One run's standard deviation, where it is assumed; else it is measured.
    pub sigma: Option<f64>,
    /// Whose rule it is, in words.
    pub rule: Option<&'static str>,
}

impl Target {
    /// It in words.
    pub fn said(&self) -> String {
        let side = if self.at_least { "at least" } else { "at most" };
        let test = match self.sigma {
            Some(sigma) => format!("z test with an assumed standard deviation of {sigma}"),
            None => "t test over the runs of each arm".to_owned(),
        };
        let rule = self.rule.map(|rule| format!(" ({rule})")).unwrap_or_default();
        format!("mean {} {side} {}, one-sided p < {}, {test}{rule}", self.metric, self.bound, self.p)
    }
}

/// What the manifest's targets are.
pub(super) fn targets(manifest: &Manifest) -> Result<Vec<Target>> {
    let settings = &manifest.head.scorecard.target;
    let of = |(at, one): (usize, &TargetSettings)| {
        let key = if settings.len() == 1 { FIELD.to_owned() } else { format!("{FIELD}[{at}]") };
        target(one).map_err(|error| manifest.locate_head(FIELD, error).key(key))
    };
    settings.iter().enumerate().map(of).collect()
}

fn target(settings: &TargetSettings) -> Result<Target> {
    // github.com/KellerJordan/modded-nanogpt: the README's rules of the speedrun, and those of its optimization benchmark.
    let (rule, of_rule) = match settings.rule {
        Some(TargetRule::ModdedNanogptTrack1) => (Some("modded-nanogpt's track 1"), Some((3.28, 0.01, None))),
        Some(TargetRule::ModdedNanogptTrack3) => {
            (Some("modded-nanogpt's track 3"), Some((3.28, 0.001, Some(0.0013))))
        }
        None => (None, None),
    };
    let metric = settings.metric.map(|metric| word(&metric));
    let metric = metric.unwrap_or_else(|| if rule.is_some() { "val_loss" } else { "val_bpb" }.to_owned());
    let by_rule = of_rule.map(|(bound, ..)| bound).filter(|_| settings.at_least.is_none());
    let (bound, at_least) = match (settings.at_most.or(by_rule), settings.at_least) {
        (Some(bound), None) => (bound, false),
        (None, Some(bound)) => (bound, true),
        (Some(_), Some(_)) => {
            return Err(Error::input("a target has both at_most and at_least")
                .expected("one of them; two targets hold an arm between two numbers"));
        }
        (None, None) => {
            return Err(Error::input("a target has no number")
                .expected("at_most, at_least or a rule that has one")
                .help("such as scorecard.target = { metric = \"val_loss\", at_most = 3.28 }"));
        }
    };
    Ok(Target {
        metric,
        bound,
        at_least,
        p: settings.p.or(of_rule.map(|(_, p, _)| p)).unwrap_or(0.01),
        sigma: settings.sigma.or(of_rule.and_then(|(.., sigma)| sigma)),
        rule,
    })
}

/// Every metric that something is judged by, that of the answer first, with the field that names it.
pub(super) fn metrics(manifest: &Manifest) -> Vec<(String, &'static str)> {
    let scorecard = &manifest.head.scorecard;
    let first = (word(&scorecard.quality.metric), "scorecard.quality.metric");
    let also = scorecard.quality.also.iter().map(|also| (word(&also.metric), "scorecard.quality.also"));
    let targets = scorecard.target.iter().filter_map(|target| Some((word(&target.metric?), FIELD)));
    std::iter::once(first).chain(also).chain(targets).collect()
}

/// What is judged by CORE must have it measured, and no metric may be judged twice.
pub(super) fn check(manifest: &Manifest) -> Result<()> {
    let unmeasured = manifest.cells.iter().any(|cell| cell.settings.eval.core.bundle.is_none());
    let core = word(&QualityMetric::Core);
    if let Some((_, field)) = metrics(manifest).iter().find(|(metric, _)| unmeasured && *metric == core) {
        let what = match *field {
            FIELD => "a target is of core, which is not measured",
            _ => "quality is judged by core, which is not measured",
        };
        return Err(manifest.locate_head(field, Error::input(what).expected("eval.core.bundle beside it")));
    }
    let quality = &manifest.head.scorecard.quality;
    let mut known = vec![quality.metric];
    for also in &quality.also {
        if known.contains(&also.metric) {
            let what = format!("quality is judged by {} twice", word(&also.metric));
            return Err(manifest.locate_head(
                "scorecard.quality.also",
                Error::input(what).expected("metrics besides scorecard.quality.metric, each once"),
            ));
        }
        known.push(also.metric);
    }
    Ok(())
}
