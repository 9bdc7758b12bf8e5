//! What a page is about: an experiment as plain data.

use std::collections::BTreeMap;

use crate::plan::DataUse;
use crate::record::RunRow;
use crate::scorecard::Scorecard;

/// One experiment with everything that a page shows of it.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name, of its results' directory.
    pub name: String,
    /// Its arms, runs and verdicts.
    pub scorecard: Scorecard,
    /// The metric that quality is judged by.
    pub metric: String,
    /// Its runs, in the order of the plan, then those that the plan no longer has.
    pub runs: Vec<Run>,
    /// In what it departs from its manifest, in words.
    pub varied: Vec<String>,
    /// Which of its runs the page is about, in words; none where it is about all.
    pub selection: Option<String>,
    /// The command that makes these results again.
    pub command: String,
    /// The text of its manifest.
    pub manifest: String,
    /// The version of nanorun that made the page.
    pub nanorun: String,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its row of `runs.parquet`.
    pub row: RunRow,
    /// Loss of every step, nats a token; of a run that has not ended, those up to its newest checkpoint.
    pub losses: Vec<f32>,
    /// Wall seconds of every step.
    pub seconds: Vec<f32>,
    /// Its evaluations.
    pub evaluations: Vec<Evaluated>,
    /// Tokens of a step.
    pub batch: u64,
    /// Learning-rate multiplier, Muon's momentum and its weight decay at every step, not a number where there is no Muon;
    /// given for one run an arm, which stands for the others.
    pub schedule: Vec<[f64; 3]>,
    /// What was sampled from it.
    pub samples: Option<String>,
    /// What it trains and validates on.
    pub data: RunData,
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Optimizer steps done before it.
    pub step: u64,
    /// Its values by metric.
    pub values: BTreeMap<String, f64>,
}

/// What a value is measured by: fields and what they are.
pub type Definition = Vec<(&'static str, String)>;

/// The data of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunData {
    /// Its shards, as the manifest names them.
    pub shards: String,
    /// Its tokenizer, in words.
    pub tokenizer: String,
    /// Hash over the contents of shards and tokenizer.
    pub content: Option<String>,
    /// How much text it has and how often it reads it.
    pub size: Option<DataUse>,
    /// Tokens that an evaluation counts.
    pub eval_tokens: u64,
    /// What has to be equal for two values of a metric to be comparable, fields and values, for the metric that quality
    /// is judged by, `val_bpb` and `train_loss`; without what the manifest has compared across.
    pub measured: BTreeMap<String, Definition>,
}

impl Run {
    /// Whether it has a result that counts.
    pub fn is_finished(&self) -> bool {
        self.row.status == "finished"
    }

    /// Whether a look decided before it was trained.
    pub fn is_needless(&self) -> bool {
        self.row.status == "not needed"
    }

    /// Whether the plan still has it.
    pub fn is_planned(&self) -> bool {
        self.row.status != "retired"
    }
}
