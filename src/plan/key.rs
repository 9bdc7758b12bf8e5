//! Run keys: a chain over the steps, so that runs with equal links share their steps.
//!
//! `k[0]` is the hash of everything that decides the numbers and does not change over steps; `k[t + 1]` of `k[t]`
//! and what step t consumes. The run key is `k[N]` with N. Commit, names, paths, horizon, schedule parameters,
//! cadences and evaluation settings are not in it.

use std::sync::LazyLock;

use serde::Serialize;

use super::run_config::{BackendChoice, BackendKind, BatchConfig, DataConfig, InitSource, Nulls, RunConfig};
use crate::data::RowOrder;
use crate::data::config::COLUMN;
use crate::hash::{Canonical, Digest};
use crate::optim::config::{GroupConfig, ScheduleConfig, StepValues};
use crate::precision::Precision;

/// Version of the numerics of a backend in a precision: raised whenever the same run may give other bits there. It is in
/// the run key, in results, and on cpu in the environment class.
pub const fn numerics_version(kind: BackendKind, precision: Precision) -> u32 {
    match (kind, precision) {
        (BackendKind::Cpu | BackendKind::Tch | BackendKind::Scalar, Precision::F32 | Precision::Bf16) => 1,
    }
}

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
#[derive(Debug, Clone, Copy)]
pub struct KeyChain<'a> {
    start: Digest,
    schedule: &'a ScheduleConfig,
    uses_muon: bool,
    pending: bool,
}

/// What `k[t + 1]` is the hash of, as [`Canonical`] writes it: the domain, then `k[t]` and three times the bits that
/// step t consumes. A long run hashes millions of these, so the bytes that never change are laid out once.
static STEP: LazyLock<[u8; STEP_BYTES]> = LazyLock::new(|| {
    let mut bytes = Vec::with_capacity(STEP_BYTES);
    let mut chunk = |text: &[u8]| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text);
    };
    chunk(b"nanorun step");
    chunk(b"key");
    bytes.push(6);
    bytes.extend(32_u64.to_le_bytes());
    bytes.extend([0; 32]);
    for _ in 0..3 {
        bytes.extend(4_u64.to_le_bytes());
        bytes.extend(b"bits");
        bytes.push(2);
        bytes.extend(8_u64.to_le_bytes());
        bytes.extend([0; 8]);
    }
    let mut laid_out = [0; STEP_BYTES];
    laid_out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    laid_out
});
const STEP_BYTES: usize = KEY_AT + 32 + 3 * BITS;
/// Where the bytes of `k[t]` stand in [`STEP`].
const KEY_AT: usize = 8 + 12 + 8 + 3 + 1 + 8;
/// Bytes of one consumed value there, its own eight last.
const BITS: usize = 8 + 4 + 1 + 8 + 8;

impl<'a> KeyChain<'a> {
    /// The chain of a complete run.
    pub fn new(config: &'a RunConfig) -> Self {
        Self::from_start(start(config), config)
    }

    /// The chain of a run whose `k[0]` is known already.
    pub fn from_start(start: Digest, config: &'a RunConfig) -> Self {
        Self {
            start,
            schedule: &config.schedule,
            uses_muon: config.optimizer.groups.iter().any(|(_, group)| matches!(group, GroupConfig::Muon(_))),
            pending: config.data.content.is_none(),
        }
    }

    /// `k[0]`.
    pub fn start(&self) -> Digest {
        self.start
    }

    /// `k[to]` from `k[from]`.
    pub fn advance(&self, link: Digest, from: u64, to: u64) -> Digest {
        (from..to).fold(link, |link, step| self.next(&link, step))
    }

    /// `k[step + 1]` from `k[step]`.
    pub fn next(&self, link: &Digest, step: u64) -> Digest {
        let mut bytes = *STEP;
        bytes[KEY_AT..KEY_AT + 32].copy_from_slice(link.as_bytes());
        let slots = bytes[KEY_AT + 32..].chunks_exact_mut(BITS);
        for (slot, bits) in slots.zip(self.consumed(step)) {
            slot[BITS - 8..].copy_from_slice(&bits.to_le_bytes());
        }
        Digest::of(&bytes)
    }

    /// The bits that step `step` consumes. Momentum and decay are Muon's alone.
    pub(super) fn consumed(&self, step: u64) -> [u64; 3] {
        let StepValues { lr_multiplier, muon_momentum, muon_weight_decay } = self.schedule.step_values(step);
        let muon = |value: f64| if self.uses_muon { value.to_bits() } else { 0 };
        [lr_multiplier.to_bits(), muon(muon_momentum), muon(muon_weight_decay)]
    }

    /// Whether the two consume the same at every step.
    pub(super) fn has_schedule_of(&self, other: &Self) -> bool {
        self.uses_muon == other.uses_muon && self.schedule == other.schedule
    }

    /// N.
    pub fn steps(&self) -> u64 {
        self.schedule.num_iterations
    }

    /// The key of the whole run, from `k[N]`.
    pub fn run_key(&self, last: &Digest) -> RunKey {
        let mut canonical = Canonical::new("nanorun run");
        canonical.digest("key", last).u64("steps", self.steps());
        RunKey { start: self.start, run: canonical.finish(), pending: self.pending }
    }
}

/// Some links of a run's chain: `k[0]`, those at which runs part, and `k[N]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    start: Digest,
    /// Beyond `k[0]`, ascending by step.
    later: Vec<(u64, Digest)>,
}

impl Links {
    /// Of a run alone: the first and the last.
    pub fn of(config: &RunConfig) -> Self {
        let chain = KeyChain::new(config);
        let mut links = Self::start(chain.start());
        links.push(chain.steps(), chain.advance(chain.start(), 0, chain.steps()));
        links
    }

    /// `k[0]` alone.
    pub(super) fn start(start: Digest) -> Self {
        Self { start, later: Vec::new() }
    }

    /// Adds one beyond all that are there; another is passed over.
    pub(super) fn push(&mut self, step: u64, link: Digest) {
        if step > self.before(u64::MAX).0 {
            self.later.push((step, link));
        }
    }

    /// The last of them.
    pub fn last(&self) -> Digest {
        self.before(u64::MAX).1
    }

    /// A place in the chain of the run whose links these are; it begins at `k[0]`.
    pub fn cursor<'a>(&'a self, config: &'a RunConfig) -> KeyCursor<'a> {
        KeyCursor { chain: KeyChain::from_start(self.start, config), links: self, at: 0, link: self.start }
    }

    /// The last of them up to `step`, with its own step.
    fn before(&self, step: u64) -> (u64, Digest) {
        self.later.iter().copied().take_while(|(at, _)| *at <= step).last().unwrap_or((0, self.start))
    }
}

/// Goes along a chain, link by link, and holds one of them.
#[derive(Debug, Clone)]
pub struct KeyCursor<'a> {
    chain: KeyChain<'a>,
    links: &'a Links,
    at: u64,
    link: Digest,
}

impl KeyCursor<'_> {
    /// `k[step]`, computed from the nearest link before it that is known; none beyond N.
    pub fn link(&mut self, step: u64) -> Option<Digest> {
        if step > self.chain.steps() {
            return None;
        }
        let known = self.links.before(step);
        if known.0 > self.at || self.at > step {
            (self.at, self.link) = known;
        }
        self.link = self.chain.advance(self.link, self.at, step);
        self.at = step;
        Some(self.link)
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
        row_order: RowOrder { ranks, seed: data_seed },
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
    canonical.u64("numerics", u64::from(numerics_version(*kind, *precision))).u64("seed", *seed);
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
    // Likewise.
    if *ranks != 1 {
        canonical.u64("ranks", *ranks as u64);
    }
    if let Some(seed) = data_seed {
        canonical.u64("data seed", *seed);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::config::{MomentumSchedule, Warmdown, WeightDecayShape};

    /// Every key there is was made this way.
    #[test]
    fn a_link_is_the_canonical_hash_of_the_one_before_and_what_the_step_consumes() {
        let momentum = MomentumSchedule { start: 0.85, peak: 0.95, warmup_steps: 3, warmdown_to: Some(0.9) };
        let schedule = ScheduleConfig {
            num_iterations: 9,
            steps_before: 0,
            warmup_steps: 2,
            warmdown_steps: 4,
            warmdown: Warmdown::Cosine,
            final_lr_frac: 0.05,
            momentum,
            weight_decay: 0.2,
            weight_decay_shape: WeightDecayShape::Linear,
        };
        for uses_muon in [false, true] {
            let start = Digest::of(b"start");
            let chain = KeyChain { start, schedule: &schedule, uses_muon, pending: false };
            for step in 0..9 {
                let mut canonical = Canonical::new("nanorun step");
                canonical.digest("key", &start);
                for bits in chain.consumed(step) {
                    canonical.u64("bits", bits);
                }
                assert_eq!(chain.next(&start, step), canonical.finish());
            }
        }
    }
}
