//! What a checkpoint holds besides tensors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::Cursor;
use crate::files::{ExactF32, ExactF64};
use crate::hash::Digest;
use crate::train::result_hash::eval_hash;

/// Where a run stands. There is no random state: after the initial weights nothing of a run is drawn at random.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Optimizer steps done.
    pub step: u64,
    /// The run key at that step, `k[step]`.
    pub run_key: Digest,
    /// Digest of the run's whole configuration, for people: `run_key` decides.
    pub config: Digest,
    /// The environment class that computed it.
    pub environment_class: String,
    /// Mean loss of every step so far, `step` of them: the running state of the train hash.
    pub step_losses: Vec<ExactF32>,
    /// Wall seconds of every step so far; recorded beside the results, never hashed.
    pub step_seconds: Vec<f64>,
    /// Evaluations so far, in the order in which they were made.
    pub evals: Vec<EvalPoint>,
    /// Measurements of the CORE metric so far; they are in no hash of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub core: Vec<EvalPoint>,
    /// Tokens seen, epochs, and the like.
    pub counters: BTreeMap<String, u64>,
    /// Where the data stand, with the buffered documents: what hands out the very next row. None before the first one.
    pub cursor: Option<Cursor>,
}

/// One evaluation and its hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalPoint {
    /// Optimizer steps done before it.
    pub step: u64,
    /// Digest of its settings: tokens, split, batch shape.
    pub settings: Digest,
    /// The train hash at its step.
    pub train_hash: Digest,
    /// Its values by name, `val_bpb` among them.
    pub values: BTreeMap<String, ExactF64>,
}

impl EvalPoint {
    /// Its eval hash.
    pub fn hash(&self) -> Digest {
        let values = self.values.iter().map(|(name, &value)| (name.as_str(), value));
        eval_hash(&self.train_hash, &self.settings, values)
    }
}
