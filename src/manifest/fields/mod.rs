//! The table of all manifest fields: the one place that validation, suggestions, defaults and the reference read.

mod cluster;
mod data;
mod model;
mod optimizer;
mod run;
mod schedule;

use toml::Value;

use super::field::{Applies, Fallback, Field, Kind};

/// Fields of which at most one may be set, and what goes with them.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// What errors call it.
    pub name: &'static str,
    /// A key of these in a stronger layer clears the weaker layers'.
    pub members: &'static [&'static str],
    /// Cleared with them, but set beside one of them, and clears nothing itself.
    pub companions: &'static [&'static str],
    /// The one pin of `data.sha256` that is cleared with them, where the others still hold.
    pub pin: Option<&'static str>,
}

/// The exclusive groups.
pub const GROUPS: &[Group] = &[
    Group {
        name: "budget",
        members: &["budget.steps", "budget.tokens", "budget.flops", "budget.param_data_ratio"],
        companions: &[],
        pin: None,
    },
    Group {
        name: "warmup",
        members: &["schedule.warmup_steps", "schedule.warmup_ratio"],
        companions: &[],
        pin: None,
    },
    Group {
        name: "tokenizer",
        members: &["data.tokenizer", "data.tokenizer.path", "data.tokenizer.vocab_size"],
        companions: &["data.vocab_size"],
        pin: Some("tokenizer"),
    },
    Group { name: "shards", members: &["data.shards"], companions: &["data.sha256"], pin: None },
    Group {
        name: "init",
        members: &["model.init", "model.init.file", "model.init.checkpoint", "model.init.resume"],
        companions: &[],
        pin: None,
    },
];

/// The group a key belongs to as a member.
pub fn group_of(path: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.members.contains(&path))
}

/// All fields, section by section.
pub fn all() -> impl Iterator<Item = &'static Field> {
    [run::FIELDS, schedule::FIELDS, model::FIELDS, optimizer::FIELDS, data::FIELDS, cluster::FIELDS]
        .into_iter()
        .flatten()
}

/// The field at exactly this path.
pub fn find(path: &str) -> Option<&'static Field> {
    all().find(|field| field.path == path)
}

/// Whether a table may stand at this path.
pub fn is_section(path: &str) -> bool {
    all().any(|field| field.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Whether a matrix may sweep it: not names, verdicts, thread counts and what a scheduler is asked for.
pub fn is_sweepable(path: &str) -> bool {
    !matches!(
        path,
        "name"
            | "question"
            | "hypothesis"
            | "run.threads"
            | "run.preflight"
            | "upstream.repo"
            | "data.sha256"
    ) && !path.starts_with("scorecard.")
        && !path.starts_with("analysis.")
        && !path.starts_with("cluster.")
}

const fn field(
    path: &'static str,
    kind: Kind,
    unit: &'static str,
    default: Fallback,
    doc: &'static str,
) -> Field {
    Field { path, kind, unit, default, applies: Applies::Always, doc }
}

impl Field {
    const fn only(mut self, applies: Applies) -> Self {
        self.applies = applies;
        self
    }
}

/// An integer as TOML has it.
fn int(value: impl TryInto<i64>) -> Value {
    Value::Integer(value.try_into().unwrap_or(i64::MAX))
}

/// A word or text as TOML has it.
fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// The spelling of an enum of the recipes: its serde name.
fn word<T: serde::Serialize>(value: &T) -> Value {
    Value::try_from(value).unwrap_or_else(|_| Value::String(String::new()))
}
