//! Run keys: a chain over the steps, so that runs with equal links share their steps.
//!
//! `k[0]` is the hash of everything that decides the numbers and does not change over steps; `k[t + 1]` of `k[t]`
//! and what step t consumes. The run key is `k[N]` with N. Commit, names, paths, horizon, schedule parameters,
//! cadences and evaluation settings are not in it.

use serde::Serialize;

use super::run_config::{BackendChoice, BatchConfig, DataConfig, InitSource, Nulls, RunConfig};
use crate::data::config::COLUMN;
use crate::hash::{Canonical, Digest};
use crate::optim::config::{GroupConfig, ScheduleConfig, StepValues};

/// Version of the numerics: raised whenever the same run may give other bits.
pub const NUMERICS_VERSION: u64 = 1;

/// A run's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RunKey {
    /// `k[0]`.
    pub start: Digest,
    /// The run key: `k[N]` with N.
    pub run: Digest,
    /// Whether the contents of the data are still unknown: then the key stands for this plan alone.
    pub pending: bool,
}

impl RunKey {
    /// The first 12 hex digits, which name the run's directory.
    pub fn short(&self) -> String {
        self.run.short()
    }
}

/// The chain of a run.
#[derive(Debug, Clone)]
pub struct KeyChain<'a> {
    start: Digest,
    schedule: &'a ScheduleConfig,
    uses_muon: bool,
    pending: bool,
}

impl<'a> KeyChain<'a> {
    /// The chain of a complete run.
    pub fn new(config: &'a RunConfig) -> Self {
        Self {
            start: start(config),
            schedule: &config.schedule,
            uses_muon: config.optimizer.groups.iter().any(|(_, group)| matches!(group, GroupConfig::Muon(_))),
            pending: config.data.content.is_none(),
        }
    }

    /// `k[0]`.
    pub fn start(&self) -> Digest {
        self.start
    }

    /// `k[0]`, `k[1]`, ... `k[N]`.
    pub fn links(&self) -> impl Iterator<Item = Digest> {
        let steps = 0..self.schedule.num_iterations;
        std::iter::once(self.start).chain(steps.scan(self.start, |link, step| {
            *link = self.next(link, step);
            Some(*link)
        }))
    }

    /// `k[step]`; of the last link if the run is shorter.
    pub fn link(&self, step: u64) -> Digest {
        (0..step.min(self.schedule.num_iterations)).fold(self.start, |link, step| self.next(&link, step))
    }

    /// `k[step + 1]` from `k[step]`.
    pub fn next(&self, link: &Digest, step: u64) -> Digest {
        let consumed = self.consumed(step);
        let mut canonical = Canonical::new("nanorun step");
        canonical.digest("key", link);
        for bits in consumed {
            canonical.u64("bits", bits);
        }
        canonical.finish()
    }

    /// The bits that step `step` consumes. Momentum and decay are Muon's alone.
    pub(super) fn consumed(&self, step: u64) -> [u64; 3] {
        let StepValues { lr_multiplier, muon_momentum, muon_weight_decay } = self.schedule.step_values(step);
        let muon = |value: f64| if self.uses_muon { value.to_bits() } else { 0 };
        [lr_multiplier.to_bits(), muon(muon_momentum), muon(muon_weight_decay)]
    }

    /// N.
    pub fn steps(&self) -> u64 {
        self.schedule.num_iterations
    }

    /// The key of the whole run.
    pub fn run_key(&self) -> RunKey {
        let steps = self.schedule.num_iterations;
        let mut canonical = Canonical::new("nanorun run");
        canonical.digest("key", &self.link(steps)).u64("steps", steps);
        RunKey { start: self.start, run: canonical.finish(), pending: self.pending }
    }
}

/// `k[0]`. Every field is taken or left by name, so that a new one has to be decided on.
fn start(config: &RunConfig) -> Digest {
    let RunConfig {
        commit: _,
        seed,
        init,
        backend: BackendChoice { kind, device, precision },
        model,
        optimizer,
        schedule: _,
        batch: BatchConfig { device_batch_size, total_batch_size, grad_accum_steps: _ },
        data,
        eval: _,
        checkpoint: _,
    } = config;
    let DataConfig {
        shards,
        tokenizer,
        packing,
        document,
        token_bytes: _,
        content,
        // Which texts these give is in the hash of the content.
        column,
        nulls,
        validation,
        splits: _,
    } = data;

    let mut canonical = Canonical::new("nanorun start");
    canonical.u64("numerics", NUMERICS_VERSION).u64("seed", *seed);
    match init {
        InitSource::Torch => canonical.str("init", "torch"),
        InitSource::File { path: _, sha256 } => canonical.digest("init", sha256),
        InitSource::Checkpoint { path: _, sha256 } => {
            canonical.str("init", "checkpoint").digest("files", sha256)
        }
        // Its digest has every file of it; where the data go on is said in one of them.
        InitSource::Resume { path: _, sha256, step, data: _ } => canonical
            .str("init", "resume")
            .digest("files", sha256)
            .u64("step", *step)
            .str("optimizer", "taken over"),
    };
    tree(&mut canonical, "backend", kind);
    // Which of several GPUs does not matter, that it is one does.
    canonical.str("device", device.split(':').next().unwrap_or_default());
    tree(&mut canonical, "precision", precision);
    tree(&mut canonical, "model", model);
    tree(&mut canonical, "optimizer", optimizer);
    canonical.u64("device_batch_size", *device_batch_size as u64);
    canonical.u64("total_batch_size", *total_batch_size as u64);
    tree(&mut canonical, "packing", packing);
    tree(&mut canonical, "document", document);
    if let Some(content) = content {
        canonical.digest("content", content);
    } else {
        // Pending: other data are other runs, whatever they will turn out to contain.
        canonical.none("content");
        tree(&mut canonical, "shards", shards);
        tree(&mut canonical, "tokenizer", tokenizer);
        // Each only where it departs from what every plan had before there was a choice.
        if column != COLUMN {
            canonical.str("column", column);
        }
        if *nulls != Nulls::default() {
            tree(&mut canonical, "nulls", nulls);
        }
        if let Some(validation) = validation {
            canonical.str("validation", validation);
        }
    }
    canonical.finish()
}

/// The evaluation settings that decide a validation's result, for the eval hash.
pub fn eval_key(config: &RunConfig) -> Digest {
    let mut canonical = Canonical::new("nanorun eval");
    canonical.u64("tokens", config.eval.tokens);
    tree(&mut canonical, "token_bytes", &config.data.token_bytes);
    canonical.finish()
}

/// Adds a value field by field, by its serialised form. Floats go in by their bits.
fn tree(canonical: &mut Canonical, label: &str, value: &impl Serialize) {
    // These types serialise to JSON without fail; a failure would still be a value of its own.
    let value = serde_json::to_value(value).unwrap_or_else(|error| error.to_string().into());
    walk(canonical, label, &value);
}

fn walk(canonical: &mut Canonical, label: &str, value: &serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Null => {
            canonical.none(label);
        }
        Value::Bool(flag) => {
            canonical.bool(label, *flag);
        }
        Value::Number(number) => match number.as_u64() {
            Some(integer) => {
                canonical.u64(label, integer);
            }
            None => {
                canonical.f64(label, number.as_f64().unwrap_or(f64::NAN));
            }
        },
        Value::String(text) => {
            canonical.str(label, text);
        }
        Value::Array(items) => {
            canonical.u64(label, items.len() as u64);
            for item in items {
                walk(canonical, "item", item);
            }
        }
        Value::Object(fields) => {
            canonical.u64(label, fields.len() as u64);
            for (name, field) in fields {
                walk(canonical, name, field);
            }
        }
    }
}
